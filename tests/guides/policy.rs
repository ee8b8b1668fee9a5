//! Policies: claims about what ztunnel and waypoints enforce, and findings on them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::world::{World, strings, vip};

fn strict() -> Value {
    json!({
        "name": "istio_converted_static_strict",
        "namespace": "istio-system",
        "scope": "WORKLOAD_SELECTOR",
        "action": "DENY",
        "groups": [{ "rules": [{ "matches": [{ "notPrincipals": [{ "presence": {} }] }] }] }],
    })
}

#[test]
fn guide_08_peer_authentication_claims_7_to_11() {
    let Some(world) = World::numbered("08") else {
        return;
    };
    let converted = "converted_peer_authentication_ratings-health-open";
    let without = |port: u16| json!({ "matches": [{ "notDestinationPorts": [port] }] });
    let want = json!({
        "istio-system/istio_converted_static_strict": strict(),
        format!("bookinfo/{converted}"): {
            "name": converted,
            "namespace": "bookinfo",
            "scope": "WORKLOAD_SELECTOR",
            "action": "DENY",
            "groups": [{ "rules": [
                { "matches": [{ "notPrincipals": [{ "presence": {} }] }] },
                without(81),
                without(8081),
            ] }],
        },
    });
    assert_eq!(world.authorizations(), want);
    let listed = world.listed();
    let of = |name: &str| listed.get(name).map(Vec::as_slice).unwrap_or_default();
    for name in ["bookinfo/reviews", "inherit/web"] {
        assert_eq!(
            of(name),
            ["istio-system/istio_converted_static_strict"],
            "{name}"
        );
    }
    assert_eq!(of("bookinfo/ratings"), [format!("bookinfo/{converted}")]);
    for name in ["open/web", "disabled/web"] {
        assert_eq!(of(name), [""; 0], "{name}");
    }
    world.reports(&[
        (
            "pa-disable-ambient",
            "PeerAuthentication disabled/default",
            "",
        ),
        (
            "pa-port-is-service-port",
            "PeerAuthentication bookinfo/ratings-health-open",
            "spec.portLevelMtls[81]",
        ),
        (
            "pa-root-selector",
            "PeerAuthentication istio-system/wrong-place",
            "",
        ),
    ]);
    assert_eq!(world.told().len(), 3, "{:?}", world.told());
}

#[test]
fn guide_09_zero_trust_claim_1() {
    let Some(world) = World::numbered("09") else {
        return;
    };
    let want = json!({
        "istio-system/istio_converted_static_strict": strict(),
        "shop/deny-all": { "name": "deny-all", "namespace": "shop", "scope": "NAMESPACE" },
        "shop/orders-allow-web": {
            "name": "orders-allow-web",
            "namespace": "shop",
            "scope": "WORKLOAD_SELECTOR",
            "groups": [{ "rules": [{ "matches": [{ "principals": [{ "exact": "cluster.local/ns/shop/sa/web" }] }] }] }],
        },
    });
    assert_eq!(
        world.authorizations(),
        want,
        "scope GLOBAL and action ALLOW are the defaults"
    );
    for (name, policies) in world.listed() {
        let allow = policies.contains(&"shop/orders-allow-web".to_owned());
        assert_eq!(allow, name.starts_with("shop/orders-v"), "{name}");
        assert!(
            policies.contains(&"istio-system/istio_converted_static_strict".to_owned()),
            "{name}"
        );
    }
    assert_eq!(world.listed().len(), world.workloads().len());
}

#[test]
fn guide_10_deny_all_meets_a_waypoint_claims_2_3_4_6_and_7() {
    let Some(world) = World::numbered("10") else {
        return;
    };
    let rules = world.rbac("shop/waypoint", &vip(80, "http", "shop", "stock"));
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0]["action"], Value::Null, "ALLOW is the default");
    let policies = rules[0]["policies"].as_object().unwrap();
    assert_eq!(policies.len(), 1);
    let policy = policies.values().next().unwrap();
    assert!(
        policy["principals"]
            .to_string()
            .contains("spiffe://cluster.local/ns/shop/sa/web"),
        "{policy}"
    );
    assert_eq!(
        world.rbac("shop/waypoint", &vip(80, "http", "shop", "orders")),
        [Value::Null; 0]
    );
    let told = [
        "authz-deny-all-waypoint AuthorizationPolicy shop/deny-all",
        "authz-l4-source-at-waypoint AuthorizationPolicy shop/orders-allow-web",
        "authz-waypoint-not-allowed AuthorizationPolicy shop/orders-allow-web",
    ];
    let mut found = world.told();
    found.sort();
    assert_eq!(found, told);
    let refused = (world.findings.iter())
        .find(|finding| finding.code == "authz-waypoint-not-allowed")
        .unwrap();
    let identity = "cluster.local/ns/shop/sa/waypoint";
    assert!(refused.message.contains(identity), "{}", refused.message);
    assert!(
        !world.has_code("authz-bypass-direct-pod"),
        "only the waypoint reaches the pods"
    );
}

