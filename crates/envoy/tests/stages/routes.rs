//! Routes of the Gateway API.

use super::*;

#[test]
fn a_service_without_routes_forwards_to_itself() {
    let world = world();
    assert_eq!(
        shown(world.derive().routes(CHAIN)),
        [format!("default * -> {CHAIN}@1")]
    );
}

#[test]
fn own_routes_are_sorted_by_precedence_and_have_no_fallback() {
    let mut world = world();
    let with = |path| HttpMatch {
        path: Some(path),
        ..Default::default()
    };
    let method = HttpMatch {
        method: Some("GET".into()),
        ..prefix("/a")
    };
    let rules = vec![
        rule(vec![prefix("/")], vec![backend("app", "web", 80, 1)]),
        rule(
            vec![prefix("/a"), method],
            vec![backend("app", "v2", 80, 1)],
        ),
        rule(
            vec![with(PathMatch::Regex("/r.*".into()))],
            vec![backend("app", "v2", 80, 1)],
        ),
        rule(
            vec![with(PathMatch::Exact("/x".into()))],
            vec![backend("app", "v2", 80, 1)],
        ),
        rule(vec![prefix("/a/long/")], vec![backend("app", "v2", 80, 1)]),
    ];
    world.route(
        &key("r"),
        route(reference("Service", "app", "web", None), rules),
    );
    let v2 = "inbound-vip|80|http|v2.app.svc.cluster.local@1";
    let derived = world.derive();
    assert_eq!(
        shown(derived.routes(CHAIN)),
        [
            format!("app.r.3 =/x -> {v2}"),
            format!("app.r.4 /a/long/* -> {v2}"),
            format!("app.r.1 /a/* -> {v2}"),
            format!("app.r.1 /a/* -> {v2}"),
            format!("app.r.2 ~/r.* -> {v2}"),
            format!("app.r.0 * -> {CHAIN}@1"),
        ]
    );
    let routes = &derived.routes(CHAIN).routes;
    assert_eq!(
        (routes[2].headers.len(), routes[3].headers.len()),
        (1, 0),
        "the method first"
    );
    let operations: Vec<_> = routes
        .iter()
        .map(|route| route.operation.as_str())
        .collect();
    let v2 = "v2.app.svc.cluster.local:80";
    assert_eq!(
        operations,
        [
            format!("{v2}/x"),
            format!("{v2}/*"),
            format!("{v2}/*"),
            format!("{v2}/*"),
            format!("{v2}/r.*"),
            format!("{HOST}:80/*"),
        ]
    );
}

#[test]
fn a_route_is_traced_by_its_object_when_it_has_no_single_destination() {
    let (v2, gone) = (backend("app", "v2", 80, 1), backend("app", "gone", 80, 1));
    for (backends, expected) in [
        (vec![v2.clone()], "v2.app.svc.cluster.local:80/*"),
        (vec![v2, backend("app", "web", 80, 1)], "r:80/*"),
        (vec![gone], "r:80/*"),
        (vec![], "r:80/*"),
    ] {
        let mut world = world();
        let parent = reference("Service", "app", "web", None);
        let rules = vec![rule(vec![prefix("/a")], backends)];
        world.route(&key("r"), route(parent, rules));
        let derived = world.derive();
        let routes = &derived.routes(CHAIN).routes;
        assert_eq!(routes[0].operation, expected);
    }
}

#[test]
fn weights_failures_and_destinations_answer_as_the_api_says() {
    let mut world = world();
    let rules = vec![
        rule(
            vec![prefix("/split")],
            vec![backend("app", "web", 80, 90), backend("app", "v2", 80, 10)],
        ),
        rule(
            vec![prefix("/one")],
            vec![backend("app", "web", 80, 7), backend("app", "v2", 80, 0)],
        ),
        rule(vec![prefix("/none")], vec![]),
        rule(vec![prefix("/gone")], vec![backend("app", "gone", 80, 1)]),
        rule(vec![prefix("/else")], vec![backend("other", "api", 80, 1)]),
        rule(vec![prefix("/port")], vec![backend("app", "v2", 9, 1)]),
    ];
    world.route(
        &key("r"),
        route(reference("Service", "app", "web", None), rules),
    );
    let derived = world.derive();
    let mut lines = shown(derived.routes(CHAIN));
    lines.sort();
    assert_eq!(
        lines,
        [
            format!(
                "app.r.0 /split/* -> {CHAIN}@90 inbound-vip|80|http|v2.app.svc.cluster.local@10"
            ),
            format!("app.r.1 /one/* -> {CHAIN}@7"),
            "app.r.2 /none/* -> 500".into(),
            "app.r.3 /gone/* -> UnknownService@1".into(),
            "app.r.4 /else/* -> outbound|80||api.other.svc.cluster.local@1".into(),
            "app.r.5 /port/* -> inbound-vip|9|http|v2.app.svc.cluster.local@1".into(),
        ]
    );
    let outbound =
        WaypointResource::new(waypoint_key(), "outbound|80||api.other.svc.cluster.local");
    assert!(derived.clusters.contains_key(&outbound) && derived.endpoints.contains_key(&outbound));
    assert_eq!(
        derived.codes(&key("r")),
        ["route-backend-missing", "route-backend-missing"],
    );
}

