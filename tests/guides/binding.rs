//! Capture, waypoints, services and workloads: claims tagged wds, and findings on them.

use serde_json::{Value, json};
use snapshot::ResourceType;

use crate::world::{World, pairs, strings, vip};

#[test]
fn guide_01_enrolment_claims_1_to_4() {
    let Some(world) = World::numbered("01") else {
        return;
    };
    assert_eq!(
        world.tunnelled(),
        strings(&["shop/orders-v1", "shop/orders-v2", "shop/probe", "shop/web"])
    );
    let plain = ["legacy/catalog", "legacy/old-client", "shop/late-joiner"];
    for name in plain {
        assert!(world.workload(name).is_object());
    }
    assert_eq!(World::bound(world.services()), pairs(&[]));
    assert_eq!(World::bound(world.workloads()), pairs(&[]));
    assert_eq!(
        world.services()["shop/orders"]["ports"],
        json!([{ "servicePort": 80, "targetPort": 8080, "appProtocol": "HTTP11" }])
    );
    for (name, account) in [
        ("shop/orders-v1", "orders"),
        ("shop/orders-v2", "orders"),
        ("shop/web", "web"),
    ] {
        let workload = world.workload(name);
        assert_eq!(
            (&workload["serviceAccount"], &workload["trustDomain"]),
            (&json!(account), &Value::Null)
        );
        let member = &workload["services"]["shop/orders.shop.svc.cluster.local"];
        assert_eq!(member.is_object(), account == "orders", "{name}");
    }
}

#[test]
fn guide_02_opting_out_claims_1_to_3() {
    let Some(world) = World::numbered("02") else {
        return;
    };
    let tunnelled = world.tunnelled();
    assert!(!tunnelled.contains(&"shop/raw-job".to_owned()));
    for name in [
        "shop/orders-v1",
        "shop/orders-v2",
        "shop/web",
        "shop/probe",
        "tools/metrics",
    ] {
        assert!(tunnelled.contains(&name.to_owned()), "{name}");
    }
    let ports =
        &world.workload("shop/raw-job")["services"]["shop/raw-job.shop.svc.cluster.local"]["ports"];
    assert_eq!(ports[0]["servicePort"], 7000);
}

#[test]
fn guide_03_namespace_waypoint_claims_1_to_4() {
    let Some(world) = World::numbered("03") else {
        return;
    };
    let services = [
        "productpage",
        "ratings",
        "reviews-v1",
        "reviews-v2",
        "reviews",
    ];
    let waypoint = "bookinfo/bookinfo-waypoint";
    let want = services.map(|name| (format!("bookinfo/{name}"), waypoint.to_owned()));
    assert_eq!(World::bound(world.services()), want.into_iter().collect());
    assert_eq!(World::bound(world.workloads()), pairs(&[]));
    assert!(!world.tunnelled().contains(&waypoint.to_owned()));
    assert_eq!(
        world.names(waypoint, ResourceType::Listener),
        ["connect_originate", "connect_terminate", "main_internal"]
    );
    let chains = services.map(|name| vip(9080, "http", "bookinfo", name));
    assert_eq!(world.service_chains(waypoint), chains);
    let clusters = world.names(waypoint, ResourceType::Cluster);
    assert!(chains.iter().all(|name| clusters.contains(&name.as_str())));
    assert!(
        !clusters.iter().any(|name| name.starts_with("outbound|")),
        "{clusters:?}"
    );
}

#[test]
fn guide_04_service_waypoint_claims_1_and_2() {
    let Some(world) = World::numbered("04") else {
        return;
    };
    let waypoint = "bookinfo/reviews-waypoint";
    assert_eq!(
        World::bound(world.services()),
        pairs(&[("bookinfo/reviews", waypoint)])
    );
    assert_eq!(
        world.service_chains(waypoint),
        [vip(9080, "http", "bookinfo", "reviews")]
    );
}

