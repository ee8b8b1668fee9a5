#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::input::{
    Balancer, ConnectionPool, ConsistentHash, DestinationRule, H2Upgrade, HashKey, Http2Keepalive,
    OutlierDetection, PortPolicy, TcpKeepalive, TlsMode, TrafficPolicy, Warmup,
};
use crate::object::{Object, Parsed};
use crate::parse::{Recognised, recognise};

fn parse(spec: Value) -> Arc<Parsed<DestinationRule>> {
    let doc = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"namespace": "shop", "name": "r"}, "spec": spec,
    });
    match recognise(&doc, "f") {
        Recognised::Object(Object::DestinationRule(row)) => row,
        other => panic!("{other:?}"),
    }
}

fn policy_of(policy: Value) -> (TrafficPolicy, Vec<String>) {
    let row = parse(json!({"host": "web", "trafficPolicy": policy}));
    let notes = row.notes.iter();
    let notes = notes.map(|note| format!("{} {}", note.code, note.field));
    let policy = row.ok().unwrap().policy.clone().unwrap();
    (policy, notes.collect())
}

/// What is left of a base policy, and what is said.
fn base_of(policy: Value) -> (PortPolicy, Vec<String>) {
    let (policy, notes) = policy_of(policy);
    (policy.base, notes)
}

