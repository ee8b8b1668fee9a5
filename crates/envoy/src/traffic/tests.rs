#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;
use std::time::Duration;

use flow::{Reads, Table};
use model::derived::{AppProtocol, BoundWaypoint, Distribution, PortRow, Visibility, WdsProtocol};
use model::input::{
    Balancer, ClientTls, ConnectionPool, ConsistentHash, DestinationRule, H2Upgrade, HashKey,
    Http2Keepalive, LoadBalancer, LocalityLb, OutlierDetection, PortPolicy, Resolution, Subset,
    TargetPort, TcpKeepalive, TlsMode, TrafficPolicy, Transport, Warmup,
};
use model::{
    Kind, Labels, MeshRow, Meta, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow, Str,
};

use super::cluster::apply;
use super::tls::{Opening, Refusal, opening};
use super::*;
use crate::index::DestinationRuleByHost;
use crate::ir::{
    Balancing, ClusterIr, ClusterPolicy, Discovery, LocalityPolicy, TlsAuthority, TlsCertificate,
    Upstream, UpstreamTlsIr,
};

const HOST: &str = "web.shop.svc.cluster.local";

type Rules = Table<ObjectKey, Parsed<DestinationRule>>;

/// `ns/name@created`, and the rule.
fn rules(rows: &[(&str, i64, DestinationRule)]) -> Rules {
    let mut table = Table::new("rules").with_index::<DestinationRuleByHost>();
    table.commit(rows.iter().map(|(key, created_s, rule)| {
        let key: ObjectKey = key.parse().unwrap();
        let meta = Meta {
            key: key.clone(),
            created_s: Some(*created_s),
            ..Meta::default()
        };
        let row = Parsed {
            meta,
            body: Ok(rule.clone()),
            notes: Vec::new(),
        };
        (key, Some(Arc::new(row)))
    }));
    table
}

fn rule(host: &str, export_to: &[&str]) -> DestinationRule {
    DestinationRule {
        host: host.into(),
        export_to: export_to.iter().map(|ns| Str::from(*ns)).collect(),
        policy: Some(TrafficPolicy::default()),
        ..DestinationRule::default()
    }
}

fn port(protocol: AppProtocol) -> PortRow {
    PortRow {
        name: Str::new(),
        port: 80,
        target: TargetPort::Number(8080),
        transport: Transport::Tcp,
        protocol,
        wds_protocol: WdsProtocol::Unknown,
    }
}

/// `shop/web`, behind waypoint `app/wp`.
fn service() -> ServiceRow {
    ServiceRow {
        key: NamespacedHostname::new("shop", HOST),
        source: ObjectRef::new(Kind::Service, ObjectKey::new("shop", "web")),
        name: "web".into(),
        created_s: Some(1),
        vips: Vec::new(),
        ports: vec![port(AppProtocol::Http)],
        selector: None,
        resolution: Resolution::Static,
        external: false,
        waypoint: Some(BoundWaypoint {
            key: waypoint(),
            address: None,
        }),
        blocked: None,
        weighted_waypoints: Vec::new(),
        needs_waypoint: None,
        ingress_use_waypoint: false,
        visibility: Visibility::default(),
        distribution: Distribution::Any,
        publish_not_ready: false,
        persistent_session: false,
        ip_families: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: vec!["*".into()],
        canonical: true,
        first_of_host: true,
    }
}

fn waypoint() -> ObjectKey {
    ObjectKey::new("app", "wp")
}

struct Case<'a> {
    rows: &'a [(&'a str, i64, DestinationRule)],
    service: ServiceRow,
    mesh: MeshRow,
    waypoint: ObjectKey,
    direction: Direction,
}

