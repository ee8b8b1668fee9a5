//! From Secrets as they are written to what a proxy is given, and that nothing else shows them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use ambientd_pipeline::{MeshDefaults, Pipeline};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::object::Input;
use model::parse::{Recognised, recognise};
use model::{Kind, ObjectKey, SpiffeId};
use serde_json::{Value, json};
use snapshot::{GatewayAccounts, Snapshot};

const GATEWAY: &str = "gateway.networking.k8s.io/v1";

fn object(version: &str, kind: &str, at: &str, rest: Value) -> Value {
    let (ns, name) = at.split_once('/').unwrap();
    let mut out =
        json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": ns, "name": name}});
    for (key, value) in rest.as_object().unwrap() {
        out[key] = value.clone();
    }
    out
}

/// What the proxies of a Gateway run as.
fn account(gateway: &str) -> String {
    format!("{gateway}-istio")
}

/// Two Gateways of `gw`, each with its instance; `web` names a Secret at home and one of `certs`.
fn world() -> Vec<Value> {
    let pod = |name: &str| {
        let mut pod = object(
            "v1",
            "Pod",
            &format!("gw/{name}"),
            json!({"spec": {"serviceAccountName": account(name)}}),
        );
        pod["metadata"]["labels"] = json!({"gateway.networking.k8s.io/gateway-name": name});
        pod
    };
    let gateway = |name: &str, refs: Value| {
        let listener = json!({"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": refs}});
        let spec = json!({"spec": {"gatewayClassName": "istio", "listeners": [listener]}});
        object(GATEWAY, "Gateway", &format!("gw/{name}"), spec)
    };
    vec![
        gateway(
            "web",
            json!([{"name": "own"}, {"name": "far", "namespace": "certs"}]),
        ),
        gateway("other", json!([{"name": "second"}])),
        pod("web"),
        pod("other"),
    ]
}

fn grant() -> Value {
    let from =
        json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "gw"}]);
    let to = json!([{"group": "", "kind": "Secret", "name": "far"}]);
    let spec = json!({"spec": {"from": from, "to": to}});
    object(
        "gateway.networking.k8s.io/v1beta1",
        "ReferenceGrant",
        "certs/gw",
        spec,
    )
}

/// A TLS Secret of a new key, and that key.
fn secret(at: &str) -> (Value, String) {
    let pair = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let (cert, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let data = json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": cert, "tls.key": key, "ca.crt": cert}});
    let mut out = object("v1", "Secret", at, data);
    out["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": key});
    (out, key)
}

struct Plane {
    pipeline: Pipeline,
    snapshot: Arc<Snapshot>,
}

impl Plane {
    fn new(documents: &[Value]) -> Self {
        let mut pipeline = Pipeline::new(MeshDefaults::default());
        let mut batch: Vec<Input> = Kind::ALL.map(|kind| Input::Resync(kind, Vec::new())).into();
        batch.extend(documents.iter().map(upsert));
        let snapshot = pipeline.apply(batch).unwrap();
        Self { pipeline, snapshot }
    }

    /// Says whether anything was published.
    fn apply(&mut self, input: Input) -> bool {
        match self.pipeline.apply(vec![input]) {
            Some(next) => {
                self.snapshot = next;
                true
            }
            None => false,
        }
    }

    /// The private key or the authorities that a proxy of a Gateway of `gw` is given.
    fn given(&self, gateway: &str, name: &str) -> Option<Value> {
        self.given_to(&account(gateway), gateway, name)
    }

    fn given_to(&self, account: &str, gateway: &str, name: &str) -> Option<Value> {
        let caller = SpiffeId::new("cluster.local", "gw", account);
        let gateway = ObjectKey::new("gw", gateway);
        let access = GatewayAccounts(&self.snapshot);
        let found = self
            .snapshot
            .secret(Some(&caller), Some(&gateway), name, &access)?;
        let json = proto::json::to_json(proto::type_url::SECRET, &found.payload()).unwrap();
        assert_eq!(json["name"], name);
        Some(json)
    }

    fn codes(&self) -> Vec<String> {
        let line = |f: &model::Finding| format!("{} {}", f.code, f.object.key);
        self.snapshot.findings.iter().map(line).collect()
    }
}

fn upsert(document: &Value) -> Input {
    match recognise(document, "test.yaml") {
        Recognised::Object(object) => Input::Upsert(object),
        other => panic!("{other:?}"),
    }
}

fn is_given(found: Option<Value>) -> bool {
    found.is_some_and(|found| found.get("tlsCertificate").is_some())
}

