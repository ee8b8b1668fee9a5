//! Claims about Events.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use http::Method;
use model::{ObjectKey, Severity, Str};
use parking_lot::Mutex;

use super::*;
use crate::scripted::{self, Asked, pass};
use crate::{ObservedStatus, Term};

fn finding(code: &'static str, kind: Kind, name: &str) -> Finding {
    let object = ObjectRef::new(kind, ObjectKey::new("shop", name));
    Finding::new(
        code,
        Severity::Error,
        object,
        "It does nothing",
        "Change it",
    )
}

#[tokio::test(start_paused = true)]
async fn an_appearance_is_told_once_and_what_goes_soon_not_at_all() {
    let mut tracker = Tracker::default();
    let a = finding("wp-missing", Kind::Service, "a");
    let b = finding("wp-missing", Kind::Service, "b");
    let mut warning = b.clone();
    warning.severity = Severity::Warning;
    let file = Finding {
        object: ObjectRef {
            kind: Str::from("File"),
            key: ObjectKey::cluster("x.yaml"),
        },
        ..a.clone()
    };
    tracker.follow(&Arc::from([a.clone(), warning, file]));
    assert_eq!(tracker.pending.len(), 1);
    assert!(tracker.pop().unwrap().is_initial);
    // The same with another message is the same.
    let mut again = a.clone();
    again.message = Str::from("It still does nothing");
    tracker.follow(&Arc::from([again, b.clone()]));
    assert_eq!(tracker.pending.len(), 1);
    assert!(!tracker.pending[0].is_initial);
    // b is corrected before it is told.
    tracker.follow(&Arc::from([a.clone()]));
    assert!(tracker.pending.is_empty());
    tracker.follow(&Arc::from([]));
    tracker.follow(&Arc::from([a]));
    assert_eq!(tracker.pending.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_object_with_too_many_errors_has_some_dropped() {
    let mut tracker = Tracker::default();
    let all = (0..100).map(|number| finding("x", Kind::Service, "a").at(format!("spec[{number}]")));
    let other = finding("x", Kind::Service, "b");
    let all: Arc<[Finding]> = all.chain([other]).collect();
    assert_eq!(tracker.follow(&all), 75);
    assert_eq!(tracker.pending.len(), 26);
}

#[test]
fn an_event_fits_and_is_found_by_kubectl() {
    let mut finding = finding("wp-not-ready", Kind::Service, "a.b-");
    finding.message = Str::from("ü".repeat(2_000));
    let about = |uid: &str| ObjectReference {
        uid: Some(uid.to_owned()),
        namespace: Some("shop".to_owned()),
        ..ObjectReference::default()
    };
    let first = event(&finding, about("1"), "pod");
    assert_eq!(first.reason.as_deref(), Some("WpNotReady"));
    assert!(first.message.unwrap().len() <= 1024);
    assert_eq!(first.metadata.namespace.as_deref(), Some("shop"));
    let name = first.metadata.name.unwrap();
    assert!(name.starts_with("a.b.") && name.len() == 20, "{name}");
    assert_eq!(
        event(&finding, about("1"), "other").metadata.name.unwrap(),
        name
    );
    assert_ne!(
        event(&finding, about("2"), "pod").metadata.name.unwrap(),
        name
    );
    let cluster = ObjectReference::default();
    assert_eq!(
        event(&finding, cluster, "pod")
            .metadata
            .namespace
            .as_deref(),
        Some("default")
    );
}

/// An API server with Events by name.
#[derive(Clone, Default)]
struct Server {
    events: Arc<Mutex<HashMap<String, Value>>>,
    log: Arc<Mutex<Vec<String>>>,
    /// Requests that are still refused.
    refusals: Arc<Mutex<u32>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        scripted::client("default", move |asked| {
            let Asked { method, uri, body } = asked;
            let (code, answer) = server.judge(&method, uri.path(), body);
            server.log.lock().push(format!("{method} {code}"));
            std::future::ready(Ok((code, answer)))
        })
    }

    fn judge(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let mut events = self.events.lock();
        let mut refusals = self.refusals.lock();
        if *refusals > 0 {
            *refusals -= 1;
            let message = "User \"u\" cannot create resource \"events\"";
            return (
                403,
                json!({"kind": "Status", "code": 403, "message": message}),
            );
        }
        if *method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            if events.contains_key(&name) {
                return (
                    409,
                    json!({"kind": "Status", "code": 409, "reason": "AlreadyExists"}),
                );
            }
            events.insert(name, body.clone());
            return (201, body);
        }
        let name = path.rsplit('/').next().unwrap();
        let Some(event) = events.get_mut(name) else {
            return (
                404,
                json!({"kind": "Status", "code": 404, "details": {"name": name}}),
            );
        };
        for (field, value) in body.as_object().unwrap() {
            event[field] = value.clone();
        }
        (200, event.clone())
    }

    fn counts(&self) -> Vec<i64> {
        let events = self.events.lock();
        events
            .values()
            .map(|event| event["count"].as_i64().unwrap())
            .collect()
    }
}

#[allow(clippy::unnecessary_wraps)]
fn snapshot(findings: &[Finding]) -> Option<Arc<Snapshot>> {
    Some(Arc::new(Snapshot {
        findings: findings.iter().cloned().collect(),
        ..Snapshot::default()
    }))
}