impl<'a> Case<'a> {
    fn new(rows: &'a [(&'a str, i64, DestinationRule)]) -> Self {
        Self {
            rows,
            service: service(),
            mesh: MeshRow::default(),
            waypoint: waypoint(),
            direction: Direction::InboundVip,
        }
    }

    /// The rules that apply, the one with the policy first.
    fn winners(&self) -> Vec<String> {
        let table = rules(self.rows);
        let tables = TrafficTables {
            destination_rules: table.view(),
        };
        let seen = Seen {
            waypoint: &self.waypoint,
            direction: self.direction,
            service: &self.service,
            mesh: &self.mesh,
        };
        let Some(found) = resolve(tables, &mut Reads::detached(), &seen) else {
            return Vec::new();
        };
        let others = found.keys().filter(|key| *key != found.key());
        let all = [found.key()].into_iter().chain(others);
        all.map(ToString::to_string).collect()
    }
}

#[test]
fn the_first_namespace_with_a_rule_decides() {
    let all = [
        ("app/a", 1, rule(HOST, &[])),
        ("shop/b", 1, rule("web", &[])),
        ("istio-system/c", 1, rule(HOST, &[])),
        ("else/d", 1, rule(HOST, &[])),
    ];
    assert_eq!(Case::new(&all).winners(), ["app/a"]);
    assert_eq!(Case::new(&all[1..]).winners(), ["shop/b"]);
    assert_eq!(Case::new(&all[2..]).winners(), ["istio-system/c"]);
    assert!(Case::new(&all[3..]).winners().is_empty());
    // A short host is of the rule's own namespace.
    assert!(
        Case::new(&[("app/a", 1, rule("web", &[]))])
            .winners()
            .is_empty()
    );
    let mut strict = Case::new(&all);
    strict.mesh.features.foreign_hosts = false;
    assert_eq!(strict.winners(), ["shop/b"]);
}

#[test]
fn who_sees_rule_and_service_counts() {
    let only = |at: &'static str, export_to: &[&str]| [(at, 1, rule(HOST, export_to))];
    for (rows, applies) in [
        (only("app/a", &["."]), true),
        (only("app/a", &["other"]), false),
        (only("shop/a", &["."]), false),
        (only("shop/a", &["app"]), true),
        (only("shop/a", &["*"]), true),
        (only("istio-system/a", &["."]), false),
    ] {
        let case = Case::new(&rows);
        assert_eq!(!case.winners().is_empty(), applies, "{rows:?}");
    }
    let rows = only("app/a", &[]);
    let mut case = Case::new(&rows);
    case.service.export_to = vec![".".into()];
    assert!(case.winners().is_empty());
    case.service.export_to = vec!["app".into()];
    assert_eq!(case.winners(), ["app/a"]);
    // By default rules of the mesh may be private.
    let rows = only("shop/a", &[]);
    let mut case = Case::new(&rows);
    case.mesh.traffic.destination_rule_export_to = vec![".".into()];
    assert!(case.winners().is_empty());
}

#[test]
fn a_waypoint_of_the_root_namespace_takes_private_rules_first() {
    let rows = [
        ("istio-system/open", 1, rule(HOST, &[])),
        ("istio-system/private", 2, rule(HOST, &["."])),
        ("shop/own", 1, rule(HOST, &[])),
    ];
    let mut case = Case::new(&rows);
    case.waypoint = ObjectKey::new("istio-system", "wp");
    assert_eq!(case.winners(), ["istio-system/private"]);
    let rest = [rows[0].clone(), rows[2].clone()];
    let mut case = Case::new(&rest);
    case.waypoint = ObjectKey::new("istio-system", "wp");
    assert_eq!(case.winners(), ["shop/own"]);
}

#[test]
fn exact_hosts_beat_wildcards_and_longer_ones_shorter() {
    let mut rows = vec![
        ("shop/all", 1, rule("*", &[])),
        ("shop/local", 1, rule("*.local", &[])),
        ("shop/ns", 1, rule("*.shop.svc.cluster.local", &[])),
        ("shop/web", 9, rule("WEB.shop.svc.cluster.local", &[])),
    ];
    for expected in ["shop/web", "shop/ns", "shop/local", "shop/all"] {
        assert_eq!(Case::new(&rows).winners(), [expected]);
        rows.pop();
    }
    assert!(host_rank("*.example.com", "example.com").is_none());
    assert!(host_rank("*.example.com", "*.example.com").is_some());
    assert!(host_rank("*.com", "*.example.com").is_some());
}

