//! Policies: claims about what ztunnel and waypoints enforce, and findings on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::jwks::{Jwks, JwksFailure};
use model::object::Input;
use serde_json::{Map, Value, json};
use snapshot::ResourceType;

use crate::world::{World, http_filters, strings, vip};

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
    assert_eq!(world.told().len(), 3, "{:?}", world.told());
}

#[test]
fn guide_14_l7_by_selector_claims_1_2_4_6_8_9_and_11() {
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
    let told = [
        "authz-l7-ztunnel-allow AuthorizationPolicy bookinfo/ratings-get-only",
        "authz-l7-ztunnel-deny-noop AuthorizationPolicy bookinfo/details-no-delete",
        "authz-l7-ztunnel-deny-wide AuthorizationPolicy bookinfo/productpage-no-admin-port",
        "authz-no-ref-waypoint AuthorizationPolicy bookinfo/on-the-waypoint-pods",
        "ra-selector-ambient RequestAuthentication bookinfo/jwt-on-reviews",
    ];
    let mut found = world.told();
    found.sort();
    assert_eq!(found, told);
    for finding in &world.findings {
        assert!(finding.fix.contains("targetRefs"), "{finding:?}");
    }
}

const JWKS_URI: &str = "https://issuer.example.com/.well-known/jwks.json";
const ORDERS: &str = "inbound-vip|80|http|orders.shop.svc.cluster.local";

#[test]
fn guide_15_order_claims_5_and_7() {
    let Some(world) = World::numbered("15") else {
        return;
    };
    let chain = world.chains("shop/waypoint")[ORDERS];
    let filters: Vec<_> = http_filters(chain).collect();
    let short = |filter: &&Value| {
        let name = filter["name"].as_str().unwrap();
        name.strip_prefix("envoy.filters.http.").unwrap().to_owned()
    };
    let names: Vec<_> = filters.iter().map(short).collect();
    let wanted = ["rbac", "ext_authz", "jwt_authn", "rbac", "rbac"];
    assert_eq!(names[..5], wanted);
    assert_eq!(names.last().unwrap(), "router");
    let config = |at: usize| &filters[at]["typedConfig"];
    assert!(config(0)["rules"].is_null(), "it only marks");
    assert_eq!(config(0)["shadowRulesStatPrefix"], "istio_ext_authz_");
    let marks = config(0)["shadowRules"].to_string();
    assert!(marks.contains("policy[orders-ext]"), "{marks}");
    assert_eq!(config(3)["rules"]["action"], "DENY");
    assert_eq!(
        config(4)["rules"]["action"],
        Value::Null,
        "ALLOW is the default"
    );
    let clusters = world.names("shop/waypoint", ResourceType::Cluster);
    let outbound: Vec<_> = clusters
        .iter()
        .filter(|name| name.starts_with("outbound|"))
        .collect();
    assert_eq!(
        outbound,
        [&"outbound|8000||ext-authz.shop.svc.cluster.local"]
    );
    // Nothing says that the authorizer uses claims.
    let told = ["ra-not-enforcing RequestAuthentication shop/orders-jwt"];
    assert_eq!(world.told(), told);
}

#[test]
fn guide_15_claim_6_with_the_provider_renamed() {
    let Some(world) = World::edited("15", |objects| {
        let mesh = objects.object("ConfigMap", "istio-system", "istio");
        let text = mesh["data"]["mesh"].as_str().unwrap();
        mesh["data"]["mesh"] = json!(text.replace("name: ext-authz", "name: renamed"));
    }) else {
        return;
    };
    let told = [
        "authz-custom-provider AuthorizationPolicy shop/orders-ext",
        "ra-not-enforcing RequestAuthentication shop/orders-jwt",
    ];
    assert_eq!(world.told(), told);
    let rules = world.rbac("shop/waypoint", ORDERS);
    let refused = rules[0].to_string();
    assert_eq!(rules[0]["action"], "DENY");
    assert!(
        refused.contains("policy[orders-ext]") && refused.contains("/api/"),
        "{refused}"
    );
}

