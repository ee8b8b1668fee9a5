//! Whether accounts may list the Secrets of their namespaces.
//!
//! Source: spec/control-plane.md §2.11.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use authn::SecretReviewer;
use futures::future::BoxFuture;
use model::{Finding, ObjectKey, ObjectRef, Severity, SpiffeId, Str};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use super::{PROBE, Problem, REASON_CHARS_MAX, REVIEWS_MAX, TIMEOUT, post};
use crate::Reports;
use crate::jitter::jittered;
use crate::write::account;

/// How long a yes counts.
const YES: Duration = Duration::from_secs(5 * 60);
/// How long a no counts.
const NO: Duration = Duration::from_secs(60);
/// How long it counts as a no that nobody answered.
const UNANSWERED: Duration = Duration::from_secs(10);
/// Accounts that are remembered at once.
const ACCOUNTS_MAX: usize = 10_000;
/// Request, as reports call it.
const WHAT: &str = "create subjectaccessreviews";

/// Asks the API server whether accounts may list the Secrets of their own namespaces.
///
/// A yes counts for five minutes, a no for one. What could not be asked is a no for ten seconds,
/// so that an API server in trouble is not asked for every secret. Bounded like
/// [`super::ApiReviewer`].
pub struct ApiSecretReviewer(Arc<Reviewer>);

struct Reviewer {
    client: kube::Client,
    turns: Semaphore,
    /// What was answered, and until when it counts.
    known: Mutex<HashMap<ObjectKey, (bool, Instant)>>,
    reports: Option<Reports>,
    /// Somebody asks from time to time whether reviews work again.
    is_probing: AtomicBool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
    denied: bool,
}

impl std::fmt::Debug for ApiSecretReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiSecretReviewer").finish_non_exhaustive()
    }
}

// === impl ApiSecretReviewer ===

impl ApiSecretReviewer {
    /// A reviewer by the API server of a client.
    pub fn new(client: kube::Client) -> Self {
        Self::with(client, None)
    }

    /// The same, which tells when the API server reviews nothing, as a finding that goes once it
    /// does again.
    pub fn telling(client: kube::Client, reports: Reports) -> Self {
        Self::with(client, Some(reports))
    }

    fn with(client: kube::Client, reports: Option<Reports>) -> Self {
        Self(Arc::new(Reviewer {
            client,
            turns: Semaphore::new(REVIEWS_MAX),
            known: Mutex::default(),
            reports,
            is_probing: AtomicBool::new(false),
        }))
    }
}

impl SecretReviewer for ApiSecretReviewer {
    fn may_list<'a>(&'a self, account: &'a SpiffeId) -> BoxFuture<'a, bool> {
        let account = ObjectKey::new(account.ns.clone(), account.sa.clone());
        Box::pin(async move {
            if let Some(known) = self.0.known(&account) {
                return known;
            }
            self.0.review(&account).await.unwrap_or(false)
        })
    }
}

// === impl Reviewer ===

impl Reviewer {
    fn known(&self, account: &ObjectKey) -> Option<bool> {
        let known = self.known.lock();
        let (may, until) = known.get(account)?;
        (Instant::now() < *until).then_some(*may)
    }

    fn keep(&self, account: &ObjectKey, may: bool) {
        self.keep_for(account, may, if may { YES } else { NO });
    }

    fn keep_for(&self, account: &ObjectKey, may: bool, time: Duration) {
        let now = Instant::now();
        let mut known = self.known.lock();
        if known.len() >= ACCOUNTS_MAX {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= ACCOUNTS_MAX {
            known.clear();
        }
        known.insert(account.clone(), (may, now + time));
    }

    /// Keeps that nobody answered, unless what was answered before still counts.
    fn keep_unanswered(&self, account: &ObjectKey) {
        if self.known(account).is_none() {
            self.keep_for(account, false, UNANSWERED);
        }
    }

    /// Asks, remembers the answer, and tells whether asking works; `None` when it does not.
    async fn review(self: &Arc<Self>, account: &ObjectKey) -> Option<bool> {
        let asked = tokio::time::timeout(TIMEOUT, self.ask(account)).await;
        let asked = asked.unwrap_or_else(|_| {
            let seconds = TIMEOUT.as_secs();
            Err(format!("the API server did not answer within {seconds} s").into())
        });
        match asked {
            Ok(may) => {
                self.keep(account, may);
                if let Some(reports) = &self.reports {
                    reports.allowed(WHAT, "");
                }
                Some(may)
            }
            Err(problem) => {
                self.keep_unanswered(account);
                let reason: String = problem.reason.chars().take(REASON_CHARS_MAX).collect();
                warn!(ns = %account.ns, account = %account.name, reason, "no access review");
                if let Some(reports) = &self.reports {
                    reports.report(WHAT, &reason, finding(&problem));
                    self.probe(account.clone());
                }
                None
            }
        }
    }

    async fn ask(&self, account: &ObjectKey) -> Result<bool, Problem> {
        let _turn = self.turns.acquire().await.map_err(|_| "closed")?;
        let (ns, name) = (&account.ns, &account.name);
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:{ns}:{name}"),
                "groups": [
                    "system:serviceaccounts",
                    format!("system:serviceaccounts:{ns}"),
                    "system:authenticated",
                ],
                "resourceAttributes": {
                    "namespace": ns.as_str(), "verb": "list", "resource": "secrets",
                },
            },
        });
        let uri = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let status: Status = post(&self.client, uri, &body).await?;
        Ok(status.allowed && !status.denied)
    }

    /// Asks until it works: what is told of it must not stay because nobody comes.
    fn probe(self: &Arc<Self>, account: ObjectKey) {
        if self.is_probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(jittered(PROBE)).await;
                let Some(this) = Weak::upgrade(&weak) else {
                    return;
                };
                if Box::pin(this.review(&account)).await.is_some() {
                    this.is_probing.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }
}