fn subset(name: &str, version: &str) -> Subset {
    Subset {
        name: name.into(),
        labels: Labels::from_iter([("version".into(), version.into())]),
        policy: None,
    }
}

#[test]
fn rules_of_one_host_are_merged_in_any_order() {
    let with = |policy: bool, export_to: &[&str], subsets: &[(&str, &str)]| DestinationRule {
        policy: policy.then(TrafficPolicy::default),
        subsets: subsets.iter().map(|(n, v)| subset(n, v)).collect(),
        ..rule(HOST, export_to)
    };
    let mut rows = vec![
        (
            "shop/young",
            3,
            with(true, &[], &[("v1", "other"), ("v3", "v3")]),
        ),
        (
            "shop/old",
            1,
            with(false, &[], &[("v1", "v1"), ("v2", "v2")]),
        ),
        ("shop/middle", 2, with(true, &[], &[])),
        ("shop/elsewhere", 4, with(true, &["app"], &[("v4", "v4")])),
    ];
    for _ in 0..rows.len() {
        rows.rotate_left(1);
        let case = Case::new(&rows);
        assert_eq!(case.winners(), ["shop/middle", "shop/old", "shop/young"]);
        let table = rules(&rows);
        let tables = TrafficTables {
            destination_rules: table.view(),
        };
        let seen = Seen::from(&case.waypoint, &case.service, &case.mesh);
        let found = resolve(tables, &mut Reads::detached(), &seen).unwrap();
        let subsets: Vec<_> = found.subsets().cloned().collect();
        let expected = [subset("v1", "v1"), subset("v2", "v2"), subset("v3", "v3")];
        assert_eq!(subsets, expected);
        for (name, exists) in [("", true), ("v2", true), ("v4", false)] {
            let reads = &mut Reads::detached();
            assert_eq!(subset_exists(tables, reads, &seen, name), exists);
        }
    }
}

#[test]
fn selecting_rules_concern_services_elsewhere() {
    let selecting = |name: &str| DestinationRule {
        workload_selector: Some(Labels::from_iter([(
            "gateway.networking.k8s.io/gateway-name".into(),
            name.into(),
        )])),
        ..rule(HOST, &[])
    };
    let rows = [
        ("app/any", 1, rule(HOST, &[])),
        ("app/mine", 2, selecting("wp")),
        ("app/other", 3, selecting("other")),
    ];
    let mut case = Case::new(&rows);
    assert_eq!(case.winners(), ["app/any"]);
    case.direction = Direction::Outbound;
    assert_eq!(case.winners(), ["app/mine"]);
    let rows = [("shop/mine", 2, selecting("wp"))];
    let mut case = Case::new(&rows);
    case.direction = Direction::Outbound;
    assert!(case.winners().is_empty());
}

#[allow(clippy::unnecessary_wraps, reason = "as fields take it")]
fn random() -> Option<LoadBalancer> {
    Some(LoadBalancer {
        balancer: Balancer::Random,
        ..LoadBalancer::default()
    })
}

#[allow(clippy::unnecessary_wraps, reason = "as fields take it")]
fn pool(connections: u32) -> Option<ConnectionPool> {
    Some(ConnectionPool {
        max_connections: Some(connections),
        ..ConnectionPool::default()
    })
}

