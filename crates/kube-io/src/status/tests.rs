//! Claims about what is written. Source: spec/workload-discovery.md §6.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::atomic::{AtomicBool, Ordering};

use model::object::Input;
use model::status::{Condition, MANAGER_SERVICE, TYPE_FINDINGS};
use model::{Finding, Kind, ObjectKey, Severity};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::scripted::{self, Asked, pass};
use crate::{ObservedStatus, Term};

mod gateway_api;
mod refused;
mod sent;

const BOUND: &str = "istio.io/WaypointBound";
const OLD: &str = "2020-01-01T00:00:00Z";

fn object(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, ObjectKey::new("shop", name))
}

/// A Service.
fn service(ns: &str, name: &str) -> ObjectRef {
    ObjectRef::new(Kind::Service, ObjectKey::new(ns, name))
}

fn row(conditions: &[(&'static str, &'static str)]) -> StatusRow {
    let condition = |(ty, message): &(&'static str, &'static str)| {
        Condition::new(ty, true, "Good", *message, 0)
    };
    StatusRow {
        conditions: conditions.iter().map(condition).collect(),
        ..StatusRow::default()
    }
}

fn written(ty: &str, message: &str) -> Value {
    json!({"type": ty, "status": "True", "reason": "Good", "message": message, "lastTransitionTime": OLD})
}

fn seen(version: u64, status: Value) -> ObservedStatus {
    ObservedStatus {
        resource_version: version.to_string(),
        generation: 3,
        uid: "u".to_owned(),
        api_version: "v1".to_owned(),
        status,
        managers: vec![MANAGER_SERVICE.to_owned()],
    }
}

/// What an API server answers: a status code, and whether the object changes.
type Script = Arc<dyn Fn(&str, u64) -> Option<Value> + Send + Sync>;

struct World {
    observed: Observed,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    terms: watch::Sender<Option<Term>>,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    findings: mpsc::Receiver<Vec<Input>>,
    generation: u64,
    /// The API server keeps no `observedGeneration`.
    drops: Arc<AtomicBool>,
}

/// A writer that leads, and an API server that applies what it is sent unless a script answers.
fn world(script: Script) -> World {
    let requests: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let observed = Observed::default();
    let (log, seen_by_watch) = (Arc::clone(&requests), observed.clone());
    let drops = Arc::new(AtomicBool::new(false));
    let is_dropping = Arc::clone(&drops);
    let client = scripted::client("default", move |Asked { uri, body, .. }| {
        let uri = uri.to_string();
        log.lock().push((uri.clone(), body.clone()));
        let count = u64::try_from(log.lock().len()).unwrap();
        let (code, answer) = if let Some(status) = script(&uri, count) {
            let code = u16::try_from(status["code"].as_u64().unwrap()).unwrap();
            (code, status)
        } else {
            let drops = is_dropping.load(Ordering::Relaxed);
            (200, apply_to(&seen_by_watch, body, &uri, drops))
        };
        std::future::ready(Ok((code, answer)))
    });
    let (snapshots, receiver) = watch::channel(None);
    let until = Instant::now() + Duration::from_secs(100_000);
    let (terms, term) = watch::channel(Some(Term {
        transitions: 1,
        until,
    }));
    let (sender, findings) = mpsc::channel(16);
    let writer = StatusWriter {
        client,
        leadership: Leadership::new(term),
        snapshots: receiver,
        observed: observed.clone(),
        metrics: WriteMetrics::register(&prometheus::Registry::new()).unwrap(),
        reports: Reports::new(sender),
        limits: WriteLimits::default(),
        scope: WriteScope::ALL,
    };
    tokio::spawn(run(writer, CancellationToken::new()));
    World {
        observed,
        snapshots,
        terms,
        requests,
        findings,
        generation: 0,
        drops,
    }
}

