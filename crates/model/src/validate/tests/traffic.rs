//! §9.1 (exportTo, durations), §9.4.

use super::*;

const NETWORKING: &str = "networking.istio.io";

#[test]
fn virtual_services_in_structure() {
    let export = |list: Value| json!({"exportTo": list});
    let route = json!([{"route": [{"destination": {"host": "a"}}]}]);
    let one = |uri: &str| json!({"match": [{"uri": {"prefix": uri}}], "route": [{"destination": {"host": "a"}}]});
    let rows: Vec<Row> = vec![
        ("a route", json!({}), Fine),
        (
            "no hosts with gateways",
            json!({"hosts": "-", "gateways": ["mesh"]}),
            Reject("spec.hosts"),
        ),
        (
            "an invalid host",
            json!({"hosts": ["a_b"]}),
            Reject("spec.hosts[0]"),
        ),
        (
            "host * of the mesh",
            json!({"hosts": ["*"]}),
            Reject("spec.hosts[0]"),
        ),
        (
            "duplicate hosts",
            json!({"hosts": ["a", "a"]}),
            Reject("spec.hosts[1]"),
        ),
        (
            "overlapping hosts",
            json!({"hosts": ["a.b", "*.b"]}),
            Reject("spec.hosts[1]"),
        ),
        (
            "none of http, tcp and tls",
            json!({"http": "-"}),
            Reject("spec"),
        ),
        (
            "an invalid gateway name",
            json!({"gateways": ["a/b/c"]}),
            Reject("spec.gateways[0]"),
        ),
        (
            "a gateway without namespace",
            json!({"gateways": ["/b"]}),
            Reject("spec.gateways[0]"),
        ),
        (
            "a gateway of a namespace",
            json!({"gateways": ["own/b"]}),
            Fine,
        ),
        (
            "a gateway like a host",
            json!({"gateways": ["b.own"]}),
            Warn("deprecated"),
        ),
        (
            "an unreachable rule",
            json!({"http": [route[0], one("/a")]}),
            Warn("never reached"),
        ),
        (
            "the same match again",
            json!({"http": [one("/a"), one("/a")]}),
            Warn("never used"),
        ),
        ("two matches", json!({"http": [one("/a"), one("/b")]}), Fine),
        (
            "exportTo twice",
            export(json!(["b", "b"])),
            Reject("spec.exportTo[1]"),
        ),
        (
            "exportTo . and its own",
            export(json!([".", "own"])),
            Reject("spec.exportTo[1]"),
        ),
        (
            "exportTo * with others",
            export(json!(["*", "b"])),
            Reject("spec.exportTo[0]"),
        ),
        (
            "exportTo what is no namespace",
            export(json!(["b_c"])),
            Reject("spec.exportTo[0]"),
        ),
        (
            "exportTo ~",
            export(json!(["~"])),
            Reject("spec.exportTo[0]"),
        ),
        ("exportTo two", export(json!([".", "b"])), Fine),
    ];
    let good = json!({"hosts": ["a.example.com"], "http": route});
    check_rows(NETWORKING, "VirtualService", &good, &rows);
}

