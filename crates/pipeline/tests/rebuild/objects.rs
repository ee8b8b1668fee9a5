//! Objects of all kinds from small pools, so that names meet, selectors overlap and
//! references dangle. The first answer to every question is the plain one: a case that
//! fails shrinks towards plain objects.

#[path = "gateway_api.rs"]
mod gateway_api;
#[path = "gateways.rs"]
mod gateways;
#[path = "policies.rs"]
mod policies;
#[path = "traffic.rs"]
mod traffic;
#[path = "workloads.rs"]
mod workloads;

use gateway_api::*;
use policies::*;
pub(crate) use traffic::{jwks, jwks_source, rejections};
use workloads::*;

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
const CLASSES: [&str; 3] = ["istio-waypoint", "custom", "istio"];
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
        multi_network: c.rarely(2),
        manual_gateways: !c.rarely(6),
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

/// Classes of proxies that come and go: several of one Gateway, waypoints and
/// ingress gateways, and one without a Gateway.
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
        ProxyClass::ingress(ObjectKey::new("a", "w")),
        ProxyClass::ingress(ObjectKey::new("b", "x")),
        ProxyClass::east_west(ObjectKey::new("a", "w")),
        ProxyClass::east_west(ObjectKey::new("b", "x")),
        ProxyClass {
            is_unprivileged: true,
            ..ProxyClass::ingress(ObjectKey::new("a", "w"))
        },
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
        Kind::ListenerSet => gateways::listener_set(c),
        Kind::BackendTlsPolicy => gateways::backend_tls_policy(&mut meta, c),
        Kind::ReferenceGrant => reference_grant(c),
        Kind::Secret => secret(c),
        Kind::ConfigMap => config_map(&mut meta, c),
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
    if c.rarely(4) {
        doc["defaultConfig"] = json!({ c.of(&["concurrency", "statNameLength"]): 2 });
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
    if c.rarely(4) {
        let of = |key: &str, c: &mut Choices<'_>| json!({ key: red, "scope": c.of(&["GLOBAL", "GLOBAL", "LOCAL", "ODD"]) });
        let scopes = [of("namespaceSelector", c), of("servicesSelector", c)];
        doc["serviceScopeConfigs"] = json!(scopes);
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
        "istio.io/gateway-controller",
        "istio.io/eastwest-controller",
    ]);
    json!({ "spec": { "controllerName": controller } })
}
