//! DestinationRules.

use super::*;

#[test]
fn destination_rules() {
    let policy = |policy: Value| json!({"trafficPolicy": policy});
    let tls = |tls: Value| json!({"trafficPolicy": {"tls": tls}});
    let lb = |lb: Value| json!({"trafficPolicy": {"loadBalancer": lb}});
    let outlier = |outlier: Value| json!({"trafficPolicy": {"outlierDetection": outlier}});
    let hash = |hash: Value| json!({"trafficPolicy": {"loadBalancer": {"consistentHash": hash}}});
    let locality = |locality: Value| json!({"trafficPolicy": {"loadBalancer": {"localityLbSetting": locality}, "outlierDetection": {}}});
    let rows: Vec<Row> = vec![
        ("a host", json!({}), Fine),
        ("no host", json!({"host": ""}), Reject("spec.host")),
        ("host * is a domain", json!({"host": "*"}), Fine),
        (
            "an invalid host",
            json!({"host": "a b"}),
            Reject("spec.host"),
        ),
        (
            "empty trafficPolicy",
            policy(json!({})),
            Reject("spec.trafficPolicy"),
        ),
        (
            "tunnel with proxyProtocol",
            policy(json!({"tunnel": {"targetHost": "a", "targetPort": 80}, "proxyProtocol": {}})),
            Reject("spec.trafficPolicy.proxyProtocol"),
        ),
        (
            "tunnel protocol",
            policy(json!({"tunnel": {"protocol": "GET", "targetHost": "a", "targetPort": 80}})),
            Reject("spec.trafficPolicy.tunnel.protocol"),
        ),
        (
            "tunnel port",
            policy(json!({"tunnel": {"targetHost": "a"}})),
            Reject("spec.trafficPolicy.tunnel.targetPort"),
        ),
        (
            "connectionPool empty",
            policy(json!({"connectionPool": {}})),
            Reject("spec.trafficPolicy.connectionPool"),
        ),
        (
            "maxConnections < 0",
            policy(json!({"connectionPool": {"tcp": {"maxConnections": -1}}})),
            Reject("spec.trafficPolicy.connectionPool.tcp.maxConnections"),
        ),
        (
            "useClientProtocol with UPGRADE",
            policy(
                json!({"connectionPool": {"http": {"useClientProtocol": true, "h2UpgradePolicy": "UPGRADE"}}}),
            ),
            Reject("spec.trafficPolicy.connectionPool.http.useClientProtocol"),
        ),
        (
            "http2KeepAlive without timeout",
            policy(json!({"connectionPool": {"http": {"http2KeepAlive": {"interval": "1s"}}}})),
            Reject("spec.trafficPolicy.connectionPool.http.http2KeepAlive"),
        ),
        (
            "cookie without name",
            hash(json!({"httpCookie": {"ttl": "1s"}})),
            Reject("spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.name"),
        ),
        (
            "minimumRingSize with maglev",
            hash(json!({"useSourceIp": true, "minimumRingSize": 1, "maglev": {}})),
            Reject("spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize"),
        ),
        (
            "minimumRingSize",
            hash(json!({"useSourceIp": true, "minimumRingSize": 1})),
            Warn("deprecated"),
        ),
        (
            "maglev size that is no prime",
            hash(json!({"useSourceIp": true, "maglev": {"tableSize": 4}})),
            Reject("spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize"),
        ),
        (
            "locality and zone-aware",
            lb(json!({"localityLbSetting": {}, "zoneAwareLbSetting": {}})),
            Reject("spec.trafficPolicy.loadBalancer.localityLbSetting"),
        ),
        (
            "distribute not of 100",
            locality(json!({"distribute": [{"from": "a", "to": {"b": 99}}]})),
            Reject("spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to"),
        ),
        (
            "distribute with failover",
            locality(
                json!({"distribute": [{"from": "a", "to": {"b": 100}}], "failover": [{"from": "a", "to": "b"}]}),
            ),
            Reject("spec.trafficPolicy.loadBalancer.localityLbSetting"),
        ),
        (
            "failover to itself",
            locality(json!({"failover": [{"from": "a", "to": "a"}]})),
            Reject("spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0]"),
        ),
        (
            "failover",
            locality(json!({"failover": [{"from": "a", "to": "b"}]})),
            Fine,
        ),
        (
            "failover without outlierDetection",
            lb(json!({"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}})),
            Warn("outlierDetection"),
        ),
        (
            "warmup without duration",
            lb(json!({"warmup": {"aggression": 1}})),
            Reject("spec.trafficPolicy.loadBalancer.warmup.duration"),
        ),
        (
            "MUTUAL without certificate",
            tls(json!({"mode": "MUTUAL"})),
            Reject("spec.trafficPolicy.tls.clientCertificate"),
        ),
        (
            "credentialName with files",
            tls(json!({"mode": "MUTUAL", "credentialName": "a", "privateKey": "/b"})),
            Reject("spec.trafficPolicy.tls.privateKey"),
        ),
        (
            "insecureSkipVerify with names",
            tls(json!({"mode": "SIMPLE", "insecureSkipVerify": true, "subjectAltNames": ["a"]})),
            Reject("spec.trafficPolicy.tls.subjectAltNames"),
        ),
        (
            "configmap of another namespace",
            tls(json!({"mode": "SIMPLE", "credentialName": "configmap://other/a"})),
            Reject("spec.trafficPolicy.tls.credentialName"),
        ),
        (
            "SIMPLE without CA",
            tls(json!({"mode": "SIMPLE"})),
            Warn("IST0128"),
        ),
        (
            "SIMPLE with CA",
            tls(json!({"mode": "SIMPLE", "caCertificates": "/a"})),
            Fine,
        ),
        (
            "portLevel without port",
            policy(json!({"portLevelSettings": [{"loadBalancer": {}}]})),
            Reject("spec.trafficPolicy.portLevelSettings[0].port.number"),
        ),
        (
            "portLevel empty",
            policy(json!({"portLevelSettings": [{"port": {"number": 1}}]})),
            Reject("spec.trafficPolicy.portLevelSettings[0]"),
        ),
        (
            "duplicate subsets",
            json!({"subsets": [{"name": "a"}, {"name": "a"}]}),
            Reject("spec.subsets[1].name"),
        ),
        (
            "a subset that is no label",
            json!({"subsets": [{"name": "a.b"}]}),
            Reject("spec.subsets[0].name"),
        ),
        (
            "selector that exports",
            json!({"workloadSelector": {"matchLabels": {"a": "b"}}, "exportTo": ["*"]}),
            Reject("spec.exportTo"),
        ),
        (
            "outlier < 0",
            outlier(json!({"consecutive5xxErrors": -1})),
            Reject("spec.trafficPolicy.outlierDetection.consecutive5xxErrors"),
        ),
        (
            "outlier percentage",
            outlier(json!({"maxEjectionPercent": 101})),
            Reject("spec.trafficPolicy.outlierDetection.maxEjectionPercent"),
        ),
        (
            "local failures without split",
            outlier(json!({"consecutiveLocalOriginFailures": 1})),
            Reject("spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures"),
        ),
        (
            "error codes",
            outlier(json!({"outlierDetectionHttpErrorCodes": [99]})),
            Reject("spec.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[0]"),
        ),
        (
            "consecutiveErrors",
            outlier(json!({"consecutiveErrors": 1})),
            Warn("field-not-applied"),
        ),
    ];
    check_rows(
        NETWORKING,
        "DestinationRule",
        &json!({"host": "a.example.com"}),
        &rows,
    );
}