#[test]
fn guide_11_principals_claims_5_to_10() {
    let Some(world) = World::numbered("11") else {
        return;
    };
    let shapes = [
        "ratings-scheme",
        "ratings-service-name",
        "ratings-short",
        "ratings-star-inside",
    ];
    let allow = strings(&["bookinfo/reviews-allow-productpage"]);
    let want = [
        (
            "bookinfo/ratings".to_owned(),
            shapes.map(|name| format!("bookinfo/{name}")).to_vec(),
        ),
        ("bookinfo/reviews-v1".to_owned(), allow.clone()),
        ("bookinfo/reviews-v2".to_owned(), allow),
    ];
    assert_eq!(world.listed(), want.into_iter().collect());
    world.reports(&[
        (
            "authz-principal-shape",
            "AuthorizationPolicy bookinfo/ratings-short",
            "",
        ),
        (
            "authz-principal-scheme",
            "AuthorizationPolicy bookinfo/ratings-scheme",
            "",
        ),
        (
            "authz-principal-wildcard-middle",
            "AuthorizationPolicy bookinfo/ratings-star-inside",
            "",
        ),
    ]);
    let unknown: Vec<_> = (world.findings.iter())
        .filter(|finding| finding.code == "authz-unknown-identity")
        .collect();
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].object.key.name, "ratings-service-name");
    assert!(
        unknown[0].fix.contains("bookinfo-productpage"),
        "{}",
        unknown[0].fix
    );
    let correct = world.codes_of(
        "AuthorizationPolicy",
        "bookinfo",
        "reviews-allow-productpage",
    );
    assert!(correct.is_empty(), "{correct:?}");
}

#[test]
fn guide_12_policy_on_the_waypoint_claims_7_8_and_10() {
    let Some(world) = World::numbered("12") else {
        return;
    };
    let waypoint = "bookinfo/reviews-waypoint";
    let any = |key: &str, one: Value| json!({ key: { "rules": [one] } });
    let permission = json!({ "andRules": { "rules": [
        any("orRules", json!({ "header": { "name": ":method", "stringMatch": { "exact": "GET" } } })),
        any("orRules", json!({ "urlPath": { "path": { "prefix": "/reviews/" } } })),
    ] } });
    for name in ["ratings", "reviews"] {
        let chain = vip(9080, "http", "bookinfo", name);
        let rules = world.rbac(waypoint, &chain);
        assert_eq!(rules.len(), 1, "{chain}");
        assert_eq!(rules[0]["action"], Value::Null, "ALLOW is the default");
        let policies = rules[0]["policies"].as_object().unwrap();
        let permissions: Vec<_> = policies
            .values()
            .map(|policy| &policy["permissions"])
            .collect();
        assert_eq!(permissions, [&json!([permission])], "{chain}");
    }
    let terminate = world.listener(waypoint, "connect_terminate").to_string();
    assert!(!terminate.contains("rbac"), "{terminate}");
    assert_eq!(world.authorizations(), json!({}));
    assert_eq!(world.listed(), BTreeMap::new());
    world.reports(&[(
        "authz-bypass-direct-pod",
        "AuthorizationPolicy bookinfo/reviews-read-only",
        "",
    )]);
}

