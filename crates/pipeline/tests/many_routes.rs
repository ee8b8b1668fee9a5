//! What one edit costs among 5,000 HTTPRoutes of 100 ingress gateways, each with a proxy: rows
//! that differ and primaries that are derived are counted, and no time is measured.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use ambientd_pipeline::{MeshDefaults, Pipeline};
use model::object::Input;
use model::parse::{Recognised, recognise};
use model::{Kind, ObjectKey, ProxyClass};
use serde_json::{Value, json};
use snapshot::{ResourceMap, Snapshot};

const GATEWAYS: usize = 100;
const ROUTES: usize = 5_000;
/// More than this, an edit costs more than what it concerns: the route, its host, the routes of
/// its Gateway, and what is said of each.
const RUNS_MAX: u64 = 12;

fn class(gateway: usize) -> ProxyClass {
    ProxyClass::ingress(ObjectKey::new("doors", format!("g{gateway}")))
}

fn upsert(document: &Value) -> Input {
    match recognise(document, "test") {
        Recognised::Object(object) => Input::Upsert(object),
        other => panic!("{document}: {other:?}"),
    }
}

fn gateway(at: usize, generation: u64, labels: &Value) -> Input {
    let from = json!({"namespaces": {"from": "All"}});
    upsert(&json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"namespace": "doors", "name": format!("g{at}"), "generation": generation, "labels": labels},
        "spec": {
            "gatewayClassName": "istio",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP", "hostname": "*.example.com", "allowedRoutes": from}],
        },
    }))
}

/// The route of a number; its Gateway is that of the number too.
struct Route {
    at: usize,
    generation: u64,
    path: &'static str,
    domain: &'static str,
    gateway: usize,
    note: &'static str,
}

impl Route {
    fn new(at: usize) -> Self {
        Self {
            at,
            generation: 1,
            path: "/",
            domain: "example.com",
            gateway: at % GATEWAYS,
            note: "",
        }
    }

    fn input(&self) -> Input {
        let (at, gateway) = (self.at, self.gateway);
        upsert(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"namespace": "app", "name": format!("r{at}"), "generation": self.generation, "annotations": {"note": self.note}},
            "spec": {
                "parentRefs": [{"namespace": "doors", "name": format!("g{gateway}")}],
                "hostnames": [format!("r{at}.{}", self.domain)],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": self.path}}],
                    "backendRefs": [{"name": "web", "port": 80}],
                }],
            },
        }))
    }
}

fn world() -> Vec<Input> {
    let lists = Kind::ALL.map(|kind| Input::Resync(kind, Vec::new()));
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "app", "name": "web"},
        "spec": {"clusterIP": "10.9.0.1", "clusterIPs": ["10.9.0.1"], "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "app", "name": "web-0", "labels": {"app": "web"}},
        "spec": {"serviceAccountName": "web", "nodeName": "n", "containers": [{"name": "app"}]},
        "status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let mut all: Vec<Input> = lists.into_iter().collect();
    all.extend([upsert(&service), upsert(&pod)]);
    all.extend((0..GATEWAYS).map(|at| gateway(at, 1, &json!({}))));
    all.extend((0..GATEWAYS).map(|at| Input::Interest(class(at), true)));
    all.extend((0..ROUTES).map(|at| Route::new(at).input()));
    all
}

/// A pipeline that holds the world, and what it published last.
struct Mesh {
    pipeline: Pipeline,
    last: Arc<Snapshot>,
}

/// What an edit changed: statuses by object, resources by proxy, and primaries derived.
#[derive(Debug, PartialEq)]
struct Cost {
    statuses: BTreeSet<String>,
    resources: BTreeSet<String>,
}

impl Mesh {
    fn new(defaults: MeshDefaults) -> Self {
        let mut pipeline = Pipeline::new(defaults);
        let last = pipeline.apply(world()).expect("every kind is listed");
        Self { pipeline, last }
    }

    /// Applies an edit that must be cheap.
    fn edit(&mut self, input: Input) -> Cost {
        let before = self.pipeline.run_count();
        let next = self.pipeline.apply(vec![input]);
        let runs = self.pipeline.run_count() - before;
        assert!(runs <= RUNS_MAX, "{runs} primaries were derived");
        let next = next.unwrap_or_else(|| Arc::clone(&self.last));
        let cost = Cost {
            statuses: statuses(&self.last, &next),
            resources: resources(&self.last, &next),
        };
        self.last = next;
        cost
    }
}

fn statuses(before: &Snapshot, after: &Snapshot) -> BTreeSet<String> {
    let differ = |some: &Snapshot, other: &Snapshot| {
        let rows = some.statuses.iter();
        rows.filter(|(key, row)| other.statuses.get(*key) != Some(*row))
            .map(|(key, _)| format!("{} {}", key.object.kind, key.object.key))
            .collect::<Vec<_>>()
    };
    differ(before, after)
        .into_iter()
        .chain(differ(after, before))
        .collect()
}

