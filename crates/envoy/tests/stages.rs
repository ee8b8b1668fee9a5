//! Claims about what the stages derive, on small worlds.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use ambientd_envoy as envoy;
use envoy::ir::{
    ClassResource, Discovery, Health, Inspected, ListenerIr, MainIr, PortTarget, RangeTarget,
    WaypointResource,
};
use model::derived::{AppProtocol, BoundWaypoint, Locality};
use model::input::{
    Action, AuthorizationPolicy, AuthzOperation, AuthzRule, AuthzSource, HttpMatch, HttpRoute,
    PathMatch, ReferenceGrant, Resolution, Values,
};
use model::{Kind, ObjectKey, ObjectRef, ProxyClass, Str, WorkloadRow};
use support::*;

const HOST: &str = "web.app.svc.cluster.local";
const CHAIN: &str = "inbound-vip|80|http|web.app.svc.cluster.local";

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("app", name)
}

/// `app/web` and `app/v2` behind the waypoint, `other/api` elsewhere.
fn world() -> World {
    let mut world = World::new();
    let http = || vec![port(80, AppProtocol::Http)];
    world.service(service("app", "web", "10.96.0.1", http()));
    world.service(service("app", "v2", "10.96.0.2", http()));
    world.service(unbound("other", "api", "10.96.0.9", http()));
    world
}

fn main_internal(world: &World) -> MainIr {
    let class = world.proxies[0].clone();
    let listeners = world.derive().listeners;
    match &listeners[&ClassResource::new(class, "main_internal")] {
        ListenerIr::Main(main) => (**main).clone(),
        other => panic!("{other:?}"),
    }
}

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

#[test]
fn the_matcher_knows_ports_by_protocol_and_headless_services_not_at_all() {
    let mut world = World::new();
    let ports = vec![
        port(80, AppProtocol::Http),
        port(90, AppProtocol::Unknown),
        port(443, AppProtocol::Https),
        port(53, AppProtocol::Udp),
    ];
    world.service(service("app", "web", "10.96.0.1", ports));
    let mut headless = service("app", "zz", "10.96.0.2", vec![port(80, AppProtocol::Http)]);
    headless.vips.clear();
    world.service(headless);
    let main = main_internal(&world);
    let chain = |port: u16, kind: &str| Str::from(format!("inbound-vip|{port}|{kind}|{HOST}"));
    let ports = BTreeMap::from([
        (80, PortTarget::Chain(chain(80, "http"))),
        (
            90,
            PortTarget::Sniffed {
                http: chain(90, "http"),
                tcp: chain(90, "tcp"),
            },
        ),
        (443, PortTarget::Chain(chain(443, "tcp"))),
    ]);
    assert_eq!(main.ranges.len(), 1);
    assert_eq!(main.ranges[0].target, RangeTarget::Service(ports));
    assert_eq!(main.http_inspector, Inspected::Ports(BTreeSet::from([90])));
    assert_eq!(main.tls_inspector, BTreeSet::from([443]));
    // Clusters of the headless service exist all the same.
    assert_eq!(main.chains.len(), 5);
}

#[test]
fn the_older_service_wins_a_shared_address_and_workloads_keep_the_inspector_on() {
    let mut world = World::new();
    let mut young = service("app", "a", "10.96.0.1", vec![port(80, AppProtocol::Http)]);
    young.created_s = Some(9);
    let old = service("app", "b", "10.96.0.1", vec![port(80, AppProtocol::Tcp)]);
    world.service(young).service(old);
    let main = main_internal(&world);
    let RangeTarget::Service(first) = &main.ranges[0].target else {
        panic!()
    };
    let chain = "inbound-vip|80|tcp|b.app.svc.cluster.local";
    assert_eq!(first[&80], PortTarget::Chain(chain.into()));
    assert_eq!(
        main.http_inspector,
        Inspected::Ports(BTreeSet::from([80])),
        "HTTP for one, TCP for the other"
    );

    world.workload(WorkloadRow {
        waypoint: Some(BoundWaypoint {
            key: waypoint_key(),
            address: None,
        }),
        ..pod("app", "p", "10.0.0.1", None)
    });
    world
        .services
        .retain(|key, _| key.hostname.starts_with("b."));
    let main = main_internal(&world);
    assert_eq!(main.http_inspector, Inspected::Everywhere);
    assert_eq!(main.ranges.last().unwrap().target, RangeTarget::Workloads);
}