#[test]
fn guide_05_precedence_claims_1_to_4_and_6() {
    let Some(world) = World::numbered("05") else {
        return;
    };
    let all = "bookinfo/bookinfo-waypoint";
    let services = [
        ("bookinfo/productpage", all),
        ("bookinfo/ratings", all),
        ("bookinfo/reviews", "bookinfo/reviews-waypoint"),
        ("tenant/api", "shared/shared-waypoint"),
    ];
    assert_eq!(World::bound(world.services()), pairs(&services));
    let pods = [
        ("bookinfo/client", all),
        ("bookinfo/details", all),
        ("bookinfo/productpage", all),
        ("bookinfo/ratings", "bookinfo/pods-waypoint"),
        ("bookinfo/reviews", all),
    ];
    assert_eq!(World::bound(world.workloads()), pairs(&pods));
}

#[test]
fn guide_06_label_values_claims_1_to_4_and_6() {
    let Some(world) = World::numbered("06") else {
        return;
    };
    let services = [
        ("demo/named", "demo/waypoint"),
        ("demo/two-labels", "infra/edge"),
    ];
    assert_eq!(World::bound(world.services()), pairs(&services));
    let field = "metadata.labels[istio.io/use-waypoint]";
    world.reports(&[
        ("wp-label-qualified", "Service demo/dotted", field),
        ("wp-label-qualified", "Service demo/slashed", field),
    ]);
    assert_eq!(
        world.complaints(),
        [
            "wp-label-qualified Service demo/dotted",
            "wp-label-qualified Service demo/slashed"
        ]
    );
    assert!(!world.has_code("wp-missing"));
}

#[test]
fn guide_07_broken_bindings_claims_1_to_7_but_for_status() {
    let Some(world) = World::numbered("07") else {
        return;
    };
    world.reports(&[
        ("wp-missing", "Service bookinfo/reviews", ""),
        ("wp-not-ready", "Gateway bookinfo/starting-waypoint", ""),
        ("wp-not-ready", "Service bookinfo/details", ""),
        ("wp-for-mismatch", "Service bookinfo/ratings", ""),
        ("wp-for-mismatch", "Service bookinfo/productpage", ""),
        ("wp-for-mismatch", "Pod bookinfo/details", ""),
        ("wp-unused", "Gateway bookinfo/reviews-waypoint", ""),
        ("wp-unused", "Gateway bookinfo/pods-waypoint", ""),
        ("wp-unused", "Gateway bookinfo/idle-waypoint", ""),
        ("wp-unused", "Gateway bookinfo/private-waypoint", ""),
    ]);
    let denied = world
        .findings
        .iter()
        .filter(|finding| finding.code == "wp-attachment-denied");
    let denied: Vec<_> = denied
        .map(|finding| finding.object.key.to_string())
        .collect();
    assert!(
        denied == ["guest"] || denied == ["guest/cart"],
        "{denied:?}"
    );
    assert_eq!(World::bound(world.services()), pairs(&[]));
    assert_eq!(World::bound(world.workloads()), pairs(&[]));
}

#[test]
fn guide_19_ingress_use_waypoint_claim_5() {
    let Some(world) = World::numbered("19") else {
        return;
    };
    assert_eq!(
        world.services()["bookinfo/ratings"]["ingressUseWaypoint"],
        true
    );
    assert_eq!(
        world.services()["bookinfo/reviews"]["ingressUseWaypoint"],
        Value::Null
    );
}

