//! What one event costs, from input to snapshot: it must depend on what changed, not on
//! how much exists. Compare the columns of one run with each other.

use std::sync::Arc;

use divan::Bencher;
use model::object::Input;
use model::parse::{Recognised, recognise};
use model::{Kind, Object, ObjectKey, ProxyClass};
use pipeline::{MeshDefaults, Pipeline};
use serde_json::json;

const SERVICES_PER_NAMESPACE: usize = 50;
const PODS_PER_SERVICE: usize = 10;

fn main() {
    divan::main();
}

fn object(value: &serde_json::Value) -> Object {
    match recognise(value, "bench") {
        Recognised::Object(object) => object,
        _ => unreachable!("the bench writes objects only"),
    }
}

fn pod(index: usize, ready: bool) -> Object {
    let service = index / PODS_PER_SERVICE;
    let namespace = service / SERVICES_PER_NAMESPACE;
    let octets = [10, (index >> 16) as u8, (index >> 8) as u8, index as u8];
    let ip = std::net::Ipv4Addr::from(octets).to_string();
    object(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{index}"), "namespace": format!("ns-{namespace}"),
            "labels": {"app": format!("svc-{service}"), "version": "v1"},
            "annotations": {"ambient.istio.io/redirection": "enabled"},
        },
        "spec": {"serviceAccountName": "default", "nodeName": format!("node-{}", index % 100)},
        "status": {
            "phase": "Running", "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    }))
}

fn service(index: usize) -> Object {
    let namespace = index / SERVICES_PER_NAMESPACE;
    let ip = std::net::Ipv4Addr::from([172, 16, (index >> 8) as u8, index as u8]).to_string();
    object(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("svc-{index}"), "namespace": format!("ns-{namespace}"),
            "labels": {"istio.io/use-waypoint": "waypoint"},
        },
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": format!("svc-{index}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }))
}

fn gateway(namespace: usize) -> Object {
    let ns = format!("ns-{namespace}");
    object(&json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": ns},
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
        "status": {"addresses": [{"type": "Hostname", "value": format!("waypoint.{ns}.svc.cluster.local")}]},
    }))
}

/// The complete lists of a mesh with this many pods.
fn world(pods: usize) -> Vec<Input> {
    let services = pods.div_ceil(PODS_PER_SERVICE);
    let namespaces = services.div_ceil(SERVICES_PER_NAMESPACE);
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let objects = match kind {
                Kind::Pod => (0..pods).map(|index| pod(index, true)).collect(),
                Kind::Service => (0..services).map(service).collect(),
                Kind::Gateway => (0..namespaces).map(gateway).collect(),
                _ => Vec::new(),
            };
            Input::Resync(kind, objects)
        })
        .chain([Input::Interest(
            ProxyClass::waypoint(ObjectKey::new("ns-0", "waypoint")),
            true,
        )])
        .collect()
}

fn loaded(pods: usize) -> Pipeline {
    let mut pipeline = Pipeline::new(MeshDefaults::default());
    pipeline.apply(world(pods));
    pipeline
}

/// A pod behind a connected waypoint turns unready or ready again.
#[divan::bench(args = [1_000, 10_000, 50_000])]
fn pod_readiness_flips(bencher: Bencher, pods: usize) {
    let mut pipeline = loaded(pods);
    let mut ready = true;
    bencher.bench_local(|| {
        ready = !ready;
        pipeline.apply(vec![Input::Upsert(pod(0, ready))])
    });
}

/// A heartbeat: the same object again.
#[divan::bench(args = [1_000, 50_000])]
fn equal_pod_again(bencher: Bencher, pods: usize) {
    let mut pipeline = loaded(pods);
    let same = pod(0, true);
    bencher.bench_local(|| pipeline.apply(vec![Input::Upsert(same.clone())]));
}

/// The first snapshot of a whole mesh.
#[divan::bench(args = [1_000, 10_000, 50_000], sample_count = 3, sample_size = 1)]
fn first_snapshot(bencher: Bencher, pods: usize) {
    bencher
        .with_inputs(|| world(pods))
        .bench_local_values(|inputs| {
            let mut pipeline = Pipeline::new(MeshDefaults::default());
            Arc::clone(&pipeline.apply(inputs).unwrap_or_default())
        });
}
