//! Clusters of every kind.

use std::time::Duration;

use model::input::{Http2Keepalive, OutlierDetection, RetryBudget, TcpKeepalive, Warmup};
use model::{Labels, NamespacedHostname, ObjectKey};

use super::*;

pub(crate) fn cluster(name: &str, policy: ClusterPolicy) -> ClusterIr {
    ClusterIr {
        name: text(name),
        service: NamespacedHostname::new("a", "web.a.svc.cluster.local"),
        service_name: text("web"),
        port: 80,
        subset: text("http"),
        subset_labels: Labels::new(),
        direction: Direction::InboundVip,
        discovery: Discovery::Eds,
        upstream: Upstream::Http1,
        policy,
        locality: LocalityPolicy::None,
    }
}

pub(crate) fn tls() -> UpstreamTlsIr {
    UpstreamTlsIr {
        sni: Str::new(),
        subject_alt_names: vec![],
        insecure: false,
        authority: TlsAuthority::System,
        certificate: None,
        h2: false,
    }
}

fn full() -> ClusterPolicy {
    let second = Some(Duration::from_secs(1));
    ClusterPolicy {
        rule: Some(ObjectKey::new("a", "dr")),
        connect_timeout: Duration::from_millis(1500),
        keepalive: Some(TcpKeepalive {
            probes: Some(3),
            time: second,
            interval: second,
        }),
        max_connections: Some(1),
        max_pending_requests: Some(1),
        max_requests: Some(1),
        max_retries: Some(1),
        retry_budget: Some(RetryBudget {
            percent: 20.0,
            min_concurrency: 3,
        }),
        idle_timeout: second,
        max_connection_duration: second,
        max_requests_per_connection: Some(1),
        max_concurrent_streams: Some(10),
        h2_keepalive: Some(Http2Keepalive {
            interval: second,
            timeout: None,
        }),
        locality_weighted: true,
        outlier: Some(OutlierDetection {
            split_local_origin: true,
            consecutive_local_origin: Some(2),
            consecutive_gateway: Some(0),
            consecutive_5xx: Some(7),
            interval: second,
            base_ejection: second,
            max_ejection_percent: Some(50),
            min_health_percent: Some(30),
            error_codes: vec![500, 503],
        }),
        tls: Some(tls()),
        proxy_protocol: Some(2),
        ..Default::default()
    }
}

fn balancers() -> Vec<ClusterIr> {
    let warmup = Some(Warmup {
        duration: Duration::from_secs(30),
        minimum_percent: 10.0,
        aggression: 1.5,
    });
    [
        Balancing::LeastRequest,
        Balancing::RoundRobin,
        Balancing::Random,
        Balancing::RingHash(1024),
        Balancing::RingHash(u64::MAX),
        Balancing::Maglev(None),
        Balancing::Maglev(Some(65537)),
    ]
    .into_iter()
    .enumerate()
    .map(|(n, balancing)| {
        let policy = ClusterPolicy {
            balancing,
            warmup,
            ..Default::default()
        };
        cluster(&format!("balancing-{n}"), policy)
    })
    .collect()
}

fn secured(path: &dyn Fn(&str) -> String) -> Vec<ClusterIr> {
    let (chain, key) = (text(&path("chain.pem")), text(&path("key.pem")));
    let mut out = Vec::new();
    for authority in [
        TlsAuthority::System,
        TlsAuthority::File(chain.clone(), None),
        TlsAuthority::Secret(text("kubernetes://ca")),
    ] {
        for sni in ["", "b.test"] {
            for names in [
                vec![],
                texts(&["b.test", "spiffe://td/ns/a/sa/b", "10.0.0.1"]),
            ] {
                for insecure in [false, true] {
                    out.push(UpstreamTlsIr {
                        sni: text(sni),
                        subject_alt_names: names.clone(),
                        insecure,
                        authority: authority.clone(),
                        certificate: Some(if insecure {
                            TlsCertificate::Secret(text("kubernetes://client"))
                        } else {
                            TlsCertificate::Files(chain.clone(), key.clone())
                        }),
                        h2: !insecure,
                    });
                }
            }
        }
    }
    let named = |(n, tls)| {
        let policy = ClusterPolicy {
            tls: Some(tls),
            proxy_protocol: Some(1),
            ..Default::default()
        };
        let ir = cluster(&format!("tls-{n}"), policy);
        ClusterIr {
            direction: if n % 2 == 0 {
                Direction::InboundVip
            } else {
                Direction::Outbound
            },
            ..ir
        }
    };
    out.into_iter().enumerate().map(named).collect()
}

/// One of everything.
pub(crate) fn all(path: &dyn Fn(&str) -> String) -> Vec<ClusterIr> {
    let target = DnsEndpoint {
        host: text("a.test"),
        port: 80,
        weight: 1,
    };
    let discoveries = [
        Discovery::Eds,
        Discovery::OriginalDst,
        Discovery::StrictDns(vec![target.clone()]),
        Discovery::LogicalDns(target),
        Discovery::Dynamic(chains::wildcard()),
        Discovery::Nobody,
    ];
    let mut out = balancers();
    out.extend(secured(path));
    for (n, discovery) in discoveries.into_iter().enumerate() {
        for upstream in [Upstream::Http1, Upstream::Http2, Upstream::Downstream] {
            for direction in [Direction::InboundVip, Direction::Outbound] {
                for (kind, policy) in [("plain", ClusterPolicy::default()), ("full", full())] {
                    out.push(ClusterIr {
                        upstream,
                        direction,
                        discovery: discovery.clone(),
                        ..cluster(&format!("{kind}-{n}-{upstream:?}-{direction:?}"), policy)
                    });
                }
            }
        }
    }
    out
}
