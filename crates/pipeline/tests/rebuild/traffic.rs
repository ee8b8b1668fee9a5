//! Routes other than HTTPRoute, traffic policies, tokens, and what is told of the outside.

use model::jwks::{Jwks, JwksFailure};
use model::rejection::Rejection;
use model::{Kind, Str};
use serde_json::{Value, json};

use super::{Choices, HOSTS, NAMES, NAMESPACES, PORTS, backend, label, labels, parent, target};

/// Hosts as traffic objects may write them: short, whole, wildcards, and nobody.
const TRAFFIC_HOSTS: [&str; 10] = [
    "x",
    "x.a.svc.cluster.local",
    "y",
    "y.b.svc.cluster.local",
    "x",
    "x.b",
    "api.example.com",
    "*.example.com",
    "*",
    "gone",
];
const SUBSETS: [&str; 3] = ["v1", "v2", "gone"];
const JWKS_URIS: [&str; 2] = [
    "https://keys.example.com/a",
    "http://keys.a.svc.cluster.local/b",
];
const ISSUERS: [&str; 2] = ["https://issuer.example.com", "me"];

pub(super) fn grpc_route(c: &mut Choices<'_>) -> Value {
    let parents = json!([parent(c)]);
    let rules = c.many(2, |c| {
        let mut rule = json!({ "backendRefs": c.many(2, backend) });
        match c.below(5) {
            0 => {}
            1 => rule["matches"] = json!([{ "method": { "service": "a.B" } }]),
            2 => rule["matches"] = json!([{ "method": { "method": "C" } }]),
            3 => {
                let method = json!({ "type": "RegularExpression", "service": c.of(&["a.*", "("]) });
                rule["matches"] = json!([{ "method": method }]);
            }
            _ => rule["matches"] = json!([{ "headers": [{ "name": "x", "value": "1" }] }]),
        }
        rule
    });
    let mut spec = json!({ "parentRefs": parents, "rules": rules });
    if c.rarely(5) {
        spec["hostnames"] = json!([c.of(&HOSTS)]);
    }
    json!({ "spec": spec })
}

pub(super) fn l4_route(kind: Kind, c: &mut Choices<'_>) -> Value {
    let parents = json!([parent(c)]);
    let mut rules = vec![json!({ "backendRefs": c.many(2, backend) })];
    if c.rarely(6) {
        rules.push(json!({ "backendRefs": c.many(1, backend) }));
    }
    let mut spec = json!({ "parentRefs": parents, "rules": rules });
    if kind == Kind::TlsRoute && !c.rarely(4) {
        spec["hostnames"] = json!([c.of(&HOSTS)]);
    }
    json!({ "spec": spec })
}

fn destination(c: &mut Choices<'_>) -> Value {
    let mut out = json!({ "host": c.of(&TRAFFIC_HOSTS) });
    if c.rarely(2) {
        out["subset"] = json!(c.of(&SUBSETS));
    }
    if c.rarely(3) {
        out["port"] = json!({ "number": c.of(&PORTS) });
    }
    out
}

fn destinations(c: &mut Choices<'_>) -> Value {
    let first = json!({ "destination": destination(c) });
    if c.below(2) == 0 {
        return json!([first]);
    }
    let (a, b) = (destination(c), destination(c));
    let weight = c.of(&[0, 1, 50]);
    json!([{ "destination": a, "weight": 50 }, { "destination": b, "weight": weight }])
}

fn text(c: &mut Choices<'_>) -> Value {
    match c.below(4) {
        0 => json!({ "exact": "/api" }),
        1 => json!({ "prefix": c.of(&["/", "/api"]) }),
        2 => json!({ "regex": c.of(&["/a.*", "/a.*", "/b", "/c", "("]) }),
        _ => json!({}),
    }
}

fn http_match(c: &mut Choices<'_>) -> Value {
    let mut out = json!({});
    if c.below(3) > 0 {
        out["uri"] = text(c);
    }
    match c.below(8) {
        0 => out["headers"] = json!({ "x-a": { "exact": "1" } }),
        1 => out["withoutHeaders"] = json!({ "x-b": {} }),
        2 => out["port"] = json!(c.of(&PORTS)),
        3 => out["method"] = json!({ "exact": "GET" }),
        4 => out["gateways"] = json!([c.of(&["mesh", "a/w"])]),
        5 => out["sourceNamespace"] = json!(c.of(&NAMESPACES)),
        6 => out["queryParams"] = json!({ "q": { "exact": "1" } }),
        _ => {}
    }
    out
}

