//! What a cluster becomes by its rules.

use super::*;

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
