//! Claims about roots in namespaces. Source: spec/control-plane.md §4.8.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::future::{Ready, ready};

use http::{Request, Response};
use kube::client::Body;
use kube::runtime::watcher::Event;
use model::MeshRow;
use serde_json::json;

use super::send::{CREATE, Write};
use super::*;
use crate::write::Failure;

type Service = fn(Request<Body>) -> Ready<Result<Response<Body>, std::io::Error>>;

/// A writer with an API server that nobody asks.
fn writer(crl: Option<&str>) -> (RootWriter, watch::Sender<Roots>) {
    let roots = Roots {
        root_pem: "ROOT".to_owned(),
        crl_pem: crl.map(str::to_owned),
    };
    let (sender, bundles) = watch::channel(roots);
    let nobody: Service = |_| ready(Err(std::io::Error::other("nobody")));
    let writer = RootWriter {
        client: Client::new(tower::service_fn(nobody), "default"),
        leadership: Leadership::new(watch::channel(None).1),
        bundles,
        snapshots: watch::channel(None).1,
        system_namespace: "istio-system".to_owned(),
        names: RootNames::default(),
        metrics: WriteMetrics::register(&prometheus::Registry::new()).unwrap(),
        reports: Reports::default(),
    };
    (writer, sender)
}

fn place(name: &str, labels: &[(&str, &str)], is_ending: bool) -> Change {
    let mut metadata = json!({"name": name, "labels": {}});
    for (key, value) in labels {
        metadata["labels"][key] = json!(value);
    }
    if is_ending {
        metadata["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    }
    let place = serde_json::from_value(json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata,
    }));
    Change::Place(Event::Apply(place.unwrap()))
}

fn map(name: &str, ns: &str, data: serde_json::Value) -> Change {
    let map = json!({
        "metadata": {"name": name, "namespace": ns, "resourceVersion": "5"}, "data": data,
    });
    let map = serde_json::from_value(map).unwrap();
    Change::Map(Str::from(name), Event::Apply(map))
}

fn snapshot(selectors: Vec<LabelSelector>) -> Snapshot {
    let mesh = MeshRow {
        discovery_selectors: selectors,
        ..MeshRow::default()
    };
    Snapshot {
        mesh: Arc::new(mesh),
        ..Snapshot::default()
    }
}

fn list(term: &mut Term<'_>) {
    for name in ["istio-ca-root-cert", "istio-ca-crl"] {
        term.follow(Change::Map(Str::from(name), Event::InitDone));
    }
    term.follow(Change::Place(Event::InitDone));
}

fn at(name: &str, ns: &str) -> ObjectRef {
    ObjectRef::new(Kind::ConfigMap, ObjectKey::new(ns, name))
}

/// What is due, one line each.
fn due_now(term: &mut Term<'_>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(object) = term.queue.pop(Instant::now()) {
        match term.judge(&object) {
            Some(Write::Create(map)) => {
                all.push(format!("create {} {:?}", object.key, map.data.unwrap()));
            }
            Some(Write::Patch(patch)) => all.push(format!("patch {} {patch}", object.key)),
            None => {}
        }
    }
    all.sort();
    all
}

const ROOT: &str = "istio-ca-root-cert";