fn http(c: &mut Choices<'_>) -> Value {
    let mut out = json!({});
    match c.below(8) {
        0..=4 => out["route"] = destinations(c),
        5 => {
            out["redirect"] =
                json!({ "uri": "/new", "redirectCode": c.of(&[301, 302, 303, 307, 308, 600]) });
        }
        6 => out["directResponse"] = json!({ "status": c.of(&[200, 503, 404, 418, 700]) }),
        _ => out["delegate"] = json!({ "name": c.of(&NAMES), "namespace": c.of(&NAMESPACES) }),
    }
    if c.below(3) > 0 {
        out["match"] = json!(c.many(2, http_match));
    }
    match c.below(8) {
        0 => out["timeout"] = json!(c.of(&["1s", "2s", "3s", "odd"])),
        1 => {
            out["retries"] = json!({ "attempts": c.of(&[0, 3]), "retryOn": c.of(&["5xx,503", "reset", "5xx", "odd"]) });
        }
        2 => {
            let abort = json!({ "httpStatus": 418, "percentage": { "value": 50 } });
            out["fault"] = json!({ "abort": abort });
        }
        3 => out["rewrite"] = json!({ "uri": "/new", "authority": "x.example.com" }),
        4 => out["mirror"] = destination(c),
        5 => out["headers"] = json!({ "request": { "set": { "x-set": c.of(&["y", "z", "%1"]) } } }),
        6 => out["corsPolicy"] = json!({ "allowOrigins": [{ "exact": "https://a.example" }] }),
        _ => {}
    }
    out
}

pub(super) fn virtual_service(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    let hosts = match c.below(6) {
        0..=3 => json!([c.of(&TRAFFIC_HOSTS)]),
        4 => json!([c.of(&TRAFFIC_HOSTS), c.of(&TRAFFIC_HOSTS)]),
        // A delegate has none.
        _ => json!([]),
    };
    let mut spec = json!({ "hosts": hosts });
    if c.below(6) > 0 {
        let mut all = vec![http(c)];
        all.extend(c.many(2, http));
        spec["http"] = json!(all);
    }
    if c.rarely(4) {
        spec["tcp"] = json!([{ "route": destinations(c) }]);
    }
    if c.rarely(6) {
        let m = json!([{ "sniHosts": [c.of(&HOSTS)], "port": 443 }]);
        spec["tls"] = json!([{ "match": m, "route": destinations(c) }]);
    }
    if c.rarely(4) {
        spec["gateways"] = json!([c.of(&["mesh", "a/w", "gone"])]);
    }
    if let Some(to) = c.of(&[None, None, None, Some("."), Some("a"), Some("*")]) {
        spec["exportTo"] = json!([to]);
    }
    label(meta, "team", c.of(&[None, Some("red")]));
    json!({ "spec": spec })
}

