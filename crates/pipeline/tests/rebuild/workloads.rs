//! Services, entries, pods and their endpoints.

use serde_json::{Value, json};

use super::*;

pub(super) fn service_ports(c: &mut Choices<'_>) -> Vec<Value> {
    let count = 1 + c.below(2);
    let mut out = Vec::new();
    for at in 0..count {
        let number = if at == 0 {
            c.of(&[80, 80, 80, 15008])
        } else {
            c.of(&[9090, 443, 80])
        };
        let name = if at == 0 {
            c.of(&["http", "http", "tcp", ""])
        } else {
            c.of(&["tcp-b", "grpc-b", "web", "https"])
        };
        let mut port = json!({ "name": name, "port": number });
        if let Some(target) = c.of(&[
            None,
            Some(json!(8080)),
            Some(json!("web")),
            Some(json!("gone")),
        ]) {
            port["targetPort"] = target;
        }
        if c.rarely(8) {
            port["protocol"] = json!(c.of(&["UDP", "SCTP"]));
        }
        if c.rarely(6) {
            port["appProtocol"] = json!(c.of(&["http", "kubernetes.io/h2c", "tcp"]));
        }
        out.push(port);
    }
    out
}

pub(super) fn service(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    use_waypoint(meta, c);
    label(
        meta,
        "gateway.networking.k8s.io/gateway-name",
        c.of(&[None, None, None, None, Some("w")]),
    );
    label(
        meta,
        "istio.io/ingress-use-waypoint",
        c.of(&[None, None, None, Some("false"), Some("true")]),
    );
    canary(meta, c);
    label(
        meta,
        "gateway.istio.io/managed",
        c.of(&[
            None,
            None,
            None,
            None,
            None,
            None,
            Some("istio.io-mesh-controller"),
            Some("odd"),
        ]),
    );
    set(
        meta,
        "annotations",
        "networking.istio.io/traffic-distribution",
        c.of(&[None, None, None, None, Some("PreferClose"), Some("odd")]),
    );
    let mut spec = json!({ "ports": service_ports(c) });
    match c.below(6) {
        0..=2 => spec["clusterIP"] = json!(c.of(&VIPS)),
        3 => spec["clusterIPs"] = json!(["10.1.0.2", "fd01::2"]),
        4 => spec["clusterIP"] = json!("None"),
        _ => {
            spec["type"] = json!("ExternalName");
            spec["externalName"] = json!("api.example.com");
        }
    }
    if !c.rarely(6) {
        spec["selector"] = labels(c);
    }
    if c.rarely(4) {
        spec["publishNotReadyAddresses"] = json!(true);
    }
    if c.rarely(5) {
        spec["internalTrafficPolicy"] = json!("Local");
    }
    if c.rarely(4) {
        spec["trafficDistribution"] = json!(c.of(&["PreferClose", "PreferSameNode"]));
    }
    if c.rarely(5) {
        spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
    }
    json!({ "spec": spec })
}

pub(super) fn endpoint(c: &mut Choices<'_>) -> Value {
    let mut out = json!({ "address": c.of(&[IPS[0], IPS[1], IPS[3], "vm.example.com", ""]) });
    if c.below(2) > 0 {
        out["labels"] = labels(c);
    }
    if c.rarely(3) {
        out["ports"] = json!({ "http": c.of(&[8080, 8081]) });
    }
    if c.rarely(4) {
        out["serviceAccount"] = json!("vm");
    }
    if c.rarely(4) {
        out["network"] = json!(c.of(&["net-1", "net-2"]));
    }
    if c.rarely(4) {
        out["locality"] = json!("r1/z1");
    }
    if c.rarely(4) {
        out["weight"] = json!(3);
    }
    out
}