/// Puts a status where it belongs, and lets the watch tell of it.
fn apply_to(observed: &Observed, mut body: Value, uri: &str, drops: bool) -> Value {
    let list = body["status"]["conditions"].as_array_mut();
    for condition in list.into_iter().flatten().filter(|_| drops) {
        condition
            .as_object_mut()
            .unwrap()
            .remove("observedGeneration");
    }
    let kind = find_kind(body["kind"].as_str().unwrap()).unwrap();
    let text = |field: &str| body["metadata"][field].as_str().unwrap().to_owned();
    let object = ObjectRef::new(kind, ObjectKey::new(text("namespace"), text("name")));
    let old = observed.get(&object).unwrap();
    let version = old.resource_version.parse::<u64>().unwrap() + 1;
    body["metadata"]["resourceVersion"] = json!(version.to_string());
    body["metadata"]["generation"] = json!(3);
    let mut status = old.status.clone();
    for (field, value) in body["status"].as_object().unwrap() {
        let mut value = value.clone();
        if field == "conditions"
            && uri.contains("force=true")
            && Form::of(kind.as_str()) == Form::Map
        {
            let list = value.as_array_mut().unwrap();
            let types: Vec<_> = list.iter().map(|it| it["type"].clone()).collect();
            let others = status["conditions"].as_array().cloned().unwrap_or_default();
            list.extend(others.into_iter().filter(|it| !types.contains(&it["type"])));
        }
        status[field] = value;
    }
    body["status"] = status.clone();
    observed.set(object, Some(seen(version, status)));
    body
}

impl World {
    fn publish(&mut self, rows: &[(&str, StatusRow)]) {
        self.generation += 1;
        let rows = rows.iter().map(|(name, row)| {
            let key = StatusKey {
                object: object(Kind::Service, name),
                manager: MANAGER_SERVICE,
            };
            (key, Arc::new(row.clone()))
        });
        let snapshot = Snapshot {
            generation: self.generation,
            statuses: rows.collect(),
            ..Snapshot::default()
        };
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }

    /// Services that are there, and are each to have a condition.
    fn want(&mut self, objects: &[ObjectRef]) {
        let rows = objects.iter().map(|object| {
            self.observed.set(object.clone(), Some(seen(1, json!({}))));
            let key = StatusKey {
                object: object.clone(),
                manager: MANAGER_SERVICE,
            };
            (key, Arc::new(row(&[(BOUND, "m")])))
        });
        let snapshot = Snapshot {
            statuses: rows.collect(),
            ..Snapshot::default()
        };
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }

    fn holds(&self, object: &ObjectRef) -> bool {
        let seen = self.observed.get(object).unwrap();
        seen.status["conditions"][0]["type"] == BOUND
    }

    fn sent(&self) -> usize {
        self.requests.lock().len()
    }

    fn sent_to(&self, part: &str) -> usize {
        let requests = self.requests.lock();
        requests
            .iter()
            .filter(|(uri, _)| uri.contains(part))
            .count()
    }
}