#[test]
fn endpoints_are_tunnelled_grouped_and_never_terminating() {
    let mut world = world();
    let web = world
        .services
        .values()
        .find(|row| row.name == "web")
        .unwrap()
        .clone();
    let zone = Locality {
        region: "r".into(),
        zone: "z".into(),
        subzone: Str::new(),
    };
    world.workload(pod("app", "a", "10.0.0.1", Some(&web)));
    world.workload(WorkloadRow {
        hbone: false,
        ..pod("app", "b", "10.0.0.2", Some(&web))
    });
    world.workload(WorkloadRow {
        terminating: true,
        ..pod("app", "c", "10.0.0.3", Some(&web))
    });
    world.workload(WorkloadRow {
        healthy: false,
        locality: zone.clone(),
        ..pod("app", "d", "fd00::4", Some(&web))
    });
    let derived = world.derive();
    let row = &derived.endpoints[&WaypointResource::new(waypoint_key(), CHAIN)];
    let (up, down) = (Health::Healthy, Health::Unhealthy);
    let shown: Vec<_> = row
        .groups
        .iter()
        .flat_map(|group| group.endpoints.iter().map(|e| (group.locality.clone(), e)))
        .map(|(at, e)| (at, e.ip.to_string(), e.port, e.tunnel, e.health))
        .collect();
    assert_eq!(
        shown,
        [
            (Locality::default(), "10.0.0.1".to_owned(), 8080, true, up),
            (Locality::default(), "10.0.0.2".to_owned(), 8080, false, up),
            (zone, "fd00::4".to_owned(), 8080, true, down),
        ]
    );
    let empty = "inbound-vip|80|http|v2.app.svc.cluster.local";
    let row = &derived.endpoints[&WaypointResource::new(waypoint_key(), empty)];
    assert!(
        row.groups.is_empty(),
        "an EDS cluster always has its answer"
    );
}

#[test]
fn clusters_follow_the_resolution_of_the_service() {
    for (resolution, with_host, expected) in [
        (Resolution::Static, false, Some("eds")),
        (Resolution::None, false, Some("original")),
        (Resolution::Dns, true, Some("strict")),
        (Resolution::Dns, false, None),
        (Resolution::DnsRoundRobin, true, Some("logical")),
        (Resolution::DynamicDns, true, None),
    ] {
        let mut world = World::new();
        let mut web = service("app", "web", "10.96.0.1", vec![port(80, AppProtocol::Http)]);
        web.resolution = resolution;
        if with_host {
            world.workload(WorkloadRow {
                addresses: Vec::new(),
                hostname: "example.com".into(),
                ..pod("app", "x", "10.0.0.1", Some(&web))
            });
        }
        world.service(web);
        let derived = world.derive();
        let cluster = derived
            .clusters
            .get(&WaypointResource::new(waypoint_key(), CHAIN));
        let kind = cluster.map(|cluster| match cluster.discovery {
            Discovery::Eds => "eds",
            Discovery::OriginalDst => "original",
            Discovery::StrictDns(_) => "strict",
            Discovery::LogicalDns(_) => "logical",
            Discovery::Dynamic(_) => "dynamic",
            Discovery::Nobody => "nobody",
        });
        assert_eq!(kind, expected, "{resolution:?}");
    }
}

#[test]
fn clusters_speak_what_the_port_declares() {
    use envoy::ir::Upstream::{Downstream, Http1, Http2};
    for (protocol, expected) in [
        (AppProtocol::Http, vec![("http", Http1)]),
        (AppProtocol::Grpc, vec![("http", Http2)]),
        (AppProtocol::Tcp, vec![("tcp", Http1)]),
        (AppProtocol::Tls, vec![("tcp", Http1)]),
        (
            AppProtocol::Unknown,
            vec![("http", Downstream), ("tcp", Downstream)],
        ),
        (AppProtocol::Udp, vec![]),
    ] {
        let mut world = World::new();
        world.service(service("app", "web", "10.96.0.1", vec![port(80, protocol)]));
        let derived = world.derive();
        let found: Vec<_> = derived
            .clusters
            .values()
            .map(|cluster| (cluster.subset.as_str(), cluster.upstream))
            .collect();
        assert_eq!(found, expected, "{protocol:?}");
    }
}

