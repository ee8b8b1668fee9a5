//! A mesh of a hundred thousand workloads in one process, from objects to messages: it loads, and
//! what changes is pushed, in messages that ztunnel takes.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use model::object::Input;
use model::parse::{Recognised, recognise};
use model::{Kind, Object, Str};
use pipeline::{MeshDefaults, Pipeline};
use prost::Message as _;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use serde_json::{Value, json};
use snapshot::{DeltaCache, ResourceMap, ResourceType, Snapshot};
use xds::{Client, ClientKind, Effect, Effects, Flavour, Session};

const NAMESPACES: usize = 100;
const PODS_PER_NAMESPACE: usize = 1_000;
const SERVICES_PER_NAMESPACE: usize = 100;
const PODS: usize = NAMESPACES * PODS_PER_NAMESPACE;
const SERVICES: usize = NAMESPACES * SERVICES_PER_NAMESPACE;
/// What ztunnel takes. Source: spec/workload-discovery.md §1.1.
const MESSAGE_BYTES_MAX: usize = 200 << 20;

fn object(value: &Value) -> Object {
    match recognise(value, "size.yaml") {
        Recognised::Object(object) => object,
        other => panic!("{value}: {other:?}"),
    }
}

fn ip(first: u8, index: usize) -> String {
    Ipv4Addr::from([first, (index >> 16) as u8, (index >> 8) as u8, index as u8]).to_string()
}

fn pod(index: usize, ready: &str) -> Object {
    let app = format!("app-{}", index % SERVICES_PER_NAMESPACE);
    object(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("{app}-5d4f8c7b9-{index}"),
            "namespace": format!("ns-{}", index / PODS_PER_NAMESPACE),
            "labels": {"app": app, "version": "v1"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {
            "serviceAccountName": app, "nodeName": format!("node-{}", index % 1_000),
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIPs": [{"ip": ip(10, index)}],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }))
}

fn service(index: usize) -> Object {
    let app = format!("app-{}", index % SERVICES_PER_NAMESPACE);
    object(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": app, "namespace": format!("ns-{}", index / SERVICES_PER_NAMESPACE)},
        "spec": {
            "clusterIP": ip(172, index), "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }))
}

fn strict() -> Object {
    object(&json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }))
}

fn world() -> Vec<Input> {
    let list = |kind| {
        let objects = match kind {
            Kind::Pod => (0..PODS).map(|index| pod(index, "True")).collect(),
            Kind::Service => (0..SERVICES).map(service).collect(),
            _ => Vec::new(),
        };
        Input::Resync(kind, objects)
    };
    Kind::ALL.into_iter().map(list).collect()
}

/// A ztunnel that takes whatever comes, and what it holds then: versions by type and name.
struct Ztunnel {
    session: Session,
    held: BTreeMap<&'static str, BTreeMap<String, String>>,
}

fn ask(ty: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ty.type_url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

impl Ztunnel {
    fn new() -> Self {
        let client = Client {
            kind: ClientKind::Ztunnel,
            ip: Ipv4Addr::LOCALHOST.into(),
            pod: Str::from("ztunnel-x.istio-system"),
            ns: Str::from("istio-system"),
            service_account: None,
            node_name: Str::from("node-7"),
            cluster_id: Str::from("Kubernetes"),
            version: Str::new(),
            class: None,
            identity: None,
        };
        let cache = Arc::new(DeltaCache::default());
        Self {
            session: Session::new(client, Flavour::Delta, cache, "n-"),
            held: BTreeMap::new(),
        }
    }

    /// Asks as ztunnel does; how many messages of addresses came.
    fn connect(&mut self, now: &Arc<Snapshot>) -> usize {
        let mut effects = Effects::new();
        for ty in [ResourceType::Address, ResourceType::Authorization] {
            effects.extend(self.session.on_request(0, ask(ty).into(), now));
        }
        self.receive(effects, now)
    }

    /// The same of a change.
    fn follow(&mut self, now: &Arc<Snapshot>) -> usize {
        let effects = self.session.on_snapshot(0, now);
        self.receive(effects, now)
    }

    fn receive(&mut self, mut effects: Effects, now: &Arc<Snapshot>) -> usize {
        let mut messages = 0;
        while !effects.is_empty() {
            let mut next = Effects::new();
            for effect in effects {
                let Effect::Send(response) = effect else {
                    continue;
                };
                let mut bytes = Vec::new();
                response.encode(&mut bytes);
                assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{} bytes", bytes.len());
                let ty = response.ty.unwrap();
                messages += usize::from(ty == ResourceType::Address);
                self.take(ty, &bytes);
                let ack = DeltaDiscoveryRequest {
                    response_nonce: response.nonce,
                    ..ask(ty)
                };
                next.extend(self.session.on_request(0, ack.into(), now));
            }
            effects = next;
        }
        self.holds(now);
        messages
    }

    /// Updates first, then removals, as ztunnel does.
    fn take(&mut self, ty: ResourceType, bytes: &[u8]) {
        let message = DeltaDiscoveryResponse::decode(bytes).unwrap();
        let held = self.held.entry(ty.type_url()).or_default();
        let named = message.resources.into_iter();
        held.extend(named.map(|one| (one.name, one.version)));
        for name in &message.removed_resources {
            held.remove(name);
        }
    }

    fn holds(&self, now: &Snapshot) {
        for ty in [ResourceType::Address, ResourceType::Authorization] {
            let wanted = now.resources(None, ty).into_iter();
            let wanted = wanted.flat_map(ResourceMap::iter);
            let wanted: BTreeMap<String, String> = wanted
                .map(|one| (one.name().to_string(), one.version_str().to_string()))
                .collect();
            let held = self.held.get(ty.type_url()).cloned().unwrap_or_default();
            assert_eq!(held.len(), wanted.len(), "{ty:?}");
            assert!(held == wanted, "{ty:?}: other versions");
        }
    }

    fn count(&self, ty: ResourceType) -> usize {
        self.held.get(ty.type_url()).map_or(0, BTreeMap::len)
    }
}

#[test]
fn hundred_thousand_workloads_load_and_push_in_messages_that_ztunnel_takes() {
    let mut pipeline = Pipeline::new(MeshDefaults::default());
    let first = pipeline.apply(world()).unwrap();
    let mut early = Ztunnel::new();
    assert_eq!(early.connect(&first), 1, "the first answer is complete");
    assert_eq!(early.count(ResourceType::Address), PODS + SERVICES);

    // One pod, then every workload at once, with the policy that they all name.
    let one = pipeline.apply(vec![Input::Upsert(pod(PODS / 2, "False"))]);
    assert_eq!(early.follow(&one.unwrap()), 1);
    let all = pipeline.apply(vec![Input::Upsert(strict())]).unwrap();
    assert!(early.follow(&all) >= 1);
    assert_eq!(early.count(ResourceType::Authorization), 1);

    // Who comes now is told the same.
    let mut late = Ztunnel::new();
    assert_eq!(late.connect(&all), 1);
    assert!(late.held == early.held);

    // All pods go at once.
    let none = pipeline.apply(vec![Input::Resync(Kind::Pod, Vec::new())]);
    assert!(early.follow(&none.unwrap()) >= 1);
    assert_eq!(early.count(ResourceType::Address), SERVICES);
}