#[test]
fn a_secret_travels_from_its_object_to_the_proxies_of_the_gateway_that_names_it() {
    let (own, key) = secret("gw/own");
    let mut documents = world();
    documents.push(own);
    let plane = Plane::new(&documents);
    let found = plane.given("web", "kubernetes-gateway://gw/own").unwrap();
    let sent = found["tlsCertificate"]["privateKey"]["inlineBytes"]
        .as_str()
        .unwrap();
    assert_eq!(decoded(sent), key.replace("\r\n", "\n"));
    assert_eq!(plane.given("other", "kubernetes-gateway://gw/own"), None);
    // Authorities alone, from the same object.
    let found = plane.given("other", "kubernetes://own-cacert").unwrap();
    assert!(found["validationContext"]["trustedCa"]["inlineBytes"].is_string());
    assert_eq!(found.as_object().unwrap().len(), 2, "{found}");
    assert_eq!(
        plane.codes(),
        [
            "gw-certificate-missing gw/other",
            "gw-certificate-no-grant gw/web"
        ]
    );
}

fn decoded(base64: &str) -> String {
    String::from_utf8(STANDARD.decode(base64).unwrap()).unwrap()
}

#[test]
fn a_reference_grant_opens_and_shuts_another_namespace() {
    const FAR: &str = "kubernetes-gateway://certs/far";
    let (far, _) = secret("certs/far");
    let mut documents = world();
    documents.push(far);
    let mut plane = Plane::new(&documents);
    assert_eq!(plane.given("web", FAR), None);
    assert!(plane.apply(upsert(&grant())));
    assert!(is_given(plane.given("web", FAR)));
    assert_eq!(plane.given("other", FAR), None);
    assert_eq!(plane.given("web", "kubernetes://certs/far"), None);
    assert!(plane.apply(Input::Delete(
        Kind::ReferenceGrant,
        ObjectKey::new("certs", "gw")
    )));
    assert_eq!(plane.given("web", FAR), None);
}

#[test]
fn an_instance_of_another_account_and_a_lost_reference_end_access() {
    const OWN: &str = "kubernetes-gateway://gw/own";
    let (own, _) = secret("gw/own");
    let mut documents = world();
    documents.push(own);
    let mut plane = Plane::new(&documents);
    assert!(is_given(plane.given("web", OWN)));
    assert!(is_given(plane.given("web", "kubernetes://own")));
    let mut stranger = world().pop().unwrap();
    stranger["metadata"]["name"] = json!("stranger");
    stranger["metadata"]["labels"] = json!({"gateway.networking.k8s.io/gateway-name": "web"});
    stranger["spec"]["serviceAccountName"] = json!("stranger");
    plane.apply(upsert(&stranger));
    assert_eq!(plane.given_to("stranger", "web", OWN), None);
    plane.apply(Input::Delete(Kind::Pod, ObjectKey::new("gw", "web")));
    assert_eq!(plane.given("web", "kubernetes://own"), None);
    let mut plane = Plane::new(&documents);
    plane.apply(Input::Delete(Kind::Gateway, ObjectKey::new("gw", "web")));
    assert_eq!(plane.given("web", OWN), None);
}

#[test]
fn stores_do_not_depend_on_order_and_equal_secrets_publish_nothing() {
    let (own, _) = secret("gw/own");
    let (far, _) = secret("certs/far");
    let mut documents = world();
    documents.extend([own.clone(), far, grant()]);
    let plane = Plane::new(&documents);
    documents.reverse();
    let mut stepwise = Plane::new(&[]);
    for document in &documents {
        stepwise.apply(upsert(document));
    }
    assert_eq!(stepwise.snapshot.secrets, plane.snapshot.secrets);
    assert_eq!(stepwise.snapshot.findings, plane.snapshot.findings);
    let mut labelled = own.clone();
    labelled["metadata"]["annotations"] = json!({"a": "b"});
    assert!(!stepwise.apply(upsert(&labelled)));
    let before = stepwise.given("web", "kubernetes://own");
    assert!(stepwise.apply(upsert(&secret("gw/own").0)));
    assert_ne!(stepwise.given("web", "kubernetes://own"), before);
}

#[test]
fn discovery_selectors_hide_secrets_too() {
    let (own, _) = secret("gw/own");
    let mut documents = world();
    documents.push(own);
    let mut plane = Plane::new(&documents);
    let mesh =
        json!({"kind": "MeshConfig", "discoverySelectors": [{"matchLabels": {"mesh": "yes"}}]});
    assert!(plane.apply(upsert(&mesh)));
    assert_eq!(plane.given("web", "kubernetes-gateway://gw/own"), None);
}

#[test]
fn rows_and_snapshots_print_no_part_of_a_key() {
    let (own, key) = secret("gw/own");
    let line = key.lines().nth(1).unwrap();
    let Input::Upsert(row) = upsert(&own) else {
        panic!()
    };
    let mut documents = world();
    documents.push(own);
    let plane = Plane::new(&documents);
    let shown = format!("{row:?} {:?}", plane.snapshot);
    assert!(shown.contains("[redacted]"));
    assert!(!shown.contains(line) && !shown.contains("PRIVATE"));
}
