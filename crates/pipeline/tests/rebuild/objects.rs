//! Objects of all kinds from small pools, so that names meet, selectors overlap and
//! references dangle. The first answer to every question is the plain one: a case that
//! fails shrinks towards plain objects.

#[path = "traffic.rs"]
mod traffic;

pub(crate) use traffic::{jwks, jwks_source, rejections};

use ambientd_pipeline::MeshDefaults;
use model::derived::Features;
use model::proxy::{SecretSource, StringFactory};
use model::{Kind, ProxyClass};
use model::{ObjectKey, Str};
use serde_json::{Map, Value, json};

/// Namespaces of the world; the last one is the root and system namespace.
pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "istio-system"];
const NAMES: [&str; 3] = ["x", "y", "w"];
const NODES: [&str; 2] = ["n1", "n2"];
const TAGS: [&str; 2] = ["istio-revision-tag-default", "istio-revision-tag-prod"];
const VALIDATORS: [&str; 2] = ["istiod-default-validator", "other-validator"];
const CLASSES: [&str; 2] = ["istio-waypoint", "custom"];
/// Pods, entries, slices and inline endpoints share them.
const IPS: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "10.0.0.4"];
const VIPS: [&str; 4] = ["10.1.0.1", "10.1.0.2", "fd01::1", "10.1.0.3"];
const HOSTS: [&str; 5] = [
    "x.a.svc.cluster.local",
    "api.example.com",
    "*.example.com",
    "y.b.svc.cluster.local",
    "db.example.com",
];
const PORTS: [u16; 4] = [80, 9090, 443, 15008];

/// Answers to the questions of a generator, one byte each; zero when they run out.
pub(crate) struct Choices<'b> {
    bytes: std::slice::Iter<'b, u8>,
}

impl<'b> Choices<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
        }
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or_default()) % count
    }

    fn of<T: Clone>(&mut self, options: &[T]) -> T {
        options[self.below(options.len())].clone()
    }

    /// True in one of `count` cases.
    fn rarely(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn many<T>(&mut self, max: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| make(self)).collect()
    }
}

/// How many different objects of a kind there can be.
pub(crate) fn slots(kind: Kind) -> usize {
    match kind {
        Kind::MeshConfig => 1,
        Kind::Namespace => NAMESPACES.len(),
        Kind::Node => NODES.len(),
        Kind::MutatingWebhookConfiguration => TAGS.len(),
        Kind::ValidatingWebhookConfiguration => VALIDATORS.len(),
        Kind::GatewayClass => CLASSES.len(),
        _ => NAMESPACES.len() * NAMES.len(),
    }
}

/// Settings of the installation: every switch, also together with others.
pub(crate) fn defaults(c: &mut Choices<'_>) -> MeshDefaults {
    let plain = Features::default();
    let features = Features {
        dry_run_policies: c.rarely(2),
        allow_waypoint_policies: c.rarely(2),
        ip_autoallocate: !c.rarely(6),
        // Wide, and so narrow that hosts meet and the range runs out.
        allocation_v4: c.of(&[
            plain.allocation_v4,
            ([240, 240, 0, 0].into(), 30),
            ([240, 240, 0, 0].into(), 29),
        ]),
        entries_select_pods: !c.rarely(6),
        services_select_entries: !c.rarely(6),
        waypoint_missing_denies: c.rarely(3),
        ..plain
    };
    MeshDefaults {
        revision: c.of(&["stable", ""]).into(),
        system_namespace: c.of(&["istio-system", "istio-system", "b"]).into(),
        is_alone: !c.rarely(2),
        features,
        ..MeshDefaults::default()
    }
}

