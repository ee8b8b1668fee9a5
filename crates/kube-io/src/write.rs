//! What all writers share: how a refused request is told, and what is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::core::ApiResource;
use kube::runtime::watcher;
use model::object::Input;
use model::{Finding, ObjectKey, ObjectRef, Severity, Str};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

/// Longest time that one request may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts before something is left alone for a while.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// For how long it is left alone.
pub(crate) const PAUSE: Duration = Duration::from_secs(60);
/// Wait after a first failure; doubles.
pub(crate) const BACKOFF: Duration = Duration::from_millis(250);
/// Longest wait between attempts.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// For how long refusals are not believed: an API server that starts refuses for a moment what its
/// roles allow, since it has not read them yet.
const REFUSALS_DOUBTED: Duration = Duration::from_secs(3);

/// Name under which findings of writers are given to the pipeline.
const SOURCE: &str = "kube-writers";

/// What is counted of writes.
#[derive(Clone, Debug)]
pub struct WriteMetrics {
    /// Statuses, by field manager and `applied`, `unchanged`, `conflict` or `error`.
    pub(crate) statuses: IntCounterVec,
    /// ConfigMaps of roots, by `created`, `updated`, `conflict` or `error`.
    pub(crate) roots: IntCounterVec,
    /// Events, by `sent`, `repeated`, `known`, `dropped` or `error`.
    pub(crate) events: IntCounterVec,
    /// 1 while this replica leads.
    pub(crate) leader: IntGauge,
}

/// Tells which requests the API server refuses, once each. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    refused: Arc<Mutex<BTreeMap<String, Finding>>>,
    /// Since when requests are refused that are not told of yet.
    doubted: Arc<Mutex<BTreeMap<String, Instant>>>,
    findings: Option<mpsc::Sender<Vec<Input>>>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The object has changed: judge it anew.
    Conflict,
    /// The object, or its namespace, is gone or going.
    Gone,
    /// We lack the right.
    Refused(String),
    /// Anything else.
    Other(String),
}

// === impl WriteMetrics ===

impl WriteMetrics {
    /// Registers the metrics of what is written to the API server.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help, labels: &[&str]| -> Result<_, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let leader = IntGauge::new("ambientd_leader", "Whether this replica writes statuses.")?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self {
            statuses: counter(
                "ambientd_status_writes_total",
                "Writes of the status of objects, by field manager and result.",
                &["manager", "result"],
            )?,
            roots: counter(
                "ambientd_root_writes_total",
                "Writes of the ConfigMaps of roots, by result.",
                &["result"],
            )?,
            events: counter(
                "ambientd_events_total",
                "Events of error findings, by result.",
                &["result"],
            )?,
            leader,
        })
    }
}

// === impl Reports ===

impl Reports {
    /// Reports that go to the pipeline as findings too.
    pub fn new(findings: mpsc::Sender<Vec<Input>>) -> Self {
        Self {
            refused: Arc::default(),
            doubted: Arc::default(),
            findings: Some(findings),
        }
    }

    /// A request was refused for lack of a right: `what` is `<verb> <resource>`. Returns what that
    /// means: at first only that it failed.
    pub(crate) fn refused(&self, what: &str, message: &str) -> Failure {
        if self.doubts(what) {
            return Failure::Other(message.to_owned());
        }
        let finding = Finding::new(
            "kube-write-forbidden",
            Severity::Error,
            account(message),
            format!("The API server lets us not {what}; what belongs there is not written"),
            format!(
                "Add a rule with {what} to the ClusterRole of ambientd, or to its Role for leases"
            ),
        );
        self.tell(what, message, finding)
    }

    /// A resource is not there although objects of its kind are: the kind has no such subresource.
    /// That too is doubted at first.
    pub(crate) fn not_served(&self, what: &str, of: &ApiResource, message: &str) {
        if self.doubts(what) {
            return;
        }
        let name = format!("{}.{}", of.plural, of.group);
        let finding = Finding::new(
            "kube-status-not-served",
            Severity::Warning,
            ObjectRef {
                kind: Str::from("CustomResourceDefinition"),
                key: ObjectKey::cluster(name.trim_end_matches('.')),
            },
            format!(
                "Version {} of {} has no status subresource; statuses are not written, everything else works",
                of.version, of.kind
            ),
            "Install the CRD as it is published, with subresources.status",
        );
        self.tell(what, message, finding);
    }

    fn tell(&self, what: &str, message: &str, finding: Finding) -> Failure {
        let is_news = self
            .refused
            .lock()
            .insert(what.to_owned(), finding)
            .is_none();
        if is_news {
            warn!(what, message, "the API server does not let us write");
            self.send();
        }
        Failure::Refused(message.to_owned())
    }

    fn doubts(&self, what: &str) -> bool {
        if self.refused.lock().contains_key(what) {
            return false;
        }
        let mut doubted = self.doubted.lock();
        let since = *doubted.entry(what.to_owned()).or_insert_with(Instant::now);
        since.elapsed() < REFUSALS_DOUBTED
    }