fn finding(problem: &Problem) -> Finding {
    let (object, cause, fix) = if problem.is_forbidden {
        (
            account(&problem.reason),
            "The API server lets us not create subjectaccessreviews",
            "Add a rule with create subjectaccessreviews.authorization.k8s.io to the ClusterRole of ambientd",
        )
    } else {
        (
            ObjectRef {
                kind: Str::from("SubjectAccessReview"),
                key: ObjectKey::cluster("*"),
            },
            "The API server does not review what accounts may read",
            "See to it that the API server answers; the log says what it says",
        )
    };
    let message = format!(
        "{cause}; proxies are given no certificate with its key by `kubernetes://`, as `credentialName` asks for, unless it was reviewed shortly before"
    );
    Finding::new("kube-review-failed", Severity::Error, object, message, fix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;

    /// A reviewer whose API server answers what is told, with how often it was asked.
    fn answering(
        answers: tokio::sync::watch::Receiver<(u16, Value)>,
        reports: Option<Reports>,
    ) -> (ApiSecretReviewer, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let (status, answer) = answers.borrow().clone();
            async move {
                let uri = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
                assert_eq!(request.uri(), uri);
                let body = request.into_body().collect_bytes().await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let expected = json!({
                    "user": "system:serviceaccount:shop:gate",
                    "groups": [
                        "system:serviceaccounts", "system:serviceaccounts:shop",
                        "system:authenticated",
                    ],
                    "resourceAttributes": {
                        "namespace": "shop", "verb": "list", "resource": "secrets",
                    },
                });
                assert_eq!(body.get("spec"), Some(&expected));
                let response = Response::builder().status(status);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        });
        let client = kube::Client::new(service, "default");
        (ApiSecretReviewer::with(client, reports), asked)
    }

    fn says(status: Value) -> (u16, Value) {
        (201, json!({"status": status}))
    }

    async fn may(reviewer: &ApiSecretReviewer) -> bool {
        let account = SpiffeId::new("cluster.local", "shop", "gate");
        reviewer.may_list(&account).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_counts_for_five_minutes_and_a_no_for_one() {
        for (status, expected, seconds) in [
            (json!({"allowed": true}), true, 300),
            (json!({"allowed": false}), false, 60),
            (json!({"allowed": true, "denied": true}), false, 60),
            (json!({}), false, 60),
        ] {
            let (_answers, receiver) = tokio::sync::watch::channel(says(status.clone()));
            let (reviewer, asked) = answering(receiver, None);
            for (after, times) in [(0, 1), (seconds - 1, 1), (1, 2)] {
                tokio::time::advance(Duration::from_secs(after)).await;
                assert_eq!(may(&reviewer).await, expected, "{status}");
                assert_eq!(asked.load(Ordering::Relaxed), times, "{status}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_asked_is_a_no_for_seconds() {
        let refusal = json!({"reason": "Forbidden", "message": "no"});
        for answer in [
            (403, refusal),
            (500, json!({})),
            (201, json!("x")),
            (201, json!({"status": {"allowed": "yes"}})),
        ] {
            let (answers, receiver) = tokio::sync::watch::channel(answer.clone());
            let (reviewer, asked) = answering(receiver, None);
            for _ in 0..100 {
                assert!(!may(&reviewer).await, "{answer:?}");
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1, "{answer:?}");
            answers.send_replace(says(json!({"allowed": true})));
            tokio::time::advance(UNANSWERED).await;
            assert!(may(&reviewer).await, "{answer:?}");
        }
        // What counted once does not outlive its time because nobody answers.
        let (answers, receiver) = tokio::sync::watch::channel(says(json!({"allowed": true})));
        let (reviewer, _) = answering(receiver, None);
        assert!(may(&reviewer).await);
        answers.send_replace((503, json!({})));
        assert!(may(&reviewer).await);
        tokio::time::advance(YES).await;
        assert!(!may(&reviewer).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_never_answers_is_waited_for_seconds() {
        let service = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let reviewer = ApiSecretReviewer::new(kube::Client::new(service, "default"));
        let began = Instant::now();
        assert!(!may(&reviewer).await);
        assert_eq!(began.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn reviews_that_fail_are_told_until_they_work() {
        let message = "User \"system:serviceaccount:istio-system:istiod\" cannot create resource";
        let refusal = (403, json!({"reason": "Forbidden", "message": message}));
        let (answers, receiver) = tokio::sync::watch::channel(refusal);
        let (sender, mut findings) = tokio::sync::mpsc::channel(4);
        let (reviewer, _) = answering(receiver, Some(Reports::new(sender)));
        assert!(!may(&reviewer).await);
        let told = findings.recv().await.unwrap();
        let [model::object::Input::SourceFindings(_, all)] = told.as_slice() else {
            panic!("{told:?}")
        };
        let found = all.first().unwrap();
        assert_eq!(found.code, "kube-review-failed");
        assert_eq!(found.object.key.name, "istiod");
        assert!(found.message.contains("subjectaccessreviews"), "{found:?}");
        answers.send_replace(says(json!({"allowed": false})));
        let told = findings.recv().await.unwrap();
        assert!(
            matches!(&told[..], [model::object::Input::SourceFindings(_, all)] if all.is_empty())
        );
    }
}
