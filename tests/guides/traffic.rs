//! VirtualServices and DestinationRules: claims about what waypoints receive, and findings.

use serde_json::{Value, json};
use snapshot::ResourceType;

use crate::world::{World, http_filters, vip};

/// The cluster of a subset.
fn subset(port: u16, ns: &str, name: &str, subset: &str) -> String {
    vip(port, &format!("http/{subset}"), ns, name)
}

fn sorted(world: &World) -> Vec<String> {
    let mut told = world.told();
    told.sort();
    told
}

fn cluster<'w>(world: &'w World, waypoint: &str, name: &str) -> &'w Value {
    &World::of(&world.waypoints[waypoint], ResourceType::Cluster)[name]
}

/// Routes of a chain as they are sent.
fn whole_routes<'w>(world: &'w World, waypoint: &str, chain: &str) -> &'w Vec<Value> {
    let all = World::of(&world.waypoints[waypoint], ResourceType::Route);
    all[chain]["virtualHosts"][0]["routes"].as_array().unwrap()
}

#[test]
fn guide_27_tls_claims_4_6_and_8() {
    let Some(world) = World::numbered("27") else {
        return;
    };
    let want = [
        "authz-se-by-hostname AuthorizationPolicy bookinfo/by-hostname",
        "dr-double-tls DestinationRule bookinfo/external-api-tls",
        "dr-host-unknown DestinationRule unbound/nobody-tls",
        "dr-no-waypoint DestinationRule unbound/loose-api-tls",
    ];
    assert_eq!(sorted(&world), want);
    let bare = ["external-api-tls", "partner-api-tls"];
    for name in bare {
        let codes = world.codes_of("DestinationRule", "bookinfo", name);
        assert!(codes.contains("dr-no-ca"), "{name}: {codes:?}");
    }
    for (name, sni) in [
        (
            "inbound-vip|80|http|partner.external.example.com",
            "partner.external.example.com",
        ),
        (
            "inbound-vip|443|tcp|api.external.example.com",
            "api.external.example.com",
        ),
    ] {
        let text = cluster(&world, "bookinfo/egress-waypoint", name).to_string();
        assert!(text.contains(&format!(r#""sni":"{sni}""#)), "{text}");
        assert!(
            text.contains("/etc/ssl/certs/ca-certificates.crt"),
            "{text}"
        );
    }
}

#[test]
fn guide_28_subsets_claims_3_to_7() {
    let Some(world) = World::numbered("28") else {
        return;
    };
    let waypoint = "bookinfo/reviews-waypoint";
    let chain = vip(9080, "http", "bookinfo", "reviews");
    let to = |name: &str| subset(9080, "bookinfo", "reviews", name);
    let split = (
        json!({ "prefix": "/reviews" }),
        json!([[to("v1"), 80], [to("v2"), 20]]),
    );
    assert_eq!(world.routes(waypoint, &chain), [split], "no fall-through");
    let assigned = World::of(&world.waypoints[waypoint], ResourceType::Endpoint);
    for name in ["v1", "v2"] {
        assert!(cluster(&world, waypoint, &to(name)).is_object());
        let endpoints = assigned[&to(name)]["endpoints"].as_array().unwrap().iter();
        let count = endpoints
            .flat_map(|one| one["lbEndpoints"].as_array().unwrap())
            .count();
        assert_eq!(count, 1, "{name}");
    }
    let want = [
        "dr-subset-unused DestinationRule bookinfo/reviews",
        "vs-foreign-namespace VirtualService far/reviews-from-afar",
        "vs-no-fallthrough VirtualService bookinfo/reviews-split",
        "vs-no-waypoint VirtualService bookinfo/ratings-timeout",
    ];
    assert_eq!(sorted(&world), want, "of subsets v3 alone");
    world.reports(&[(
        "dr-subset-unused",
        "DestinationRule bookinfo/reviews",
        "spec.subsets[2]",
    )]);
}

#[test]
fn guide_28_claim_8_subsets_that_lead_nowhere() {
    for (name, code) in [("v9", "vs-subset-unknown"), ("v3", "dr-subset-empty")] {
        let Some(world) = World::edited("28", |objects| {
            let rule = objects.object("VirtualService", "bookinfo", "reviews-split");
            rule["spec"]["http"][0]["route"] =
                json!([{ "destination": { "host": "reviews", "subset": name } }]);
        }) else {
            return;
        };
        assert!(world.has_code(code), "{name}: {:?}", world.told());
    }
}

#[test]
fn guide_29_canary_claims_5_and_6() {
    let Some(world) = World::numbered("29") else {
        return;
    };
    let chain = vip(80, "http", "shop", "orders");
    let to = |name: &str| subset(80, "shop", "orders", name);
    let canary = json!({
        "prefix": "/",
        "headers": [{ "name": "x-canary", "stringMatch": { "exact": "always" } }],
    });
    let want = [
        (canary, json!(to("v2"))),
        (
            json!({ "prefix": "/" }),
            json!([[to("v1"), 90], [to("v2"), 10]]),
        ),
    ];
    assert_eq!(world.routes("shop/waypoint", &chain), want);
    let without = World::edited("29", |objects| {
        objects.remove("VirtualService", "shop", "orders");
        objects.remove("DestinationRule", "shop", "orders");
    })
    .unwrap();
    assert_eq!(world.ztunnel, without.ztunnel);
}

#[test]
fn guide_30_two_apis_claims_1_3_and_4() {
    let Some(world) = World::numbered("30") else {
        return;
    };
    let orders = "VirtualService shop/orders";
    let want = [
        format!("vs-and-httproute {orders}"),
        "vs-gateway-api-name VirtualService shop/at-the-edge".to_owned(),
        format!("vs-shadowed-route {orders}"),
        format!("vs-shadowed-route {orders}"),
    ];
    assert_eq!(sorted(&world), want);
    let mut both = world.findings.iter();
    let both = both
        .find(|finding| finding.code == "vs-and-httproute")
        .unwrap();
    for part in [
        "orders.shop.svc.cluster.local",
        "HTTPRoute shop/orders-all-v2 decides",
    ] {
        assert!(both.message.contains(part), "{}", both.message);
    }
    let chain = vip(80, "http", "shop", "orders");
    let to = json!("outbound|80||orders-v2.shop.svc.cluster.local");
    assert_eq!(
        world.routes("shop/waypoint", &chain),
        [(json!({ "prefix": "/" }), to)]
    );
}

#[test]
fn guide_31_resilience_claims_5_and_7() {
    let Some(world) = World::numbered("31") else {
        return;
    };
    let chain = vip(80, "http", "shop", "orders");
    let route = &whole_routes(&world, "shop/waypoint", &chain)[0]["route"];
    assert_eq!(route["timeout"], "2s");
    let retries = &route["retryPolicy"];
    assert_eq!(
        (&retries["numRetries"], &retries["perTryTimeout"]),
        (&json!(3), &json!("0.500s"))
    );
    let on = retries["retryOn"].as_str().unwrap();
    assert!(on.contains("5xx,reset,connect-failure"), "{on}");
    let cluster = cluster(&world, "shop/waypoint", &chain);
    let limits = &cluster["circuitBreakers"]["thresholds"][0];
    assert_eq!(
        (&limits["maxConnections"], &limits["maxRequests"]),
        (&json!(100), &json!(200))
    );
    let options = cluster["typedExtensionProtocolOptions"].to_string();
    assert!(
        options.contains(r#""maxRequestsPerConnection":10"#),
        "{options}"
    );
    let outliers = &cluster["outlierDetection"];
    for (field, want) in [
        ("consecutive5xx", json!(5)),
        ("interval", json!("10s")),
        ("baseEjectionTime", json!("30s")),
        ("maxEjectionPercent", json!(50)),
    ] {
        assert_eq!(outliers[field], want, "{field}");
    }
    let panic = &cluster["commonLbConfig"]["healthyPanicThreshold"];
    assert!(panic.is_object() && panic["value"].is_null(), "0: {panic}");
    assert_eq!(
        sorted(&world),
        ["dr-no-waypoint DestinationRule shop/stock-cb"]
    );
}

#[test]
fn guide_32_faults_claims_2_5_and_6() {
    const FAULT: &str = "envoy.filters.http.fault";
    let Some(world) = World::numbered("32") else {
        return;
    };
    let chain = vip(80, "http", "shop", "orders");
    let fault = &whole_routes(&world, "shop/waypoint", &chain)[0]["typedPerFilterConfig"][FAULT];
    assert_eq!(
        (&fault["abort"]["httpStatus"], &fault["delay"]["fixedDelay"]),
        (&json!(503), &json!("3s"))
    );
    let names: Vec<_> = http_filters(world.chains("shop/waypoint")[chain.as_str()])
        .map(|filter| filter["name"].as_str().unwrap())
        .collect();
    let at = |name: &str| names.iter().position(|is| *is == name).unwrap();
    assert!(at(FAULT) < at("envoy.filters.http.router"));
    let want = [
        "vs-fault-no-percentage VirtualService shop/stock-fault-and-retries",
        "vs-fault-with-retries VirtualService shop/stock-fault-and-retries",
    ];
    assert_eq!(sorted(&world), want);
    let rule = "VirtualService shop/stock-fault-and-retries";
    world.reports(&[("vs-fault-no-percentage", rule, "spec.http[0].fault.abort")]);
    // With a policy: it stands before the fault.
    let denied = World::edited("32", |objects| {
        objects.add(json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "name": "closed", "namespace": "shop" },
            "spec": {
                "targetRefs": [{ "group": "", "kind": "Service", "name": "orders" }],
                "action": "DENY", "rules": [{}],
            },
        }));
    })
    .unwrap();
    let names: Vec<_> = http_filters(denied.chains("shop/waypoint")[chain.as_str()])
        .map(|filter| filter["name"].as_str().unwrap())
        .collect();
    let at = |name: &str| names.iter().position(|is| *is == name).unwrap();
    assert!(at("envoy.filters.http.rbac") < at(FAULT), "{names:?}");
}