#[test]
fn guide_27_external_services_claims_1_and_8_without_tls_and_policies_of_2_and_6() {
    let Some(world) = World::numbered("27") else {
        return;
    };
    let services = world.services();
    let hosts = [
        "bookinfo/api.external.example.com",
        "bookinfo/partner.external.example.com",
        "unbound/loose.external.example.com",
    ];
    assert!(
        hosts.iter().all(|host| services.contains_key(*host)),
        "{services:?}"
    );
    for host in hosts {
        // Base64 of 240.240.0.0/16, whose first 16 bits show in the first two letters.
        let addresses = services[host]["addresses"].as_array().unwrap();
        let first = addresses[0]["address"].as_str().unwrap();
        assert!(
            first.starts_with("8P") && first.len() == 8,
            "{host}: {first}"
        );
    }
    let bound = World::bound(services);
    let waypoints: Vec<_> = hosts
        .iter()
        .map(|host| bound.get(*host).map(String::as_str))
        .collect();
    assert_eq!(
        waypoints,
        [
            Some("bookinfo/egress-waypoint"),
            Some("bookinfo/egress-waypoint"),
            None
        ]
    );
    let partner = world.rbac(
        "bookinfo/egress-waypoint",
        "inbound-vip|80|http|partner.external.example.com",
    );
    assert_eq!(partner.len(), 1);
    assert!(
        partner[0]["policies"]
            .to_string()
            .contains(r#"{"exact":"GET"}"#),
        "{partner:?}"
    );
    let held = &world.waypoints["bookinfo/egress-waypoint"];
    let clusters = World::of(held, ResourceType::Cluster);
    for (name, host) in [
        (
            "inbound-vip|80|http|partner.external.example.com",
            "partner.external.example.com",
        ),
        (
            "inbound-vip|443|tcp|api.external.example.com",
            "api.external.example.com",
        ),
    ] {
        let cluster = &clusters[name];
        assert_eq!(cluster["type"], "STRICT_DNS", "{name}");
        let endpoint = &cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"][0]["endpoint"];
        let address = json!({ "address": host, "portValue": 443 });
        assert_eq!(endpoint["address"]["socketAddress"], address, "{name}");
        let text = cluster.to_string();
        assert!(!text.contains("connect_originate"), "no HBONE: {text}");
    }
    world.reports(&[(
        "authz-se-by-hostname",
        "AuthorizationPolicy bookinfo/by-hostname",
        "",
    )]);
}

#[test]
fn guide_33_machines_claims_1_2_5_6_and_8() {
    let Some(world) = World::numbered("33") else {
        return;
    };
    let vm = world.workload("WorkloadEntry/billing/legacy-billing-vm");
    assert_eq!(vm["addresses"], json!(["ChQeKA=="]), "10.20.30.40");
    assert_eq!(vm["serviceAccount"], "billing-sa");
    assert_eq!(
        (&vm["tunnelProtocol"], &vm["status"]),
        (&Value::Null, &Value::Null),
        "NONE, HEALTHY"
    );
    assert_eq!(
        (&vm["canonicalName"], &vm["canonicalRevision"]),
        (&json!("billing"), &json!("v1"))
    );
    let target = |workload: &Value, name: &str| {
        workload["services"][format!("billing/{name}.billing.svc.cluster.local")]["ports"][0]
            .clone()
    };
    assert_eq!(
        target(vm, "billing"),
        json!({ "servicePort": 80, "targetPort": 8080 })
    );
    assert_eq!(
        target(world.workload("billing/billing-pod"), "billing"),
        json!({ "servicePort": 80, "targetPort": 9090 })
    );
    let named = &vm["services"]["billing/billing-named.billing.svc.cluster.local"];
    assert!(named.is_object() && named["ports"].is_null(), "{named}");
    let meshed = world.workload("WorkloadEntry/billing/meshed-vm");
    assert_eq!(
        (&meshed["tunnelProtocol"], &meshed["nativeTunnel"]),
        (&json!("HBONE"), &json!(true))
    );
    assert_eq!(target(meshed, "reports")["targetPort"], 8080);
    world.reports(&[
        (
            "we-port-name",
            "WorkloadEntry billing/legacy-billing-vm",
            "spec.ports",
        ),
        (
            "we-not-hbone",
            "WorkloadEntry billing/legacy-billing-vm",
            "",
        ),
        ("we-not-hbone", "WorkloadEntry billing/nameless-vm", ""),
        (
            "we-no-service-account",
            "WorkloadEntry billing/nameless-vm",
            "spec.serviceAccount",
        ),
    ]);
    assert_eq!(
        world
            .codes_of("WorkloadEntry", "billing", "meshed-vm")
            .len(),
        0
    );
}

#[test]
fn guide_38_workload_waypoint_claims_1_2_7_8_and_9() {
    let Some(world) = World::numbered("38") else {
        return;
    };
    let pods = [
        ("payments/fraud-score-0", "payments/pods-wp"),
        ("payments/fraud-score-1", "payments/pods-wp"),
    ];
    assert_eq!(World::bound(world.workloads()), pairs(&pods));
    let services = world.services();
    for name in ["payments/fraud-score", "payments/fraud-audit"] {
        assert_eq!(
            (&services[name]["addresses"], &services[name]["waypoint"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert_eq!(
        World::bound(services).get("payments/fraud-score-vip"),
        Some(&"payments/waypoint".to_owned())
    );
    world.reports(&[("wp-headless", "Service payments/fraud-headless-bound", "")]);
    assert!(!world.has_code("wp-for-mismatch"));
    assert_eq!(world.service_chains("payments/pods-wp"), [""; 0]);
    let chains: Vec<_> = world.chains("payments/pods-wp").into_keys().collect();
    assert_eq!(chains, ["direct-http", "direct-tcp"]);
    let matcher = &world.listener("payments/pods-wp", "main_internal")["filterChainMatcher"];
    let ranges = &matcher["matcherTree"]["customMatch"]["typedConfig"]["rangeMatchers"];
    let alone = json!([
        { "addressPrefix": "10.244.1.13", "prefixLen": 32 },
        { "addressPrefix": "10.244.2.12", "prefixLen": 32 },
    ]);
    assert_eq!(ranges.as_array().unwrap().len(), 1);
    assert_eq!(ranges[0]["ranges"], alone, "the two pods and nothing else");
    for name in ["fraud-score-0", "fraud-score-1"] {
        assert!(world.codes_of("Pod", "payments", name).is_empty(), "{name}");
    }
    // Claim 9: the policy on the Gateway applies to both; a port of HTTP matches by method.
    let policy = |chain: &str| world.rbac("payments/pods-wp", chain);
    let rules = policy("direct-http");
    assert_eq!(rules.len(), 1, "{rules:?}");
    assert!(rules[0].to_string().contains("8443"), "{rules:?}");
    assert!(rules[0].to_string().contains("GET"), "{rules:?}");
}

#[test]
fn guide_39_home_cluster_claims_1_5_and_9() {
    let Some(world) = World::numbered("39") else {
        return;
    };
    let tunnelled = world.tunnelled();
    for ns in ["example-api", "example-worker", "example-admin"] {
        assert!(
            tunnelled
                .iter()
                .any(|name| name.starts_with(&format!("{ns}/"))),
            "{ns}"
        );
    }
    let bound = World::bound(world.services());
    assert_eq!(
        bound,
        pairs(&[(
            "example-api/example-api",
            "example-api/example-api-waypoint"
        )])
    );
    let services = world.services();
    let vendor = services["example-api/api.vendor.example"];
    let first = vendor["addresses"][0]["address"].as_str().unwrap();
    assert!(first.starts_with("8P"), "{first} is in 240.240.0.0/16");
    assert_eq!(vendor["ports"][0]["appProtocol"], "TLS");
    // Nothing else is told: neither annotations of a tool nor the kinds of others.
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn guide_40_not_enrolled_claims_2_and_3() {
    let Some(world) = World::numbered("40") else {
        return;
    };
    world.reports(&[
        ("wp-namespace-not-ambient", "Service bookinfo/reviews", ""),
        ("wp-server-not-ambient", "Service bookinfo/reviews", ""),
    ]);
    assert_eq!(world.tunnelled(), [""; 0]);
    assert_eq!(
        World::bound(world.services()),
        pairs(&[("bookinfo/reviews", "bookinfo/reviews-waypoint")])
    );
    let strict = "istio-system/istio_converted_static_strict".to_owned();
    let listed = world.listed();
    for name in ["productpage", "ratings", "reviews-v1", "reviews-v2"] {
        let name = &format!("bookinfo/{name}");
        assert!(
            listed
                .get(name)
                .is_some_and(|policies| policies.contains(&strict)),
            "{name}: {listed:?}"
        );
    }
}
