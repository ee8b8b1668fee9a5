//! Gateways, their references, and HTTPRoutes.

use serde_json::{Value, json};

use super::*;

pub(super) fn gateway(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    label(
        meta,
        "istio.io/waypoint-for",
        c.of(&[
            None,
            None,
            None,
            None,
            Some("all"),
            Some("all"),
            Some("workload"),
            Some("none"),
            Some("odd"),
        ]),
    );
    label(
        meta,
        "topology.istio.io/network",
        c.of(&[None, None, Some("net-1"), Some("net-2")]),
    );
    let class = c.of(&[
        "istio-waypoint",
        "istio-waypoint",
        "istio-waypoint",
        "istio-waypoint",
        "istio-waypoint",
        "istio-waypoint",
        "custom",
        "gone",
        "istio-remote",
        "istio-remote",
        "istio-remote",
        "istio-remote",
        "istio",
        "istio",
        "istio",
        "istio-east-west",
        "istio-east-west",
    ]);
    let from = match c.below(7) {
        0 | 1 | 5 | 6 => json!({ "from": "All" }),
        2 => json!({ "from": "Same" }),
        3 => json!({ "from": "Selector", "selector": { "matchLabels": { "team": "red" } } }),
        _ => {
            json!({ "from": "Selector", "selector": { "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] } })
        }
    };
    let mut listener = json!({ "name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": { "namespaces": from } });
    if c.rarely(8) {
        listener["protocol"] = json!("HTTP");
    }
    if class == "istio-east-west" {
        listener["tls"] = json!({ "mode": "Terminate" });
    }
    set(meta, "annotations", BINDING, c.of(&BINDINGS));
    if c.rarely(6) {
        set(
            meta,
            "annotations",
            "gateway.istio.io/service-account",
            "east",
        );
    }
    let version = c.of(&[None, None, None, Some("5"), Some("6"), Some("odd")]);
    set(
        meta,
        "annotations",
        "gateway.istio.io/controller-version",
        version,
    );
    let mut listeners = vec![listener];
    if c.rarely(6) {
        listeners.push(json!({ "name": "proxy", "port": 15088, "protocol": "istio.io/PROXY", "allowedRoutes": { "namespaces": { "from": "Same" } } }));
    }
    let addresses = match c.below(9) {
        0..=2 | 6..=8 => json!([{ "type": "IPAddress", "value": c.of(&VIPS) }]),
        3 => {
            json!([{ "type": "Hostname", "value": c.of(&["w.a.svc.cluster.local", "x.a.svc.cluster.local"]) }])
        }
        4 => {
            json!([{ "type": "Hostname", "value": "w.b.svc.cluster.local" }, { "value": "10.1.0.9" }])
        }
        _ => json!([]),
    };
    if class == "istio" || (class == "istio-east-west" && c.rarely(2)) {
        listeners = c.many(3, gateways::listener);
    }
    let mut spec = json!({ "gatewayClassName": class, "listeners": listeners });
    gateways::more(&mut spec, c);
    json!({ "spec": spec, "status": { "addresses": addresses } })
}

/// Values that decode, one that does not, and objects without what proxies need.
pub(super) fn secret(c: &mut Choices<'_>) -> Value {
    let key = c.of(&["ca.crt", "tls.key", "cert", "other"]);
    let value = c.of(&["", "Y2VydA==", "not base64"]);
    json!({ "type": c.of(&["Opaque", "kubernetes.io/tls"]), "data": { key: value } })
}

/// Authorities, or patches of what Gateways run as.
pub(super) fn config_map(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    let class = c.of(&[None, Some("istio"), Some("istio-waypoint"), Some("gone")]);
    label(meta, "gateway.istio.io/defaults-for-class", class);
    if c.rarely(2) {
        let key = c.of(&["ca.crt", "other"]);
        return json!({ "data": { key: c.of(&["", "no certificate"]) } });
    }
    let key = c.of(&["deployment", "service", "podDisruptionBudget", "daemonset"]);
    let patch = c.of(&[
        "metadata: {labels: {patched: a}}",
        "metadata: {labels: {patched: b}}",
        "metadata: {name: other}",
        "[]",
    ]);
    json!({ "data": { key: patch } })
}

pub(super) fn reference_grant(c: &mut Choices<'_>) -> Value {
    let kind = c.of(&[
        "HTTPRoute",
        "HTTPRoute",
        "GRPCRoute",
        "TCPRoute",
        "Gateway",
        "ListenerSet",
    ]);
    let to = if kind.ends_with("Route") {
        "Service"
    } else {
        "Secret"
    };
    let mut to = json!({ "group": "", "kind": to });
    if c.rarely(3) {
        to["name"] = json!(c.of(&NAMES));
    }
    json!({ "spec": {
        "from": [{ "group": "gateway.networking.k8s.io", "kind": kind, "namespace": c.of(&NAMESPACES) }],
        "to": [to],
    } })
}

pub(super) fn parent(c: &mut Choices<'_>) -> Value {
    let mut parent = match c.below(5) {
        0 | 1 => json!({ "group": "", "kind": "Service", "name": c.of(&NAMES) }),
        2 | 3 => json!({ "name": c.of(&["w", "w", "x", "gone"]) }),
        _ => json!({ "kind": c.of(&["Service", "ListenerSet"]), "name": c.of(&NAMES) }),
    };
    if c.rarely(4) {
        parent["namespace"] = json!(c.of(&NAMESPACES));
    }
    if c.rarely(6) {
        parent["port"] = json!(c.of(&PORTS));
    }
    if c.rarely(8) {
        parent["sectionName"] = json!(c.of(&["mesh", "web", "gone"]));
    }
    parent
}

pub(super) fn backend(c: &mut Choices<'_>) -> Value {
    let mut backend = json!({ "name": c.of(&["x", "x", "x", "y", "y", "w", "gone"]), "port": c.of(&[80, 80, 80, 9090, 443, 15008]) });
    if c.rarely(3) {
        backend["namespace"] = json!(c.of(&NAMESPACES));
    }
    if let Some(weight) = c.of(&[None, Some(0), Some(1), Some(3)]) {
        backend["weight"] = json!(weight);
    }
    if c.rarely(10) {
        backend["kind"] = json!("Bucket");
    }
    backend
}

pub(super) fn http_match(c: &mut Choices<'_>) -> Value {
    let mut out = json!({});
    match c.below(5) {
        0 => {}
        1 => {
            out["path"] =
                json!({ "type": "PathPrefix", "value": c.of(&["/", "/api", "/api/v1/"]) });
        }
        2 => out["path"] = json!({ "type": "Exact", "value": "/api" }),
        3 => {
            out["path"] =
                json!({ "type": "RegularExpression", "value": c.of(&["/a.*", "/(", "/a++"]) });
        }
        _ => out["headers"] = json!([{ "name": "X-Canary", "value": c.of(&["always", "1"]) }]),
    }
    if c.rarely(4) {
        out["method"] = json!(c.of(&["GET", "POST"]));
    }
    if c.rarely(5) {
        out["queryParams"] = json!([{ "name": "q", "value": "1" }]);
    }
    out
}

pub(super) fn rule(c: &mut Choices<'_>) -> Value {
    let mut rule = json!({ "backendRefs": c.many(3, backend) });
    if c.below(3) > 0 {
        rule["matches"] = Value::Array(c.many(2, http_match));
    }
    match c.below(12) {
        10 => rule["retry"] = json!({ "codes": [503], "attempts": c.of(&[1, 3]) }),
        11 => {
            let to = json!({ "name": c.of(&NAMES), "port": 80 });
            let mirror = json!({ "backendRef": to, "percent": c.of(&[10, 100]) });
            rule["filters"] = json!([
                { "type": "RequestMirror", "requestMirror": mirror },
                { "type": "URLRewrite", "urlRewrite": { "hostname": "other.example.com" } },
            ]);
        }
        8 => {
            rule["filters"] = json!([{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "x", "value": "y" }] } }]);
        }
        9 => rule["timeouts"] = json!({ "request": "1s" }),
        _ => {}
    }
    rule
}

pub(super) fn http_route(c: &mut Choices<'_>) -> Value {
    let first = parent(c);
    let mut parents = vec![first];
    parents.extend(c.many(1, parent));
    let mut rules = vec![rule(c)];
    rules.extend(c.many(2, rule));
    let mut spec = json!({ "parentRefs": parents, "rules": rules });
    if c.rarely(4) {
        spec["hostnames"] = json!([c.of(&HOSTS)]);
    }
    json!({ "spec": spec })
}