/// The key of the object in a slot.
pub(crate) fn key(kind: Kind, slot: usize) -> ObjectKey {
    match kind {
        Kind::MeshConfig => ObjectKey::new("istio-system", "istio"),
        Kind::Namespace => ObjectKey::cluster(NAMESPACES[slot]),
        Kind::Node => ObjectKey::cluster(NODES[slot]),
        Kind::MutatingWebhookConfiguration => ObjectKey::cluster(TAGS[slot]),
        Kind::ValidatingWebhookConfiguration => ObjectKey::cluster(VALIDATORS[slot]),
        Kind::GatewayClass => ObjectKey::cluster(CLASSES[slot]),
        _ => ObjectKey::new(
            NAMESPACES[slot % NAMESPACES.len()],
            NAMES[slot / NAMESPACES.len()],
        ),
    }
}

/// Classes of proxies that come and go: several of one Gateway, and one without a Gateway.
pub(crate) fn classes() -> Vec<ProxyClass> {
    let of = |ns: &str, name: &str| ProxyClass::waypoint(ObjectKey::new(ns, name));
    let mut bound = of("a", "w");
    bound.bind = Some([127, 0, 0, 2].into());
    bound.secrets = SecretSource::Bootstrap;
    let mut abroad = of("a", "w");
    abroad.network = Str::from("net-2");
    abroad.strings = StringFactory::IstioHashable;
    vec![
        of("a", "w"),
        of("b", "w"),
        bound,
        abroad,
        of("a", "x"),
        of("b", "nobody"),
    ]
}

/// The document of an object.
pub(crate) fn document(kind: Kind, slot: usize, c: &mut Choices<'_>) -> Value {
    let mut meta = json!({ "name": key(kind, slot).name.as_str() });
    if kind.is_namespaced() {
        meta["namespace"] = json!(key(kind, slot).ns.as_str());
    }
    let mut doc = match kind {
        Kind::MeshConfig => return mesh_config(c),
        Kind::Namespace => namespace(&mut meta, c),
        Kind::Node => node(&mut meta, c),
        Kind::MutatingWebhookConfiguration | Kind::ValidatingWebhookConfiguration => {
            tag(&mut meta, c);
            json!({})
        }
        Kind::GatewayClass => gateway_class(&mut meta, c),
        Kind::Gateway => gateway(&mut meta, c),
        Kind::ReferenceGrant => reference_grant(c),
        Kind::Secret => secret(c),
        Kind::ConfigMap => config_map(c),
        Kind::Service => service(&mut meta, c),
        Kind::ServiceEntry => service_entry(&mut meta, c),
        Kind::Pod => pod(&mut meta, c),
        Kind::WorkloadEntry => workload_entry(&mut meta, c),
        Kind::EndpointSlice => endpoint_slice(&mut meta, c),
        Kind::AuthorizationPolicy => authorization_policy(&mut meta, c),
        Kind::PeerAuthentication => peer_authentication(c),
        Kind::HttpRoute => http_route(c),
        Kind::GrpcRoute => traffic::grpc_route(c),
        Kind::TcpRoute | Kind::TlsRoute => traffic::l4_route(kind, c),
        Kind::VirtualService => traffic::virtual_service(&mut meta, c),
        Kind::DestinationRule => traffic::destination_rule(c),
        Kind::RequestAuthentication => traffic::request_authentication(c),
    };
    match c.below(6) {
        4 => meta["creationTimestamp"] = json!("2024-01-01T00:00:00Z"),
        5 => meta["creationTimestamp"] = json!("2024-01-02T00:00:00Z"),
        _ => {}
    }
    if c.rarely(24) {
        doc["spec"] = json!("broken");
    }
    if c.rarely(8) {
        meta["generation"] = json!(2);
    }
    nothing_that_matters(&mut doc, &mut meta, c);
    let is_gateway_api = kind.group() == "gateway.networking.k8s.io";
    if is_gateway_api || kind.group().ends_with("istio.io") {
        let revision = c.of(&[
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            Some("stable"),
            Some("stable"),
            Some("canary"),
        ]);
        label(&mut meta, "istio.io/rev", revision);
    }
    if kind == Kind::Namespace {
        let revision = c.of(&[
            None,
            None,
            None,
            Some("stable"),
            Some("prod"),
            Some("canary"),
        ]);
        label(&mut meta, "istio.io/rev", revision);
    }
    if kind == Kind::Service && c.rarely(12) {
        tag(&mut meta, c);
    }
    let version = match kind.group() {
        "" => "v1".to_owned(),
        "gateway.networking.k8s.io" if kind == Kind::ReferenceGrant => {
            format!("{}/v1beta1", kind.group())
        }
        group if matches!(kind, Kind::TcpRoute | Kind::TlsRoute) => format!("{group}/v1alpha2"),
        group => format!("{group}/v1"),
    };
    doc["apiVersion"] = json!(version);
    doc["kind"] = json!(kind.as_str());
    doc["metadata"] = meta;
    doc
}