#[tokio::test(start_paused = true)]
async fn every_namespace_gets_roots_but_those_that_never_do() {
    let (config, _bundles) = writer(Some(""));
    let mut term = Term::new(&config);
    term.select(Some(&snapshot(Vec::new())));
    list(&mut term);
    for name in [
        "shop",
        "kube-system",
        "kube-public",
        "kube-node-lease",
        "local-path-storage",
    ] {
        term.follow(place(name, &[], false));
    }
    term.follow(place("ending", &[], true));
    assert_eq!(
        due_now(&mut term),
        [
            r#"create kube-system/istio-ca-crl {"ca-crl.pem": ""}"#,
            r#"create kube-system/istio-ca-root-cert {"root-cert.pem": "ROOT"}"#,
            r#"create shop/istio-ca-crl {"ca-crl.pem": ""}"#,
            r#"create shop/istio-ca-root-cert {"root-cert.pem": "ROOT"}"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_judged_before_lists_and_selectors_are_known() {
    let (config, _bundles) = writer(None);
    let mut term = Term::new(&config);
    let mut tasks = JoinSet::new();
    term.follow(place("shop", &[], false));
    list(&mut term);
    term.start(&mut tasks);
    assert!(tasks.is_empty());
    // The list replaced what came before it.
    term.select(Some(&snapshot(Vec::new())));
    assert!(due_now(&mut term).is_empty());
    term.follow(place("shop", &[], false));
    assert_eq!(due_now(&mut term).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn namespaces_that_no_selector_selects_are_left_alone_but_not_our_own() {
    let (config, _bundles) = writer(None);
    let mut term = Term::new(&config);
    list(&mut term);
    let selector = LabelSelector {
        match_labels: [(Str::from("mesh"), Str::from("on"))].into_iter().collect(),
        ..LabelSelector::default()
    };
    term.select(Some(&snapshot(vec![selector])));
    term.follow(place("in", &[("mesh", "on")], false));
    term.follow(place("out", &[], false));
    term.follow(place("istio-system", &[], false));
    let all = due_now(&mut term);
    assert_eq!(all.len(), 2, "{all:?}");
    term.select(Some(&snapshot(Vec::new())));
    assert_eq!(due_now(&mut term).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn only_own_keys_are_written_and_only_where_they_differ() {
    let (config, bundles) = writer(None);
    let mut term = Term::new(&config);
    term.select(Some(&snapshot(Vec::new())));
    list(&mut term);
    term.follow(place("shop", &[], false));
    term.follow(map(
        ROOT,
        "shop",
        json!({"root-cert.pem": "ROOT", "mine": "kept"}),
    ));
    assert!(due_now(&mut term).is_empty());
    term.follow(map(
        ROOT,
        "shop",
        json!({"root-cert.pem": "EDITED", "mine": "kept"}),
    ));
    let patch = r#"patch shop/istio-ca-root-cert {"data":{"root-cert.pem":"ROOT"},"metadata":{"resourceVersion":"5"}}"#;
    assert_eq!(due_now(&mut term), [patch]);
    // Once written, nothing more until the watch tells of it.
    let mut tasks = JoinSet::new();
    term.mark_all();
    term.start(&mut tasks);
    assert_eq!(tasks.len(), 1);
    term.mark_all();
    term.start(&mut tasks);
    assert_eq!(tasks.len(), 1);
    let gone = json!({"metadata": {"name": ROOT, "namespace": "shop"}});
    let gone = serde_json::from_value(gone).unwrap();
    term.follow(Change::Map(Str::from(ROOT), Event::Delete(gone)));
    assert_eq!(due_now(&mut term).len(), 1);
    // A new root goes everywhere; an empty one nowhere.
    bundles.send_replace(Roots::default());
    term.mark_all();
    assert!(due_now(&mut term).is_empty());
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_what_is_gone_is_not_tried() {
    let (config, _bundles) = writer(None);
    let mut term = Term::new(&config);
    let failed = |failure| Done {
        object: at(ROOT, "shop"),
        what: CREATE,
        result: Err(Some(failure)),
    };
    let mut waits = Vec::new();
    for _ in 0..5 {
        term.finish(failed(Failure::Conflict));
        let due = term.queue.next_due().unwrap();
        waits.push((due - Instant::now()).as_millis());
        term.queue = Queue::default();
    }
    assert!(
        waits[..4].iter().all(|wait| *wait < 3_000) && waits[4] >= 60_000,
        "{waits:?}"
    );
    term.finish(failed(Failure::Gone));
    assert!(term.queue.next_due().is_none());
}

/// How many writes begin now.
fn started(term: &mut Term<'_>) -> usize {
    let mut tasks = JoinSet::new();
    term.start(&mut tasks);
    tasks.len()
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_made_anew_gets_its_root() {
    let (config, _bundles) = writer(None);
    let mut term = Term::new(&config);
    term.select(Some(&snapshot(Vec::new())));
    list(&mut term);
    term.follow(place("shop", &[], false));
    assert_eq!(started(&mut term), 1);
    // It ends while we write, and is made again: by the answer alone,
    term.finish(Done {
        object: at(ROOT, "shop"),
        what: CREATE,
        result: Err(Some(Failure::Gone)),
    });
    term.follow(place("shop", &[], true));
    assert_eq!(started(&mut term), 0);
    term.follow(place("shop", &[], false));
    assert_eq!(started(&mut term), 1);
    // and where the answer was good and the ConfigMap has gone before the watch told of it.
    term.follow(place("shop", &[], false));
    assert_eq!(started(&mut term), 0);
    let anew = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "shop", "uid": "another"},
    });
    let anew = serde_json::from_value(anew).unwrap();
    term.follow(Change::Place(Event::Apply(anew)));
    assert_eq!(started(&mut term), 1);
}

#[tokio::test(start_paused = true)]
async fn where_creating_is_refused_each_namespace_waits_until_one_shows_that_it_no_longer_is() {
    let (config, _bundles) = writer(None);
    let mut term = Term::new(&config);
    term.select(Some(&snapshot(Vec::new())));
    list(&mut term);
    for name in ["a", "b", "c", "d"] {
        term.follow(place(name, &[], false));
    }
    assert_eq!(started(&mut term), 4);
    for name in ["a", "b", "c", "d"] {
        term.finish(Done {
            object: at(ROOT, name),
            what: CREATE,
            result: Err(Some(Failure::Refused("no".to_owned()))),
        });
    }
    assert_eq!(started(&mut term), 0);
    // A namespace that has refused nothing does not wait.
    term.follow(place("e", &[], false));
    assert_eq!(started(&mut term), 1);
    // What needs another right does not wait.
    term.follow(map(ROOT, "b", json!({"root-cert.pem": "EDITED"})));
    assert_eq!(started(&mut term), 1);
    term.finish(Done {
        object: at(ROOT, "a"),
        what: CREATE,
        result: Ok(()),
    });
    assert_eq!(started(&mut term), 2);
}
