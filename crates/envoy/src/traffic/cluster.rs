//! What of a policy becomes of a cluster. Source: spec/policy-and-traffic.md §7.3–§7.5;
//! spec/envoy-config.md §3.3, §3.7, §3.9.

use model::MeshRow;
use model::derived::PortRow;
use model::input::{
    Balancer, ConnectionPool, ConsistentHash, H2Upgrade, LoadBalancer, OutlierDetection,
    TcpKeepalive,
};

use super::tls::{self, Opening};
use super::{EffectivePolicy, Seen, locality};
use crate::ir::{
    Balancing, ClusterIr, ClusterPolicy, Direction, Discovery, LocalityPolicy, Upstream,
};

/// Smallest ring when a rule says nothing.
const RING_SIZE: u64 = 1024;

/// Puts a policy into a cluster that is complete but for it: discovery and HTTP version are
/// those of the service, and may change. `http` says whether requests pass it, or bytes.
pub(crate) fn apply(
    cluster: &mut ClusterIr,
    policy: EffectivePolicy,
    seen: &Seen<'_>,
    port: &PortRow,
    http: bool,
) {
    let default = ConnectionPool::default();
    let pool = policy.base.pool.as_ref().unwrap_or(&default);
    cluster.upstream = upstream(cluster.upstream, pool, seen.mesh, port, http);
    let balancer = policy.base.balancer.clone().unwrap_or_default();
    if balancer.balancer == Balancer::Passthrough && cluster.discovery == Discovery::Eds {
        cluster.discovery = Discovery::OriginalDst;
    }
    let h2 = cluster.upstream == Upstream::Http2;
    let opening = match policy.backend {
        Some(backend) => backend.opening(h2),
        None => tls::opening(
            policy.base.tls.as_ref(),
            policy.rule.as_ref(),
            seen,
            http,
            h2,
        ),
    };
    if matches!(opening, Opening::Refused(_)) {
        cluster.discovery = Discovery::Nobody;
    }
    let outlier = policy.base.outlier.clone();
    let chosen = cluster.discovery == Discovery::Eds;
    let (locality, weighted) = if chosen {
        locality::of(&balancer, seen, outlier.is_some())
    } else {
        (LocalityPolicy::None, false)
    };
    cluster.locality = locality;
    let balanced = !matches!(
        cluster.discovery,
        Discovery::OriginalDst | Discovery::Dynamic(_) | Discovery::Nobody
    );
    let pooled = connections(pool, seen.mesh);
    cluster.policy = ClusterPolicy {
        rule: policy.rule,
        retry_budget: policy.retry_budget,
        // These are for clusters that are HTTP/2 because of their port alone.
        max_concurrent_streams: explicit(cluster.upstream, port, pool.max_concurrent_streams),
        h2_keepalive: explicit(cluster.upstream, port, pool.h2_keepalive),
        balancing: if balanced {
            balancing(&balancer.balancer)
        } else {
            Balancing::default()
        },
        warmup: balancer
            .warmup
            .filter(|_| balanced && takes_warmup(&balancer)),
        locality_weighted: weighted,
        outlier: outlier.map(|outlier| at(seen.direction, outlier)),
        tls: match opening {
            Opening::Tls(tls) => Some(tls),
            Opening::Plain | Opening::Refused(_) => None,
        },
        proxy_protocol: policy.proxy_protocol,
        ..pooled
    };
}

/// Limits and times of connections, those of the mesh under those of the rule.
fn connections(pool: &ConnectionPool, mesh: &MeshRow) -> ClusterPolicy {
    let limit = |limit: Option<u32>| limit.filter(|limit| *limit > 0);
    let idle = pool.http_idle_timeout.or(pool.tcp_idle_timeout);
    ClusterPolicy {
        connect_timeout: pool.connect_timeout.unwrap_or(mesh.traffic.connect_timeout),
        keepalive: keepalive(pool.keepalive, mesh.traffic.tcp_keepalive),
        max_connections: limit(pool.max_connections),
        max_pending_requests: limit(pool.max_pending_requests),
        max_requests: limit(pool.max_requests),
        max_retries: limit(pool.max_retries),
        idle_timeout: idle,
        max_connection_duration: pool.max_connection_duration,
        max_requests_per_connection: limit(pool.max_requests_per_connection),
        ..ClusterPolicy::default()
    }
}

fn keepalive(rule: Option<TcpKeepalive>, mesh: Option<TcpKeepalive>) -> Option<TcpKeepalive> {
    let (Some(over), Some(under)) = (rule, mesh) else {
        return rule.or(mesh);
    };
    Some(TcpKeepalive {
        probes: over.probes.or(under.probes),
        time: over.time.or(under.time),
        interval: over.interval.or(under.interval),
    })
}

/// The HTTP version towards endpoints.
fn upstream(
    by_port: Upstream,
    pool: &ConnectionPool,
    mesh: &MeshRow,
    port: &PortRow,
    http: bool,
) -> Upstream {
    if !http {
        return by_port;
    }
    if pool.use_client_protocol {
        return Upstream::Downstream;
    }
    match pool.h2_upgrade {
        H2Upgrade::Upgrade => Upstream::Http2,
        H2Upgrade::Default if mesh.traffic.h2_upgrade && port.protocol.is_http() => Upstream::Http2,
        H2Upgrade::Default | H2Upgrade::Never => by_port,
    }
}

/// Whether options of HTTP/2 count: where the port itself is HTTP/2.
pub(crate) fn is_explicit_http2(upstream: Upstream, port: &PortRow) -> bool {
    upstream == Upstream::Http2 && port.protocol.is_http2()
}

fn explicit<T>(upstream: Upstream, port: &PortRow, option: Option<T>) -> Option<T> {
    option.filter(|_| is_explicit_http2(upstream, port))
}

fn balancing(balancer: &Balancer) -> Balancing {
    match balancer {
        Balancer::Unspecified | Balancer::LeastRequest | Balancer::Passthrough => {
            Balancing::LeastRequest
        }
        Balancer::RoundRobin => Balancing::RoundRobin,
        Balancer::Random => Balancing::Random,
        Balancer::Hash(ConsistentHash {
            maglev: Some(size), ..
        }) => Balancing::Maglev(*size),
        Balancer::Hash(hash) => Balancing::RingHash(hash.ring_size.unwrap_or(RING_SIZE)),
    }
}

/// Whether a way of balancing knows of a slow start.
pub(crate) fn takes_warmup(balancer: &LoadBalancer) -> bool {
    matches!(
        balancer.balancer,
        Balancer::Unspecified | Balancer::LeastRequest | Balancer::RoundRobin
    )
}

/// Statuses that count as errors are known to clusters of services elsewhere only.
fn at(direction: Direction, outlier: OutlierDetection) -> OutlierDetection {
    match direction {
        Direction::Outbound => outlier,
        Direction::InboundVip | Direction::Crossing => OutlierDetection {
            error_codes: Vec::new(),
            ..outlier
        },
    }
}