/// What gives a revision another name.
fn tag(meta: &mut Value, c: &mut Choices<'_>) {
    let revision = c.of(&["stable", "stable", "default", "canary"]);
    label(meta, "istio.io/rev", revision);
    let tag = c.of(&[Some("prod"), Some("prod"), Some("default"), None]);
    label(meta, "istio.io/tag", tag);
}

// === Parts ===

fn set(meta: &mut Value, place: &str, key: &str, value: impl Into<Option<&'static str>>) {
    if let Some(value) = value.into() {
        meta[place][key] = json!(value);
    }
}

fn label(meta: &mut Value, key: &str, value: impl Into<Option<&'static str>>) {
    set(meta, "labels", key, value);
}

fn use_waypoint(meta: &mut Value, c: &mut Choices<'_>) {
    let name = c.of(&[
        None,
        Some("w"),
        Some("w"),
        Some("w"),
        Some("w"),
        Some("w"),
        Some("x"),
        Some("none"),
        Some("gone"),
        Some("b/w"),
    ]);
    label(meta, "istio.io/use-waypoint", name);
    let ns = c.of(&[
        None,
        None,
        None,
        None,
        Some("a"),
        Some("b"),
        Some("b"),
        Some("gone"),
    ]);
    label(meta, "istio.io/use-waypoint-namespace", ns);
}

/// A second waypoint and its share.
fn canary(meta: &mut Value, c: &mut Choices<'_>) {
    if !c.rarely(2) {
        return;
    }
    let name = c.of(&["w", "w", "w", "w", "w", "w", "w", "x", "none", "", "gone"]);
    label(meta, "istio.io/use-waypoint-canary", name);
    let ns = c.of(&[Some("b"), Some("b"), Some("b"), Some("a"), None]);
    label(meta, "istio.io/use-waypoint-canary-namespace", ns);
    let weight = c.of(&[
        None,
        Some("10"),
        Some("10"),
        Some("100"),
        Some("150"),
        Some("odd"),
    ]);
    set(
        meta,
        "annotations",
        "istio.io/use-waypoint-canary-weight",
        weight,
    );
}

/// What changes often and says nothing: it must be pushed to nobody.
fn nothing_that_matters(doc: &mut Value, meta: &mut Value, c: &mut Choices<'_>) {
    let at = c.of(&[None, None, None, Some("1"), Some("2")]);
    set(meta, "annotations", "example.com/seen", at);
    if at.is_some() {
        meta["resourceVersion"] = json!(at);
        let heartbeat = json!({ "type": "Odd", "status": "True", "lastHeartbeatTime": at });
        match &mut doc["status"]["conditions"] {
            Value::Array(conditions) => conditions.push(heartbeat),
            other => *other = json!([heartbeat]),
        }
    }
}

fn dataplane_mode(meta: &mut Value, c: &mut Choices<'_>) {
    let mode = c.of(&[None, Some("ambient"), Some("ambient"), Some("none")]);
    label(meta, "istio.io/dataplane-mode", mode);
}

fn labels(c: &mut Choices<'_>) -> Value {
    let mut out = Map::new();
    out.insert("app".into(), json!(c.of(&["x", "x", "y"])));
    if c.rarely(3) {
        out.insert("version".into(), json!(c.of(&["v1", "v2"])));
    }
    Value::Object(out)
}