#[test]
fn ports_replace_everything_and_subsets_block_by_block() {
    let top = TrafficPolicy {
        base: PortPolicy {
            balancer: random(),
            pool: pool(1),
            ..PortPolicy::default()
        },
        ports: [(
            80,
            PortPolicy {
                pool: pool(2),
                ..PortPolicy::default()
            },
        )]
        .into(),
        proxy_protocol: Some(1),
        ..TrafficPolicy::default()
    };
    let of_subset = TrafficPolicy {
        base: PortPolicy {
            pool: pool(3),
            ..PortPolicy::default()
        },
        ports: [(
            90,
            PortPolicy {
                pool: pool(4),
                ..PortPolicy::default()
            },
        )]
        .into(),
        ..TrafficPolicy::default()
    };
    let rows = [(
        "shop/r",
        1,
        DestinationRule {
            policy: Some(top),
            subsets: vec![Subset {
                policy: Some(of_subset),
                ..subset("v1", "v1")
            }],
            ..rule(HOST, &[])
        },
    )];
    let table = rules(&rows);
    let tables = TrafficTables {
        destination_rules: table.view(),
    };
    let (service, mesh, at) = (service(), MeshRow::default(), waypoint());
    let seen = Seen::from(&at, &service, &mesh);
    let found = resolve(tables, &mut Reads::detached(), &seen).unwrap();
    for (port, subset, balancer, connections, proxy) in [
        (70, "", random(), 1, Some(1)),
        (80, "", None, 2, None),
        (70, "v1", random(), 3, Some(1)),
        (80, "v1", None, 3, None),
        (90, "v1", None, 4, None),
        (70, "unknown", random(), 1, Some(1)),
    ] {
        let policy = policy_of(&found, port, subset);
        let expected = (balancer, pool(connections), proxy);
        let got = (
            policy.base.balancer,
            policy.base.pool,
            policy.proxy_protocol,
        );
        assert_eq!(got, expected, "{port} {subset}");
        assert_eq!(policy.rule, Some(ObjectKey::new("shop", "r")));
    }
}

#[test]
fn keys_of_routes_and_settings_of_bytes() {
    let hash = |key| {
        Some(LoadBalancer {
            balancer: Balancer::Hash(ConsistentHash {
                key: Some(key),
                maglev: None,
                ring_size: None,
            }),
            ..LoadBalancer::default()
        })
    };
    let header = HashKey::Header("x-user".into());
    let rows = [(
        "shop/r",
        1,
        DestinationRule {
            policy: Some(TrafficPolicy {
                base: PortPolicy {
                    balancer: hash(header.clone()),
                    pool: Some(ConnectionPool {
                        tcp_idle_timeout: Some(Duration::ZERO),
                        max_connection_duration: Some(Duration::from_secs(9)),
                        ..ConnectionPool::default()
                    }),
                    ..PortPolicy::default()
                },
                ports: [(
                    80,
                    PortPolicy {
                        balancer: hash(HashKey::SourceIp),
                        ..PortPolicy::default()
                    },
                )]
                .into(),
                ..TrafficPolicy::default()
            }),
            ..rule(HOST, &[])
        },
    )];
    let table = rules(&rows);
    let tables = TrafficTables {
        destination_rules: table.view(),
    };
    let (service, mesh, at) = (service(), MeshRow::default(), waypoint());
    let seen = Seen::from(&at, &service, &mesh);
    let reads = &mut Reads::detached();
    let header = vec![header];
    assert_eq!(hash_of(tables, reads, &seen, (80, ""), true), header);
    assert_eq!(hash_of(tables, reads, &seen, (81, ""), false), header);
    let by_source = hash_of(tables, reads, &seen, (80, ""), false);
    assert_eq!(by_source, [HashKey::SourceIp]);
    let tcp = tcp_settings(tables, reads, &seen, (81, ""));
    assert_eq!(tcp.idle_timeout, Some(Duration::ZERO));
    assert_eq!(tcp.max_duration, Some(Duration::from_secs(9)));
    assert!(!tcp.hash_source_ip);
    assert!(tcp_settings(tables, reads, &seen, (80, "")).hash_source_ip);
}

