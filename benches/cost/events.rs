//! Events as a cluster has them, each with the one that takes it back: what is measured can go
//! on without the mesh becoming another one.

use model::object::Input;
use model::{Kind, ObjectKey};
use pipeline::{MeshDefaults, Pipeline};
use serde_json::{Value, json};
use testkit::load::world::{Spec, World, object};

/// The events that are measured.
pub(crate) const EVENTS: [&str; 6] = [
    "readiness",
    "heartbeat",
    "new-pod",
    "policy",
    "service",
    "namespace",
];

/// Something that a source tells.
pub(crate) enum Told {
    /// An object as it is now.
    Is(Value),
    /// An object that is gone.
    Gone(Kind, ObjectKey),
}

/// A loaded mesh.
pub(crate) struct Mesh {
    pub(crate) pipeline: Pipeline,
    pub(crate) world: World,
}

impl Mesh {
    /// One with this many pods.
    pub(crate) fn of_pods(pods: usize) -> Self {
        let world = World::generate(Spec::of_pods(pods).bare());
        let mut pipeline = Pipeline::new(MeshDefaults::default());
        drop(pipeline.apply(world.inputs()));
        Self { pipeline, world }
    }

    /// Reads and applies.
    pub(crate) fn apply(&mut self, told: &[Told]) {
        let read = |told: &Told| match told {
            Told::Is(value) => Input::Upsert(object(value)),
            Told::Gone(kind, key) => Input::Delete(*kind, key.clone()),
        };
        drop(self.pipeline.apply(told.iter().map(read).collect()));
    }
}

/// An event of the mesh, and the one that undoes it.
pub(crate) fn event(name: &str, world: &mut World) -> [Vec<Told>; 2] {
    let all = |values: Vec<Value>| values.into_iter().map(Told::Is).collect::<Vec<_>>();
    let pods = world.spec().pods;
    match name {
        "readiness" => {
            let unready = all(world.flip_readiness(pods / 2));
            [unready, all(world.flip_readiness(pods / 2))]
        }
        "heartbeat" => {
            let pod = world.object(Kind::Pod, pods / 2);
            let mut later = pod.clone();
            later["metadata"]["resourceVersion"] = json!("99999999");
            [all(vec![later]), all(vec![pod])]
        }
        "new-pod" => {
            let mut pod = world.object(Kind::Pod, pods / 2);
            pod["metadata"]["name"] = json!("another-pod");
            pod["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
            pod["status"]["podIP"] = json!("10.255.255.254");
            pod["status"]["podIPs"] = json!([{"ip": "10.255.255.254"}]);
            let ns = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            let gone = Told::Gone(Kind::Pod, ObjectKey::new(ns, "another-pod"));
            [all(vec![pod]), vec![gone]]
        }
        "policy" => {
            let policy = world.object(Kind::AuthorizationPolicy, 0);
            let mut edited = policy.clone();
            edited["spec"]["rules"] = json!([{"to": [{"operation": {"ports": ["8081"]}}]}]);
            [all(vec![edited]), all(vec![policy])]
        }
        "service" => {
            let service = world.object(Kind::Service, world.spec().services / 2);
            let mut edited = service.clone();
            edited["spec"]["ports"][0]["targetPort"] = json!(8081);
            [all(vec![edited]), all(vec![service])]
        }
        "namespace" => {
            let bound = all(world.relabel_namespace(0));
            [bound, all(world.relabel_namespace(0))]
        }
        other => panic!("there is no event {other}"),
    }
}