#[test]
fn virtual_services_of_http() {
    let to = json!([{"destination": {"host": "a"}}]);
    let rule = |edit: Value| {
        let mut rule = json!({"route": to});
        merge(&mut rule, &edit);
        json!({"http": [rule]})
    };
    let bare = |edit: Value| json!({"http": [edit]});
    let answer = json!({"status": 200});
    let long = "x".repeat(1025);
    let rows: Vec<Row> = vec![
        (
            "route + redirect",
            rule(json!({"redirect": {"uri": "/"}})),
            Reject("spec.http[0].redirect"),
        ),
        (
            "route + directResponse",
            rule(json!({"directResponse": answer})),
            Reject("spec.http[0].directResponse"),
        ),
        (
            "redirect + fault",
            bare(json!({"redirect": {"uri": "/"}, "fault": {"abort": {"httpStatus": 500}}})),
            Reject("spec.http[0].fault"),
        ),
        (
            "redirect + rewrite",
            bare(json!({"redirect": {"uri": "/"}, "rewrite": {"uri": "/"}})),
            Reject("spec.http[0].rewrite"),
        ),
        (
            "directResponse + rewrite",
            bare(json!({"directResponse": answer, "rewrite": {"uri": "/"}})),
            Reject("spec.http[0].rewrite"),
        ),
        (
            "mirror + mirrors",
            rule(json!({"mirror": {"host": "b"}, "mirrors": [{"destination": {"host": "b"}}]})),
            Reject("spec.http[0].mirrors"),
        ),
        (
            "nothing to do",
            bare(json!({"name": "x"})),
            Reject("spec.http[0]"),
        ),
        (
            "delegate + route",
            rule(json!({"delegate": {"name": "x"}})),
            Reject("spec.http[0].route"),
        ),
        (
            "null match",
            rule(json!({"match": [null]})),
            Reject("spec.http[0].match[0]"),
        ),
        (
            "empty prefix",
            rule(json!({"match": [{"uri": {"prefix": ""}}]})),
            Reject("spec.http[0].match[0].uri.prefix"),
        ),
        (
            "long regex",
            rule(json!({"match": [{"uri": {"regex": long}}]})),
            Reject("spec.http[0].match[0].uri.regex"),
        ),
        (
            "empty regex",
            rule(json!({"match": [{"headers": {"a": {"regex": ""}}}]})),
            Reject("spec.http[0].match[0].headers.a.regex"),
        ),
        (
            "bad sourceNamespace",
            rule(json!({"match": [{"sourceNamespace": "a/b"}]})),
            Reject("spec.http[0].match[0].sourceNamespace"),
        ),
        (
            "set of a pseudo header",
            rule(json!({"headers": {"request": {"set": {":path": "x"}}}})),
            Reject("spec.http[0].headers.request.set.:path"),
        ),
        (
            "remove of host",
            rule(json!({"headers": {"request": {"remove": ["host"]}}})),
            Reject("spec.http[0].headers.request.remove[0]"),
        ),
        (
            "authority in one place",
            rule(json!({"headers": {"request": {"set": {"Host": "x"}}}})),
            Fine,
        ),
        (
            "authority in several places",
            rule(
                json!({"headers": {"request": {"set": {"Host": "x"}}}, "rewrite": {"authority": "y"}}),
            ),
            Reject("spec.http[0].headers"),
        ),
        (
            "a bad operator",
            rule(json!({"headers": {"request": {"set": {"a": "%NOT%"}}}})),
            Reject("spec.http[0].headers.request.set.a"),
        ),
        (
            "weight < 0",
            rule(json!({"route": [{"destination": {"host": "a"}, "weight": -1}]})),
            Reject("spec.http[0].route[0].weight"),
        ),
        (
            "total weight 0",
            rule(
                json!({"route": [{"destination": {"host": "a"}}, {"destination": {"host": "b"}}]}),
            ),
            Reject("spec.http[0].route"),
        ),
        (
            "destination host",
            rule(json!({"route": [{"destination": {"host": "*"}}]})),
            Reject("spec.http[0].route[0].destination.host"),
        ),
        (
            "destination port 0",
            rule(json!({"route": [{"destination": {"host": "a", "port": {"number": 0}}}]})),
            Reject("spec.http[0].route[0].destination.port.number"),
        ),
        (
            "CORS method",
            rule(json!({"corsPolicy": {"allowMethods": ["FETCH"]}})),
            Reject("spec.http[0].corsPolicy.allowMethods"),
        ),
        (
            "CORS maxAge finer than seconds",
            rule(json!({"corsPolicy": {"maxAge": "1500ms"}})),
            Reject("spec.http[0].corsPolicy.maxAge"),
        ),
        (
            "fault that says nothing",
            rule(json!({"fault": {}})),
            Reject("spec.http[0].fault"),
        ),
        (
            "fault status 199",
            rule(json!({"fault": {"abort": {"httpStatus": 199, "percentage": {"value": 1}}}})),
            Reject("spec.http[0].fault.abort.httpStatus"),
        ),
        (
            "fault gRPC status",
            rule(json!({"fault": {"abort": {"grpcStatus": "BAD", "percentage": {"value": 1}}}})),
            Reject("spec.http[0].fault.abort.grpcStatus"),
        ),
        (
            "fault http2Error",
            rule(json!({"fault": {"abort": {"http2Error": "x"}}})),
            Reject("spec.http[0].fault.abort.http2Error"),
        ),
        (
            "fault exponentialDelay",
            rule(json!({"fault": {"delay": {"exponentialDelay": "1s"}}})),
            Reject("spec.http[0].fault.delay.exponentialDelay"),
        ),
        (
            "fault percentage 0.00001",
            rule(
                json!({"fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": 0.00001}}}}),
            ),
            Reject("spec.http[0].fault.delay.percentage.value"),
        ),
        (
            "fault abort without error type",
            rule(json!({"fault": {"abort": {"percentage": {"value": 1}}}})),
            Warn("neither httpStatus nor grpcStatus"),
        ),
        (
            "attempts < 0",
            rule(json!({"retries": {"attempts": -1}})),
            Reject("spec.http[0].retries.attempts"),
        ),
        (
            "attempts 0 with retryOn",
            rule(json!({"retries": {"attempts": 0, "retryOn": "5xx"}})),
            Reject("spec.http[0].retries.attempts"),
        ),
        (
            "attempts 0 with backoff",
            rule(json!({"retries": {"attempts": 0, "backoff": "1s"}})),
            Warn("vs-retries-zero"),
        ),
        (
            "retryOn with a space",
            rule(json!({"retries": {"attempts": 1, "retryOn": "5xx, reset"}})),
            Reject("spec.http[0].retries.retryOn"),
        ),
        (
            "retryOn",
            rule(json!({"retries": {"attempts": 1, "retryOn": "5xx,reset,503"}})),
            Fine,
        ),
        (
            "perTryTimeout finer than ms",
            rule(json!({"retries": {"attempts": 1, "perTryTimeout": "100us"}})),
            Reject("spec.http[0].retries.perTryTimeout"),
        ),
        (
            "redirect code",
            bare(json!({"redirect": {"uri": "/", "redirectCode": 200}})),
            Reject("spec.http[0].redirect.redirectCode"),
        ),
        (
            "redirect scheme",
            bare(json!({"redirect": {"scheme": "ftp"}})),
            Reject("spec.http[0].redirect.scheme"),
        ),
        (
            "redirect uri and prefixRewrite",
            bare(json!({"redirect": {"uri": "/", "prefixRewrite": "/"}})),
            Reject("spec.http[0].redirect.prefixRewrite"),
        ),
        (
            "redirect prefixRewrite without prefix",
            bare(json!({"redirect": {"prefixRewrite": "/"}})),
            Reject("spec.http[0].redirect.prefixRewrite"),
        ),
        (
            "redirect nothing",
            bare(json!({"redirect": {}})),
            Reject("spec.http[0].redirect"),
        ),
        (
            "rewrite uri + uriRegexRewrite",
            rule(
                json!({"rewrite": {"uri": "/", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}}),
            ),
            Reject("spec.http[0].rewrite.uriRegexRewrite"),
        ),
        (
            "rewrite nothing",
            rule(json!({"rewrite": {}})),
            Reject("spec.http[0].rewrite"),
        ),
        (
            "rewrite half an expression",
            rule(json!({"rewrite": {"uriRegexRewrite": {"match": "a"}}})),
            Reject("spec.http[0].rewrite.uriRegexRewrite"),
        ),
        (
            "body above 1 MiB",
            bare(
                json!({"directResponse": {"status": 200, "body": {"string": "x".repeat(1_048_577)}}}),
            ),
            Reject("spec.http[0].directResponse.body"),
        ),
        (
            "body above 100 KB",
            bare(
                json!({"directResponse": {"status": 200, "body": {"string": "x".repeat(102_401)}}}),
            ),
            Warn("100 KB"),
        ),
        (
            "mirror percentage",
            rule(json!({"mirror": {"host": "b"}, "mirrorPercentage": {"value": 101}})),
            Reject("spec.http[0].mirrorPercentage.value"),
        ),
        (
            "mirrors without destination",
            rule(json!({"mirrors": [{}]})),
            Reject("spec.http[0].mirrors[0].destination"),
        ),
        (
            "mirrorPercent",
            rule(json!({"mirror": {"host": "b"}, "mirrorPercent": 1})),
            Warn("deprecated"),
        ),
        (
            "timeout 0, which is none",
            rule(json!({"timeout": "0s"})),
            Fine,
        ),
        (
            "timeout finer than ms",
            rule(json!({"timeout": "1.5ms"})),
            Reject("spec.http[0].timeout"),
        ),
        (
            "a misspelt field",
            rule(json!({"timeuot": "1s"})),
            Warn("unknown-field"),
        ),
    ];
    let good = json!({"hosts": ["a.example.com"], "http": [{"route": to}]});
    check_rows(NETWORKING, "VirtualService", &good, &rows);
}

