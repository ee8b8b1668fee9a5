//! Claims about what is written. Source: spec/workload-discovery.md §6.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use kube::client::Body;
use model::object::Input;
use model::status::{
    Condition, MANAGER_ALLOCATION, MANAGER_SERVICE, MANAGER_WAYPOINT_POLICY,
    MANAGER_ZTUNNEL_POLICY, TYPE_FINDINGS,
};
use model::{Finding, Kind, ObjectKey, Severity};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{ObservedStatus, Term};

const BOUND: &str = "istio.io/WaypointBound";
const OLD: &str = "2020-01-01T00:00:00Z";

fn object(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, ObjectKey::new("shop", name))
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

fn conditions(body: &Value) -> Vec<(&str, &str)> {
    let list = body["status"]["conditions"].as_array().unwrap().iter();
    list.map(|it| {
        (
            it["type"].as_str().unwrap(),
            it["lastTransitionTime"].as_str().unwrap(),
        )
    })
    .collect()
}

#[test]
fn where_lists_merge_a_manager_sends_its_own_conditions_alone() {
    let status = json!({"conditions": [written("foreign", "x"), written(BOUND, "same")]});
    let seen = seen(7, status);
    let service = object(Kind::Service, "a");
    assert!(!plan::is_due(
        MANAGER_SERVICE,
        &row(&[(BOUND, "same")]),
        &seen,
        Form::Map
    ));
    let more = row(&[(BOUND, "same"), ("istio.io/VisibilityApplied", "new")]);
    assert!(plan::is_due(MANAGER_SERVICE, &more, &seen, Form::Map));
    let body = plan::body(&service, (MANAGER_SERVICE, &more), &seen, Form::Map, "now");
    // What says the same keeps its time.
    let sent = [(BOUND, OLD), ("istio.io/VisibilityApplied", "now")];
    assert_eq!(conditions(&body), sent);
    assert_eq!(
        body["metadata"],
        json!({"name": "a", "namespace": "shop", "uid": "u", "resourceVersion": "7"})
    );
    // Removing.
    assert!(plan::is_due(MANAGER_SERVICE, &row(&[]), &seen, Form::Map));
    let body = plan::body(
        &service,
        (MANAGER_SERVICE, &row(&[])),
        &seen,
        Form::Map,
        "now",
    );
    assert_eq!(body["status"], json!({}));
    let foreign = ObservedStatus {
        managers: vec!["other".to_owned()],
        ..seen
    };
    assert!(!plan::is_due(
        MANAGER_SERVICE,
        &row(&[]),
        &foreign,
        Form::Map
    ));
}

#[test]
fn where_lists_do_not_merge_everything_that_others_wrote_is_sent_again() {
    let status = json!({"conditions": [
        written("Reconciled", "x"), written("ZtunnelAccepted", "z"), written("WaypointAccepted", "old"),
    ]});
    let seen = seen(7, status);
    let policy = object(Kind::AuthorizationPolicy, "p");
    let wanted = row(&[("WaypointAccepted", "new")]);
    let body = plan::body(
        &policy,
        (MANAGER_WAYPOINT_POLICY, &wanted),
        &seen,
        Form::Atomic,
        "now",
    );
    let sent = [
        ("Reconciled", OLD),
        ("ZtunnelAccepted", OLD),
        ("WaypointAccepted", "now"),
    ];
    assert_eq!(conditions(&body), sent);
    let body = plan::body(
        &policy,
        (MANAGER_ZTUNNEL_POLICY, &row(&[])),
        &seen,
        Form::Atomic,
        "now",
    );
    assert_eq!(
        conditions(&body),
        [("Reconciled", OLD), ("WaypointAccepted", OLD)]
    );
}

#[test]
fn generation_reason_message_and_value_are_compared_and_numbers_may_be_text() {
    let wanted = StatusRow {
        conditions: vec![Condition::new("ZtunnelAccepted", true, "Good", "m", 3)],
        ..StatusRow::default()
    };
    let cases = [
        ("observedGeneration", json!(3), false),
        ("observedGeneration", json!("3"), false),
        ("observedGeneration", json!(2), true),
        ("reason", json!("Bad"), true),
        ("message", json!("n"), true),
        ("status", json!("False"), true),
        ("lastTransitionTime", json!("never"), false),
    ];
    for (field, value, differs) in cases {
        let mut condition = written("ZtunnelAccepted", "m");
        condition["observedGeneration"] = json!(3);
        condition[field] = value.clone();
        let seen = seen(1, json!({"conditions": [condition]}));
        assert_eq!(
            plan::differs(MANAGER_ZTUNNEL_POLICY, &wanted, &seen),
            differs,
            "{field} {value}"
        );
    }
    let twice =
        json!({"conditions": [written("ZtunnelAccepted", "m"), written("ZtunnelAccepted", "m")]});
    assert!(plan::differs(
        MANAGER_ZTUNNEL_POLICY,
        &wanted,
        &seen(1, twice)
    ));
}

