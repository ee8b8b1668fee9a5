//! The matcher, clusters and endpoints.

use super::*;

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
        waypoint: Some(Box::new(BoundWaypoint {
            key: waypoint_key(),
            address: None,
        })),
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
        locality: zone.clone().into(),
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
