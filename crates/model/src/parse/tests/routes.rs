//! Routes of Gateway API. Source: spec/gateway-api.md §4.3, §6.

use std::time::Duration;

use serde_json::{Value, json};

use super::{doc, object, route, s, strs};
use crate::Str;
use crate::input::*;
use crate::object::Object;

fn of_kind(kind: &str, spec: Value) -> Value {
    doc(
        "gateway.networking.k8s.io/v1",
        kind,
        json!({ "spec": spec }),
    )
}

fn grpc(spec: Value) -> Value {
    of_kind("GRPCRoute", spec)
}

/// The body of an HTTPRoute or GRPCRoute, and its notes as code and field.
fn read(value: &Value) -> (HttpRoute, Vec<(&'static str, String)>) {
    let (Object::HttpRoute(found) | Object::GrpcRoute(found)) = object(value) else {
        panic!("{value}")
    };
    let notes = found.notes.iter();
    let notes = notes.map(|note| (note.code, note.field.to_string()));
    (
        found.body.clone().unwrap_or_else(|bad| panic!("{bad:?}")),
        notes.collect(),
    )
}

/// The only rule of an HTTPRoute.
fn rule(rule: Value) -> (HttpRule, Vec<(&'static str, String)>) {
    let (mut route, notes) = read(&route(json!({ "rules": [rule] })));
    (route.rules.remove(0), notes)
}

fn filter(filter: Value) -> RouteFilter {
    let (mut rule, notes) = rule(json!({ "filters": [filter] }));
    assert_eq!(notes, []);
    rule.filters.remove(0)
}

fn reference(group: &str, kind: &str, ns: &str, name: &str, port: Option<u16>) -> RouteRef {
    RouteRef {
        group: s(group),
        kind: s(kind),
        ns: s(ns),
        name: s(name),
        port,
        ..RouteRef::default()
    }
}

fn pairs(items: &[(&str, &str)]) -> Vec<(Str, Str)> {
    items.iter().map(|(a, b)| (s(a), s(b))).collect()
}

#[test]
fn http_routes_are_read_whole() {
    let value = route(json!({
        "parentRefs": [{"name": "g", "sectionName": "s", "port": 80}, {"group": "", "kind": "Service", "namespace": "o", "name": "svc"}],
        "hostnames": ["a.b"],
        "rules": [
            {"name": "r", "timeouts": {"request": "1h2m3s4ms", "backendRequest": "500ms"},
             "retry": {"attempts": 1, "codes": [500, 503], "backoff": "25ms"},
             "sessionPersistence": {"sessionName": "who", "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}},
             "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "A", "value": "b"}]}}],
             "matches": [
                {"path": {"value": "/p"}, "method": "GET",
                 "headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
                 "queryParams": [{"name": "Q", "type": "RegularExpression", "value": ".*"}]},
                {"path": {"type": "Exact", "value": "/e"}}, {}],
             "backendRefs": [{"name": "b", "port": 80}, {"name": "c", "weight": 0, "namespace": "o",
                "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["A"]}}]}]},
            {}],
    }));
    let backend = |target, weight, filters| BackendRef {
        target,
        weight,
        filters,
    };
    let expected = HttpRoute {
        parents: vec![
            RouteRef {
                section: Some(s("s")),
                defaulted: Defaulted {
                    group: true,
                    kind: true,
                    ns: true,
                },
                ..reference("gateway.networking.k8s.io", "Gateway", "ns", "g", Some(80))
            },
            reference("", "Service", "o", "svc", None),
        ],
        hostnames: strs(&["a.b"]),
        rules: vec![
            HttpRule {
                name: Some(s("r")),
                matches: vec![
                    HttpMatch {
                        path: Some(PathMatch::Prefix(s("/p"))),
                        headers: vec![(s("x-a"), ValueMatch::Exact(s("1")))],
                        query: vec![(s("Q"), ValueMatch::Regex(s(".*")))],
                        method: Some(s("GET")),
                    },
                    HttpMatch {
                        path: Some(PathMatch::Exact(s("/e"))),
                        ..HttpMatch::default()
                    },
                    HttpMatch::default(),
                ],
                filters: vec![RouteFilter::RequestHeaders(HeaderEdits {
                    set: pairs(&[("a", "b")]),
                    ..HeaderEdits::default()
                })],
                backends: vec![
                    backend(reference("", "Service", "ns", "b", Some(80)), 1, Vec::new()),
                    backend(
                        reference("", "Service", "o", "c", None),
                        0,
                        vec![RouteFilter::ResponseHeaders(HeaderEdits {
                            remove: strs(&["a"]),
                            ..HeaderEdits::default()
                        })],
                    ),
                ],
                timeouts: HttpTimeouts {
                    request: Some(Duration::from_millis(3_723_004)),
                    backend_request: Some(Duration::from_millis(500)),
                },
                retry: Some(HttpRetry {
                    codes: vec![500, 503],
                    attempts: Some(1),
                    backoff: Some(Duration::from_millis(25)),
                }),
                session: Some(SessionPersistence {
                    name: s("who"),
                    header: false,
                    absolute_timeout: Some(Duration::from_secs(3600)),
                    idle_timeout: None,
                    permanent: true,
                }),
                unsupported: Vec::new(),
            },
            HttpRule::default(),
        ],
    };
    let (found, notes) = read(&value);
    assert_eq!(found, expected);
    let duplicate = "spec.rules[0].matches[0].headers[1]".to_owned();
    assert_eq!(notes, [("route-duplicate-match", duplicate)]);
}

#[test]
fn every_filter_is_read() {
    let edits = json!({"set": [{"name": "X", "value": "1"}], "add": [{"name": "Host", "value": "h"}], "remove": ["Y"]});
    let cases = [
        (
            json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edits}),
            RouteFilter::RequestHeaders(HeaderEdits {
                set: pairs(&[("x", "1")]),
                add: pairs(&[("host", "h")]),
                remove: strs(&["y"]),
            }),
        ),
        (
            json!({"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "hostname": "h.example",
                "path": {"type": "ReplaceFullPath", "replaceFullPath": "/n?q=1"}, "port": 8443, "statusCode": 308}}),
            RouteFilter::Redirect(HttpRedirect {
                scheme: Some(s("https")),
                host: Some(s("h.example")),
                path: Some(PathModifier::Full(s("/n?q=1"))),
                port: Some(8443),
                status: 308,
            }),
        ),
        (
            json!({"type": "RequestRedirect", "requestRedirect": {}}),
            RouteFilter::Redirect(HttpRedirect {
                status: 302,
                ..HttpRedirect::default()
            }),
        ),
        (
            json!({"type": "URLRewrite", "urlRewrite": {"hostname": "h", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}),
            RouteFilter::Rewrite(HttpRewrite {
                host: Some(s("h")),
                path: Some(PathModifier::Prefix(s("/"))),
            }),
        ),
        (
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}}}),
            mirror(1_000_000),
        ),
        (
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}, "percent": 25}}),
            mirror(250_000),
        ),
        (
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}, "fraction": {"numerator": 1, "denominator": 1000}}}),
            mirror(1_000),
        ),
        (
            json!({"type": "CORS", "cors": {"allowOrigins": ["https://*.a", "*"], "allowCredentials": true,
                "allowMethods": ["GET"], "allowHeaders": ["X-A"], "exposeHeaders": ["X-B"], "maxAge": 30}}),
            RouteFilter::Cors(HttpCors {
                origins: strs(&["https://*.a", "*"]),
                methods: strs(&["GET"]),
                headers: strs(&["X-A"]),
                expose: strs(&["X-B"]),
                credentials: true,
                max_age_s: Some(30),
            }),
        ),
        (
            json!({"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "K", "name": "n"}}),
            RouteFilter::Unsupported(s("ExtensionRef")),
        ),
        (
            json!({"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC"}}),
            RouteFilter::Unsupported(s("ExternalAuth")),
        ),
        (
            json!({"type": "Sugar"}),
            RouteFilter::Unsupported(s("Sugar")),
        ),
        (
            json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "a", "value": "b\nc"}]}}),
            RouteFilter::Invalid(
                s("ResponseHeaderModifier"),
                s("set[0]: the value of a header has no control characters"),
            ),
        ),
    ];
    for (written, expected) in cases {
        assert_eq!(filter(written), expected);
    }
}