#[allow(clippy::unnecessary_wraps, reason = "fields are optional")]
fn s(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn every_field_is_read() {
    let (policy, notes) = policy_of(json!({
        "connectionPool": {
            "tcp": {
                "maxConnections": 1, "connectTimeout": "2s", "maxConnectionDuration": "3s",
                "idleTimeout": "0s", "tcpKeepalive": {"probes": 4, "time": "5s", "interval": "6s"},
            },
            "http": {
                "http1MaxPendingRequests": 7, "http2MaxRequests": 8, "maxRequestsPerConnection": 9,
                "maxRetries": 10, "idleTimeout": "11s", "h2UpgradePolicy": "UPGRADE",
                "maxConcurrentStreams": 12, "http2KeepAlive": {"interval": "13s", "timeout": "14s"},
            },
        },
        "outlierDetection": {
            "splitExternalLocalOriginErrors": true, "consecutiveLocalOriginFailures": 1,
            "consecutiveGatewayErrors": 2, "consecutive5xxErrors": 0, "interval": "3s",
            "baseEjectionTime": "4s", "maxEjectionPercent": 5, "minHealthPercent": 6,
            "outlierDetectionHttpErrorCodes": [429],
        },
        "loadBalancer": {
            "consistentHash": {"httpCookie": {
                "name": "c", "path": "/", "ttl": "0s", "attributes": [{"name": "SameSite", "value": "Lax"}],
            }, "maglev": {"tableSize": 65_537}},
            "warmup": {"duration": "30s", "aggression": 2.0},
            "localityLbSetting": {"failover": [{"from": "a", "to": "b"}], "failoverPriority": ["x=y"]},
        },
        "proxyProtocol": {"version": "V2"},
        "retryBudget": {"percent": 30.0},
    }));
    assert!(notes.is_empty(), "{notes:?}");
    let pool = ConnectionPool {
        max_connections: Some(1),
        connect_timeout: s(2),
        keepalive: Some(TcpKeepalive {
            probes: Some(4),
            time: s(5),
            interval: s(6),
        }),
        max_connection_duration: s(3),
        tcp_idle_timeout: s(0),
        max_pending_requests: Some(7),
        max_requests: Some(8),
        max_requests_per_connection: Some(9),
        max_retries: Some(10),
        http_idle_timeout: s(11),
        h2_upgrade: H2Upgrade::Upgrade,
        use_client_protocol: false,
        max_concurrent_streams: Some(12),
        h2_keepalive: Some(Http2Keepalive {
            interval: s(13),
            timeout: s(14),
        }),
    };
    assert_eq!(policy.base.pool, Some(pool));
    let outlier = OutlierDetection {
        split_local_origin: true,
        consecutive_local_origin: Some(1),
        consecutive_gateway: Some(2),
        consecutive_5xx: Some(0),
        interval: s(3),
        base_ejection: s(4),
        max_ejection_percent: Some(5),
        min_health_percent: Some(6),
        error_codes: vec![429],
    };
    assert_eq!(policy.base.outlier, Some(outlier));
    let balancer = policy.base.balancer.unwrap();
    let hash = ConsistentHash {
        key: Some(HashKey::Cookie {
            name: "c".into(),
            ttl: s(0),
            path: "/".into(),
            attributes: vec![("SameSite".into(), "Lax".into())],
        }),
        maglev: Some(Some(65_537)),
        ring_size: None,
    };
    assert_eq!(balancer.balancer, Balancer::Hash(hash));
    let warmup = Warmup {
        duration: Duration::from_secs(30),
        minimum_percent: 10.0,
        aggression: 2.0,
    };
    assert_eq!(balancer.warmup, Some(warmup));
    let locality = balancer.locality.unwrap();
    assert_eq!(locality.failover, [("a".into(), "b".into())]);
    assert_eq!(locality.failover_priority, ["x=y"]);
    assert_eq!(policy.proxy_protocol, Some(2));
    let budget = policy.retry_budget.unwrap();
    assert!((budget.percent, budget.min_concurrency) == (30.0, 3));
}

#[test]
fn a_bad_value_costs_its_block_alone() {
    for (policy, note) in [
        (
            json!({"outlierDetection": {}, "connectionPool": {"tcp": {"maxConnections": -1}}}),
            "dr-invalid spec.trafficPolicy.connectionPool.tcp.maxConnections",
        ),
        (
            json!({"outlierDetection": {}, "connectionPool": {"tcp": {"connectTimeout": "soon"}}}),
            "dr-invalid spec.trafficPolicy.connectionPool.tcp.connectTimeout",
        ),
        (
            json!({"outlierDetection": {}, "connectionPool": {"http": {"useClientProtocol": true, "h2UpgradePolicy": "UPGRADE"}}}),
            "dr-invalid spec.trafficPolicy.connectionPool.http.useClientProtocol",
        ),
        (
            json!({"outlierDetection": {}, "connectionPool": {"http": {"http2KeepAlive": {"interval": "1s"}}}}),
            "dr-invalid spec.trafficPolicy.connectionPool.http.http2KeepAlive",
        ),
        (
            json!({"outlierDetection": {}, "loadBalancer": {"simple": "FASTEST"}}),
            "dr-invalid spec.trafficPolicy.loadBalancer.simple",
        ),
        (
            json!({"outlierDetection": {}, "loadBalancer": {"simple": "RANDOM", "consistentHash": {"useSourceIp": true}}}),
            "dr-invalid spec.trafficPolicy.loadBalancer.consistentHash",
        ),
        (
            json!({"outlierDetection": {}, "retryBudget": {"percent": 101.0}}),
            "dr-invalid spec.trafficPolicy.retryBudget.percent",
        ),
        (
            json!({"outlierDetection": {}, "tunnel": {"targetHost": "a b", "targetPort": 1}}),
            "dr-invalid spec.trafficPolicy.tunnel.targetHost",
        ),
        (
            json!({"outlierDetection": {}, "portLevelSettings": "x"}),
            "dr-invalid spec.trafficPolicy.portLevelSettings",
        ),
    ] {
        let (read, notes) = policy_of(policy.clone());
        assert_eq!(notes, [note], "{policy}");
        let rest = TrafficPolicy {
            base: PortPolicy {
                outlier: Some(OutlierDetection::default()),
                ..PortPolicy::default()
            },
            ..TrafficPolicy::default()
        };
        assert_eq!(read, rest, "{policy}");
    }
}

#[test]
fn inside_a_balancer_only_the_part_is_left_out() {
    for (balancer, at) in [
        (
            json!({"consistentHash": {"maglev": {"tableSize": 10}}}),
            "consistentHash.maglev.tableSize",
        ),
        (
            json!({"consistentHash": {"httpHeaderName": "a b"}}),
            "consistentHash.httpHeaderName",
        ),
        (
            json!({"consistentHash": {"httpCookie": {"ttl": "1s"}}}),
            "consistentHash.httpCookie.name",
        ),
        (
            json!({"consistentHash": {"httpCookie": {"name": "c", "attributes": [
                {"name": "a", "value": "b"}, {"name": "b", "value": "c".repeat(16_385)}]}}}),
            "consistentHash.httpCookie.attributes[1]",
        ),
        (
            json!({"consistentHash": {"useSourceIp": true, "httpHeaderName": "a"}}),
            "consistentHash",
        ),
        (
            json!({"consistentHash": {"minimumRingSize": 1, "ringHash": {}}}),
            "consistentHash.minimumRingSize",
        ),
        (json!({"warmup": {}}), "warmup.duration"),
        (
            json!({"warmup": {"duration": "1s", "minimumPercent": 101.0}}),
            "warmup.minimumPercent",
        ),
        (
            json!({"localityLbSetting": {"distribute": [{"from": "*", "to": {"a": 99}}]}}),
            "localityLbSetting.distribute[0].to",
        ),
        (
            json!({"localityLbSetting": {"distribute": [{"from": "*", "to": {"a/*": 50, "a/b": 50}}]}}),
            "localityLbSetting.distribute[0].to",
        ),
        (
            json!({"localityLbSetting": {"failover": [{"from": "a", "to": "a"}]}}),
            "localityLbSetting.failover[0]",
        ),
        (
            json!({"localityLbSetting": {}, "zoneAwareLbSetting": {"enabled": false}}),
            "localityLbSetting",
        ),
    ] {
        let (base, notes) = base_of(json!({ "loadBalancer": balancer.clone() }));
        let note = format!("dr-invalid spec.trafficPolicy.loadBalancer.{at}");
        assert_eq!(notes, [note], "{balancer}");
        assert_eq!(base.balancer, Some(crate::input::LoadBalancer::default()));
    }
}

#[test]
fn tls_that_cannot_be_applied_refuses() {
    let at = "dr-tls-invalid spec.trafficPolicy.tls";
    for (tls, field) in [
        (json!("SIMPLE"), ""),
        (json!({"mode": "simple"}), ".mode"),
        (json!({"mode": 1}), ".mode"),
        (
            json!({"mode": "SIMPLE", "subjectAltName": ["a"]}),
            ".subjectAltName",
        ),
        (
            json!({"mode": "SIMPLE", "subjectAltNames": [""]}),
            ".subjectAltNames[0]",
        ),
        (
            json!({"mode": "SIMPLE", "subjectAltNames": "a"}),
            ".subjectAltNames",
        ),
        (json!({"mode": "SIMPLE", "sni": "a\nb"}), ".sni"),
        (json!({"mode": "SIMPLE", "caCrl": "/crl"}), ".caCrl"),
        (
            json!({"mode": "SIMPLE", "credentialName": "c", "caCertificates": "/ca"}),
            ".caCertificates",
        ),
        (
            json!({"mode": "MUTUAL", "credentialName": "a/b"}),
            ".credentialName",
        ),
        (
            json!({"mode": "SIMPLE", "credentialName": "configmap://other/ca"}),
            ".credentialName",
        ),
        (
            json!({"mode": "SIMPLE", "insecureSkipVerify": true, "caCertificates": "/ca"}),
            ".caCertificates",
        ),
    ] {
        let (base, notes) = base_of(json!({ "tls": tls.clone() }));
        assert_eq!(notes, [format!("{at}{field}")], "{tls}");
        assert_eq!(base.tls.unwrap().mode, TlsMode::Refuse, "{tls}");
    }
    // For which port it was meant cannot be told: it could be any.
    let (policy, notes) = policy_of(json!({"portLevelSettings": [
        {"port": {"number": 0}, "tls": {"mode": "SIMPLE"}}, {"port": {"number": 80}},
    ]}));
    let note = "dr-invalid spec.trafficPolicy.portLevelSettings[0].port.number";
    assert_eq!(notes, [note]);
    assert_eq!(policy.base.tls.unwrap().mode, TlsMode::Refuse);
    assert_eq!(policy.ports[&80], PortPolicy::default());
}

#[test]
fn subsets_are_told_apart_and_hosts_checked() {
    let row = parse(json!({"host": "web", "exportTo": ["a", "B"], "subsets": [
        {"name": "v1", "labels": {"version": "v1"}}, {"name": "V2"}, {"name": "v1"},
        {"name": "v3", "labels": "x"}, {"name": "v4", "trafficPolicy": {"tls": {"mode": "X"}}},
    ]}));
    let notes: Vec<_> = row.notes.iter().map(|note| note.field.as_str()).collect();
    assert_eq!(
        notes,
        [
            "spec.subsets[1].name",
            "spec.subsets[2].name",
            "spec.subsets[3].labels",
            "spec.subsets[4].trafficPolicy.tls.mode",
            "spec.exportTo[1]"
        ]
    );
    let rule = row.ok().unwrap();
    let names: Vec<_> = rule.subsets.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(
        (names, rule.export_to.as_slice()),
        (vec!["v1", "v4"], ["a".into()].as_slice())
    );
    // An unreadable list must not mean everybody.
    for bad in [json!("*"), json!(["A"]), json!([1])] {
        let row = parse(json!({"host": "web", "exportTo": bad}));
        assert_eq!(row.ok().unwrap().export_to, ["."]);
    }
    for host in ["", "a|b", "a*", "a b", "ä"] {
        let row = parse(json!({ "host": host }));
        assert_eq!(row.body.as_ref().unwrap_err().field, "spec.host", "{host}");
    }
    assert!(parse(json!({"host": "*"})).ok().is_some());
}

#[test]
fn zero_is_no_limit_and_says_so() {
    let (base, notes) = base_of(json!({"connectionPool": {
        "tcp": {"maxConnections": 0}, "http": {"maxRetries": 0, "maxConcurrentStreams": 0},
    }}));
    assert_eq!(base.pool, Some(ConnectionPool::default()));
    assert_eq!(
        notes,
        [
            "dr-max-zero spec.trafficPolicy.connectionPool.tcp.maxConnections",
            "dr-max-zero spec.trafficPolicy.connectionPool.http.maxRetries"
        ]
    );
}

#[test]
fn what_cannot_be_read_and_asks_for_tls_refuses() {
    let simple = json!({"tls": {"mode": "SIMPLE"}});
    let policy = |tls: Value| json!({ "trafficPolicy": {"tls": tls} });
    let port = json!({"port": {"number": 80}, "tls": {"mode": "MUTUAL"}});
    for (spec, refuses) in [
        (json!({ "trafficPolicy": simple }), true),
        (
            json!({"trafficPolicy": {"portLevelSettings": [port]}}),
            true,
        ),
        (
            json!({"subsets": [{"name": "v1", "trafficPolicy": simple}]}),
            true,
        ),
        (policy(json!("SIMPLE")), true),
        (policy(json!({"mode": 1})), true),
        (policy(json!({"mode": "ISTIO_MUTUAL"})), false),
        (policy(json!({})), false),
        (json!({}), false),
    ] {
        for bad in [
            json!("app"),
            json!({"matchLabels": {"app": 1}}),
            json!({"matchLabels": ["a"]}),
        ] {
            let mut spec = spec.clone();
            spec["host"] = json!("web");
            spec["exportTo"] = json!(["."]);
            spec["workloadSelector"] = bad;
            let row = parse(spec.clone());
            let rule = row.ok();
            assert_eq!(rule.is_some(), refuses, "{spec}");
            let codes: Vec<_> = row.notes.iter().map(|note| note.code).collect();
            let expected = if refuses {
                "dr-tls-invalid"
            } else {
                "invalid-object"
            };
            assert_eq!(codes, [expected], "{spec}");
            if let Some(rule) = rule {
                let tls = rule.policy.as_ref().unwrap().base.tls.as_ref().unwrap();
                assert_eq!((tls.mode, rule.host.as_str()), (TlsMode::Refuse, "web"));
                assert_eq!(rule.export_to, ["."]);
            }
        }
    }
    // More than limits allow.
    let long = "x".repeat(70_000);
    let spec = json!({"host": "web", "trafficPolicy": {"tls": {"mode": "SIMPLE", "sni": long}}});
    assert!(parse(spec).ok().is_some());
    // Whose connections are meant cannot be told.
    let spec = json!({"host": "a|b", "trafficPolicy": simple});
    assert!(parse(spec).ok().is_none());
}
