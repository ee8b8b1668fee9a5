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
    ClassResource, Discovery, ListenerIr, MainIr, PortTarget, RangeTarget, WaypointResource,
};
use model::derived::{AppProtocol, BoundWaypoint, Locality};
use model::input::{
    Action, AuthorizationPolicy, AuthzOperation, AuthzRule, HttpMatch, HttpRoute, PathMatch,
    ReferenceGrant, Resolution, Values,
};
use model::{ObjectKey, ProxyClass, Str, WorkloadRow};
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
        shown(world.derive().chain(CHAIN)),
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
        shown(derived.chain(CHAIN)),
        [
            format!("app.r.3 =/x -> {v2}"),
            format!("app.r.4 /a/long/* -> {v2}"),
            format!("app.r.1 /a/* -> {v2}"),
            format!("app.r.1 /a/* -> {v2}"),
            format!("app.r.2 ~/r.* -> {v2}"),
            format!("app.r.0 * -> {CHAIN}@1"),
        ]
    );
    let envoy::ir::ChainBody::Http { routes, .. } = &derived.chain(CHAIN).body else {
        panic!()
    };
    assert_eq!(
        (routes[2].headers.len(), routes[3].headers.len()),
        (1, 0),
        "the method first"
    );
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
    let mut lines = shown(derived.chain(CHAIN));
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
        shown(world.derive().chain(CHAIN)),
        [shared.clone(), format!("default * -> {CHAIN}@1")]
    );

    world.route(
        &key("own"),
        route(reference("Service", "app", "web", None), rules()),
    );
    let derived = world.derive();
    assert_eq!(
        shown(derived.chain(CHAIN)),
        [format!("app.own.0 /a/* -> {v2}@1")]
    );
    assert_eq!(
        shown(derived.chain(v2)),
        [shared, format!("default * -> {v2}@1")]
    );

    let narrowed = HttpRoute {
        hostnames: vec!["*.example.com".into()],
        ..route(reference("Gateway", "app", "wp", None), rules())
    };
    world.route(&key("shared"), narrowed);
    let derived = world.derive();
    assert_eq!(shown(derived.chain(v2)), [format!("default * -> {v2}@1")]);
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
            shown(derived.chain(CHAIN))[0],
            format!("app.r.0 /a/* -> {expected}")
        );
        let missing = kind == "Gateway" && !granted;
        assert_eq!(
            derived
                .codes(&key("r"))
                .contains(&"route-backend-no-grant"),
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
        (rule(vec![regex], vec![]), "route-match-invalid", false),
        (portless, "route-backend-invalid", false),
        (timeout, "field-not-applied", true),
    ] {
        let mut world = world();
        world.route(
            &key("r"),
            route(reference("Service", "app", "web", None), vec![good(), bad]),
        );
        let derived = world.derive();
        let own = shown(derived.chain(CHAIN))
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
        shown(derived.chain(CHAIN)),
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
    assert_eq!(main.http_inspector_off, BTreeSet::from([80, 443]));
    assert_eq!(main.tls_inspector_off, Some(BTreeSet::from([80, 90])));
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
        main.http_inspector_off,
        BTreeSet::new(),
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
    assert_eq!(main.http_inspector_off, BTreeSet::new());
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
    let shown: Vec<_> = row
        .localities
        .iter()
        .flat_map(|(at, list)| list.iter().map(move |e| (at.clone(), e)))
        .map(|(at, e)| (at, e.ip.to_string(), e.port, e.tunnel, e.healthy))
        .collect();
    assert_eq!(
        shown,
        [
            (Locality::default(), "10.0.0.1".to_owned(), 8080, true, true),
            (
                Locality::default(),
                "10.0.0.2".to_owned(),
                8080,
                false,
                true
            ),
            (zone, "fd00::4".to_owned(), 8080, true, false),
        ]
    );
    let empty = "inbound-vip|80|http|v2.app.svc.cluster.local";
    let row = &derived.endpoints[&WaypointResource::new(waypoint_key(), empty)];
    assert!(
        row.localities.is_empty(),
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
        });
        assert_eq!(kind, expected, "{resolution:?}");
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
        let attached = !world.derive().chain(CHAIN).authz.is_empty();
        assert_eq!(attached, attaches, "{ns} {:?}", policy.targets);
    }
}

#[test]
fn direct_chains_take_the_policies_of_the_whole_waypoint_only() {
    let mut world = world();
    world.policy(&key("s"), with_target("Service", "web"));
    assert!(main_internal(&world).direct.http.authz.is_empty());
    world.policy(&key("g"), with_target("Gateway", "wp"));
    let main = main_internal(&world);
    assert_eq!(
        (main.direct.http.authz.len(), main.direct.tcp.authz.len()),
        (1, 1)
    );
}

#[test]
fn policies_that_do_not_do_what_they_say_are_reported() {
    let http = |action| {
        let paths = Values {
            values: vec!["/a?b".into()],
            not_values: Vec::new(),
        };
        let to = vec![AuthzOperation {
            paths,
            ..Default::default()
        }];
        let rules = vec![AuthzRule {
            to,
            ..Default::default()
        }];
        AuthorizationPolicy {
            action,
            rules,
            ..with_target("Service", "db")
        }
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
    for (policy, expected) in [
        (with_target("Service", "nope"), vec!["authz-target-missing"]),
        (with_target("Gateway", "nope"), vec!["authz-target-missing"]),
        (
            with_target("Service", "plain"),
            vec!["authz-service-without-waypoint"],
        ),
        (
            with_target("GatewayClass", "istio-waypoint"),
            vec!["authz-gatewayclass-scope"],
        ),
        (
            http(Action::Allow),
            vec!["authz-path-query", "authz-http-on-tcp-allow"],
        ),
        (
            http(Action::Deny),
            vec!["authz-path-query", "authz-http-on-tcp-deny"],
        ),
        (jwt, vec!["authz-jwt-not-supported"]),
        (custom, vec!["authz-custom-provider"]),
        (
            with_target("Service", "web"),
            vec!["authz-bypass-direct-pod"],
        ),
        (with_target("Gateway", "wp"), vec![]),
    ] {
        let mut world = world();
        let web = world
            .services
            .values()
            .find(|row| row.name == "web")
            .unwrap()
            .clone();
        world.workload(pod("app", "a", "10.0.0.1", Some(&web)));
        world.service(service(
            "app",
            "db",
            "10.96.0.5",
            vec![port(5432, AppProtocol::Tcp)],
        ));
        world.service(unbound(
            "app",
            "plain",
            "10.96.0.6",
            vec![port(80, AppProtocol::Http)],
        ));
        world.policy(&key("p"), policy.clone());
        world.proxies.clear();
        let mut found = world.derive().codes(&key("p"));
        let mut expected = expected;
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{:?}", policy.targets);
    }
}