fn traffic_policy(c: &mut Choices<'_>) -> Value {
    let mut out = json!({});
    match c.below(8) {
        0 => out["loadBalancer"] = json!({ "simple": c.of(&["ROUND_ROBIN", "RANDOM", "ODD"]) }),
        1 => {
            let hash = json!({ "httpHeaderName": "x-user", "ringHash": { "minimumRingSize": 64 } });
            out["loadBalancer"] = json!({ "consistentHash": hash });
        }
        2 => {
            out["connectionPool"] = json!({
                "tcp": { "maxConnections": 7, "connectTimeout": "3s" },
                "http": { "http2MaxRequests": 9, "idleTimeout": c.of(&["1s", "odd"]) },
            });
        }
        3 => {
            out["outlierDetection"] =
                json!({ "consecutive5xxErrors": 3, "interval": "1s", "minHealthPercent": 10 });
        }
        4 => {
            let mode = c.of(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL", "ODD"]);
            out["tls"] = json!({ "mode": mode, "sni": "x.example.com" });
        }
        5 => {
            let priority = json!(["topology.kubernetes.io/zone"]);
            let locality = json!({ "enabled": true, "failoverPriority": priority });
            out["loadBalancer"] = json!({ "localityLbSetting": locality });
            out["outlierDetection"] = json!({ "consecutive5xxErrors": 3 });
        }
        6 => {
            let port = json!({ "port": { "number": c.of(&PORTS) }, "connectionPool": { "tcp": { "maxConnections": 3 } } });
            out["portLevelSettings"] = json!([port]);
        }
        _ => {}
    }
    out
}

pub(super) fn destination_rule(c: &mut Choices<'_>) -> Value {
    let mut spec = json!({ "host": c.of(&TRAFFIC_HOSTS) });
    if c.below(3) > 0 {
        spec["trafficPolicy"] = traffic_policy(c);
    }
    if c.below(2) > 0 {
        let own = traffic_policy(c);
        spec["subsets"] = json!([
            { "name": "v1", "labels": { "version": "v1" }, "trafficPolicy": own },
            { "name": c.of(&["v2", "v1", "Bad Name"]), "labels": labels(c) },
        ]);
    }
    if c.rarely(5) {
        spec["workloadSelector"] = json!({ "matchLabels": labels(c) });
    }
    if let Some(to) = c.of(&[None, None, None, Some("."), Some("a"), Some("*")]) {
        spec["exportTo"] = json!([to]);
    }
    json!({ "spec": spec })
}

pub(super) fn request_authentication(c: &mut Choices<'_>) -> Value {
    let one = |c: &mut Choices<'_>| {
        let mut rule = json!({ "issuer": c.of(&ISSUERS) });
        match c.below(5) {
            0 => rule["jwks"] = json!(r#"{"keys":[]}"#),
            1 | 2 => rule["jwksUri"] = json!(c.of(&JWKS_URIS)),
            3 => rule["jwks"] = json!("odd"),
            _ => {}
        }
        if c.rarely(3) {
            rule["audiences"] = json!(["api"]);
        }
        if c.rarely(4) {
            let header = c.of(&["x-claim", "x bad"]);
            rule["outputClaimToHeaders"] = json!([{ "header": header, "claim": "sub" }]);
        }
        if c.rarely(4) {
            rule["fromHeaders"] = json!([{ "name": "x-token", "prefix": "T " }]);
        }
        rule
    };
    let mut rules = vec![one(c)];
    rules.extend(c.many(1, one));
    let mut spec = json!({ "jwtRules": rules });
    match c.below(5) {
        0..=2 => spec["targetRefs"] = json!([target(c)]),
        3 => spec["selector"] = json!({ "matchLabels": labels(c) }),
        _ => {}
    }
    json!({ "spec": spec })
}

/// Where a key set is.
pub(crate) fn jwks_source(at: u8) -> Str {
    let issuers = ISSUERS.iter().map(|issuer| format!("issuer:{issuer}"));
    let all: Vec<_> = JWKS_URIS
        .map(str::to_owned)
        .into_iter()
        .chain(issuers)
        .collect();
    Str::from(all[usize::from(at) % all.len()].as_str())
}

/// What is known of it.
pub(crate) fn jwks(what: u8) -> Option<Jwks> {
    let keys = Str::from(r#"{"keys":[{"kid":"1","kty":"oct"}]}"#);
    let failure = |blocked| JwksFailure {
        blocked,
        reason: "it answers 404".into(),
    };
    let nobody = Str::from(r#"{"keys":[{"kid":"nobody"}]}"#);
    let (keys, failure) = match what % 5 {
        0 => return None,
        1 => (Some(keys), None),
        2 => (Some(keys), Some(failure(false))),
        3 => (None, Some(failure(true))),
        _ => (None, None),
    };
    Some(Jwks {
        keys,
        failure,
        nobody,
    })
}

/// What clients refuse.
pub(crate) fn rejections(what: u8) -> Vec<Rejection> {
    let one = |name: &str| Rejection {
        type_url: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration".into(),
        name: name.into(),
        text: "it is odd".into(),
    };
    match what % 4 {
        0 => Vec::new(),
        1 => vec![one("inbound-vip|80|http|x.a.svc.cluster.local")],
        2 => vec![one("inbound-vip|80|http|y.b.svc.cluster.local")],
        _ => vec![one(""), one("inbound-vip|80|http|x.a.svc.cluster.local")],
    }
}