#[test]
fn regular_expressions_are_handed_on_to_who_knows_proxies() {
    let spec = json!({"hosts": ["a"], "http": [{
        "match": [{"uri": {"regex": "a("}, "headers": {"b": {"regex": "c"}}}],
        "corsPolicy": {"allowOrigins": [{"regex": "d"}]},
        "rewrite": {"uriRegexRewrite": {"match": "e", "rewrite": "f"}},
        "route": [{"destination": {"host": "a"}}],
    }]});
    let verdict = validate(&object(NETWORKING, "VirtualService", &spec));
    let mut found: Vec<&str> = verdict
        .expressions
        .iter()
        .map(|one| one.message.as_str())
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["a(", "c", "d", "e"]);
}

#[test]
fn virtual_services_of_tls_and_tcp() {
    let tls = |edit: Value| {
        let mut rule = json!({"match": [{"sniHosts": ["a.example.com"]}], "route": [{"destination": {"host": "a"}}]});
        merge(&mut rule, &edit);
        json!({"http": "-", "tls": [rule]})
    };
    let rows: Vec<Row> = vec![
        ("tls", tls(json!({})), Fine),
        (
            "tls without match",
            tls(json!({"match": "-"})),
            Reject("spec.tls[0].match"),
        ),
        (
            "tls without route",
            tls(json!({"route": []})),
            Reject("spec.tls[0].route"),
        ),
        (
            "no sniHosts",
            tls(json!({"match": [{"port": 443}]})),
            Reject("spec.tls[0].match[0].sniHosts"),
        ),
        (
            "sniHosts of others",
            tls(json!({"match": [{"sniHosts": ["b.example.com"]}]})),
            Reject("spec.tls[0].match[0].sniHosts[0]"),
        ),
        (
            "a bad port",
            tls(json!({"match": [{"sniHosts": ["a.example.com"], "port": 70000}]})),
            Reject("spec.tls[0].match[0].port"),
        ),
        (
            "a bad subnet",
            tls(json!({"match": [{"sniHosts": ["a.example.com"], "destinationSubnets": ["x"]}]})),
            Reject("spec.tls[0].match[0].destinationSubnets[0]"),
        ),
        (
            "SNI is an IP",
            json!({"hosts": ["10.0.0.1"], "http": "-", "tls": [{"match": [{"sniHosts": ["10.0.0.1"]}], "route": [{"destination": {"host": "a"}}]}]}),
            Warn("no server name"),
        ),
        (
            "tcp without route",
            json!({"http": "-", "tcp": [{}]}),
            Reject("spec.tcp[0].route"),
        ),
    ];
    let good =
        json!({"hosts": ["a.example.com"], "http": [{"route": [{"destination": {"host": "a"}}]}]});
    check_rows(NETWORKING, "VirtualService", &good, &rows);
}

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

