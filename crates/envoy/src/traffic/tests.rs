#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod choice;
mod settings;
mod tls;

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
        is_global: false,
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
