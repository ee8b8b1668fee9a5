#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines
)]

use std::time::Duration;

use serde_json::{Value, json};

use crate::input::*;
use crate::object::{Object, Parsed};
use crate::parse::{Recognised, recognise};

use super::values;

fn parsed(spec: Value) -> std::sync::Arc<Parsed<VirtualService>> {
    let doc = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"namespace": "ns", "name": "x"}, "spec": spec,
    });
    match recognise(&doc, "f.yaml") {
        Recognised::Object(Object::VirtualService(row)) => row,
        other => panic!("{other:?}"),
    }
}

/// Codes and fields of the notes.
fn notes(row: &Parsed<VirtualService>) -> Vec<(&'static str, String)> {
    let note = |note: &crate::Finding| (note.code, note.field.to_string());
    row.notes.iter().map(note).collect()
}

fn http(rule: Value) -> std::sync::Arc<Parsed<VirtualService>> {
    parsed(json!({"hosts": ["web"], "http": [rule]}))
}

fn to(host: &str) -> WeightedDestination {
    WeightedDestination {
        destination: Destination {
            host: host.into(),
            ..Destination::default()
        },
        ..WeightedDestination::default()
    }
}

#[test]
fn every_field_of_a_rule_is_read() {
    let row = http(json!({
        "name": "r",
        "match": [{
            "name": "m", "uri": {"prefix": "/a"}, "ignoreUriCase": true,
            "scheme": {"exact": "http"}, "method": {"regex": "GET|PUT"},
            "authority": {"prefix": "web"},
            "headers": {"X-A": {"exact": "1"}, "x-b": {}, "x-c": null,
                        "@request.auth.claims.group": {"exact": "g"}},
            "withoutHeaders": {"x-d": {"regex": "*"}},
            "queryParams": {"q": {"prefix": "v"}},
            "port": 80, "gateways": ["mesh"], "sourceLabels": {"app": "a"},
            "sourceNamespace": "other", "statPrefix": "s",
        }],
        "route": [
            {"destination": {"host": "a", "subset": "v1", "port": {"number": 81}}, "weight": 80,
             "headers": {"request": {"set": {"x": "%%"}}}},
            {"destination": {"host": "b"}, "weight": 20},
        ],
        "rewrite": {"uri": "/b", "authority": "other.example"},
        "timeout": "3s",
        "retries": {"attempts": 3, "perTryTimeout": "0.5s", "retryOn": "503,reset",
                    "retryRemoteLocalities": true, "retryIgnorePreviousHosts": false,
                    "backoff": "25ms"},
        "fault": {"delay": {"fixedDelay": "5s", "percent": 10},
                  "abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 12.5}}},
        "mirror": {"host": "copy"}, "mirrorPercent": 40,
        "corsPolicy": {"allowOrigins": [{"prefix": "https://"}], "allowOrigin": ["*"],
                       "allowMethods": ["GET"], "allowHeaders": ["x-a"], "exposeHeaders": ["x-b"],
                       "maxAge": "24h", "allowCredentials": true, "unmatchedPreflights": "IGNORE"},
        "headers": {"request": {"set": {"x-r": "%REQ(:path)%"}, "add": {"x-s": "1"}},
                    "response": {"remove": ["server"]}},
    }));
    let text = |exact: &str| Some(StringMatch::Exact(exact.into()));
    let expected = VirtualHttp {
        name: "r".into(),
        matches: vec![VirtualMatch {
            name: "m".into(),
            uri: Some(StringMatch::Prefix("/a".into())),
            ignore_uri_case: true,
            scheme: text("http"),
            method: Some(StringMatch::Regex("GET|PUT".into())),
            authority: Some(StringMatch::Prefix("web".into())),
            headers: vec![
                ("@request.auth.claims.group".into(), text("g")),
                ("X-A".into(), text("1")),
                ("x-b".into(), None),
                ("x-c".into(), None),
            ],
            without_headers: vec![("x-d".into(), Some(StringMatch::Regex("*".into())))],
            query: vec![("q".into(), Some(StringMatch::Prefix("v".into())))],
            port: Some(80),
            gateways: vec!["mesh".into()],
            source_labels: [("app".into(), "a".into())].into(),
            source_namespace: "other".into(),
            stat_prefix: "s".into(),
        }],
        routes: vec![
            WeightedDestination {
                destination: Destination {
                    host: "a".into(),
                    subset: "v1".into(),
                    port: Some(81),
                },
                weight: 80,
                headers: HeaderOperations {
                    request: HeaderEdits {
                        set: vec![("x".into(), "%%".into())],
                        ..HeaderEdits::default()
                    },
                    ..HeaderOperations::default()
                },
            },
            WeightedDestination {
                weight: 20,
                ..to("b")
            },
        ],
        redirect: None,
        direct_response: None,
        delegate: None,
        rewrite: Some(VirtualRewrite {
            uri: Some("/b".into()),
            uri_regex: None,
            authority: Some("other.example".into()),
        }),
        timeout: Some(Duration::from_secs(3)),
        retries: Some(Retries {
            attempts: 3,
            per_try_timeout: Some(Duration::from_millis(500)),
            retry_on: vec!["503".into(), "reset".into()],
            remote_localities: true,
            ignore_previous_hosts: Some(false),
            backoff: Some(Duration::from_millis(25)),
        }),
        fault: Some(Fault {
            delay: Some((Duration::from_secs(5), 100_000)),
            abort: Some((AbortStatus::Grpc(14), 125_000)),
        }),
        mirrors: vec![VirtualMirror {
            destination: to("copy").destination,
            per_million: 400_000,
        }],
        cors: Some(VirtualCors {
            origins: vec![
                StringMatch::Prefix("https://".into()),
                StringMatch::Exact("*".into()),
            ],
            methods: vec!["GET".into()],
            headers: vec!["x-a".into()],
            expose: vec!["x-b".into()],
            max_age_s: Some(86_400),
            credentials: Some(true),
            ignore_unmatched_preflights: true,
        }),
        headers: Some(HeaderOperations {
            request: HeaderEdits {
                set: vec![("x-r".into(), "%REQ(:path)%".into())],
                add: vec![("x-s".into(), "1".into())],
                remove: Vec::new(),
            },
            response: HeaderEdits {
                remove: vec!["server".into()],
                ..HeaderEdits::default()
            },
        }),
    };
    assert_eq!(row.ok().unwrap().http, [expected]);
    assert_eq!(
        notes(&row),
        [("vs-fault-with-retries", "spec.http[0].retries".to_owned())]
    );
}

#[test]
fn the_object_around_the_rules_is_read() {
    let row = parsed(json!({
        "hosts": ["web", "bad/host", "*.example.com"], "gateways": ["mesh", "edge"],
        "exportTo": ["."],
        "tls": [{"match": [{"sniHosts": ["web"], "destinationSubnets": ["10.0.0.0/8"]}],
                 "route": [{"destination": {"host": "a"}}]}],
        "tcp": [{"match": [{"port": 99, "sourceSubnet": "10.0.0.1"}], "route": []}],
    }));
    let expected = VirtualService {
        hosts: vec!["web".into(), "*.example.com".into()],
        gateways: vec!["mesh".into(), "edge".into()],
        export_to: vec![".".into()],
        http: Vec::new(),
        tls: vec![VirtualL4 {
            matches: vec![VirtualL4Match {
                sni_hosts: vec!["web".into()],
                destination_subnets: vec!["10.0.0.0/8".into()],
                ..VirtualL4Match::default()
            }],
            routes: vec![to("a")],
        }],
        tcp: vec![VirtualL4 {
            matches: vec![VirtualL4Match {
                port: Some(99),
                source_subnet: "10.0.0.1".into(),
                ..VirtualL4Match::default()
            }],
            routes: Vec::new(),
        }],
    };
    assert_eq!(row.ok(), Some(&expected));
    assert_eq!(
        notes(&row),
        [
            ("vs-field-invalid", "spec.hosts[1]".to_owned()),
            ("vs-rule-invalid", "spec.tcp[0].route".to_owned()),
        ]
    );
}

/// A rule with a match and one more part, which cannot be applied.
fn refused(rest: Value) -> (&'static str, String) {
    let mut rule = json!({"match": [{"uri": {"exact": "/x"}}]});
    rule.as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    let row = http(rule);
    let expected = VirtualHttp {
        matches: vec![VirtualMatch {
            uri: Some(StringMatch::Exact("/x".into())),
            ..VirtualMatch::default()
        }],
        direct_response: Some(DirectResponse {
            status: 500,
            body: "rule is invalid".into(),
        }),
        ..VirtualHttp::default()
    };
    assert_eq!(row.ok().expect("readable").http, [expected], "{rest}");
    notes(&row).pop().unwrap()
}

#[test]
fn a_rule_that_cannot_be_applied_answers_500_for_its_matches() {
    let route = json!([{"destination": {"host": "a"}}]);
    for (rest, field) in [
        (json!({}), ""),
        (
            json!({"route": route, "redirect": {"uri": "/y"}}),
            ".redirect",
        ),
        (
            json!({"route": route, "directResponse": {"status": 200}}),
            ".directResponse",
        ),
        (json!({"redirect": {"uri": "/y"}, "fault": {}}), ".fault"),
        (
            json!({"redirect": {"uri": "/y"}, "rewrite": {"uri": "/"}}),
            ".rewrite",
        ),
        (json!({"delegate": {"name": "d"}, "route": route}), ".route"),
        (
            json!({"route": route, "mirror": {"host": "m"},
                "mirrors": [{"destination": {"host": "m"}}]}),
            ".mirrors",
        ),
        (
            json!({"route": [{"destination": {"host": "a/b"}}]}),
            ".route[0].destination.host",
        ),
        (
            json!({"route": [{"destination": {"host": "a", "port": {"number": 0}}}]}),
            ".route[0].destination.port.number",
        ),
        (
            json!({"route": [{"destination": {"host": "a"}, "weight": -1}]}),
            ".route[0].weight",
        ),
        (
            json!({"route": [{"destination": {"host": "a"}}, {"destination": {"host": "b"}}]}),
            ".route",
        ),
        (json!({"route": "text"}), ".route"),
        (json!({"route": route, "timeout": "soon"}), ".timeout"),
        (
            json!({"route": route, "retries": {"attempts": -1}}),
            ".retries.attempts",
        ),
        (
            json!({"route": route, "retries": {"attempts": 0, "retryOn": "5xx"}}),
            ".retries.attempts",
        ),
        (json!({"route": route, "fault": {}}), ".fault"),
        (
            json!({"route": route, "fault": {"abort": {"httpStatus": 42, "percentage": {"value": 1}}}}),
            ".fault.abort.httpStatus",
        ),
        (
            json!({"route": route, "fault": {"abort": {"http2Error": "x"}}}),
            ".fault.abort.http2Error",
        ),
        (
            json!({"route": route, "fault": {"delay": {"exponentialDelay": "1s"}}}),
            ".fault.delay.exponentialDelay",
        ),
        (
            json!({"route": route, "mirror": {"host": "m"}, "mirrorPercentage": {"value": 101}}),
            ".mirrorPercentage.value",
        ),
        (
            json!({"route": route, "corsPolicy": {"allowMethods": ["FETCH"]}}),
            ".corsPolicy.allowMethods",
        ),
        (
            json!({"route": route, "corsPolicy": {"maxAge": "1500ms"}}),
            ".corsPolicy.maxAge",
        ),
        (
            json!({"route": route, "headers": {"request": {"set": {"a b": "1"}}}}),
            ".headers.request.set.a b",
        ),
        (
            json!({"route": route, "headers": {"request": {"add": {"x": "100%"}}}}),
            ".headers.request.add.x",
        ),
        (json!({"route": route, "rewrite": {}}), ".rewrite"),
        (
            json!({"route": route, "rewrite": {"uriRegexRewrite": {"match": "a"}}}),
            ".rewrite.uriRegexRewrite",
        ),
        (json!({"redirect": {}}), ".redirect"),
        (json!({"redirect": {"scheme": "ftp"}}), ".redirect.scheme"),
        (
            json!({"redirect": {"prefixRewrite": "/"}}),
            ".redirect.prefixRewrite",
        ),
        (
            json!({"directResponse": {"status": 99}}),
            ".directResponse.status",
        ),
    ] {
        let expected = ("vs-rule-invalid", format!("spec.http[0]{field}"));
        assert_eq!(refused(rest), expected);
    }
    let code = json!({"redirect": {"uri": "/y", "redirectCode": 304}});
    let expected = (
        "vs-redirect-code",
        "spec.http[0].redirect.redirectCode".to_owned(),
    );
    assert_eq!(refused(code), expected);
    let long =
        json!({"directResponse": {"status": 200, "body": {"string": "x".repeat(1_048_577)}}});
    let expected = (
        "vs-direct-response-size",
        "spec.http[0].directResponse.body".to_owned(),
    );
    assert_eq!(refused(long), expected);
}

#[test]
fn an_object_whose_matches_cannot_be_read_is_invalid() {
    let route = json!([{"destination": {"host": "a"}}]);
    for (matches, field) in [
        (json!([null]), "[0]"),
        (json!([{"uri": {"prefix": ""}}]), "[0].uri.prefix"),
        (json!([{"uri": {"exact": "/a", "prefix": "/b"}}]), "[0].uri"),
        (json!([{"uri": {"regex": ""}}]), "[0].uri.regex"),
        (json!([{"headers": {"": {"exact": "1"}}}]), "[0].headers."),
        (
            json!([{"headers": {"@request.auth.claims": {"exact": "1"}}}]),
            "[0].headers.@request.auth.claims",
        ),
        (json!([{"port": 70_000}]), "[0].port"),
        (json!([{"port": "http"}]), "[0].port"),
    ] {
        let row = http(json!({"match": matches, "route": route}));
        let invalid = row.body.as_ref().expect_err("invalid");
        assert_eq!(invalid.field, format!("spec.http[0].match{field}"));
    }
    for spec in [
        json!({"http": [{"delegate": {"name": "d"}}], "gateways": ["mesh"]}),
        json!({"hosts": ["web"]}),
        json!({"hosts": ["*"], "http": [{"route": route}]}),
        json!({"hosts": ["a b"], "http": [{"route": route}]}),
    ] {
        assert!(parsed(spec.clone()).ok().is_none(), "{spec}");
    }
}

#[test]
fn what_is_seldom_meant_is_told() {
    let route = json!([{"destination": {"host": "a"}}]);
    for (rest, code, field) in [
        (
            json!({"fault": {"abort": {"httpStatus": 500}}}),
            "vs-fault-no-percentage",
            "fault.abort",
        ),
        (
            json!({"fault": {"delay": {"fixedDelay": "1s"}}}),
            "vs-fault-no-percentage",
            "fault.delay",
        ),
        (
            json!({"retries": {}}),
            "vs-retries-zero",
            "retries.attempts",
        ),
        (
            json!({"timeout": "1s", "retries": {"attempts": 1, "perTryTimeout": "2s"}}),
            "vs-timeout-below-pertry",
            "timeout",
        ),
        (
            json!({"retries": {"attempts": 1, "retryOn": "5xx, reset"}}),
            "vs-field-invalid",
            "retries.retryOn",
        ),
        (
            json!({"headers": {"response": {"set": {"Host": "x"}}}}),
            "vs-field-invalid",
            "headers.response.set.Host",
        ),
        (
            json!({"headers": {"request": {"set": {"host": "x"}, "add": {":authority": "y"}}}}),
            "vs-field-invalid",
            "headers.request",
        ),
        (
            json!({"fault": {"abort": {"percentage": {"value": 1}}}}),
            "vs-field-invalid",
            "fault.abort",
        ),
        (json!({"tiemout": "1s"}), "unknown-field", "tiemout"),
    ] {
        let mut rule = json!({"route": route});
        rule.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        let row = http(rule);
        assert!(row.ok().unwrap().http[0].direct_response.is_none());
        assert_eq!(notes(&row), [(code, format!("spec.http[0].{field}"))]);
    }
}

#[test]
fn values_of_headers_are_what_envoy_takes() {
    for good in [
        "",
        "plain",
        "100%%",
        "%REQ(x-a?y):10%",
        "%START_TIME%",
        "%START_TIME(%s)%",
        "a%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%b",
        "%DYNAMIC_METADATA(ns:key)%",
    ] {
        assert_eq!(values::header_value(good), Ok(()), "{good}");
    }
    for bad in [
        "%",
        "50% off",
        "%NOPE%",
        "%REQ%",
        "%REQ()%",
        "%PROTOCOL(x)%",
        "%PROTOCOL",
        "a\r\nb",
    ] {
        assert!(values::header_value(bad).is_err(), "{bad}");
    }
    assert_eq!(values::header_value(&"a".repeat(16_384)), Ok(()));
    for long in ["a".repeat(16_385), "é".repeat(8_193), "%%".repeat(4_097)] {
        assert!(values::header_value(&long).is_err());
    }
}

#[test]
fn keys_of_claims_are_paths() {
    let path = |name: &str| {
        let path = claim_of_header(name)?;
        Some(
            path.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("/"),
        )
    };
    assert_eq!(path("@request.auth.claims.a.b").as_deref(), Some("a/b"));
    assert_eq!(
        path("@request.auth.claims[a.x][b]").as_deref(),
        Some("a.x/b")
    );
    for none in [
        "x",
        "@request.auth.claims",
        "@request.auth.claims.",
        "@request.auth.claims[a",
        "@request.auth.claimsx",
    ] {
        assert_eq!(path(none), None, "{none}");
    }
}