#[test]
fn service_entries() {
    let port = |edit: Value| {
        let mut port = json!({"number": 80, "name": "http", "protocol": "HTTP"});
        merge(&mut port, &edit);
        json!({"ports": [port]})
    };
    let endpoints =
        |resolution: &str, list: Value| json!({"resolution": resolution, "endpoints": list});
    let dynamic = |edit: Value| {
        let mut spec = json!({"resolution": "DYNAMIC_DNS", "hosts": ["*.example.com"]});
        merge(&mut spec, &edit);
        spec
    };
    let tcp = json!([{"number": 1, "name": "a", "protocol": "TCP"}]);
    let rows: Vec<Row> = vec![
        ("a name", json!({}), Fine),
        ("no host", json!({"hosts": []}), Reject("spec.hosts")),
        ("host *", json!({"hosts": ["*"]}), Reject("spec.hosts[0]")),
        (
            "more than 256 hosts",
            json!({"hosts": (0..257).map(|i| format!("h{i}.example.com")).collect::<Vec<_>>()}),
            Reject("spec.hosts"),
        ),
        (
            "selector with endpoints",
            json!({"resolution": "STATIC", "workloadSelector": {"labels": {"a": "b"}}, "endpoints": [{"address": "10.0.0.1"}]}),
            Reject("spec.workloadSelector"),
        ),
        (
            "a range with DNS",
            json!({"addresses": ["10.0.0.0/24"]}),
            Reject("spec.addresses[0]"),
        ),
        (
            "a range with STATIC",
            json!({"addresses": ["10.0.0.0/24"], "resolution": "STATIC"}),
            Fine,
        ),
        (
            "a bad address",
            json!({"addresses": ["10.0.0"]}),
            Reject("spec.addresses[0]"),
        ),
        (
            "a null port",
            json!({"ports": [null]}),
            Reject("spec.ports[0]"),
        ),
        (
            "duplicate number",
            json!({"ports": [{"number": 1, "name": "a", "protocol": "HTTP"}, {"number": 1, "name": "b", "protocol": "HTTP"}]}),
            Reject("spec.ports[1].number"),
        ),
        (
            "duplicate name",
            json!({"ports": [{"number": 1, "name": "a", "protocol": "HTTP"}, {"number": 2, "name": "a", "protocol": "HTTP"}]}),
            Reject("spec.ports[1].name"),
        ),
        (
            "bad port name",
            port(json!({"name": "a_b"})),
            Reject("spec.ports[0].name"),
        ),
        (
            "bad port number",
            port(json!({"number": 0})),
            Reject("spec.ports[0].number"),
        ),
        (
            "bad protocol",
            port(json!({"protocol": "HTTP3"})),
            Reject("spec.ports[0].protocol"),
        ),
        (
            "NONE with endpoints",
            endpoints("NONE", json!([{"address": "10.0.0.1"}])),
            Reject("spec.endpoints"),
        ),
        (
            "STATIC endpoint that is a name",
            endpoints("STATIC", json!([{"address": "a.b"}])),
            Reject("spec.endpoints[0].address"),
        ),
        (
            "endpoint port not defined",
            endpoints(
                "STATIC",
                json!([{"address": "10.0.0.1", "ports": {"other": 1}}]),
            ),
            Reject("spec.endpoints[0].ports.other"),
        ),
        (
            "unix endpoint of two ports",
            json!({"resolution": "STATIC", "ports": [{"number": 1, "name": "a", "protocol": "HTTP"}, {"number": 2, "name": "b", "protocol": "HTTP"}], "endpoints": [{"address": "unix:///a"}]}),
            Reject("spec.endpoints[0].address"),
        ),
        (
            "DNS of a wildcard without endpoints",
            json!({"hosts": ["*.example.com"]}),
            Reject("spec.hosts[0]"),
        ),
        (
            "DNS_ROUND_ROBIN of two endpoints",
            endpoints(
                "DNS_ROUND_ROBIN",
                json!([{"address": "a.b"}, {"address": "c.d"}]),
            ),
            Reject("spec.endpoints"),
        ),
        ("DYNAMIC_DNS", dynamic(json!({})), Fine),
        (
            "DYNAMIC_DNS of a name",
            dynamic(json!({"hosts": ["a.b"]})),
            Reject("spec.hosts[0]"),
        ),
        (
            "DYNAMIC_DNS with addresses",
            dynamic(json!({"addresses": ["10.0.0.1"]})),
            Reject("spec.addresses"),
        ),
        (
            "DYNAMIC_DNS with endpoints",
            dynamic(json!({"endpoints": [{"address": "a.b"}]})),
            Reject("spec.endpoints"),
        ),
        (
            "DYNAMIC_DNS over TCP",
            dynamic(json!({"ports": tcp})),
            Reject("spec.ports[0].protocol"),
        ),
        (
            "DYNAMIC_DNS inside with a waypoint",
            json!({"metadata": {"labels": {"istio.io/use-waypoint": "w"}}, "spec": dynamic(json!({"location": "MESH_INTERNAL"}))}),
            Reject("spec.location"),
        ),
        (
            "several hosts over TCP",
            json!({"hosts": ["a.b", "c.d"], "ports": tcp}),
            Reject("spec.hosts"),
        ),
        (
            "several hosts over TCP without resolution",
            json!({"hosts": ["a.b", "c.d"], "ports": tcp, "resolution": "NONE", "addresses": ["10.0.0.1"]}),
            Fine,
        ),
        (
            "exportTo nobody",
            json!({"exportTo": ["~"]}),
            Warn("se-exportto-ambient"),
        ),
        (
            "exportTo nobody and somebody",
            json!({"exportTo": ["~", "a"]}),
            Reject("spec.exportTo[0]"),
        ),
        (
            "empty selector",
            json!({"resolution": "STATIC", "workloadSelector": {}}),
            Warn("whole namespace"),
        ),
        (
            "partial wildcard",
            json!({"hosts": ["*foo.com"], "resolution": "STATIC"}),
            Warn("part of a label"),
        ),
        (
            "TCP without addresses where none is given",
            json!({"ports": tcp, "resolution": "NONE"}),
            Warn("IST0134"),
        ),
        (
            "NONE with selector",
            json!({"resolution": "NONE", "workloadSelector": {"labels": {"a": "b"}}}),
            Warn("no effect"),
        ),
        (
            "DNS of several hosts with endpoints over TLS",
            json!({"hosts": ["a.b", "c.d"], "ports": [{"number": 1, "name": "a", "protocol": "TLS"}], "endpoints": [{"address": "e.f"}]}),
            Warn("whichever host"),
        ),
    ];
    let good = json!({
        "hosts": ["a.example.com"], "resolution": "DNS",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
    });
    check_rows(NETWORKING, "ServiceEntry", &good, &rows);
}

