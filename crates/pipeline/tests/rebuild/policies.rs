//! Policies on who may talk to whom.

use serde_json::{Value, json};

use super::*;

pub(super) fn target(c: &mut Choices<'_>) -> Value {
    match c.below(6) {
        0 | 1 => json!({ "group": "", "kind": "Service", "name": c.of(&NAMES) }),
        2 | 3 => {
            json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": c.of(&["w", "x", "gone"]) })
        }
        4 => {
            json!({ "group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": c.of(&["istio-waypoint", "gone"]) })
        }
        _ => {
            json!({ "group": "networking.istio.io", "kind": "ServiceEntry", "name": c.of(&NAMES) })
        }
    }
}

pub(super) fn source(c: &mut Choices<'_>) -> Value {
    let source = match c.below(8) {
        0 => json!({ "principals": ["cluster.local/ns/a/sa/x"] }),
        1 => json!({ "namespaces": ["a", "b*"] }),
        2 => json!({ "notPrincipals": ["*"] }),
        3 => json!({ "ipBlocks": [c.of(&["10.0.0.0/8", "broken"])] }),
        4 => json!({ "requestPrincipals": ["*"] }),
        5 => json!({ "principals": ["other.example/ns/a/sa/x", "spiffe://no"] }),
        6 => json!({ "serviceAccounts": [c.of(&["a/x", "x"])] }),
        _ => json!({ "remoteIpBlocks": ["10.1.0.0/16"] }),
    };
    json!({ "source": source })
}

pub(super) fn operation(c: &mut Choices<'_>) -> Value {
    let operation = match c.below(6) {
        0 => json!({ "methods": ["GET"] }),
        1 => json!({ "paths": [c.of(&["/api/*", "/a/{*}/b", "*"])] }),
        2 => json!({ "ports": [c.of(&["80", "8080", "no"])] }),
        3 => json!({ "hosts": ["*.example.com"], "notPaths": ["/open"] }),
        4 => json!({ "methods": ["POST"], "ports": ["80"] }),
        _ => json!({}),
    };
    json!({ "operation": operation })
}

pub(super) fn condition(c: &mut Choices<'_>) -> Value {
    let (key, value) = c.of(&[
        ("source.namespace", "a"),
        ("request.headers[x-a]", "1"),
        ("destination.port", "80"),
        ("no.such.key", "1"),
        ("request.auth.claims[sub]", "me"),
        ("source.ip", "10.0.0.1"),
    ]);
    let field = c.of(&["values", "notValues"]);
    json!({ "key": key, field: [value] })
}

pub(super) fn authorization_rule(c: &mut Choices<'_>) -> Value {
    let mut out = json!({});
    if c.below(3) > 0 {
        out["from"] = Value::Array(c.many(2, source));
    }
    if c.below(2) > 0 {
        out["to"] = Value::Array(c.many(2, operation));
    }
    if c.rarely(4) {
        out["when"] = json!([condition(c)]);
    }
    out
}

pub(super) fn authorization_policy(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    let mut spec = json!({ "action": c.of(&["ALLOW", "ALLOW", "DENY", "AUDIT", "CUSTOM"]) });
    match c.below(6) {
        0 | 1 => spec["targetRefs"] = Value::Array(vec![target(c)]),
        2 => spec["targetRefs"] = Value::Array(vec![target(c), target(c)]),
        3 => {}
        4 => spec["targetRef"] = target(c),
        _ => spec["selector"] = json!({ "matchLabels": labels(c) }),
    }
    if c.rarely(8) {
        spec["selector"] = json!({ "matchLabels": labels(c) });
    }
    if spec["action"] == "CUSTOM" && c.below(2) == 0 {
        spec["provider"] = json!({ "name": "authz" });
    }
    if !c.rarely(6) {
        spec["rules"] = Value::Array(c.many(2, authorization_rule));
    }
    if c.rarely(4) {
        set(meta, "annotations", "istio.io/dry-run", "true");
    }
    json!({ "spec": spec })
}

pub(super) fn mode(c: &mut Choices<'_>) -> Value {
    json!({ "mode": c.of(&["STRICT", "STRICT", "PERMISSIVE", "DISABLE", "UNSET"]) })
}

pub(super) fn peer_authentication(c: &mut Choices<'_>) -> Value {
    let mut spec = json!({});
    if let Some(selector) = selector(c, "matchLabels") {
        spec["selector"] = selector;
    }
    if !c.rarely(6) {
        spec["mtls"] = mode(c);
    }
    if c.rarely(2) {
        let mut ports = Map::new();
        for _ in 0..=c.below(2) {
            ports.insert(c.of(&["8080", "80", "9090", "no"]).to_owned(), mode(c));
        }
        spec["portLevelMtls"] = Value::Object(ports);
    }
    json!({ "spec": spec })
}
