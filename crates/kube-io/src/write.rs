//! What all writers share: how a refused request is told, and what is counted.

use std::time::Duration;

use kube::runtime::watcher;
use model::{ObjectKey, ObjectRef, Str};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

mod reports;

pub use reports::Reports;

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

/// What is counted of writes.
#[derive(Clone, Debug)]
pub struct WriteMetrics {
    /// Statuses, by field manager and `applied`, `unchanged`, `conflict` or `error`.
    pub(crate) statuses: IntCounterVec,
    /// ConfigMaps of roots, by `created`, `updated`, `conflict` or `error`.
    pub(crate) roots: IntCounterVec,
    /// Objects of deployments, by kind and `applied`, `unchanged`, `foreign`, `conflict` or
    /// `error`.
    pub(crate) deployments: IntCounterVec,
    /// Events, by `sent`, `repeated`, `known`, `retried`, `dropped` or `error`.
    pub(crate) events: IntCounterVec,
    /// 1 while this replica leads.
    pub(crate) leader: IntGauge,
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
            deployments: counter(
                "ambientd_deployment_writes_total",
                "Writes of what Gateways run as, by kind and result.",
                &["kind", "result"],
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
pub(crate) fn account(message: &str) -> ObjectRef {
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
}