/// A writer of Events to a server, about a Service that is there.
fn writer(
    server: &Server,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    terms: watch::Receiver<Option<Term>>,
) -> EventWriter {
    let observed = Observed::default();
    let status = ObservedStatus {
        uid: "u".to_owned(),
        api_version: "v1".to_owned(),
        ..ObservedStatus::default()
    };
    observed.set(finding("x", Kind::Service, "a").object, Some(status));
    EventWriter {
        client: server.client(),
        leadership: Leadership::new(terms),
        snapshots,
        observed,
        identity: "pod".to_owned(),
        metrics: WriteMetrics::register(&prometheus::Registry::new()).unwrap(),
        reports: Reports::default(),
    }
}

#[allow(clippy::unnecessary_wraps)]
fn term(transitions: i32) -> Option<Term> {
    let until = Instant::now() + Duration::from_secs(10_000);
    Some(Term { transitions, until })
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_at_first_is_sent_again_and_not_for_ever() {
    for (refusals, wanted) in [(2, vec![1]), (100, vec![])] {
        let server = Server::default();
        *server.refusals.lock() = refusals;
        let a = finding("wp-missing", Kind::Service, "a");
        let (_snapshots, receiver) = watch::channel(snapshot(&[a]));
        let (_terms, leadership) = watch::channel(term(1));
        let config = writer(&server, receiver, leadership);
        let (metrics, stop) = (config.metrics.clone(), CancellationToken::new());
        let task = tokio::spawn(run(config, stop.clone()));
        pass(600).await;
        assert_eq!(server.counts(), wanted);
        let sent = server.log.lock().len();
        assert!(sent <= 5, "{sent}");
        let failed = metrics.events.with_label_values(&["error"]).get();
        assert_eq!(failed == 1, wanted.is_empty());
        stop.cancel();
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_another_attempt_goes_with_its_finding_and_keeps_the_order() {
    let mut tracker = Tracker::default();
    let [a, b] = ["a", "b"].map(|name| finding("x", Kind::Service, name));
    tracker.follow(&Arc::from([a.clone()]));
    let first = tracker.pop().unwrap();
    assert_eq!(tracker.retry(first), Some("retried"));
    tracker.follow(&Arc::from([a.clone(), b.clone()]));
    let names = |tracker: &Tracker| -> Vec<Str> {
        let all = tracker.pending.iter();
        all.map(|it| it.finding.object.key.name.clone()).collect()
    };
    assert_eq!(names(&tracker), ["a", "b"]);
    let mut again = tracker.pop().unwrap();
    for _ in 0..3 {
        assert_eq!(tracker.retry(again), Some("retried"));
        again = tracker.pending.pop_back().unwrap();
    }
    assert_eq!(names(&tracker), ["b"]);
    assert_eq!(tracker.retry(again), Some("error"));
    let second = tracker.pop().unwrap();
    assert_eq!(tracker.retry(second), Some("retried"));
    // What goes while it is sent is not sent again.
    let second = tracker.pop().unwrap();
    tracker.follow(&Arc::from([a]));
    assert_eq!(tracker.retry(second), None);
    assert!(tracker.pending.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_repeats_nothing_and_what_appears_again_is_counted() {
    let server = Server::default();
    let a = finding("wp-missing", Kind::Service, "a");
    let (snapshots, receiver) = watch::channel(snapshot(std::slice::from_ref(&a)));
    let (terms, leadership) = watch::channel(None);
    let writer = writer(&server, receiver, leadership);
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(writer, stop.clone()));
    pass(10).await;
    assert!(server.log.lock().is_empty());
    terms.send_replace(term(1));
    pass(10).await;
    assert_eq!(server.counts(), [1]);
    snapshots.send_replace(snapshot(&[]));
    pass(1).await;
    snapshots.send_replace(snapshot(std::slice::from_ref(&a)));
    pass(10).await;
    assert_eq!(server.counts(), [2]);
    // Leadership goes and comes: the Event is there already.
    terms.send_replace(None);
    pass(1).await;
    terms.send_replace(term(2));
    pass(10).await;
    assert_eq!(server.counts(), [2]);
    // The count of an Event from before is learned.
    snapshots.send_replace(snapshot(&[]));
    pass(1).await;
    snapshots.send_replace(snapshot(&[a]));
    pass(10).await;
    assert_eq!(server.counts(), [3]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_object_gets_no_event_and_what_no_watch_has_seen_no_request() {
    let mut tracker = Tracker::default();
    let kind = finding("kube-forbidden", Kind::Service, "*");
    tracker.follow(&Arc::from([kind]));
    let node = finding("x", Kind::Node, "a");
    tracker.follow(&Arc::from([node]));
    assert!(tracker.pending.is_empty());
    let server = Server::default();
    let sender = Sender {
        counts: HashMap::new(),
        bucket: Bucket::new(INTERVAL, BURST),
        config: EventWriter {
            client: server.client(),
            leadership: Leadership::new(watch::channel(None).1),
            snapshots: watch::channel(None).1,
            observed: Observed::default(),
            identity: "pod".to_owned(),
            metrics: WriteMetrics::register(&prometheus::Registry::new()).unwrap(),
            reports: Reports::default(),
        },
    };
    let of = |kind| finding("x", kind, "a").object;
    assert_eq!(sender.about(&of(Kind::Service)).await, Ok(None));
    assert!(server.log.lock().is_empty());
    assert_eq!(sender.about(&of(Kind::Pod)).await, Ok(None));
    assert_eq!(server.log.lock().len(), 1);
}