/// Where a selector may stand.
fn selector(c: &mut Choices<'_>, labels_field: &str) -> Option<Value> {
    match c.below(5) {
        0 | 1 => None,
        2 | 3 => Some(json!({ labels_field: labels(c) })),
        _ => Some(json!({})),
    }
}

// === Cluster-wide kinds ===

fn mesh_config(c: &mut Choices<'_>) -> Value {
    let mut doc = json!({ "kind": "MeshConfig" });
    if c.rarely(12) {
        doc["trustDomain"] = json!(["broken"]);
        return doc;
    }
    if let Some(domain) = c.of(&[None, Some("other.example"), Some("cluster.local")]) {
        doc["trustDomain"] = json!(domain);
    }
    if let Some(root) = c.of(&[None, None, Some("a"), Some("gone")]) {
        doc["rootNamespace"] = json!(root);
    }
    if c.rarely(3) {
        doc["trustDomainAliases"] = json!(["old.example"]);
    }
    let red = json!({ "matchLabels": { "team": "red" } });
    let other = json!({ "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] });
    match c.below(12) {
        3 => doc["discoverySelectors"] = json!([red]),
        4 => doc["discoverySelectors"] = json!([other]),
        5 => doc["discoverySelectors"] = json!([red, other]),
        _ => {}
    }
    if c.rarely(3) {
        let word = |c: &mut Choices<'_>| c.of(&["PUBLIC", "NAMESPACE", "NONE"]);
        let rules = json!([{ "namespaceSelector": red }]);
        let policy = json!({ "visibility": word(c), "matchingRules": rules });
        doc["serviceEntryVisibility"] =
            json!({ "defaultVisibility": word(c), "policies": [policy] });
    }
    doc
}

fn namespace(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    use_waypoint(meta, c);
    dataplane_mode(meta, c);
    label(meta, "team", c.of(&[None, Some("red")]));
    label(
        meta,
        "topology.istio.io/network",
        c.of(&[None, None, Some("net-1")]),
    );
    label(
        meta,
        "istio.io/ingress-use-waypoint",
        c.of(&[None, None, Some("true")]),
    );
    set(
        meta,
        "annotations",
        "networking.istio.io/traffic-distribution",
        c.of(&[
            None,
            None,
            Some("PreferClose"),
            Some("prefersamenode"),
            Some("odd"),
        ]),
    );
    canary(meta, c);
    label(
        meta,
        "ambientd.io/waypoint-missing",
        c.of(&[
            None,
            None,
            None,
            Some("fail-closed"),
            Some("fail-open"),
            Some("odd"),
        ]),
    );
    json!({})
}

fn node(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    label(
        meta,
        "topology.kubernetes.io/region",
        c.of(&[None, Some("r1")]),
    );
    label(
        meta,
        "topology.kubernetes.io/zone",
        c.of(&[None, Some("z1"), Some("z2")]),
    );
    label(
        meta,
        "topology.istio.io/subzone",
        c.of(&[None, None, Some("s1")]),
    );
    json!({})
}

const BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
const BINDINGS: [Option<&str>; 8] = [
    None,
    None,
    None,
    None,
    Some("PROXY/15088"),
    Some("PROXY"),
    Some("NONE"),
    Some("ODD/1/2"),
];

fn gateway_class(meta: &mut Value, c: &mut Choices<'_>) -> Value {
    let serves = c.of(&[None, None, Some("all"), Some("workload"), Some("odd")]);
    label(meta, "istio.io/waypoint-for", serves);
    set(meta, "annotations", BINDING, c.of(&BINDINGS));
    let controller = c.of(&[
        "istio.io/mesh-controller",
        "istio.io/mesh-controller",
        "istio.io/mesh-controller",
        "istio.io/mesh-controller",
        "example.com/other",
    ]);
    json!({ "spec": { "controllerName": controller } })
}

// === Gateway API ===

fn gateway(meta: &mut Value, c: &mut Choices<'_>) -> Value {
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
    set(meta, "annotations", BINDING, c.of(&BINDINGS));
    if c.rarely(6) {
        set(
            meta,
            "annotations",
            "gateway.istio.io/service-account",
            "east",
        );
    }
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
    json!({ "spec": { "gatewayClassName": class, "listeners": listeners }, "status": { "addresses": addresses } })
}

/// Values that decode, one that does not, and objects without what proxies need.
fn secret(c: &mut Choices<'_>) -> Value {
    let key = c.of(&["ca.crt", "tls.key", "cert", "other"]);
    let value = c.of(&["", "Y2VydA==", "not base64"]);
    json!({ "type": c.of(&["Opaque", "kubernetes.io/tls"]), "data": { key: value } })
}

fn config_map(c: &mut Choices<'_>) -> Value {
    let key = c.of(&["ca.crt", "other"]);
    json!({ "data": { key: c.of(&["", "no certificate"]) } })
}

fn reference_grant(c: &mut Choices<'_>) -> Value {
    let kind = c.of(&["HTTPRoute", "HTTPRoute", "GRPCRoute", "TCPRoute"]);
    let mut to = json!({ "group": "", "kind": "Service" });
    if c.rarely(3) {
        to["name"] = json!(c.of(&NAMES));
    }
    json!({ "spec": {
        "from": [{ "group": "gateway.networking.k8s.io", "kind": kind, "namespace": c.of(&NAMESPACES) }],
        "to": [to],
    } })
}

fn parent(c: &mut Choices<'_>) -> Value {
    let mut parent = match c.below(5) {
        0 | 1 => json!({ "group": "", "kind": "Service", "name": c.of(&NAMES) }),
        2 | 3 => json!({ "name": c.of(&["w", "w", "x", "gone"]) }),
        _ => json!({ "kind": "Service", "name": c.of(&NAMES) }),
    };
    if c.rarely(4) {
        parent["namespace"] = json!(c.of(&NAMESPACES));
    }
    if c.rarely(6) {
        parent["port"] = json!(c.of(&PORTS));
    }
    if c.rarely(8) {
        parent["sectionName"] = json!(c.of(&["mesh", "gone"]));
    }
    parent
}

fn backend(c: &mut Choices<'_>) -> Value {
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

fn http_match(c: &mut Choices<'_>) -> Value {
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

fn rule(c: &mut Choices<'_>) -> Value {
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

fn http_route(c: &mut Choices<'_>) -> Value {
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

// === Services and workloads ===

fn service_ports(c: &mut Choices<'_>) -> Vec<Value> {
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

fn service(meta: &mut Value, c: &mut Choices<'_>) -> Value {
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

fn endpoint(c: &mut Choices<'_>) -> Value {
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

fn service_entry(meta: &mut Value, c: &mut Choices<'_>) -> Value {
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

fn pod(meta: &mut Value, c: &mut Choices<'_>) -> Value {
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

fn workload_entry(meta: &mut Value, c: &mut Choices<'_>) -> Value {
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

fn endpoint_slice(meta: &mut Value, c: &mut Choices<'_>) -> Value {
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

// === Policies ===

fn target(c: &mut Choices<'_>) -> Value {
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

fn source(c: &mut Choices<'_>) -> Value {
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

fn operation(c: &mut Choices<'_>) -> Value {
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

fn condition(c: &mut Choices<'_>) -> Value {
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

fn authorization_rule(c: &mut Choices<'_>) -> Value {
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

fn authorization_policy(meta: &mut Value, c: &mut Choices<'_>) -> Value {
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

fn mode(c: &mut Choices<'_>) -> Value {
    json!({ "mode": c.of(&["STRICT", "STRICT", "PERMISSIVE", "DISABLE", "UNSET"]) })
}

fn peer_authentication(c: &mut Choices<'_>) -> Value {
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