#[test]
fn nothing_is_derived_for_a_waypoint_without_proxies() {
    let mut world = world();
    world.proxies = vec![ProxyClass::waypoint(key("another"))];
    let derived = world.derive();
    assert!(derived.attachments.is_empty() && derived.chains.is_empty());
    assert!(derived.clusters.is_empty() && derived.endpoints.is_empty());
    assert!(derived.listeners.is_empty() && derived.static_clusters.is_empty());
}

fn with_target(kind: &str, name: &str) -> AuthorizationPolicy {
    AuthorizationPolicy {
        targets: vec![target(kind, name)],
        ..Default::default()
    }
}

#[test]
fn policies_attach_by_target_and_nothing_else() {
    for (policy, ns, attaches) in [
        (with_target("Service", "web"), "app", true),
        (with_target("Service", "v2"), "app", false),
        (with_target("Service", "web"), "other", false),
        (with_target("Gateway", "wp"), "app", true),
        (
            with_target("GatewayClass", "istio-waypoint"),
            "istio-system",
            true,
        ),
        (with_target("GatewayClass", "istio-waypoint"), "app", false),
        (AuthorizationPolicy::default(), "app", false),
    ] {
        let mut world = world();
        world.policy(&ObjectKey::new(ns, "p"), policy.clone());
        let attached = !world.derive().chain(CHAIN).filters.is_empty();
        assert_eq!(attached, attaches, "{ns} {:?}", policy.targets);
    }
}

#[test]
fn direct_chains_take_the_policies_of_the_whole_waypoint_only() {
    let mut world = world();
    world.policy(&key("s"), with_target("Service", "web"));
    assert!(main_internal(&world).direct.http.filters.is_empty());
    world.policy(&key("g"), with_target("Gateway", "wp"));
    let main = main_internal(&world);
    assert_eq!(
        (
            main.direct.http.filters.len(),
            main.direct.tcp.filters.len()
        ),
        (1, 1)
    );
}

/// A rule about a path that is none.
fn odd_path(ports: &[&str]) -> AuthzRule {
    let to = AuthzOperation {
        paths: values(&["/a?b"]),
        ports: values(ports),
        ..Default::default()
    };
    AuthzRule {
        to: vec![to],
        ..Default::default()
    }
}

fn values(list: &[&str]) -> Values {
    Values {
        values: list.iter().map(|value| (*value).into()).collect(),
        not_values: Vec::new(),
    }
}

#[test]
fn policies_that_do_not_do_what_they_say_are_reported() {
    const PATHS: &str = "spec.rules[0].to[0].operation.paths";
    const TARGET: &str = "spec.targetRefs[0]";
    let http = |action, ports: &[&str]| AuthorizationPolicy {
        action,
        rules: vec![odd_path(ports)],
        ..with_target("Service", "db")
    };
    let jwt = AuthorizationPolicy {
        rules: vec![AuthzRule {
            when: vec![("request.auth.principal".into(), Values::default())],
            ..Default::default()
        }],
        ..with_target("Gateway", "wp")
    };
    let custom = AuthorizationPolicy {
        action: Action::Custom,
        ..with_target("Gateway", "wp")
    };
    let mut elsewhere = with_target("Service", "web");
    elsewhere.targets[0].ns = Some("far".into());
    for (policy, expected) in [
        (
            with_target("Service", "nope"),
            vec![("authz-target-missing", TARGET)],
        ),
        (
            with_target("Gateway", "nope"),
            vec![("authz-target-missing", TARGET)],
        ),
        (elsewhere, vec![("authz-target-missing", TARGET)]),
        (
            with_target("ServiceEntry", "api.example.com"),
            vec![("authz-se-by-hostname", TARGET)],
        ),
        (
            with_target("Service", "remote"),
            vec![("authz-target-other-namespace", TARGET)],
        ),
        (
            with_target("Gateway", "far-wp"),
            vec![("authz-target-other-namespace", TARGET)],
        ),
        (
            with_target("Service", "plain"),
            vec![("authz-service-without-waypoint", TARGET)],
        ),
        (
            with_target("GatewayClass", "istio-waypoint"),
            vec![("authz-gatewayclass-scope", TARGET)],
        ),
        (
            http(Action::Allow, &[]),
            vec![
                ("authz-http-on-tcp-allow", PATHS),
                ("authz-path-query", PATHS),
            ],
        ),
        (
            http(Action::Deny, &["5432"]),
            vec![
                ("authz-http-on-tcp-deny", PATHS),
                ("authz-path-query", PATHS),
            ],
        ),
        (
            http(Action::Deny, &["80"]),
            vec![("authz-path-query", PATHS)],
        ),
        (
            jwt,
            vec![
                ("authz-bypass-direct-pod", TARGET),
                ("authz-http-on-tcp-allow", "spec.rules[0].when[0].key"),
                (
                    "authz-jwt-without-requestauthn",
                    "spec.rules[0].when[0].key",
                ),
            ],
        ),
        (
            custom,
            vec![
                ("authz-bypass-direct-pod", TARGET),
                ("authz-custom-provider", "spec.provider"),
            ],
        ),
        (
            with_target("Service", "web"),
            vec![("authz-bypass-direct-pod", TARGET)],
        ),
    ] {
        let mut world = guarded();
        let db = vec![port(5432, AppProtocol::Tcp)];
        world.service(service("app", "db", "10.96.0.5", db));
        let http = || vec![port(80, AppProtocol::Http)];
        world.service(unbound("app", "plain", "10.96.0.6", http()));
        world.service(unbound("other", "remote", "10.96.0.7", http()));
        let far = ObjectKey::new("other", "far-wp");
        world.waypoints.insert(far.clone(), waypoint(&far));
        world.policy(&key("p"), policy.clone());
        world.proxies.clear();
        let expected = expected.into_iter().map(|(code, at)| (code, at.to_owned()));
        let expected: Vec<_> = expected.collect();
        assert_eq!(fields(&world, "p"), expected, "{:?}", policy.targets);
    }
}