    /// A request of this kind went through.
    pub(crate) fn allowed(&self, what: &str) {
        self.doubted.lock().remove(what);
        if self.refused.lock().remove(what).is_some() {
            info!(what, "allowed to write again");
            self.send();
        }
    }

    fn send(&self) {
        let Some(findings) = self.findings.clone() else {
            return;
        };
        let refused = Arc::clone(&self.refused);
        // The list of the time of sending, so that the last one sent is the last one true.
        tokio::spawn(async move {
            let Ok(permit) = findings.reserve().await else {
                return;
            };
            let all = refused.lock().values().cloned().collect();
            permit.send(vec![Input::SourceFindings(SOURCE, all)]);
        });
    }
}

// === impl Failure ===

impl Failure {
    /// What an error means for who wrote to the object of this name.
    pub(crate) fn of(error: &kube::Error, name: &str) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Other(error.to_string());
        };
        let message = status.message.clone();
        let details = status.details.as_ref();
        let is_ending = details.is_some_and(|details| {
            let mut causes = details.causes.iter();
            causes.any(|cause| cause.reason == "NamespaceTerminating")
        });
        match status.code {
            409 => Self::Conflict,
            403 if is_ending => Self::Gone,
            403 if message.contains("cannot ") && message.contains(" resource ") => {
                Self::Refused(message)
            }
            // Otherwise the resource itself is not there: no CRD, or no status subresource.
            404 if details.is_some_and(|details| details.name == name) => Self::Gone,
            404 if message.starts_with("namespaces ") => Self::Gone,
            _ => Self::Other(message),
        }
    }
}

/// What the API server says of a watch, or the list before it, that it refuses.
pub(crate) fn watch_refused(error: &watcher::Error) -> Option<&str> {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status)) = error
    else {
        return None;
    };
    (status.code == 403).then_some(status.message.as_str())
}

/// Who was refused: the account that the API server names.
fn account(message: &str) -> ObjectRef {
    let user = message
        .split_once("User \"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let user = user.map_or("ambientd", |(user, _)| user);
    let parts = user.strip_prefix("system:serviceaccount:");
    match parts.and_then(|parts| parts.split_once(':')) {
        Some((ns, name)) => ObjectRef {
            kind: Str::from("ServiceAccount"),
            key: ObjectKey::new(ns, name),
        },
        None => ObjectRef {
            kind: Str::from("User"),
            key: ObjectKey::cluster(user),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kube::core::Status;
    use serde_json::json;

    use super::*;

    fn failure(status: serde_json::Value) -> Failure {
        let status: Status = serde_json::from_value(status).unwrap();
        Failure::of(&kube::Error::Api(Box::new(status)), "a")
    }

    #[test]
    fn answers_of_the_api_server_are_told_apart() {
        let forbidden = "services \"a\" is forbidden: User \"system:serviceaccount:istio-system:istiod\" cannot patch resource \"services/status\" in API group \"\" in the namespace \"x\"";
        let ending = json!({"name": "a", "causes": [{"reason": "NamespaceTerminating"}]});
        let cases = [
            (
                json!({"code": 409, "reason": "Conflict"}),
                Failure::Conflict,
            ),
            (
                json!({"code": 404, "details": {"name": "a"}, "message": "services \"a\" not found"}),
                Failure::Gone,
            ),
            (
                json!({"code": 404, "details": {}, "message": "the server could not find the requested resource"}),
                Failure::Other("the server could not find the requested resource".to_owned()),
            ),
            (
                json!({"code": 403, "details": ending, "message": "x"}),
                Failure::Gone,
            ),
            (
                json!({"code": 403, "message": forbidden}),
                Failure::Refused(forbidden.to_owned()),
            ),
            (
                json!({"code": 403, "message": "denied by a webhook"}),
                Failure::Other("denied by a webhook".to_owned()),
            ),
        ];
        for (status, wanted) in cases {
            assert_eq!(failure(status.clone()), wanted, "{status}");
        }
        let account = account(forbidden);
        assert_eq!(account.key, ObjectKey::new("istio-system", "istiod"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_lasts_is_told_once_and_withdrawn() {
        let (sender, mut receiver) = mpsc::channel(4);
        let reports = Reports::new(sender);
        let refused = || reports.refused("patch services/status", "no");
        assert_eq!(refused(), Failure::Other("no".to_owned()));
        tokio::time::advance(REFUSALS_DOUBTED / 2).await;
        reports.allowed("patch services/status");
        tokio::time::advance(REFUSALS_DOUBTED).await;
        assert_eq!(refused(), Failure::Other("no".to_owned()));
        tokio::time::advance(REFUSALS_DOUBTED).await;
        assert_eq!(refused(), Failure::Refused("no".to_owned()));
        assert_eq!(refused(), Failure::Refused("no".to_owned()));
        let Some(first) = receiver.recv().await else {
            unreachable!()
        };
        assert!(matches!(&first[..], [Input::SourceFindings(_, all)] if all.len() == 1));
        reports.allowed("patch services/status");
        let last = receiver.recv().await.unwrap();
        assert!(matches!(&last[..], [Input::SourceFindings(_, all)] if all.is_empty()));
        assert!(receiver.try_recv().is_err());
    }
}