#[test]
fn addresses_are_compared_in_order_and_take_no_condition_along() {
    let wanted = StatusRow {
        addresses: Some(vec![("240.240.0.1".into(), "a.example".into())]),
        ..StatusRow::default()
    };
    let entry = object(Kind::ServiceEntry, "e");
    let listed = json!({"addresses": [{"host": "a.example", "value": "240.240.0.1"}]});
    assert!(!plan::differs(
        MANAGER_ALLOCATION,
        &wanted,
        &seen(1, listed)
    ));
    let other = seen(
        1,
        json!({"addresses": [], "conditions": [written("x", "y")]}),
    );
    assert!(plan::differs(MANAGER_ALLOCATION, &wanted, &other));
    let body = plan::body(
        &entry,
        (MANAGER_ALLOCATION, &wanted),
        &other,
        Form::Atomic,
        "now",
    );
    assert_eq!(
        body["status"],
        json!({"addresses": [{"value": "240.240.0.1", "host": "a.example"}]})
    );
    let none = StatusRow {
        addresses: Some(Vec::new()),
        ..StatusRow::default()
    };
    assert!(!plan::differs(
        MANAGER_ALLOCATION,
        &none,
        &seen(1, Value::Null)
    ));
}

#[test]
fn findings_become_one_condition_that_fits() {
    let of = |code, severity, name: &str| {
        let message = format!("What {code} does");
        Finding::new(
            code,
            severity,
            object(Kind::Service, name),
            message,
            "Change it",
        )
        .at("spec.x")
    };
    let mut all = vec![
        of("wp-unused", Severity::Warning, "a"),
        of("wp-missing", Severity::Error, "a"),
        of("wp-headless", Severity::Info, "b"),
        Finding::new("x", Severity::Error, object(Kind::Pod, "a"), "m", "f"),
    ];
    let rows = findings::by_object(&all);
    assert_eq!(
        rows.keys()
            .map(|it| it.key.name.as_str())
            .collect::<Vec<_>>(),
        ["a"]
    );
    let condition = &rows[&object(Kind::Service, "a")].conditions[0];
    assert_eq!(
        (condition.ty.as_str(), condition.reason.as_str()),
        (TYPE_FINDINGS, "WpMissing")
    );
    assert_eq!(
        condition.message,
        "error wp-missing spec.x: What wp-missing does. Change it\n\
         warning wp-unused spec.x: What wp-unused does. Change it"
    );
    for number in 0..500 {
        let mut finding = of("wp-missing", Severity::Error, "a");
        finding.message = format!("{number} {}", "ü".repeat(3_000)).into();
        all.push(finding);
    }
    let rows = findings::by_object(&all);
    let message = &rows[&object(Kind::Service, "a")].conditions[0].message;
    assert!(
        message.len() < 20_000 && message.ends_with(" more"),
        "{}",
        message.len()
    );
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
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, observed, script) =
            (Arc::clone(&log), seen_by_watch.clone(), Arc::clone(&script));
        let drops = is_dropping.load(Ordering::Relaxed);
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&bytes).unwrap();
            let uri = parts.uri.to_string();
            log.lock().push((uri.clone(), body.clone()));
            let count = u64::try_from(log.lock().len()).unwrap();
            let (code, answer) = match script(&uri, count) {
                Some(status) => (
                    u16::try_from(status["code"].as_u64().unwrap()).unwrap(),
                    status,
                ),
                None => (200, apply_to(&observed, body, drops)),
            };
            let bytes = serde_json::to_vec(&answer).unwrap();
            let answer = Response::builder()
                .status(code)
                .body(Body::from(bytes))
                .unwrap();
            Ok::<_, std::io::Error>(answer)
        }
    });
    let (snapshots, receiver) = watch::channel(None);
    let until = Instant::now() + Duration::from_secs(100_000);
    let (terms, term) = watch::channel(Some(Term {
        transitions: 1,
        until,
    }));
    let (sender, findings) = mpsc::channel(16);
    let writer = StatusWriter {
        client: Client::new(service, "default"),
        leadership: Leadership::new(term),
        snapshots: receiver,
        observed: observed.clone(),
        metrics: WriteMetrics::register(&prometheus::Registry::new()).unwrap(),
        reports: Reports::new(sender),
        limits: WriteLimits::default(),
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
fn apply_to(observed: &Observed, mut body: Value, drops: bool) -> Value {
    let list = body["status"]["conditions"].as_array_mut();
    for condition in list.into_iter().flatten().filter(|_| drops) {
        condition
            .as_object_mut()
            .unwrap()
            .remove("observedGeneration");
    }
    let kind = plan::find(body["kind"].as_str().unwrap()).unwrap();
    let object = object(kind, body["metadata"]["name"].as_str().unwrap());
    let old = observed.get(&object).unwrap();
    let version = old.resource_version.parse::<u64>().unwrap() + 1;
    body["metadata"]["resourceVersion"] = json!(version.to_string());
    body["metadata"]["generation"] = json!(3);
    let mut status = old.status.clone();
    for (field, value) in body["status"].as_object().unwrap() {
        status[field] = value.clone();
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

    fn sent(&self) -> usize {
        self.requests.lock().len()
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
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
async fn a_conflict_is_judged_anew_and_a_bad_object_holds_up_no_other() {
    let script = |uri: &str, count: u64| {
        if uri.contains("/bad/") {
            return Some(json!({"kind": "Status", "code": 500, "message": "broken"}));
        }
        (count == 1).then(|| json!({"kind": "Status", "code": 409, "reason": "Conflict"}))
    };
    let mut world = world(Arc::new(script));
    for name in ["a", "bad", "c"] {
        world
            .observed
            .set(object(Kind::Service, name), Some(seen(1, json!({}))));
    }
    let wanted = row(&[(BOUND, "m")]);
    world.publish(&[
        ("a", wanted.clone()),
        ("bad", wanted.clone()),
        ("c", wanted),
    ]);
    pass(30).await;
    let holds = |name: &str| {
        let seen = world.observed.get(&object(Kind::Service, name)).unwrap();
        seen.status["conditions"][0]["type"] == BOUND
    };
    assert!(holds("a") && holds("c") && !holds("bad"));
    let tried = |world: &World| {
        let requests = world.requests.lock();
        requests
            .iter()
            .filter(|(uri, _)| uri.contains("/bad/"))
            .count()
    };
    assert_eq!(tried(&world), 5);
    pass(80).await;
    assert_eq!(tried(&world), 10);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_may_not_be_written_is_told_once_and_tried_by_one_object() {
    let (open, is_open) = watch::channel(false);
    let script = move |_: &str, _: u64| {
        (!*is_open.borrow()).then(|| {
            json!({"kind": "Status", "code": 403, "reason": "Forbidden",
                "message": "services \"a\" is forbidden: User \"u\" cannot patch resource \"services/status\""})
        })
    };
    let mut world = world(Arc::new(script));
    let names: Vec<String> = (0..200).map(|number| format!("s{number}")).collect();
    for name in &names {
        world
            .observed
            .set(object(Kind::Service, name), Some(seen(1, json!({}))));
    }
    let rows: Vec<(&str, StatusRow)> = names
        .iter()
        .map(|name| (name.as_str(), row(&[(BOUND, "m")])))
        .collect();
    world.publish(&rows);
    pass(300).await;
    // At most what was under way, and then a few probes.
    assert!(world.sent() <= 25, "{}", world.sent());
    let told = world.findings.recv().await.unwrap();
    assert!(
        matches!(&told[..], [Input::SourceFindings(_, all)] if all[0].code == "kube-write-forbidden")
    );
    open.send_replace(true);
    pass(700).await;
    let holds = |name: &String| {
        let seen = world.observed.get(&object(Kind::Service, name)).unwrap();
        seen.status["conditions"][0]["type"] == BOUND
    };
    assert!(names.iter().all(holds));
    let told = world.findings.recv().await.unwrap();
    assert!(matches!(&told[..], [Input::SourceFindings(_, all)] if all.is_empty()));
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
async fn a_kind_without_status_subresource_is_told_once_and_tried_by_one_object() {
    let script = |_: &str, _: u64| {
        Some(
            json!({"kind": "Status", "code": 404, "reason": "NotFound", "details": {},
            "message": "the server could not find the requested resource"}),
        )
    };
    let mut world = world(Arc::new(script));
    let names: Vec<String> = (0..50).map(|number| format!("s{number}")).collect();
    for name in &names {
        world
            .observed
            .set(object(Kind::Service, name), Some(seen(1, json!({}))));
    }
    let rows: Vec<(&str, StatusRow)> = names
        .iter()
        .map(|name| (name.as_str(), row(&[(BOUND, "m")])))
        .collect();
    world.publish(&rows);
    pass(60).await;
    let sent = world.sent();
    pass(1_200).await;
    assert!(world.sent() - sent <= 6, "{} {sent}", world.sent());
    let told = world.findings.recv().await.unwrap();
    assert!(
        matches!(&told[..], [Input::SourceFindings(_, all)] if all[0].code == "kube-status-not-served")
    );
    assert!(world.findings.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_panics_is_tried_again() {
    let script = |_: &str, count: u64| {
        assert!(count > 1, "the first write panics on purpose");
        None
    };
    let mut world = world(Arc::new(script));
    world
        .observed
        .set(object(Kind::Service, "a"), Some(seen(1, json!({}))));
    world.publish(&[("a", row(&[(BOUND, "m")]))]);
    pass(30).await;
    assert_eq!(world.sent(), 2);
}

#[tokio::test(start_paused = true)]
async fn findings_name_no_generation_that_they_may_not_be_of() {
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
    assert!(condition.get("observedGeneration").is_none());
}
