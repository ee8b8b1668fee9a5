//! VirtualServices.

use super::*;

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