/// A cluster of `shop/web` port 80 with a policy.
fn cluster(
    protocol: AppProtocol,
    upstream: Upstream,
    base: PortPolicy,
    change: impl FnOnce(&mut Case<'_>),
) -> ClusterIr {
    let mut case = Case::new(&[]);
    change(&mut case);
    let mut out = ClusterIr {
        name: "c".into(),
        service: case.service.key.clone(),
        service_name: "web".into(),
        port: 80,
        subset: Str::new(),
        subset_labels: Labels::new(),
        direction: case.direction,
        discovery: Discovery::Eds,
        upstream,
        policy: ClusterPolicy::default(),
        locality: LocalityPolicy::None,
    };
    let policy = EffectivePolicy {
        base,
        ..EffectivePolicy::default()
    };
    let seen = Seen {
        waypoint: &case.waypoint,
        direction: case.direction,
        service: &case.service,
        mesh: &case.mesh,
    };
    apply(&mut out, policy, &seen, &port(protocol), true);
    out
}

#[test]
fn defaults_are_those_of_the_mesh() {
    let keepalive = |probes, seconds| TcpKeepalive {
        probes,
        time: Some(Duration::from_secs(seconds)),
        interval: None,
    };
    let out = cluster(
        AppProtocol::Http,
        Upstream::Http1,
        PortPolicy::default(),
        |case| {
            case.mesh.traffic.connect_timeout = Duration::from_secs(3);
            case.mesh.traffic.tcp_keepalive = Some(keepalive(Some(5), 6));
            case.mesh.traffic.h2_upgrade = true;
        },
    );
    assert_eq!(out.policy.connect_timeout, Duration::from_secs(3));
    assert_eq!(out.policy.keepalive, Some(keepalive(Some(5), 6)));
    assert_eq!(out.upstream, Upstream::Http2);
    let base = PortPolicy {
        pool: Some(ConnectionPool {
            connect_timeout: Some(Duration::from_secs(1)),
            keepalive: Some(keepalive(None, 7)),
            tcp_idle_timeout: Some(Duration::from_secs(8)),
            h2_upgrade: H2Upgrade::Never,
            ..ConnectionPool::default()
        }),
        ..PortPolicy::default()
    };
    let out = cluster(AppProtocol::Http, Upstream::Http1, base, |case| {
        case.mesh.traffic.tcp_keepalive = Some(keepalive(Some(5), 6));
        case.mesh.traffic.h2_upgrade = true;
    });
    assert_eq!(out.policy.connect_timeout, Duration::from_secs(1));
    assert_eq!(out.policy.keepalive, Some(keepalive(Some(5), 7)));
    assert_eq!(out.policy.idle_timeout, Some(Duration::from_secs(8)));
    assert_eq!(out.upstream, Upstream::Http1);
}

#[test]
fn versions_of_http_follow_port_rule_and_mesh() {
    use AppProtocol as P;
    use Upstream as U;
    let pool = |h2_upgrade, use_client_protocol| PortPolicy {
        pool: Some(ConnectionPool {
            h2_upgrade,
            use_client_protocol,
            max_concurrent_streams: Some(4),
            h2_keepalive: Some(Http2Keepalive::default()),
            ..ConnectionPool::default()
        }),
        ..PortPolicy::default()
    };
    for (protocol, by_port, upgrade, client, upstream, options) in [
        (
            P::Http,
            U::Http1,
            H2Upgrade::Default,
            false,
            U::Http1,
            false,
        ),
        (
            P::Http,
            U::Http1,
            H2Upgrade::Upgrade,
            false,
            U::Http2,
            false,
        ),
        (
            P::Unknown,
            U::Downstream,
            H2Upgrade::Default,
            false,
            U::Downstream,
            false,
        ),
        (
            P::Unknown,
            U::Downstream,
            H2Upgrade::Upgrade,
            false,
            U::Http2,
            false,
        ),
        (P::Grpc, U::Http2, H2Upgrade::Never, false, U::Http2, true),
        (
            P::Grpc,
            U::Http2,
            H2Upgrade::Default,
            true,
            U::Downstream,
            false,
        ),
        (
            P::Http,
            U::Http1,
            H2Upgrade::Default,
            true,
            U::Downstream,
            false,
        ),
    ] {
        let out = cluster(protocol, by_port, pool(upgrade, client), |_| ());
        assert_eq!(out.upstream, upstream, "{protocol:?} {upgrade:?} {client}");
        assert_eq!(out.policy.max_concurrent_streams.is_some(), options);
        assert_eq!(out.policy.h2_keepalive.is_some(), options);
    }
}

#[test]
fn balancing_and_what_goes_with_it() {
    let warmup = Warmup {
        duration: Duration::from_secs(30),
        minimum_percent: 10.0,
        aggression: 1.0,
    };
    let hash = |maglev, ring_size| {
        Balancer::Hash(ConsistentHash {
            key: None,
            maglev,
            ring_size,
        })
    };
    for (balancer, balancing, warms) in [
        (Balancer::Unspecified, Balancing::LeastRequest, true),
        (Balancer::RoundRobin, Balancing::RoundRobin, true),
        (Balancer::Random, Balancing::Random, false),
        (hash(None, None), Balancing::RingHash(1024), false),
        (hash(None, Some(9)), Balancing::RingHash(9), false),
        (hash(Some(None), None), Balancing::Maglev(None), false),
        (hash(Some(Some(7)), None), Balancing::Maglev(Some(7)), false),
    ] {
        let base = PortPolicy {
            balancer: Some(LoadBalancer {
                balancer,
                warmup: Some(warmup),
                ..LoadBalancer::default()
            }),
            ..PortPolicy::default()
        };
        let out = cluster(AppProtocol::Http, Upstream::Http1, base, |_| ());
        assert_eq!(out.policy.balancing, balancing);
        assert_eq!(out.policy.warmup.is_some(), warms, "{balancing:?}");
        assert_eq!(out.discovery, Discovery::Eds);
    }
    let base = PortPolicy {
        balancer: Some(LoadBalancer {
            balancer: Balancer::Passthrough,
            ..LoadBalancer::default()
        }),
        ..PortPolicy::default()
    };
    let out = cluster(AppProtocol::Http, Upstream::Http1, base, |_| ());
    assert_eq!(out.discovery, Discovery::OriginalDst);
}

#[test]
fn locality_needs_outliers_or_the_service_to_ask() {
    use LocalityPolicy as L;
    let regions = vec![("a".into(), "b".into())];
    let failover = LocalityLb {
        failover: regions.clone(),
        ..LocalityLb::default()
    };
    let labels = LocalityLb {
        failover_priority: vec!["x".into()],
        ..LocalityLb::default()
    };
    let off = LocalityLb {
        enabled: Some(false),
        ..failover.clone()
    };
    let shares = vec![("a".into(), [("b".into(), 100)].into())];
    let distribute = LocalityLb {
        distribute: shares.clone(),
        ..LocalityLb::default()
    };
    let zone: Vec<Str> = vec![
        "topology.istio.io/network".into(),
        "topology.kubernetes.io/region".into(),
        "topology.kubernetes.io/zone".into(),
    ];
    let near = Distribution::Zone;
    let any = Distribution::Any;
    for (setting, mesh, outliers, distribution, expected, weighted) in [
        (None, None, false, any, L::None, false),
        (None, None, true, any, L::Failover(Vec::new()), false),
        (None, Some(off.clone()), true, any, L::None, false),
        (None, Some(off.clone()), false, near, L::Labels(zone), false),
        (Some(off), None, true, near, L::None, false),
        (Some(failover.clone()), None, false, any, L::None, false),
        (Some(failover), None, true, near, L::Failover(regions), true),
        (
            Some(labels),
            None,
            true,
            any,
            L::Labels(vec!["x".into()]),
            true,
        ),
        (
            Some(distribute),
            None,
            false,
            any,
            L::Distribute(shares),
            true,
        ),
    ] {
        let base = PortPolicy {
            balancer: setting.clone().map(|locality| LoadBalancer {
                locality: Some(locality),
                ..LoadBalancer::default()
            }),
            outlier: outliers.then(OutlierDetection::default),
            ..PortPolicy::default()
        };
        let out = cluster(AppProtocol::Http, Upstream::Http1, base, |case| {
            case.mesh.traffic.locality_lb = mesh;
            case.service.distribution = distribution;
        });
        assert_eq!(out.locality, expected, "{setting:?}");
        assert_eq!(out.policy.locality_weighted, weighted, "{setting:?}");
    }
    let base = PortPolicy {
        balancer: Some(LoadBalancer {
            zone_aware: true,
            ..LoadBalancer::default()
        }),
        ..PortPolicy::default()
    };
    let out = cluster(AppProtocol::Http, Upstream::Http1, base, |_| ());
    assert_eq!(out.locality, L::Failover(Vec::new()));
}

#[test]
fn error_codes_count_for_services_elsewhere() {
    let base = PortPolicy {
        outlier: Some(OutlierDetection {
            error_codes: vec![429],
            ..OutlierDetection::default()
        }),
        ..PortPolicy::default()
    };
    for (direction, codes) in [
        (Direction::InboundVip, vec![]),
        (Direction::Outbound, vec![429]),
    ] {
        let out = cluster(AppProtocol::Http, Upstream::Http1, base.clone(), |case| {
            case.direction = direction;
        });
        assert_eq!(out.policy.outlier.unwrap().error_codes, codes);
    }
}

fn simple() -> ClientTls {
    ClientTls {
        mode: TlsMode::Simple,
        ..ClientTls::default()
    }
}

fn plain_tls() -> UpstreamTlsIr {
    UpstreamTlsIr {
        sni: Str::new(),
        subject_alt_names: Vec::new(),
        insecure: false,
        authority: TlsAuthority::System,
        certificate: None,
        h2: false,
    }
}

fn open(tls: &ClientTls, http: bool, change: impl FnOnce(&mut Case<'_>)) -> Opening {
    open_by("app/r", tls, http, change)
}

/// What TLS settings of a rule come to.
fn open_by(rule: &str, tls: &ClientTls, http: bool, change: impl FnOnce(&mut Case<'_>)) -> Opening {
    let (ns, name) = rule.split_once('/').unwrap();
    let mut case = Case::new(&[]);
    change(&mut case);
    let seen = Seen {
        waypoint: &case.waypoint,
        direction: case.direction,
        service: &case.service,
        mesh: &case.mesh,
    };
    opening(
        Some(tls),
        Some(&ObjectKey::new(ns, name)),
        &seen,
        http,
        false,
    )
}

#[test]
fn tls_takes_names_authorities_and_certificates() {
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| Str::from(*name))
            .collect::<Vec<_>>()
    };
    let secret = |name: &str| TlsAuthority::Secret(name.into());
    let mutual = |tls: ClientTls| ClientTls {
        mode: TlsMode::Mutual,
        ..tls
    };
    let named = |name: &str| ClientTls {
        credential_name: name.into(),
        ..simple()
    };
    for (tls, expected) in [
        (simple(), plain_tls()),
        (
            ClientTls {
                sni: "s".into(),
                ..simple()
            },
            UpstreamTlsIr {
                sni: "s".into(),
                ..plain_tls()
            },
        ),
        (
            ClientTls {
                sni: "s".into(),
                subject_alt_names: names(&["t"]),
                ..simple()
            },
            UpstreamTlsIr {
                sni: "s".into(),
                subject_alt_names: names(&["t"]),
                ..plain_tls()
            },
        ),
        (
            ClientTls {
                sni: "s".into(),
                insecure_skip_verify: true,
                ..simple()
            },
            UpstreamTlsIr {
                sni: "s".into(),
                insecure: true,
                ..plain_tls()
            },
        ),
        (
            ClientTls {
                ca_certificates: "/ca".into(),
                ca_crl: "/crl".into(),
                ..simple()
            },
            UpstreamTlsIr {
                authority: TlsAuthority::File("/ca".into(), Some("/crl".into())),
                ..plain_tls()
            },
        ),
        (
            named("c"),
            UpstreamTlsIr {
                authority: secret("kubernetes://c-cacert"),
                ..plain_tls()
            },
        ),
        (
            named("configmap://shop/ca"),
            UpstreamTlsIr {
                authority: secret("configmap://shop/ca-cacert"),
                ..plain_tls()
            },
        ),
        (
            mutual(named("c")),
            UpstreamTlsIr {
                authority: secret("kubernetes://c-cacert"),
                certificate: Some(TlsCertificate::Secret("kubernetes://c".into())),
                ..plain_tls()
            },
        ),
        (
            mutual(ClientTls {
                client_certificate: "/cert".into(),
                private_key: "/key".into(),
                ..simple()
            }),
            UpstreamTlsIr {
                certificate: Some(TlsCertificate::Files("/cert".into(), "/key".into())),
                ..plain_tls()
            },
        ),
    ] {
        assert_eq!(open(&tls, true, |_| ()), Opening::Tls(expected), "{tls:?}");
    }
    // Names of the ServiceEntry count where the rule has none.
    let of_entry = open(&simple(), true, |case| {
        case.service.subject_alt_names = names(&["e"]);
    });
    let expected = UpstreamTlsIr {
        subject_alt_names: names(&["e"]),
        ..plain_tls()
    };
    assert_eq!(of_entry, Opening::Tls(expected));
    // Bytes have no host: an external one goes by its name.
    let bytes = open(&simple(), false, |case| {
        case.service.external = true;
        case.service.key.hostname = "api.example.com".into();
    });
    let expected = UpstreamTlsIr {
        sni: "api.example.com".into(),
        ..plain_tls()
    };
    assert_eq!(bytes, Opening::Tls(expected));
}

#[test]
fn files_of_a_waypoint_are_for_rules_of_its_namespace_and_of_the_root_alone() {
    let by = |mode| ClientTls {
        mode,
        ..ClientTls::default()
    };
    let (simple, mutual) = (|| by(TlsMode::Simple), || by(TlsMode::Mutual));
    let files = |tls: ClientTls| ClientTls {
        client_certificate: "/cert".into(),
        private_key: "/key".into(),
        ..tls
    };
    let authority = ClientTls {
        ca_certificates: "/ca".into(),
        ..simple()
    };
    for tls in [files(mutual()), authority] {
        for (rule, permitted) in [
            ("app/r", true),
            ("istio-system/r", true),
            ("shop/r", false),
            ("else/r", false),
        ] {
            let found = open_by(rule, &tls, true, |_| ());
            let refused = found == Opening::Refused(Refusal::Files);
            assert_eq!(refused, !permitted, "{rule} {tls:?}");
        }
    }
    // Without effect there, so no reason to refuse.
    let unused = open_by("shop/r", &files(simple()), true, |_| ());
    assert!(matches!(unused, Opening::Tls(_)));
    let named = ClientTls {
        credential_name: "c".into(),
        ..mutual()
    };
    let named = open_by("shop/r", &named, true, |_| ());
    assert!(matches!(named, Opening::Tls(_)));
}

#[test]
fn what_cannot_be_applied_is_refused_and_never_plain() {
    let of = |mode| ClientTls {
        mode,
        ..ClientTls::default()
    };
    let elsewhere = |case: &mut Case<'_>| {
        case.direction = Direction::Outbound;
        case.service.external = true;
    };
    assert_eq!(open(&of(TlsMode::Disable), true, |_| ()), Opening::Plain);
    assert_eq!(
        open(&of(TlsMode::IstioMutual), true, |_| ()),
        Opening::Plain
    );
    let refused = |why| Opening::Refused(why);
    let found = open(&of(TlsMode::IstioMutual), true, elsewhere);
    assert_eq!(found, refused(Refusal::Outside));
    let found = open(&of(TlsMode::Refuse), true, |_| ());
    assert_eq!(found, refused(Refusal::Invalid));
    for tls in [
        of(TlsMode::Mutual),
        ClientTls {
            client_certificate: "/cert".into(),
            ..of(TlsMode::Mutual)
        },
        ClientTls {
            credential_name: "configmap://shop/ca".into(),
            ..of(TlsMode::Mutual)
        },
    ] {
        let found = open(&tls, true, |_| ());
        assert_eq!(found, refused(Refusal::NoCertificate));
        let base = PortPolicy {
            tls: Some(tls),
            ..PortPolicy::default()
        };
        let out = cluster(AppProtocol::Http, Upstream::Http1, base, |_| ());
        assert_eq!(out.discovery, Discovery::Nobody);
    }
}