/// The `jwt_authn` filter of a chain.
fn tokens<'w>(world: &'w World, waypoint: &str, chain: &str) -> &'w Value {
    let mut filters = http_filters(world.chains(waypoint)[chain]);
    let found = filters.find(|filter| filter["name"] == "envoy.filters.http.jwt_authn");
    &found.unwrap()["typedConfig"]
}

#[test]
fn guide_16_tokens_claims_5_6_and_9() {
    let keys = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let fetched = Jwks {
        keys: Some(keys.into()),
        ..Jwks::default()
    };
    let row = Input::Jwks(JWKS_URI.into(), Some(Arc::new(fetched)));
    let Some(world) = World::numbered_with("16", vec![row]) else {
        return;
    };
    for name in ["ratings", "reviews"] {
        let chain = vip(9080, "http", "bookinfo", name);
        let filter = tokens(&world, "bookinfo/reviews-waypoint", &chain);
        let providers = filter["providers"].as_object().unwrap();
        assert_eq!(providers.keys().collect::<Vec<_>>(), ["origins-0"]);
        let provider = &providers["origins-0"];
        assert_eq!(provider["issuer"], "https://issuer.example.com");
        assert_eq!(provider["audiences"], json!(["reviews-api"]));
        assert_eq!(provider["localJwks"]["inlineString"], keys);
        assert_eq!(provider["remoteJwks"], Value::Null);
    }
    let told = ["ra-not-enforcing RequestAuthentication bookinfo/jwt-on-reviews"];
    assert_eq!(world.told(), told);
    assert_eq!(world.authorizations(), json!({}));
}

#[test]
fn guide_16_claim_7_while_the_keys_cannot_be_fetched() {
    let reason = "2026-11-21T08:00:00Z: connection refused";
    let failed = Jwks {
        failure: Some(JwksFailure {
            blocked: false,
            reason: reason.into(),
        }),
        ..Jwks::default()
    };
    let row = Input::Jwks(JWKS_URI.into(), Some(Arc::new(failed)));
    let Some(world) = World::numbered_with("16", vec![row]) else {
        return;
    };
    let object = "RequestAuthentication bookinfo/jwt-on-reviews";
    world.reports(&[("ra-jwks-unavailable", object, "spec.jwtRules[0].jwksUri")]);
    let mut found = world.findings.iter();
    let found = found.find(|one| one.code == "ra-jwks-unavailable").unwrap();
    for part in ["https://issuer.example.com", reason] {
        assert!(found.message.contains(part), "{}", found.message);
    }
}

#[test]
fn guide_17_required_tokens_claims_4_and_5() {
    let Some(world) = World::numbered("17") else {
        return;
    };
    let told = ["authz-jwt-without-requestauthn AuthorizationPolicy shop/stock-require-jwt"];
    assert_eq!(world.told(), told);
    let names: Vec<_> = http_filters(world.chains("shop/waypoint")[ORDERS])
        .map(|filter| filter["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..2],
        ["envoy.filters.http.jwt_authn", "envoy.filters.http.rbac"]
    );
    let rules = world.rbac("shop/waypoint", ORDERS);
    assert_eq!(rules[0]["action"], Value::Null, "ALLOW is the default");
    let principals = rules[0]["policies"].to_string();
    for claim in ["iss", "sub"] {
        assert!(
            principals.contains(&format!(r#"{{"key":"{claim}"}}"#)),
            "{principals}"
        );
    }
    assert_eq!(
        principals.matches(r#"{"regex":".+"}"#).count(),
        2,
        "{principals}"
    );
    let mut written = Value::Null;
    World::edited("17", |objects| {
        let object = objects.object("RequestAuthentication", "shop", "orders-jwt");
        written = object["spec"]["jwtRules"][0]["jwks"].clone();
    });
    let provider = &tokens(&world, "shop/waypoint", ORDERS)["providers"]["origins-0"];
    assert_eq!(
        provider["localJwks"]["inlineString"], written,
        "byte for byte"
    );
}