#[test]
fn guide_13_policy_on_a_service_claims_6_8_and_9() {
    let Some(world) = World::numbered("13") else {
        return;
    };
    let mut enforced = BTreeMap::new();
    for waypoint in world.waypoints.keys() {
        for chain in world.service_chains(waypoint) {
            for rules in world.rbac(waypoint, chain) {
                let policies = rules["policies"].as_object().map_or(0, Map::len);
                enforced.insert(chain.to_owned(), (rules["action"].clone(), policies));
            }
        }
    }
    let viewer = vip(9080, "http", "default", "productpage");
    let orders = vip(80, "http", "shop", "orders");
    assert_eq!(enforced.keys().collect::<Vec<_>>(), [&orders, &viewer]);
    assert_eq!(enforced[&orders], (Value::Null, 1));
    assert_eq!(
        enforced[&viewer].0,
        Value::Null,
        "an ALLOW that matches nothing"
    );
    world.reports(&[
        ("authz-target-missing", "AuthorizationPolicy shop/typo", ""),
        (
            "authz-target-other-namespace",
            "AuthorizationPolicy shop/elsewhere",
            "",
        ),
        (
            "authz-service-without-waypoint",
            "AuthorizationPolicy other/no-waypoint",
            "",
        ),
    ]);
}

#[test]
fn guide_14_l7_by_selector_claims_1_2_4_6_and_9() {
    let Some(world) = World::numbered("14") else {
        return;
    };
    let all = world.authorizations();
    let rules = |name: &str| all[format!("bookinfo/{name}")]["groups"].clone();
    assert_eq!(
        all["bookinfo/ratings-get-only"]["action"],
        Value::Null,
        "ALLOW is the default"
    );
    assert_eq!(
        rules("ratings-get-only"),
        Value::Null,
        "the rule is dropped whole: nobody is allowed"
    );
    assert_eq!(
        rules("productpage-no-admin-port"),
        json!([{ "rules": [{ "matches": [{ "destinationPorts": [9080] }] }] }])
    );
    let of = |name: &str| format!("AuthorizationPolicy bookinfo/{name}");
    world.reports(&[
        (
            "authz-l7-ztunnel-allow",
            &of("ratings-get-only"),
            "spec.rules[0].to[0].operation.methods",
        ),
        ("authz-l7-ztunnel-deny-noop", &of("details-no-delete"), ""),
        (
            "authz-l7-ztunnel-deny-wide",
            &of("productpage-no-admin-port"),
            "spec.rules[0].to[0].operation.paths",
        ),
        ("authz-no-ref-waypoint", &of("on-the-waypoint-pods"), ""),
    ]);
    for held in world.waypoints.values() {
        assert!(!held.to_string().contains("jwt_authn"));
    }
}

/// Claim 6 is what holds as long as no provider can be asked.
#[test]
fn guide_15_order_claims_2_and_6() {
    let Some(world) = World::numbered("15") else {
        return;
    };
    let rules = world.rbac("shop/waypoint", &vip(80, "http", "shop", "orders"));
    let steps: Vec<_> = rules
        .iter()
        .map(|rules| (rules["action"].as_str(), rules["policies"].to_string()))
        .collect();
    let wanted = [
        (Some("DENY"), "policy[orders-ext]", r#"{"prefix":"/api/"}"#),
        (
            Some("DENY"),
            "policy[orders-deny-admin]",
            r#"{"prefix":"/admin"}"#,
        ),
        (
            None,
            "policy[orders-allow]",
            r#"{"prefix":"spiffe://cluster.local/ns/shop/sa/"}"#,
        ),
    ];
    assert_eq!(steps.len(), wanted.len(), "{steps:#?}");
    for ((action, policies), (want, name, condition)) in steps.iter().zip(wanted) {
        assert_eq!(*action, want, "{policies}");
        assert!(
            policies.contains(name) && policies.contains(condition),
            "{policies}"
        );
    }
    world.reports(&[(
        "authz-custom-provider",
        "AuthorizationPolicy shop/orders-ext",
        "",
    )]);
}

/// Without verified tokens the rule that asks for one admits nobody.
#[test]
fn guide_17_required_tokens_claims_1_and_3_without_a_token() {
    let Some(world) = World::numbered("17") else {
        return;
    };
    for name in ["orders", "stock"] {
        let rules = world.rbac("shop/waypoint", &vip(80, "http", "shop", name));
        assert_eq!(rules, [json!({})], "{name}: an ALLOW that matches nothing");
        let policy = format!("AuthorizationPolicy shop/{name}-require-jwt");
        world.reports(&[("authz-jwt-not-supported", &policy, "")]);
    }
    world.reports(&[(
        "kind-not-supported",
        "RequestAuthentication shop/orders-jwt",
        "",
    )]);
}
