//! One write of a ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use model::{ObjectKey, ObjectRef};
use tokio::time::Instant;

use crate::write::{Failure, REQUEST_TIMEOUT};
use crate::{Leadership, Reports, WriteMetrics};

/// Requests, as reports of refusals call them.
pub(super) const CREATE: &str = "create configmaps";
const PATCH: &str = "patch configmaps";
/// Set when a ConfigMap is created.
const LABEL_CONFIG: &str = "istio.io/config";
/// Field manager.
const MANAGER: &str = "ambientd";

/// A write that is due.
pub(super) enum Write {
    Create(Box<ConfigMap>),
    Patch(serde_json::Value),
}

pub(super) struct Done {
    pub(super) object: ObjectRef,
    /// What was asked for, as reports call it.
    pub(super) what: &'static str,
    pub(super) result: Result<(), Option<Failure>>,
}

// === impl Write ===

impl Write {
    /// What is asked for, as reports call it.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Create(_) => CREATE,
            Self::Patch(_) => PATCH,
        }
    }
}

/// A ConfigMap that is not there yet.
pub(super) fn created(at: &ObjectKey, key: &str, value: String) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(at.name.to_string());
    map.metadata.namespace = Some(at.ns.to_string());
    let labels = [(LABEL_CONFIG.to_owned(), "true".to_owned())];
    map.metadata.labels = Some(labels.into_iter().collect());
    map.data = Some([(key.to_owned(), value)].into_iter().collect());
    map
}

/// Sends a write; says what it was called.
pub(super) async fn send(
    client: Client,
    leadership: &Leadership,
    object: &ObjectRef,
    write: Write,
    reports: &Reports,
) -> Result<&'static str, Option<Failure>> {
    let Some(term) = leadership.term() else {
        return Err(None);
    };
    let maps = Api::<ConfigMap>::namespaced(client, &object.key.ns);
    let deadline = term.until.min(Instant::now() + REQUEST_TIMEOUT);
    let what = write.what();
    let (done, result) = match &write {
        Write::Create(map) => {
            let params = PostParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PostParams::default()
            };
            let request = maps.create(&params, map.as_ref());
            let answer = tokio::time::timeout_at(deadline, request).await;
            ("created", answer)
        }
        Write::Patch(patch) => {
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(patch);
            let request = maps.patch(&object.key.name, &params, &patch);
            let answer = tokio::time::timeout_at(deadline, request).await;
            ("updated", answer)
        }
    };
    match result {
        Ok(Ok(_)) => {
            reports.allowed(what, &object.key.ns);
            Ok(done)
        }
        Ok(Err(error)) => {
            let failure = Failure::of(&error, &object.key.name);
            Err(Some(match failure {
                Failure::Refused(message) => reports.refused(what, &object.key.ns, &message),
                failure => failure,
            }))
        }
        Err(_) if leadership.term().is_none() => Err(None),
        Err(_) => Err(Some(Failure::Other("no answer in time".to_owned()))),
    }
}

pub(super) fn count(metrics: &WriteMetrics, result: &Result<&'static str, Option<Failure>>) {
    let result = match result {
        Ok(what) => what,
        Err(None | Some(Failure::Gone)) => return,
        Err(Some(Failure::Conflict)) => "conflict",
        Err(Some(_)) => "error",
    };
    metrics.roots.with_label_values(&[result]).inc();
}
