//! What single functions and events cost: `cargo xtask bench micro` times them, `cargo xtask
//! bench --check` counts the instructions and bytes that they need.
//!
//! With a name and a number it does that so many times and nothing else. Twice, with different
//! numbers, under a tool that counts, the difference is what one costs, whatever goes before.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measurement that cannot go on should stop"
)]

#[path = "cost/events.rs"]
mod events;

use std::hint::black_box;
use std::sync::Arc;

use divan::Bencher;
use events::{EVENTS, Mesh, event};
use model::object::Input;
use model::{Kind, Str};
use pipeline::{MeshDefaults, Pipeline};
use prost::Message as _;
use proto::discovery::DeltaDiscoveryRequest;
use serde_json::Value;
use snapshot::{DeltaCache, EncodedDelta, EncodedResource, ResourceMap, Snapshot};
use testkit::load::world::{Spec, World, object};
use xds::session::{Effect, Flavour, Request, Session};
use xds::{Client, ClientKind};

/// Few enough that stages derive them on one thread, which counts the same every time.
const PODS: usize = 200;

/// Everything that is measured beside [`EVENTS`].
const FUNCTIONS: [&str; 8] = [
    "parse-pod",
    "parse-slice",
    "parse-service",
    "first",
    "emit",
    "encode",
    "diff",
    "session",
];

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    match args.as_slice() {
        [flag] if flag == "--names" => names().for_each(|name| println!("{name}")),
        [name, count] if names().any(|known| known == name) => {
            let mut run = prepared(name);
            for _ in 0..count.parse::<usize>().expect("a number") {
                run();
            }
        }
        _ => divan::main(),
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.into_iter().chain(EVENTS)
}

#[divan::bench(args = names())]
fn cost(bencher: Bencher<'_, '_>, name: &str) {
    bencher.bench_local(prepared(name));
}

/// What one run is, with everything made that it needs.
fn prepared(name: &str) -> Box<dyn FnMut()> {
    flow::stop_verifying();
    match name {
        "parse-pod" => parsing(Kind::Pod),
        "parse-slice" => parsing(Kind::EndpointSlice),
        "parse-service" => parsing(Kind::Service),
        "first" => {
            let inputs = World::generate(Spec::of_pods(PODS).bare()).inputs();
            Box::new(move || {
                let mut pipeline = Pipeline::new(MeshDefaults::default());
                black_box(pipeline.apply(inputs.clone()));
            })
        }
        "emit" | "encode" => encoding(name == "emit"),
        "diff" => diff(),
        "session" => session(),
        event => happening(event),
    }
}

fn parsing(kind: Kind) -> Box<dyn FnMut()> {
    let value = World::generate(Spec::of_pods(PODS)).object(kind, PODS / 20);
    Box::new(move || {
        black_box(object(black_box(&value)));
    })
}

/// An event and its contrary in turn.
fn happening(name: &str) -> Box<dyn FnMut()> {
    let mut mesh = Mesh::of_pods(PODS);
    let [there, back] = event(name, &mut mesh.world);
    // The first time may make what later ones only change.
    mesh.apply(&there);
    mesh.apply(&back);
    let mut turn = false;
    Box::new(move || {
        turn = !turn;
        mesh.apply(if turn { &there } else { &back });
    })
}

fn snapshot_of(pipeline: &mut Pipeline, inputs: Vec<Input>) -> Arc<Snapshot> {
    pipeline.apply(inputs).expect("a snapshot")
}

/// A workload's message to bytes; or bytes to a resource.
fn encoding(is_emitted: bool) -> Box<dyn FnMut()> {
    let world = World::generate(Spec::of_pods(PODS).bare());
    let snapshot = snapshot_of(&mut Pipeline::new(MeshDefaults::default()), world.inputs());
    let resource = Arc::clone(snapshot.addresses.iter().next().expect("an address"));
    let message = proto::workload::Address::decode(resource.payload()).expect("an address");
    let (payload, facts) = (resource.payload(), resource.facts().expect("facts").clone());
    Box::new(move || {
        if is_emitted {
            black_box(black_box(&message).encode_to_vec());
        } else {
            let (name, aliases) = (resource.name().clone(), resource.aliases().to_vec());
            let facts = facts.clone();
            black_box(EncodedResource::address(name, &payload, aliases, facts, 0));
        }
    })
}

fn diff() -> Box<dyn FnMut()> {
    let resource = |at: usize, content: &str| {
        let name = Str::from(format!("Kubernetes//Pod/team-{}/pod-{at}", at % 50));
        let payload = content.repeat(300);
        EncodedResource::new(
            name,
            proto::type_url::ADDRESS,
            payload.as_bytes(),
            Vec::new(),
        )
    };
    let old: ResourceMap = (0..5_000).map(|at| resource(at, "a")).collect();
    let mut new = old.clone();
    new.insert(Arc::new(resource(2_500, "b")));
    Box::new(move || {
        black_box(EncodedDelta::between(black_box(&old), black_box(&new)));
    })
}

/// A ztunnel's stream hears of a pod that turned unready, and acknowledges.
fn session() -> Box<dyn FnMut()> {
    let mut world = World::generate(Spec::of_pods(PODS).bare());
    let mut pipeline = Pipeline::new(MeshDefaults::default());
    let mut held = snapshot_of(&mut pipeline, world.inputs());
    let mut flip = || {
        let edits: Vec<Value> = world.flip_readiness(PODS / 2);
        let edits = edits.iter().map(|value| Input::Upsert(object(value)));
        snapshot_of(&mut pipeline, edits.collect())
    };
    let both = [flip(), flip()];
    let cache = Arc::new(DeltaCache::default());
    let mut session = Session::new(ztunnel(), Flavour::Delta, cache, "n-");
    let ask = |nonce: &str| {
        Request::Delta(DeltaDiscoveryRequest {
            type_url: proto::type_url::ADDRESS.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DeltaDiscoveryRequest::default()
        })
    };
    let mut nonces = sent(session.on_request(0, ask(""), &held));
    let mut now_ms = 0;
    let mut turn = 0;
    Box::new(move || {
        now_ms += 10_000;
        for nonce in std::mem::take(&mut nonces) {
            nonces.extend(sent(session.on_request(now_ms, ask(&nonce), &held)));
        }
        turn = 1 - turn;
        held = Arc::clone(&both[turn]);
        nonces.extend(sent(session.on_snapshot(now_ms, &held)));
    })
}

fn sent(effects: Vec<Effect>) -> Vec<String> {
    let sent = effects.into_iter().filter_map(|effect| match effect {
        Effect::Send(response) => {
            let mut bytes = Vec::new();
            response.encode(&mut bytes);
            black_box(bytes);
            Some(response.nonce)
        }
        _ => None,
    });
    sent.collect()
}

fn ztunnel() -> Client {
    Client {
        kind: ClientKind::Ztunnel,
        ip: [10, 0, 0, 1].into(),
        pod: "ztunnel-x.istio-system".into(),
        ns: "istio-system".into(),
        service_account: None,
        node_name: "node-1".into(),
        cluster_id: "Kubernetes".into(),
        version: Str::new(),
        class: None,
        identity: None,
    }
}