#[test]
fn gateway_routes_fall_through_and_yield_to_own_routes() {
    let mut world = world();
    let rules = || vec![rule(vec![prefix("/a")], vec![backend("app", "v2", 80, 1)])];
    world.route(
        &key("shared"),
        route(reference("Gateway", "app", "wp", None), rules()),
    );
    let v2 = "inbound-vip|80|http|v2.app.svc.cluster.local";
    let shared = format!("app.shared.0 /a/* -> {v2}@1");
    assert_eq!(
        shown(world.derive().routes(CHAIN)),
        [shared.clone(), format!("default * -> {CHAIN}@1")]
    );

    world.route(
        &key("own"),
        route(reference("Service", "app", "web", None), rules()),
    );
    let derived = world.derive();
    assert_eq!(
        shown(derived.routes(CHAIN)),
        [format!("app.own.0 /a/* -> {v2}@1")]
    );
    assert_eq!(
        shown(derived.routes(v2)),
        [shared, format!("default * -> {v2}@1")]
    );

    let narrowed = HttpRoute {
        hostnames: vec!["*.example.com".into()],
        ..route(reference("Gateway", "app", "wp", None), rules())
    };
    world.route(&key("shared"), narrowed);
    let derived = world.derive();
    assert_eq!(shown(derived.routes(v2)), [format!("default * -> {v2}@1")]);
    assert_eq!(derived.codes(&key("shared")), ["route-parent-waypoint"]);
}

#[test]
fn only_gateway_parents_need_a_grant() {
    for (kind, name, granted, expected) in [
        ("Gateway", "wp", false, "UnknownService@1"),
        (
            "Gateway",
            "wp",
            true,
            "outbound|80||api.other.svc.cluster.local@1",
        ),
        (
            "Service",
            "web",
            false,
            "outbound|80||api.other.svc.cluster.local@1",
        ),
    ] {
        let mut world = world();
        let rules = vec![rule(
            vec![prefix("/a")],
            vec![backend("other", "api", 80, 1)],
        )];
        world.route(&key("r"), route(reference(kind, "app", name, None), rules));
        if granted {
            let at = ObjectKey::new("other", "g");
            let grant = ReferenceGrant {
                from: vec![(
                    "gateway.networking.k8s.io".into(),
                    "HTTPRoute".into(),
                    "app".into(),
                )],
                to: vec![(Str::new(), "Service".into(), None)],
            };
            world
                .reference_grants
                .insert(at.clone(), parsed(&at, grant));
        }
        let derived = world.derive();
        assert_eq!(
            shown(derived.routes(CHAIN))[0],
            format!("app.r.0 /a/* -> {expected}")
        );
        let missing = kind == "Gateway" && !granted;
        assert_eq!(
            derived.codes(&key("r")).contains(&"route-backend-no-grant"),
            missing
        );
    }
}

#[test]
fn a_route_with_a_hard_error_contributes_nothing_and_says_so() {
    let good = || rule(vec![prefix("/a")], vec![backend("app", "v2", 80, 1)]);
    let mut filter = good();
    filter.unsupported = vec!["filters[0]".into()];
    let mut timeout = good();
    timeout.unsupported = vec!["timeouts".into()];
    let regex = HttpMatch {
        path: Some(PathMatch::Regex("(".into())),
        ..Default::default()
    };
    let mut portless = good();
    portless.backends[0].target.port = None;
    for (bad, code, applies) in [
        (filter, "route-filter-not-supported", false),
        (rule(vec![regex], vec![]), "route-match-invalid", true),
        (portless, "route-backend-invalid", false),
        (timeout, "field-not-applied", true),
    ] {
        let mut world = world();
        world.route(
            &key("r"),
            route(reference("Service", "app", "web", None), vec![good(), bad]),
        );
        let derived = world.derive();
        let own = shown(derived.routes(CHAIN))
            .iter()
            .any(|line| line.starts_with("app.r"));
        assert_eq!(own, applies, "{code}");
        assert!(derived.codes(&key("r")).contains(&code), "{code}");
    }
}

#[test]
fn routes_of_a_third_namespace_and_of_other_ports_do_not_apply() {
    let mut world = world();
    let rules = || vec![rule(vec![], vec![backend("app", "v2", 80, 1)])];
    let consumer = ObjectKey::new("client", "r");
    world.route(
        &consumer,
        route(reference("Service", "app", "web", None), rules()),
    );
    world.route(
        &key("p"),
        route(reference("Service", "app", "web", Some(81)), rules()),
    );
    let derived = world.derive();
    assert_eq!(
        shown(derived.routes(CHAIN)),
        [format!("default * -> {CHAIN}@1")]
    );
    assert_eq!(derived.codes(&consumer), ["route-foreign-namespace"]);
}

#[test]
fn parents_that_cannot_work_are_reported() {
    for (parent, code) in [
        (
            reference("Service", "app", "nope", None),
            "route-parent-missing",
        ),
        (
            reference("Gateway", "app", "nope", None),
            "route-parent-missing",
        ),
        (
            reference("Service", "other", "api", None),
            "route-service-no-waypoint",
        ),
        (
            reference("Gateway", "app", "wp", Some(80)),
            "route-parent-waypoint",
        ),
    ] {
        let mut world = world();
        let rules = vec![rule(vec![], vec![backend("app", "v2", 80, 1)])];
        world.route(&key("r"), route(parent, rules));
        // Findings exist with no proxy connected.
        world.proxies.clear();
        assert_eq!(world.derive().codes(&key("r")), [code]);
    }
}