#[tokio::test(start_paused = true)]
async fn equal_snapshots_write_nothing_and_an_edit_by_others_is_undone() {
    let mut world = world(Arc::new(|_, _| None));
    world
        .observed
        .set(object(Kind::Service, "a"), Some(seen(1, json!({}))));
    world.publish(&[("a", row(&[(BOUND, "m")]))]);
    pass(5).await;
    assert_eq!(world.sent(), 1);
    let uri = world.requests.lock()[0].0.clone();
    assert!(
        uri.starts_with("/api/v1/namespaces/shop/services/a/status?"),
        "{uri}"
    );
    assert!(
        uri.contains("force=true") && uri.contains("fieldManager=istio-ambient-service"),
        "{uri}"
    );
    for _ in 0..100 {
        world.publish(&[("a", row(&[(BOUND, "m")]))]);
        pass(1).await;
    }
    assert_eq!(world.sent(), 1);
    // Another leader has nothing to do either.
    world.terms.send_replace(None);
    pass(1).await;
    let until = Instant::now() + Duration::from_secs(1_000);
    world.terms.send_replace(Some(Term {
        transitions: 2,
        until,
    }));
    pass(5).await;
    assert_eq!(world.sent(), 1);
    world
        .observed
        .set(object(Kind::Service, "a"), Some(seen(50, json!({}))));
    pass(5).await;
    assert_eq!(world.sent(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_does_not_keep_is_not_written_again_and_again() {
    let mut world = world(Arc::new(|_, _| None));
    world.drops.store(true, Ordering::Relaxed);
    let service = object(Kind::Service, "a");
    let wanted = |message| {
        let mut row = row(&[(BOUND, message)]);
        row.conditions[0].observed_generation = Some(3);
        row
    };
    world
        .observed
        .set(service.clone(), Some(seen(1, json!({}))));
    world.publish(&[("a", wanted("m"))]);
    pass(600).await;
    assert_eq!(world.sent(), 1);
    world.publish(&[("a", wanted("n"))]);
    pass(600).await;
    assert_eq!(world.sent(), 2);
    // What is gone altogether is written again.
    world
        .observed
        .set(service.clone(), Some(seen(50, json!({}))));
    pass(600).await;
    assert_eq!(world.sent(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_writes_nothing() {
    let mut world = world(Arc::new(|_, _| None));
    let service = object(Kind::Service, "a");
    world
        .observed
        .set(service.clone(), Some(seen(1, json!({}))));
    world.publish(&[("a", row(&[(BOUND, "m")]))]);
    pass(2).await;
    assert_eq!(world.sent(), 1);
    // Without leadership nothing at all is sent.
    world.terms.send_replace(None);
    pass(1).await;
    world.observed.set(service, Some(seen(9, json!({}))));
    world.publish(&[("a", row(&[(BOUND, "other")]))]);
    pass(100).await;
    assert_eq!(world.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_two_disagree_ours_is_repeated_ever_more_seldom() {
    let mut world = world(Arc::new(|_, _| None));
    let service = object(Kind::Service, "a");
    world
        .observed
        .set(service.clone(), Some(seen(1, json!({}))));
    world.publish(&[("a", row(&[(BOUND, "ours")]))]);
    let theirs = json!({"conditions": [written(BOUND, "theirs")]});
    let mut version = 1_000;
    for _ in 0..3_600 {
        pass(1).await;
        let there = world.observed.get(&service).unwrap();
        if there.status != theirs {
            version += 1_000;
            let edited = seen(version, theirs.clone());
            world.observed.set(service.clone(), Some(edited));
        }
    }
    let sent = world.sent();
    assert!((6..=15).contains(&sent), "{sent}");
    // What is new is written at once.
    world.publish(&[("a", row(&[(BOUND, "new")]))]);
    pass(3).await;
    assert!(world.sent() > sent);
}

#[tokio::test(start_paused = true)]
async fn findings_name_the_generation_that_is_seen_since_clients_wait_for_it() {
    let world = world(Arc::new(|_, _| None));
    let service = object(Kind::Service, "a");
    world
        .observed
        .set(service.clone(), Some(seen(1, json!({}))));
    let finding = Finding::new("wp-missing", Severity::Error, service, "m", "f");
    let snapshot = Snapshot {
        findings: [finding].into_iter().collect(),
        ..Snapshot::default()
    };
    world.snapshots.send_replace(Some(Arc::new(snapshot)));
    pass(30).await;
    let requests = world.requests.lock();
    let condition = &requests[0].1["status"]["conditions"][0];
    assert_eq!(
        (requests.len(), &condition["type"]),
        (1, &json!(TYPE_FINDINGS))
    );
    assert_eq!(condition["observedGeneration"], 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_what_belongs_to_another_control_plane() {
    let world = world(Arc::new(|_, _| None));
    let gateway = object(Kind::Gateway, "a");
    let finding = Finding::new("wp-not-ready", Severity::Error, gateway.clone(), "m", "f");
    let publish = |is_foreign: bool| {
        let snapshot = Snapshot {
            findings: [finding.clone()].into_iter().collect(),
            foreign: is_foreign.then(|| gateway.clone()).into_iter().collect(),
            ..Snapshot::default()
        };
        world.snapshots.send_replace(Some(Arc::new(snapshot)));
    };
    let says = || {
        let seen = world.observed.get(&gateway).unwrap();
        seen.status["conditions"][0]["type"] == TYPE_FINDINGS
    };
    world
        .observed
        .set(gateway.clone(), Some(seen(1, json!({}))));
    publish(true);
    pass(30).await;
    assert_eq!(world.sent(), 0);
    publish(false);
    pass(30).await;
    assert!(world.sent() == 1 && says());
    // What was written stays: it is the other one's to replace, whatever it says.
    publish(true);
    pass(30).await;
    let theirs = json!({"conditions": [written(TYPE_FINDINGS, "theirs")]});
    world.observed.set(gateway.clone(), Some(seen(9, theirs)));
    pass(100).await;
    assert_eq!(world.sent(), 1);
}
