//! Claims about who leads. Source: spec/control-plane.md §8.4.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::scripted::{self, Asked, pass};

/// An API server that holds at most one Lease.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    is_down: bool,
    /// Writes that are taken, of which no answer comes.
    unanswered: u32,
    writes: Vec<String>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        scripted::client("istio-system", move |asked| server.clone().answer(asked))
    }

    async fn answer(self, asked: Asked) -> std::io::Result<(u16, Value)> {
        let (code, answer, is_answered) = {
            let mut state = self.0.lock();
            if state.is_down {
                return Err(std::io::Error::other("connection refused"));
            }
            let is_lost = asked.method != Method::GET && state.unanswered > 0;
            let (code, answer) = state.judge(&asked.method, asked.body);
            state.unanswered -= u32::from(is_lost);
            (code, answer, !is_lost)
        };
        if !is_answered {
            std::future::pending::<()>().await;
        }
        Ok((code, answer))
    }

    fn holder(&self) -> String {
        let state = self.0.lock();
        let lease = state.lease.as_ref();
        let holder = lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str());
        holder.unwrap_or_default().to_owned()
    }

    fn candidate(&self, name: &str) -> Candidate {
        let (sender, terms) = watch::channel(None);
        let stop = CancellationToken::new();
        let config = ElectionConfig::new("istio-system", "", name);
        let task = tokio::spawn(run(self.client(), config, sender, stop.clone()));
        Candidate { terms, stop, task }
    }
}

impl State {
    fn judge(&mut self, method: &Method, mut lease: Value) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": code, "reason": reason, "message": reason});
            (code, status)
        };
        if method == Method::GET {
            return match &self.lease {
                Some(lease) => (200, lease.clone()),
                None => status(404, "NotFound"),
            };
        }
        let held = self
            .lease
            .as_ref()
            .map(|lease| &lease["metadata"]["resourceVersion"]);
        let conflicts = match method {
            m if *m == Method::POST => held.is_some(),
            _ => held != Some(&lease["metadata"]["resourceVersion"]),
        };
        if conflicts {
            return status(409, "Conflict");
        }
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.writes
            .push(lease["spec"]["holderIdentity"].as_str().unwrap().to_owned());
        self.lease = Some(lease.clone());
        (200, lease)
    }
}

struct Candidate {
    terms: watch::Receiver<Option<Term>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Candidate {
    fn leads(&self) -> bool {
        crate::Leadership::new(self.terms.clone()).term().is_some()
    }

    fn transitions(&self) -> i32 {
        self.terms.borrow().unwrap().transitions
    }
}

/// The time until a candidate leads, in seconds.
async fn until_leads(candidate: &Candidate) -> u64 {
    let start = Instant::now();
    while !candidate.leads() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(start.elapsed() < Duration::from_secs(300), "nobody leads");
    }
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_when_it_is_killed_the_other_follows_after_the_lease() {
    let server = Server::default();
    let a = server.candidate("a");
    pass(1).await;
    let b = server.candidate("b");
    for _ in 0..60 {
        pass(7).await;
        assert!(a.leads() && !b.leads());
    }
    assert_eq!((server.holder().as_str(), a.transitions()), ("a", 0));
    a.task.abort();
    // The lease runs from the last renewal that b saw, which it looks for about every 8 s.
    let seconds = until_leads(&b).await;
    assert!((14..=40).contains(&seconds), "{seconds}");
    assert_eq!((server.holder().as_str(), b.transitions()), ("b", 1));
    // What is left of a has lapsed by itself, although nobody told it.
    assert!(!a.leads());
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_look() {
    let server = Server::default();
    let a = server.candidate("a");
    pass(1).await;
    let b = server.candidate("b");
    pass(20).await;
    a.stop.cancel();
    a.task.await.unwrap();
    assert_eq!(server.holder(), "");
    let seconds = until_leads(&b).await;
    assert!(seconds <= 9, "{seconds}");
    assert_eq!(b.transitions(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_api_server_leadership_ends_at_the_deadline_and_comes_back() {
    let server = Server::default();
    let a = server.candidate("a");
    pass(20).await;
    server.0.lock().is_down = true;
    pass(7).await;
    assert!(a.leads());
    pass(9).await;
    assert!(!a.leads());
    pass(600).await;
    server.0.lock().is_down = false;
    let seconds = until_leads(&a).await;
    assert!(seconds <= 10, "{seconds}");
    assert_eq!((server.holder().as_str(), a.transitions()), ("a", 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_record_says_of_the_time_decides_nothing() {
    for year in ["1999", "2099"] {
        let server = Server::default();
        let at = format!("{year}-01-01T00:00:00.000000Z");
        server.0.lock().lease = Some(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "istio-status-leader", "namespace": "istio-system", "resourceVersion": "0"},
            "spec": {"holderIdentity": "jumper", "leaseDurationSeconds": 30, "leaseTransitions": 4,
                "acquireTime": at, "renewTime": at},
        }));
        let b = server.candidate("b");
        let seconds = until_leads(&b).await;
        assert!((30..=31).contains(&seconds), "{year}: {seconds}");
        assert_eq!(b.transitions(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_stops_and_does_not_take_it_back() {
    let server = Server::default();
    let a = server.candidate("a");
    pass(20).await;
    {
        let mut state = server.0.lock();
        state.version += 1;
        let version = state.version.to_string();
        let lease = state.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = json!("thief");
        lease["metadata"]["resourceVersion"] = json!(version);
    }
    pass(12).await;
    assert!(!a.leads());
    assert_eq!(server.holder(), "thief");
    pass(10).await;
    assert_eq!(server.holder(), "thief");
}

#[tokio::test(start_paused = true)]
async fn many_candidates_have_one_leader_at_any_time() {
    let server = Server::default();
    let all: Vec<Candidate> = (0..5).map(|n| server.candidate(&format!("c{n}"))).collect();
    for second in 0..600 {
        if second == 200 || second == 400 {
            let leader = all.iter().find(|candidate| candidate.leads()).unwrap();
            leader.task.abort();
        }
        pass(1).await;
        let leaders = all.iter().filter(|candidate| candidate.leads()).count();
        assert!(leaders <= 1, "{leaders} at {second}");
    }
    assert_eq!(all.iter().filter(|candidate| candidate.leads()).count(), 1);
}

#[test]
fn leases_are_named_by_revision() {
    let name = |revision| ElectionConfig::new("istio-system", revision, "a").name;
    assert_eq!(name(""), "istio-status-leader");
    assert_eq!(name("default"), "istio-status-leader");
    assert_eq!(name("canary"), "istio-status-leader-canary");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_nobody_answers_costs_no_term() {
    let server = Server::default();
    let a = server.candidate("a");
    pass(1).await;
    for _ in 0..10 {
        server.0.lock().unanswered = 1;
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(a.leads());
        }
        assert_eq!(server.0.lock().unanswered, 0);
    }
    assert_eq!(a.transitions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_released_also_when_a_renewal_was_under_way() {
    let server = Server::default();
    let a = server.candidate("a");
    pass(1).await;
    server.0.lock().unanswered = 1;
    while server.0.lock().unanswered > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    a.stop.cancel();
    a.task.await.unwrap();
    assert_eq!(server.holder(), "");
    // So is one that was being taken.
    server.0.lock().unanswered = 1;
    let b = server.candidate("b");
    pass(1).await;
    assert_eq!((server.holder().as_str(), b.leads()), ("b", false));
    b.stop.cancel();
    b.task.await.unwrap();
    assert_eq!(server.holder(), "");
}