/// A world with one captured pod behind its service.
fn guarded() -> World {
    let mut world = world();
    let services = &world.services;
    let web = services.values().find(|row| row.name == "web").unwrap();
    let pod = pod("app", "a", "10.0.0.1", Some(web));
    world.workload(pod);
    world
}

/// Codes and fields of the findings about a policy.
fn fields(world: &World, policy: &str) -> Vec<(&'static str, String)> {
    let mut found: Vec<_> = world
        .derive()
        .findings
        .into_iter()
        .filter(|found| found.object.key == key(policy))
        .map(|found| (found.code, found.field.to_string()))
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn a_waypoint_is_bypassed_unless_its_pods_admit_it_alone() {
    let from = |source: AuthzSource| AuthzRule {
        from: vec![source],
        ..Default::default()
    };
    let principal = |name: &str| {
        from(AuthzSource {
            principals: values(&[name]),
            ..Default::default()
        })
    };
    let account = |name: &str| {
        from(AuthzSource {
            service_accounts: values(&[name]),
            ..Default::default()
        })
    };
    let all_but = |name: &str| {
        let mut source = AuthzSource::default();
        source.principals.not_values = vec![name.into()];
        from(source)
    };
    let (wp, web) = ("cluster.local/ns/app/sa/wp", "cluster.local/ns/app/sa/web");
    for (case, action, rules, open) in [
        ("waypoint", Action::Allow, vec![principal(wp)], false),
        ("account", Action::Allow, vec![account("wp")], false),
        ("nobody", Action::Allow, vec![], false),
        ("client", Action::Allow, vec![principal(web)], true),
        (
            "both",
            Action::Allow,
            vec![principal(wp), principal(web)],
            true,
        ),
        ("anybody", Action::Allow, vec![AuthzRule::default()], true),
        ("all but", Action::Deny, vec![all_but(wp)], false),
        ("other deny", Action::Deny, vec![principal(web)], true),
        ("audit", Action::Audit, vec![principal(wp)], true),
    ] {
        let mut world = guarded();
        world.policy(&key("p"), with_target("Gateway", "wp"));
        let l4 = AuthorizationPolicy {
            action,
            rules,
            ..Default::default()
        };
        world.policy(&key("l4"), l4);
        let found = world.derive().codes(&key("p"));
        assert_eq!(found.contains(&"authz-bypass-direct-pod"), open, "{case}");
    }
}

#[test]
fn a_policy_without_targets_that_means_a_waypoint_is_reported() {
    let gateway = ("gateway.networking.k8s.io/gateway-name", "wp");
    let http = || vec![odd_path(&[])];
    for (case, ns, labels, rules, expected) in [
        ("by gateway name", "app", vec![gateway], vec![], true),
        (
            "another gateway",
            "app",
            vec![(gateway.0, "x")],
            vec![],
            false,
        ),
        (
            "by its own label",
            "app",
            vec![("app", "gate")],
            vec![],
            true,
        ),
        ("others too", "app", vec![("tier", "any")], vec![], false),
        ("http, others", "app", vec![("app", "web")], http(), false),
        ("http, nobody", "app", vec![("app", "gone")], http(), true),
        ("l4, nobody", "app", vec![("app", "gone")], vec![], false),
        ("http, everybody", "app", vec![], http(), false),
        ("no waypoint here", "other", vec![gateway], http(), false),
        ("root", "istio-system", vec![("app", "gate")], vec![], true),
        (
            "root, others",
            "istio-system",
            vec![("tier", "any")],
            http(),
            false,
        ),
    ] {
        let mut world = guarded();
        let set = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        for row in world.workloads.values_mut() {
            row.labels = set(&[("app", "web"), ("tier", "any")]);
        }
        world.workload(WorkloadRow {
            labels: set(&[gateway, ("app", "gate"), ("tier", "any")]),
            ..pod("app", "wp-0", "10.0.0.9", None)
        });
        let policy = ObjectKey::new(ns, "p");
        let body = AuthorizationPolicy {
            selector: (!labels.is_empty()).then(|| set(&labels)),
            rules,
            ..Default::default()
        };
        world.policy(&policy, body);
        let found = world.derive().codes(&policy);
        assert_eq!(found.contains(&"authz-no-ref-waypoint"), expected, "{case}");
    }
}

#[test]
fn a_waypoint_that_nothing_uses_names_what_idles_on_it() {
    let bound = Some(BoundWaypoint {
        key: waypoint_key(),
        address: None,
    });
    for (case, service, workload, ready, route, expected) in [
        (
            "empty",
            false,
            false,
            true,
            false,
            Some("Nothing is bound to waypoint app/wp"),
        ),
        (
            "with a route",
            false,
            false,
            true,
            true,
            Some("Nothing is bound to waypoint app/wp; HTTPRoute app/r idles on it"),
        ),
        ("a service", true, false, true, false, None),
        ("a workload", false, true, true, false, None),
        ("not ready", false, false, false, false, None),
    ] {
        let mut world = if service { self::world() } else { World::new() };
        world.waypoints.get_mut(&waypoint_key()).unwrap().ready = ready;
        if workload {
            world.workload(WorkloadRow {
                waypoint: bound.clone(),
                ..pod("app", "a", "10.0.0.1", None)
            });
        }
        if route {
            let parent = reference("Gateway", "app", "wp", None);
            world.route(&key("r"), crate::route(parent, vec![]));
        }
        let found = world.derive().findings;
        let mut unused = found.iter().filter(|found| found.code == "wp-unused");
        let message = unused.next().map(|found| found.message.as_str());
        assert_eq!(message, expected, "{case}");
    }
}

#[test]
fn hosts_resolved_per_request_are_reported_when_bound() {
    let mut world = World::new();
    let mut any = service("app", "any", "10.96.0.1", vec![port(80, AppProtocol::Http)]);
    any.resolution = Resolution::DynamicDns;
    any.source = ObjectRef::new(Kind::ServiceEntry, key("any"));
    world.service(any);
    world.proxies.clear();
    assert_eq!(
        world.derive().codes(&key("any")),
        ["se-dynamic-dns-not-supported"]
    );
}

#[test]
fn a_bound_service_whose_endpoints_are_all_outside_the_mesh_is_reported() {
    let gateway = "gateway.networking.k8s.io/gateway-name";
    for (case, hbone, terminating, label, expected) in [
        ("none", vec![], false, "app", false),
        ("one outside", vec![false], false, "app", true),
        ("one inside", vec![true], false, "app", false),
        ("half", vec![false, true], false, "app", false),
        ("going", vec![false], true, "app", false),
        ("a gateway", vec![false], false, gateway, false),
    ] {
        let mut world = world();
        let services = &world.services;
        let web = services.values().find(|row| row.name == "web").unwrap();
        let pods: Vec<_> = hbone
            .into_iter()
            .enumerate()
            .map(|(n, hbone)| WorkloadRow {
                hbone,
                terminating,
                labels: [(label.into(), "x".into())].into(),
                ..pod(
                    "app",
                    &format!("web-{n}"),
                    &format!("10.0.0.{}", n + 1),
                    Some(web),
                )
            })
            .collect();
        for pod in pods {
            world.workload(pod);
        }
        let found = world.derive().codes(&key("web"));
        assert_eq!(found.contains(&"wp-server-not-ambient"), expected, "{case}");
    }
}