fn mirror(per_million: u32) -> RouteFilter {
    RouteFilter::Mirror(HttpMirror {
        target: reference("", "Service", "ns", "m", Some(80)),
        per_million,
    })
}

#[test]
fn backends_may_only_change_headers() {
    for kind in [
        "RequestRedirect",
        "URLRewrite",
        "RequestMirror",
        "CORS",
        "ExtensionRef",
    ] {
        let (found, notes) =
            rule(json!({"backendRefs": [{"name": "a", "port": 80, "filters": [{"type": kind}]}]}));
        let expected = [RouteFilter::Unsupported(s(kind))];
        assert_eq!(found.backends[0].filters, expected, "{kind}");
        assert_eq!(notes, []);
    }
}

#[test]
fn what_of_headers_does_not_count_is_told() {
    let (found, notes) = rule(json!({"filters": [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}, {"name": ":path", "value": "/"}],
            "remove": ["Host"]}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "Host", "value": "x"}]}},
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {}}]}));
    let edits = HeaderEdits {
        set: pairs(&[("a", "1")]),
        ..HeaderEdits::default()
    };
    assert_eq!(
        found.filters,
        [
            RouteFilter::RequestHeaders(edits),
            RouteFilter::ResponseHeaders(HeaderEdits::default()),
            RouteFilter::RequestHeaders(HeaderEdits::default()),
        ]
    );
    let at = |tail: &str| format!("spec.rules[0].filters{tail}");
    let modifier = "[0].requestHeaderModifier";
    assert_eq!(
        notes,
        [
            ("route-duplicate-header", at(&format!("{modifier}.set[1]"))),
            ("field-not-applied", at(&format!("{modifier}.set[2]"))),
            ("field-not-applied", at(&format!("{modifier}.remove[0]"))),
            ("field-not-applied", at("[1].responseHeaderModifier.add[0]")),
            ("route-duplicate-filter", at("[2]")),
        ]
    );
}

