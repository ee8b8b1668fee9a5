//! One object's writes.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use model::ObjectRef;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::Rows;
use super::plan::{self, Form};
use crate::jitter::Bucket;
use crate::write::{Failure, REQUEST_TIMEOUT};
use crate::{Leadership, ObservedStatus, Reports, WriteMetrics};

/// What all writes share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) leadership: Leadership,
    pub(super) metrics: WriteMetrics,
    pub(super) reports: Reports,
    pub(super) bucket: Mutex<Bucket>,
}

/// What is to be written to an object, and what that was judged by.
pub(super) struct Job {
    pub(super) object: ObjectRef,
    pub(super) rows: Rows,
    pub(super) seen: Arc<ObservedStatus>,
    pub(super) form: Form,
}

/// What became of it.
pub(super) struct Done {
    pub(super) job: Job,
    /// How conditions of this kind merge, where that showed.
    pub(super) form: Option<Form>,
    /// Whether the object stayed as it was; `Err(None)` when the right to write has ended.
    pub(super) result: Result<bool, Option<Failure>>,
}

/// Writes what each manager says, one after the other.
pub(super) async fn write(shared: &Shared, job: Job) -> Done {
    let mut form = None;
    let result = write_rows(shared, &job, &mut form).await;
    Done { job, form, result }
}

async fn write_rows(
    shared: &Shared,
    job: &Job,
    learned: &mut Option<Form>,
) -> Result<bool, Option<Failure>> {
    let mut seen = Arc::clone(&job.seen);
    for (manager, row) in &job.rows {
        let form = learned.unwrap_or(job.form);
        if !plan::is_due(manager, row, &seen, form) {
            continue;
        }
        let (answer, shown) = apply(shared, job, (manager, row), &seen, form).await?;
        let is_unchanged = answer.resource_version == seen.resource_version;
        shared.count(manager, if is_unchanged { "unchanged" } else { "applied" });
        seen = Arc::new(answer);
        *learned = shown.or(*learned);
        if form == Form::Atomic && shown == Some(Form::Map) {
            // The list merges after all: leave to others what is theirs.
            let (answer, _) = apply(shared, job, (manager, row), &seen, Form::Map).await?;
            seen = Arc::new(answer);
        }
    }
    Ok(seen.resource_version == job.seen.resource_version)
}

async fn apply(
    shared: &Shared,
    job: &Job,
    (manager, row): (&str, &model::status::StatusRow),
    seen: &ObservedStatus,
    form: Form,
) -> Result<(ObservedStatus, Option<Form>), Option<Failure>> {
    let object = &job.object;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = plan::body(object, (manager, row), seen, form, &now);
    let turn = shared.bucket.lock().take();
    tokio::time::sleep_until(turn).await;
    let Some(term) = shared.leadership.term() else {
        return Err(None);
    };
    let resource = resource(object, &seen.api_version);
    let what = format!("patch {}/status.{}", resource.plural, resource.group);
    let what = what.trim_end_matches('.');
    let api = api(&shared.client, object, &resource);
    let params = PatchParams::apply(manager).force();
    let patch = Patch::Apply(&body);
    let request = api.patch_status(&object.key.name, &params, &patch);
    let deadline = term.until.min(Instant::now() + REQUEST_TIMEOUT);
    let failure = match tokio::time::timeout_at(deadline, request).await {
        Ok(Ok(answer)) => {
            shared.reports.allowed(what);
            let answer = serde_json::to_value(&answer).unwrap_or(Value::Null);
            return Ok(plan::answered(&answer, manager));
        }
        Ok(Err(error)) => Failure::of(&error, &object.key.name),
        Err(_) if shared.leadership.term().is_none() => return Err(None),
        Err(_) => Failure::Other("no answer in time".to_owned()),
    };
    match &failure {
        Failure::Conflict => shared.count(manager, "conflict"),
        Failure::Gone => {}
        Failure::Refused(_) | Failure::Other(_) => shared.count(manager, "error"),
    }
    Err(Some(match failure {
        Failure::Refused(message) => shared.reports.refused(what, &message),
        failure => failure,
    }))
}

/// How the API server calls the kind of an object.
pub(crate) fn resource(object: &ObjectRef, api_version: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = object.kind.to_string();
    let plural = crate::kinds::plural(&kind);
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind,
        plural,
    }
}

/// The API of the kind of an object, in its namespace.
pub(crate) fn api(
    client: &Client,
    object: &ObjectRef,
    resource: &ApiResource,
) -> Api<DynamicObject> {
    match object.key.ns.as_str() {
        "" => Api::all_with(client.clone(), resource),
        ns => Api::namespaced_with(client.clone(), ns, resource),
    }
}

// === impl Shared ===

impl Shared {
    fn count(&self, manager: &str, result: &str) {
        let labels = [manager, result];
        self.metrics.statuses.with_label_values(&labels).inc();
    }
}