#[test]
fn workload_entries_and_groups() {
    let rows: Vec<Row> = vec![
        ("an address", json!({}), Fine),
        (
            "no address and no network",
            json!({"address": "-"}),
            Reject("spec.address"),
        ),
        (
            "a network alone",
            json!({"address": "-", "network": "n"}),
            Warn("gateways of its network"),
        ),
        (
            "unix with ports",
            json!({"address": "unix:///a", "ports": {"a": 1}}),
            Reject("spec.ports"),
        ),
        (
            "unix relative",
            json!({"address": "unix://a"}),
            Reject("spec.address"),
        ),
        (
            "unix directory",
            json!({"address": "unix:///a/"}),
            Reject("spec.address"),
        ),
        (
            "bad label",
            json!({"labels": {"a": "b c"}}),
            Reject("spec.labels.a"),
        ),
        ("port 0", json!({"ports": {"a": 0}}), Reject("spec.ports.a")),
        (
            "a bad name",
            json!({"address": "a..b"}),
            Reject("spec.address"),
        ),
        (
            "port name > 62",
            json!({"ports": {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": 1}}),
            Reject("spec.ports.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ),
    ];
    check_rows(
        NETWORKING,
        "WorkloadEntry",
        &json!({"address": "10.0.0.1"}),
        &rows,
    );
    let probe = |probe: Value| json!({"probe": probe});
    let rows: Vec<Row> = vec![
        ("a template", json!({}), Warn("kind-not-supported")),
        (
            "no template",
            json!({"template": "-"}),
            Reject("spec.template"),
        ),
        (
            "a template with a bad port",
            json!({"template": {"ports": {"a": 0}}}),
            Reject("spec.template.ports.a"),
        ),
        (
            "probe negatives",
            probe(json!({"periodSeconds": -1, "tcpSocket": {"port": 1}})),
            Reject("spec.probe.periodSeconds"),
        ),
        (
            "probe scheme",
            probe(json!({"httpGet": {"scheme": "FTP", "port": 1}})),
            Reject("spec.probe.httpGet.scheme"),
        ),
        (
            "probe port",
            probe(json!({"httpGet": {"port": 0}})),
            Reject("spec.probe.httpGet.port"),
        ),
        (
            "empty command",
            probe(json!({"exec": {"command": []}})),
            Reject("spec.probe.exec.command"),
        ),
        (
            "probe without method",
            probe(json!({})),
            Reject("spec.probe"),
        ),
        (
            "grpc is no method",
            probe(json!({"grpc": {"port": 1}})),
            Reject("spec.probe"),
        ),
    ];
    check_rows(
        NETWORKING,
        "WorkloadGroup",
        &json!({"template": {"serviceAccount": "a"}}),
        &rows,
    );
}

#[test]
fn sidecars() {
    let egress = |egress: Value| json!({"egress": [egress]});
    let ingress = |edit: Value| {
        let mut one = json!({"port": {"number": 80, "protocol": "HTTP", "name": "a"}, "defaultEndpoint": "127.0.0.1:80"});
        merge(&mut one, &edit);
        json!({"ingress": [one.clone()]})
    };
    let twice = json!({"egress": [{"hosts": ["./a"]}, {"hosts": ["./b"]}]});
    let rows: Vec<Row> = vec![
        ("hosts", json!({}), Warn("kind-not-supported")),
        (
            "targetPort on ingress",
            ingress(json!({"port": {"targetPort": 1}})),
            Reject("spec.ingress[0].port.targetPort"),
        ),
        (
            "ingress without port",
            ingress(json!({"port": "-"})),
            Reject("spec.ingress[0].port"),
        ),
        (
            "ingress elsewhere",
            ingress(json!({"defaultEndpoint": "10.0.0.1:80"})),
            Reject("spec.ingress[0].defaultEndpoint"),
        ),
        ("duplicate listeners", twice, Reject("spec.egress[1]")),
        (
            "empty egress hosts",
            egress(json!({"hosts": []})),
            Reject("spec.egress[0].hosts"),
        ),
        (
            "a host without namespace",
            egress(json!({"hosts": ["a"]})),
            Reject("spec.egress[0].hosts[0]"),
        ),
        (
            "bind without port",
            egress(json!({"hosts": ["./a"], "bind": "10.0.0.1"})),
            Reject("spec.egress[0].bind"),
        ),
        (
            "captured socket",
            egress(
                json!({"hosts": ["./a"], "bind": "unix:///a", "port": {"number": 0, "protocol": "HTTP"}, "captureMode": "IPTABLES"}),
            ),
            Reject("spec.egress[0].captureMode"),
        ),
        (
            "egress_proxy of another mode",
            json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY", "egressProxy": {"host": "a", "port": {"number": 1}}}}),
            Reject("spec.outboundTrafficPolicy.egressProxy"),
        ),
        (
            "ALLOW_ANY_DYNAMIC_DNS",
            json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY_DYNAMIC_DNS"}}),
            Reject("spec.outboundTrafficPolicy.mode"),
        ),
        (
            "duplicate host",
            egress(json!({"hosts": ["./a", "./a"]})),
            Warn("the same"),
        ),
        (
            "*/* with others",
            egress(json!({"hosts": ["*/*", "./a"]})),
            Warn("superfluous"),
        ),
    ];
    check_rows(
        NETWORKING,
        "Sidecar",
        &json!({"egress": [{"hosts": ["./*"]}]}),
        &rows,
    );
}

#[test]
fn gateways() {
    let server = |edit: Value| {
        let mut server =
            json!({"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]});
        merge(&mut server, &edit);
        json!({"servers": [server]})
    };
    let https =
        |tls: Value| server(json!({"port": {"number": 443, "protocol": "HTTPS"}, "tls": tls}));
    let rows: Vec<Row> = vec![
        ("a server", json!({}), Warn("kind-not-supported")),
        ("no servers", json!({"servers": []}), Reject("spec.servers")),
        (
            "no servers at all",
            json!({"servers": "-"}),
            Reject("spec.servers"),
        ),
        (
            "no port",
            server(json!({"port": "-"})),
            Reject("spec.servers[0].port"),
        ),
        (
            "port 0",
            server(json!({"port": {"number": 0}})),
            Reject("spec.servers[0].port.number"),
        ),
        (
            "a bad protocol",
            server(json!({"port": {"protocol": "FTP"}})),
            Reject("spec.servers[0].port.protocol"),
        ),
        (
            "no hosts",
            server(json!({"hosts": []})),
            Reject("spec.servers[0].hosts"),
        ),
        (
            "a bad host",
            server(json!({"hosts": ["a b"]})),
            Reject("spec.servers[0].hosts[0]"),
        ),
        (
            "a host of a namespace",
            server(json!({"hosts": ["own/*.example.com"]})),
            Warn("kind-not-supported"),
        ),
        (
            "duplicate port names",
            json!({"servers": [{"port": {"number": 80, "name": "a", "protocol": "HTTP"}, "hosts": ["*"]}, {"port": {"number": 81, "name": "a", "protocol": "HTTP"}, "hosts": ["*"]}]}),
            Reject("spec.servers[1].port.name"),
        ),
        (
            "TLS required for HTTPS",
            server(json!({"port": {"protocol": "HTTPS"}})),
            Reject("spec.servers[0].tls"),
        ),
        (
            "TLS on HTTP",
            server(json!({"tls": {"mode": "SIMPLE"}})),
            Reject("spec.servers[0].tls"),
        ),
        (
            "redirect on HTTP",
            server(json!({"tls": {"httpsRedirect": true}})),
            Warn("kind-not-supported"),
        ),
        (
            "a Secret",
            https(json!({"mode": "SIMPLE", "credentialName": "a"})),
            Warn("kind-not-supported"),
        ),
        (
            "SIMPLE without certificate",
            https(json!({"mode": "SIMPLE"})),
            Reject("spec.servers[0].tls.serverCertificate"),
        ),
        (
            "MUTUAL without CA",
            https(json!({"mode": "MUTUAL", "serverCertificate": "/a", "privateKey": "/b"})),
            Reject("spec.servers[0].tls.caCertificates"),
        ),
        (
            "credentialName and credentialNames",
            https(json!({"mode": "SIMPLE", "credentialName": "a", "credentialNames": ["b"]})),
            Reject("spec.servers[0].tls"),
        ),
        (
            "credentialName and tlsCertificates",
            https(
                json!({"mode": "SIMPLE", "credentialName": "a", "tlsCertificates": [{"serverCertificate": "/a", "privateKey": "/b"}]}),
            ),
            Reject("spec.servers[0].tls"),
        ),
    ];
    let good = json!({"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]});
    check_rows(NETWORKING, "Gateway", &good, &rows);
}