pub(super) fn service_entry(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    use_waypoint(meta, c);
    canary(meta, c);
    label(
        meta,
        "networking.istio.io/enable-autoallocate-ip",
        c.of(&[None, None, None, None, Some("False"), Some("true")]),
    );
    let strategy = c.of(&[None, None, None, None, Some("RACE_FIRST_TCP_CONNECT")]);
    set(meta, "annotations", "istio.io/connect-strategy", strategy);
    if c.rarely(4) {
        dataplane_mode(meta, c);
        meta["labels"]["app"] = json!("x");
    }
    let mut hosts = vec![c.of(&HOSTS)];
    if c.rarely(3) {
        hosts.push(c.of(&HOSTS));
    }
    let resolution = c.of(&["STATIC", "DNS", "NONE", "DYNAMIC_DNS", "DNS_ROUND_ROBIN"]);
    let mut port = json!({ "number": c.of(&[80, 443]), "name": c.of(&["http", "tls"]), "protocol": c.of(&["HTTP", "TLS", "TCP"]) });
    if c.rarely(4) {
        port["targetPort"] = json!(8080);
    }
    let mut spec = json!({ "hosts": hosts, "ports": [port], "resolution": resolution });
    if c.below(2) > 0 {
        spec["location"] = json!("MESH_INTERNAL");
    }
    match c.below(5) {
        0 => {}
        1 => spec["addresses"] = json!([c.of(&VIPS)]),
        2 => spec["addresses"] = json!(["10.2.0.0/24"]),
        3 => spec["addresses"] = json!(["bad"]),
        _ => spec["addresses"] = json!(["240.240.0.1"]),
    }
    match c.below(4) {
        0 | 1 => spec["endpoints"] = Value::Array(c.many(2, endpoint)),
        2 => spec["workloadSelector"] = json!({ "labels": labels(c) }),
        _ => {}
    }
    let mut doc = json!({ "spec": spec });
    if c.rarely(3) {
        let kept = c.many(2, |c| {
            let host = match c.below(3) {
                0 | 1 => doc["spec"]["hosts"][0].clone(),
                _ => json!(c.of(&HOSTS)),
            };
            json!({ "value": c.of(&["240.240.0.1", "240.240.0.2", "2001:2::1", "bad"]), "host": host })
        });
        doc["status"] = json!({ "addresses": kept });
    }
    doc
}

pub(super) fn pod(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    meta["labels"] = labels(c);
    let ready = c.of(&["True", "True", "False"]);
    let phase = c.of(&[
        "Running",
        "Running",
        "Running",
        "Running",
        "Succeeded",
        "Failed",
    ]);
    let mut status =
        json!({ "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] });
    match c.below(8) {
        0..=5 => status["podIPs"] = json!([{ "ip": c.of(&IPS) }]),
        6 => status["podIPs"] = json!([{ "ip": "10.0.0.1" }, { "ip": "fd00::2" }]),
        _ => {}
    }
    if !c.rarely(3) {
        set(
            meta,
            "annotations",
            "ambient.istio.io/redirection",
            "enabled",
        );
    }
    if c.rarely(4) {
        use_waypoint(meta, c);
    }
    dataplane_mode(meta, c);
    label(
        meta,
        "gateway.networking.k8s.io/gateway-name",
        c.of(&[None, None, None, None, Some("w"), Some("x")]),
    );
    label(
        meta,
        "networking.istio.io/tunnel",
        c.of(&[None, None, None, None, Some("http")]),
    );
    if c.rarely(8) {
        meta["deletionTimestamp"] = json!("2024-01-03T00:00:00Z");
    }
    label(
        meta,
        "service.istio.io/canonical-name",
        c.of(&[None, None, None, None, Some("z")]),
    );
    let uid = c.of(&["u1", "u2"]);
    meta["uid"] = json!(uid);
    let mut spec = json!({
        "nodeName": c.of(&["n1", "n2", "gone"]),
        "serviceAccountName": c.of(&["x", "waypoint"]),
        "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": c.of(&[8080, 8081]) }] }],
    });
    if c.rarely(10) {
        spec["hostNetwork"] = json!(true);
    }
    json!({ "spec": spec, "status": status })
}

pub(super) fn workload_entry(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    if c.rarely(3) {
        use_waypoint(meta, c);
    }
    dataplane_mode(meta, c);
    if c.rarely(3) {
        meta["labels"]["app"] = json!("x");
    }
    label(
        meta,
        "networking.istio.io/tunnel",
        c.of(&[None, None, Some("http")]),
    );
    json!({ "spec": endpoint(c) })
}

pub(super) fn endpoint_slice(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    label(
        meta,
        "kubernetes.io/service-name",
        c.of(&[Some("x"), Some("x"), Some("y"), Some("gone"), None]),
    );
    let endpoints = c.many(2, |c| {
        let mut out = json!({ "addresses": [c.of(&IPS)] });
        if c.below(3) > 0 {
            let (ns, name) = (c.of(&NAMESPACES), c.of(&NAMES));
            out["targetRef"] = json!({ "kind": "Pod", "namespace": ns, "name": name });
            if c.rarely(3) {
                out["targetRef"]["uid"] = json!("u1");
            }
        }
        if c.rarely(4) {
            out["conditions"] = json!({ "ready": false });
        }
        out
    });
    let kind = c.of(&["IPv4", "IPv4", "IPv6", "FQDN"]);
    let ports = c.many(2, |c| json!({ "name": c.of(&["http", "tcp", ""]), "port": c.of(&[8080, 8081]), "protocol": "TCP" }));
    json!({ "addressType": kind, "endpoints": endpoints, "ports": ports })
}
