//! The writes for one Gateway.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use model::deployment::{ANNOTATION_CONTROLLER_VERSION, CONTROLLER_VERSION, FIELD_MANAGER};
use model::{ManagedObject, ObjectKey, ObjectRef, Str};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::children::kept;
use super::{held, live, object_of, request};
use crate::jitter::Bucket;
use crate::write::{Failure, REQUEST_TIMEOUT};
use crate::{Leadership, Reports, WriteMetrics};

/// `apiVersion` of Gateways.
pub(super) const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// What all writes share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) leadership: Leadership,
    pub(super) metrics: WriteMetrics,
    pub(super) reports: Reports,
    pub(super) bucket: Mutex<Bucket>,
}

/// What is to be written for a Gateway.
pub(super) struct Job {
    pub(super) gateway: ObjectKey,
    /// Uid of the Gateway, which is to be claimed first.
    pub(super) claim: Option<Str>,
    /// In the order in which they are applied.
    pub(super) objects: Vec<ManagedObject>,
}

/// What became of it.
pub(super) struct Done {
    pub(super) gateway: ObjectKey,
    pub(super) claim: Option<(Str, Outcome)>,
    pub(super) objects: Vec<(ManagedObject, Outcome)>,
}

/// What became of one object.
pub(super) enum Outcome {
    /// It is as the API server answered, and whether we wrote it.
    Is(Box<Value>, bool),
    /// Somebody else's, which was left alone.
    Foreign,
    /// This request failed.
    Failed(String, Failure),
    /// The right to write has ended.
    Over,
}

/// A request that failed, and what was asked for; `None` when the right to write has ended.
type Problem = Option<(String, Failure)>;

/// Writes one object after the other; one that cannot be written holds up no other.
pub(super) async fn write(shared: Arc<Shared>, job: Job) -> Done {
    let mut done = Done {
        claim: None,
        objects: Vec::new(),
        gateway: job.gateway,
    };
    if let Some(uid) = job.claim {
        let outcome = guarded(claim(&shared, &done.gateway, &uid)).await;
        shared.count("Gateway", &outcome);
        done.claim = Some((uid, outcome));
    }
    for object in job.objects {
        let outcome = guarded(apply(&shared, &object)).await;
        shared.count(object.kind, &outcome);
        done.objects.push((object, outcome));
    }
    done
}

/// One object that breaks us must not be taken for one that is being written for ever.
async fn guarded(writing: impl Future<Output = Result<Outcome, Problem>>) -> Outcome {
    match AssertUnwindSafe(writing).catch_unwind().await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(Some((what, failure)))) => Outcome::Failed(what, failure),
        Ok(Err(None)) => Outcome::Over,
        Err(_) => {
            let failure = Failure::Other("the write panicked".to_owned());
            Outcome::Failed("write".to_owned(), failure)
        }
    }
}

/// Says on the Gateway who makes its deployment.
///
/// On the object itself: what is written through `status` loses its metadata.
async fn claim(shared: &Shared, gateway: &ObjectKey, uid: &str) -> Result<Outcome, Problem> {
    let object = object_of(gateway);
    let body = json!({
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": {
            "name": gateway.name.as_str(),
            "namespace": gateway.ns.as_str(),
            "uid": uid,
            "annotations": {ANNOTATION_CONTROLLER_VERSION: CONTROLLER_VERSION.to_string()},
        },
    });
    let api = api(&shared.client, &object, GATEWAY_API);
    let what = request("patch", GATEWAY_API, "Gateway");
    let answer = shared.patch(&api, &object, &what, &body).await?;
    Ok(Outcome::Is(Box::new(answer), true))
}

/// Applies an object over the one that is there, if that may be.
async fn apply(shared: &Shared, wanted: &ManagedObject) -> Result<Outcome, Problem> {
    let object = ObjectRef {
        kind: Str::from(wanted.kind),
        key: ObjectKey::new(wanted.ns.clone(), wanted.name.clone()),
    };
    let api = api(&shared.client, &object, wanted.api_version);
    let what = request("get", wanted.api_version, wanted.kind);
    let found = shared
        .ask(&object, &what, api.get_opt(&object.key.name))
        .await?;
    let live = found.map(|found| serde_json::to_value(&found).unwrap_or_default());
    if !live::may_apply(live.as_ref()) {
        return Ok(Outcome::Foreign);
    }
    let mut body = wanted.clone();
    live::adapt(&mut body, live.as_ref());
    if let Some(live) = live.filter(|live| held::holds(&body.body, live)) {
        return Ok(Outcome::Is(Box::new(kept(live)), false));
    }
    let what = request("patch", wanted.api_version, wanted.kind);
    let answer = shared.patch(&api, &object, &what, &body.body).await?;
    Ok(Outcome::Is(Box::new(kept(answer)), true))
}

fn api(client: &Client, object: &ObjectRef, api_version: &str) -> Api<DynamicObject> {
    let resource = crate::status::resource(object, api_version);
    crate::status::api(client, object, &resource)
}

// === impl Shared ===

impl Shared {
    async fn patch(
        &self,
        api: &Api<DynamicObject>,
        object: &ObjectRef,
        what: &str,
        body: &Value,
    ) -> Result<Value, Problem> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(body);
        let answer = self
            .ask(object, what, api.patch(&object.key.name, &params, &patch))
            .await?;
        Ok(serde_json::to_value(&answer).unwrap_or_default())
    }

    /// Sends a request in its turn, as long as we lead.
    async fn ask<T>(
        &self,
        object: &ObjectRef,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Problem> {
        let turn = self.bucket.lock().take();
        tokio::time::sleep_until(turn).await;
        let Some(term) = self.leadership.term() else {
            return Err(None);
        };
        let deadline = term.until.min(Instant::now() + REQUEST_TIMEOUT);
        let failure = match tokio::time::timeout_at(deadline, request).await {
            Ok(Ok(answer)) => {
                self.reports.allowed(what, &object.key.ns);
                return Ok(answer);
            }
            Ok(Err(error)) => match Failure::of(&error, &object.key.name) {
                Failure::Refused(message) => self.reports.refused(what, &object.key.ns, &message),
                failure => failure,
            },
            Err(_) if self.leadership.term().is_none() => return Err(None),
            Err(_) => Failure::Other("no answer in time".to_owned()),
        };
        Err(Some((what.to_owned(), failure)))
    }

    fn count(&self, kind: &str, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Is(_, true) => "applied",
            Outcome::Is(_, false) => "unchanged",
            Outcome::Foreign => "foreign",
            Outcome::Failed(_, Failure::Conflict) => "conflict",
            Outcome::Failed(_, Failure::Gone) | Outcome::Over => return,
            Outcome::Failed(..) => "error",
        };
        let counter = &self.metrics.deployments;
        counter.with_label_values(&[kind, result]).inc();
    }
}