#[test]
fn a_bad_value_costs_its_own_rule_which_answers_500() {
    let redirect = |redirect: Value| json!({"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]});
    let rewrite =
        |path: Value| json!({"filters": [{"type": "URLRewrite", "urlRewrite": {"path": path}}]});
    let mirror = |mut mirror: Value| {
        mirror["backendRef"] = json!({"name": "m", "port": 80});
        json!({"filters": [{"type": "RequestMirror", "requestMirror": mirror}]})
    };
    let cors = |cors: Value| json!({"filters": [{"type": "CORS", "cors": cors}]});
    let session = |session: Value| json!({"sessionPersistence": session});
    let full = |path: &str| json!({"type": "ReplaceFullPath", "replaceFullPath": path});
    let cases = [
        (
            json!({"backendRefs": [{"name": "a", "port": 80, "weight": -1}]}),
            "backendRefs[0].weight",
        ),
        (
            json!({"backendRefs": [{"name": "a", "port": 80, "weight": 1_000_001}]}),
            "backendRefs[0].weight",
        ),
        (
            redirect(json!({"statusCode": 305})),
            "filters[0].requestRedirect.statusCode",
        ),
        (
            redirect(json!({"scheme": "ftp"})),
            "filters[0].requestRedirect.scheme",
        ),
        (
            redirect(json!({"port": 0})),
            "filters[0].requestRedirect.port",
        ),
        (
            redirect(json!({"hostname": "a b"})),
            "filters[0].requestRedirect.hostname",
        ),
        (
            redirect(json!({"path": {"type": "Replace"}})),
            "filters[0].requestRedirect.path.type",
        ),
        (
            rewrite(full("n")),
            "filters[0].urlRewrite.path.replaceFullPath",
        ),
        (
            rewrite(full("/n?q")),
            "filters[0].urlRewrite.path.replaceFullPath",
        ),
        (
            rewrite(json!({"type": "ReplacePrefixMatch"})),
            "filters[0].urlRewrite.path.replacePrefixMatch",
        ),
        (mirror(json!({"percent": 101})), "filters[0].requestMirror"),
        (
            mirror(json!({"fraction": {"numerator": 1, "denominator": 0}})),
            "filters[0].requestMirror",
        ),
        (
            mirror(json!({"percent": 1, "fraction": {"numerator": 1}})),
            "filters[0].requestMirror",
        ),
        (
            cors(json!({"allowOrigins": ["a\nb"]})),
            "filters[0].cors.allowOrigins[0]",
        ),
        (
            cors(json!({"allowMethods": ["G T"]})),
            "filters[0].cors.allowMethods[0]",
        ),
        (cors(json!({"maxAge": -1})), "filters[0].cors.maxAge"),
        (json!({"filters": [{"type": "URLRewrite"}]}), "filters[0]"),
        (json!({"timeouts": {"request": "1d"}}), "timeouts.request"),
        (json!({"timeouts": {"request": "1.5s"}}), "timeouts.request"),
        (
            json!({"timeouts": {"request": "123456s"}}),
            "timeouts.request",
        ),
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "timeouts.backendRequest",
        ),
        (json!({"retry": {"codes": [200]}}), "retry.codes[0]"),
        (json!({"retry": {"attempts": -1}}), "retry.attempts"),
        (json!({"retry": {"backoff": "soon"}}), "retry.backoff"),
        (
            session(json!({"sessionName": "a b"})),
            "sessionPersistence.sessionName",
        ),
        (session(json!({"type": "Path"})), "sessionPersistence.type"),
        (
            session(json!({"cookieConfig": {"lifetimeType": "Permanent"}})),
            "sessionPersistence.cookieConfig.lifetimeType",
        ),
    ];
    for (mut written, field) in cases {
        written["matches"] = json!([{"path": {"value": "/m"}}]);
        let (found, notes) = rule(written);
        let at = format!("spec.rules[0].{field}");
        assert_eq!(notes, [("route-value-invalid", at)]);
        let live = |one: &RouteFilter| *one != RouteFilter::RequestHeaders(HeaderEdits::default());
        assert!(!found.filters.iter().any(live), "{field}");
        assert!(found.backends.iter().all(|one| one.weight == 0), "{field}");
        assert_eq!((found.retry, found.session), (None, None), "{field}");
        assert_eq!(found.timeouts, HttpTimeouts::default(), "{field}");
        assert_eq!(found.matches.len(), 1, "{field}");
    }
}

#[test]
fn types_of_matches_that_nobody_knows_are_kept_as_unsupported() {
    let (found, notes) = rule(
        json!({"matches": [{"path": {"type": "Glob", "value": "/*"}},
        {"headers": [{"name": "a", "type": "Suffix", "value": "b"}]}]}),
    );
    let expected = ["matches[0].path.type", "matches[1].headers[0].type"];
    assert_eq!(found.unsupported, strs(&expected));
    assert_eq!(notes, []);
}

#[test]
fn parents_with_a_port_that_cannot_be_are_left_out() {
    let value = route(
        json!({"parentRefs": [{"name": "a", "port": 70_000}, {"name": "b"}], "useDefaultGateways": "All"}),
    );
    let (found, notes) = read(&value);
    let gateway = "gateway.networking.k8s.io";
    let mut expected = reference(gateway, "Gateway", "ns", "b", None);
    expected.defaulted = Defaulted {
        group: true,
        kind: true,
        ns: true,
    };
    assert_eq!(found.parents, [expected]);
    let expected = [
        ("field-not-applied", "spec.useDefaultGateways".to_owned()),
        ("route-value-invalid", "spec.parentRefs[0].port".to_owned()),
    ];
    assert_eq!(notes, expected);
}

#[test]
fn grpc_routes_say_what_an_http_route_would() {
    let method = |method: Value| json!({"method": method});
    let value = grpc(json!({"rules": [{"name": "r", "matches": [
        method(json!({"service": "p.S", "method": "M"})),
        method(json!({"service": "p.S"})),
        method(json!({"method": "M"})),
        method(json!({"type": "RegularExpression", "service": "p\\..*", "method": "Get.*|Put"})),
        method(json!({"type": "RegularExpression", "service": "S"})),
        method(json!({"type": "RegularExpression", "method": "M"})),
        {"headers": [{"name": "V", "value": "2"}]},
    ], "backendRefs": [{"name": "b", "port": 80}]}]}));
    let (found, notes) = read(&value);
    assert_eq!(notes, []);
    let rule = &found.rules[0];
    let paths: Vec<_> = rule.matches.iter().map(|m| m.path.clone()).collect();
    assert_eq!(
        paths,
        [
            Some(PathMatch::Exact(s("/p.S/M"))),
            Some(PathMatch::Prefix(s("/p.S"))),
            Some(PathMatch::AnyServiceMethod(s("M"))),
            Some(PathMatch::Regex(s("/p\\..*/(?:Get.*|Put)"))),
            Some(PathMatch::Regex(s("/S/.+"))),
            Some(PathMatch::Regex(s("/[^/]+/M"))),
            None,
        ]
    );
    let header = [(s("v"), ValueMatch::Exact(s("2")))];
    assert_eq!(rule.matches[6].headers, header);
    assert_eq!(rule.backends.len(), 1);
    assert_eq!(rule.unsupported, strs(&[]));
}

#[test]
fn grpc_routes_have_fewer_filters_and_need_a_service_or_a_method() {
    let (found, notes) = read(&grpc(json!({"rules": [
        {"matches": [{"method": {}}, {"method": {"type": "Exact", "service": ""}}, {"method": {"type": "Glob", "method": "M"}}]},
        {"filters": [{"type": "CORS", "cors": {}}, {"type": "RequestRedirect", "requestRedirect": {}}, {"type": "URLRewrite"}]}]})));
    assert_eq!(notes, []);
    let expected = [
        "matches[0].method",
        "matches[1].method",
        "matches[2].method.type",
    ];
    assert_eq!(found.rules[0].unsupported, strs(&expected));
    let kinds =
        ["CORS", "RequestRedirect", "URLRewrite"].map(|kind| RouteFilter::Unsupported(s(kind)));
    assert_eq!(found.rules[1].filters, kinds);
}

#[test]
fn routes_of_connections_are_read_whole() {
    let spec = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "db", "port": 5432}],
        "rules": [{"name": "r", "backendRefs": [{"name": "a", "port": 1, "weight": 3}, {"name": "b", "port": 2}]},
            {"backendRefs": [{"name": "a", "port": 1, "weight": -3}]}]});
    let backend = |name, port, weight| BackendRef {
        target: reference("", "Service", "ns", name, Some(port)),
        weight,
        filters: Vec::new(),
    };
    let mut parent = reference("", "Service", "ns", "db", Some(5432));
    parent.defaulted.ns = true;
    let expected = L4Route {
        parents: vec![parent],
        hostnames: Vec::new(),
        rules: vec![
            L4Rule {
                name: Some(s("r")),
                backends: vec![backend("a", 1, 3), backend("b", 2, 1)],
            },
            L4Rule {
                name: None,
                backends: vec![backend("a", 1, 0)],
            },
        ],
    };
    let mut tls = spec.clone();
    tls["hostnames"] = json!(["db.example"]);
    for (kind, spec) in [("TCPRoute", spec), ("TLSRoute", tls)] {
        let (Object::TcpRoute(found) | Object::TlsRoute(found)) = object(&of_kind(kind, spec))
        else {
            panic!("{kind}")
        };
        let mut expected = expected.clone();
        if kind == "TLSRoute" {
            expected.hostnames = strs(&["db.example"]);
        }
        assert_eq!(found.body, Ok(expected));
        let codes: Vec<_> = found.notes.iter().map(|note| note.code).collect();
        assert_eq!(codes, ["route-value-invalid"]);
    }
}

#[test]
fn what_no_api_server_stores_makes_the_route_invalid() {
    let filters = vec![json!({"type": "Sugar"}); 17];
    for (spec, field) in [
        (
            json!({"rules": [{"backendRefs": [{"name": 1}]}]}),
            "spec.rules[0].backendRefs[0].name",
        ),
        (
            json!({"rules": [{"filters": [{}]}]}),
            "spec.rules[0].filters[0]",
        ),
        (
            json!({"rules": [{ "filters": filters }]}),
            "spec.rules[0].filters",
        ),
        (
            json!({"rules": [{"timeouts": {"request": 1}}]}),
            "spec.rules[0].timeouts.request",
        ),
    ] {
        let found = object(&route(spec));
        let invalid = found.invalid().unwrap();
        assert_eq!(invalid.field, field, "{}", invalid.reason);
    }
}