fn resources(before: &Snapshot, after: &Snapshot) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for at in 0..GATEWAYS {
        let of = |snapshot: &Snapshot| {
            let proxy = &snapshot.proxies[&class(at)];
            [
                ("clusters", proxy.clusters.clone()),
                ("endpoints", proxy.endpoints.clone()),
                ("listeners", proxy.listeners.clone()),
                ("routes", proxy.routes.clone()),
            ]
        };
        for ((ty, old), (_, new)) in of(before).into_iter().zip(of(after)) {
            let diff = ResourceMap::diff(&old, &new);
            let changed = diff.changed.iter().map(|one| one.name().to_string());
            let removed = diff.removed.iter().map(|name| format!("no {name}"));
            out.extend(
                changed
                    .chain(removed)
                    .map(|name| format!("g{at} {ty} {name}")),
            );
        }
    }
    out
}

fn cost(statuses: &[&str], resources: &[&str]) -> Cost {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Cost {
        statuses: set(statuses),
        resources: set(resources),
    }
}

#[test]
fn an_edit_of_one_of_5000_routes_writes_one_status_and_pushes_to_one_proxy() {
    let mut mesh = Mesh::new(MeshDefaults::default());
    let routes = mesh.last.statuses.keys();
    let routes = routes.filter(|key| key.object.kind == Kind::HttpRoute.as_str());
    assert_eq!(routes.count(), ROUTES);
    for at in 0..GATEWAYS {
        let proxy = &mesh.last.proxies[&class(at)];
        assert_eq!(proxy.routes.iter().count(), 1, "g{at}");
    }
    let route = Route::new(1234);
    // What no proxy and no status shows is nothing at all.
    let note = Route { note: "x", ..route };
    assert_eq!(mesh.edit(note.input()), cost(&[], &[]));
    // A rule: the generation moves, and one proxy gets its routes.
    let rule = Route {
        generation: 2,
        path: "/a",
        ..note
    };
    let pushed = "g34 routes http.80";
    assert_eq!(
        mesh.edit(rule.input()),
        cost(&["HTTPRoute app/r1234"], &[pushed])
    );
    // In files no generation moves, and no status.
    let rule = Route { path: "/b", ..rule };
    assert_eq!(mesh.edit(rule.input()), cost(&[], &[pushed]));
    // A host that no listener takes: the count of the Gateway too, and still one proxy.
    let lost = Route {
        generation: 3,
        domain: "example.org",
        ..rule
    };
    assert_eq!(
        mesh.edit(lost.input()),
        cost(&["Gateway doors/g34", "HTTPRoute app/r1234"], &[pushed])
    );
    // To another Gateway: both of them, and nobody else.
    let moved = Route {
        generation: 4,
        domain: "example.com",
        gateway: 99,
        ..lost
    };
    assert_eq!(
        mesh.edit(moved.input()),
        cost(
            &["Gateway doors/g99", "HTTPRoute app/r1234"],
            &["g99 routes http.80"]
        )
    );
    let key = ObjectKey::new("app", "r1234");
    assert_eq!(
        mesh.edit(Input::Delete(Kind::HttpRoute, key)),
        cost(
            &["Gateway doors/g99", "HTTPRoute app/r1234"],
            &["g99 routes http.80"]
        )
    );
}

/// spec/gateway-api.md §9, 23.
#[test]
fn a_gateway_of_another_revision_is_served_and_has_no_status() {
    let defaults = MeshDefaults {
        revision: "default".into(),
        is_alone: false,
        ..MeshDefaults::default()
    };
    let mut pipeline = Pipeline::new(defaults);
    let lists = Kind::ALL.map(|kind| Input::Resync(kind, Vec::new()));
    let mut all: Vec<Input> = lists.into_iter().collect();
    all.push(gateway(0, 1, &json!({"istio.io/rev": "canary"})));
    all.push(gateway(1, 1, &json!({})));
    all.extend([0, 1].map(|at| Input::Interest(class(at), true)));
    let snapshot = pipeline.apply(all).expect("every kind is listed");
    let with_status: Vec<String> = snapshot
        .statuses
        .keys()
        .map(|key| key.object.key.to_string())
        .collect();
    assert_eq!(with_status, ["doors/g1"]);
    let served = |at: usize| {
        let listeners = snapshot.proxies[&class(at)].listeners.iter();
        listeners
            .map(|one| one.name().to_string())
            .collect::<Vec<_>>()
    };
    assert!(!served(1).is_empty());
    assert_eq!(served(0), served(1));
    let told: Vec<(&str, String)> = snapshot
        .findings
        .iter()
        .filter(|finding| finding.code.starts_with("gw-"))
        .map(|finding| (finding.code, finding.object.key.to_string()))
        .collect();
    assert_eq!(told, [("gw-other-revision", "doors/g0".to_owned())]);
}
