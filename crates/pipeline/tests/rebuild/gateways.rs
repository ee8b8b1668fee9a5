//! Gateways of every class, ListenerSets, and what they refer to.

use serde_json::{Value, json};

use super::{Choices, NAMES, NAMESPACES};

/// A listener of any protocol, good or not.
pub(crate) fn listener(c: &mut Choices<'_>) -> Value {
    let mut out = json!({
        "name": c.of(&["mesh", "web", "web", "tls"]),
        "port": c.of(&[80, 80, 443, 15008, 0]),
        "protocol": c.of(&["HTTP", "HTTP", "HTTPS", "TLS", "TCP", "HBONE", "UDP", "http"]),
    });
    if c.rarely(3) {
        out["hostname"] = json!(c.of(&["api.example.com", "*.example.com", "x.example.com"]));
    }
    let routes = &mut out["allowedRoutes"];
    match c.below(6) {
        0 | 1 => routes["namespaces"] = json!({ "from": "All" }),
        2 => {
            let labels = json!({ "kubernetes.io/metadata.name": c.of(&NAMESPACES) });
            routes["namespaces"] =
                json!({ "from": "Selector", "selector": { "matchLabels": labels } });
        }
        3 => routes["kinds"] = json!([{ "kind": c.of(&["HTTPRoute", "TCPRoute"]) }]),
        _ => *routes = json!({}),
    }
    if !c.rarely(3) {
        out["tls"] = tls(c);
    }
    out
}

fn tls(c: &mut Choices<'_>) -> Value {
    let mut out = match c.below(3) {
        0 => json!({ "certificateRefs": c.many(3, reference) }),
        1 => json!({ "mode": "Passthrough" }),
        _ => json!({ "mode": "Terminate", "certificateRefs": [reference(c)] }),
    };
    if c.rarely(4) {
        let mode = c.of(&["MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL", "odd"]);
        out["options"] = json!({ "gateway.istio.io/tls-terminate-mode": mode });
    }
    out
}

/// To a Secret, mostly.
pub(crate) fn reference(c: &mut Choices<'_>) -> Value {
    let kind = c.of(&["Secret", "Secret", "Secret", "ConfigMap", "Bucket"]);
    let mut out = json!({ "group": "", "kind": kind, "name": c.of(&NAMES) });
    if c.rarely(3) {
        out["namespace"] = json!(c.of(&NAMESPACES));
    }
    out
}

/// What a Gateway says beside its class, listeners and addresses.
pub(crate) fn more(spec: &mut Value, c: &mut Choices<'_>) {
    match c.below(8) {
        3 => spec["allowedListeners"] = json!({ "namespaces": { "from": c.of(&["All", "Same"]) } }),
        4 => {
            let parameters = json!({ "group": "", "kind": "ConfigMap", "name": c.of(&NAMES) });
            spec["infrastructure"] = json!({ "parametersRef": parameters });
        }
        5 => {
            let mode = c.of(&["AllowValidOnly", "AllowInsecureFallback"]);
            let validation = json!({ "mode": mode, "caCertificateRefs": [reference(c)] });
            spec["tls"] = json!({ "frontend": { "default": { "validation": validation } } });
        }
        6 => spec["tls"] = json!({ "backend": { "clientCertificateRef": reference(c) } }),
        7 => {
            let address = |c: &mut Choices<'_>| json!({ "type": c.of(&["Hostname", "IPAddress"]), "value": c.of(&["x", "gone"]) });
            spec["addresses"] = Value::Array(c.many(2, address));
        }
        _ => {}
    }
}

pub(crate) fn listener_set(c: &mut Choices<'_>) -> Value {
    let mut parent = json!({ "name": c.of(&NAMES) });
    if c.rarely(3) {
        parent["namespace"] = json!(c.of(&NAMESPACES));
    }
    if c.rarely(8) {
        parent["kind"] = json!("Service");
    }
    json!({ "spec": { "parentRef": parent, "listeners": c.many(2, listener) } })
}

pub(crate) fn backend_tls_policy(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    let mut target = json!({ "group": "", "kind": "Service", "name": c.of(&NAMES) });
    if c.rarely(4) {
        target["group"] = json!("networking.istio.io");
        target["kind"] = json!("ServiceEntry");
    }
    if c.rarely(3) {
        target["sectionName"] = json!(c.of(&["http", "tcp"]));
    }
    let mut validation = json!({ "hostname": "api.example.com" });
    if c.rarely(3) {
        validation["wellKnownCACertificates"] = json!(c.of(&["System", "System", "Other"]));
    } else {
        let kind = c.of(&["ConfigMap", "ConfigMap", "Secret"]);
        let one = json!({ "group": "", "kind": kind, "name": c.of(&NAMES) });
        validation["caCertificateRefs"] = json!([one]);
    }
    if c.rarely(6) {
        meta["annotations"] = json!({ "istio.io/ignore-policy-attachment": "true" });
    }
    json!({ "spec": { "targetRefs": [target], "validation": validation } })
}
