//! One object's writes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use model::ObjectRef;
use model::status::StatusRow;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::Rows;
use super::plan::{self, Form};
use super::repeat::Became;
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
    /// What was written, and what the API server made of it unless that is what was meant.
    pub(super) sent: Vec<SentRow>,
    /// Whether the object stayed as it was; `Err(None)` when the right to write has ended.
    pub(super) result: Result<bool, Option<Failure>>,
}

/// A row that a manager wrote.
pub(super) type SentRow = (&'static str, Arc<StatusRow>, Option<Became>);

/// Writes what each manager says, one after the other.
pub(super) async fn write(shared: &Shared, job: Job) -> Done {
    let (mut form, mut sent) = (None, Vec::new());
    let writing = write_rows(shared, &job, &mut form, &mut sent);
    // One object that breaks us must not be taken for one that is being written for ever.
    let result = AssertUnwindSafe(writing).catch_unwind().await;
    let result = result.unwrap_or_else(|_| {
        let manager = job.rows.first().map_or("", |(manager, _)| manager);
        shared.count(manager, "error");
        Err(Some(Failure::Other("the write panicked".to_owned())))
    });
    Done {
        job,
        form,
        sent,
        result,
    }
}

async fn write_rows(
    shared: &Shared,
    job: &Job,
    learned: &mut Option<Form>,
    sent: &mut Vec<SentRow>,
) -> Result<bool, Option<Failure>> {
    let mut seen = Arc::clone(&job.seen);
    for (manager, row) in &job.rows {
        let form = learned.unwrap_or(job.form);
        if !plan::is_due(&job.object, (manager, row), &seen, form) {
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
        let form = learned.unwrap_or(job.form);
        let is_kept = !plan::is_due(&job.object, (manager, row), &seen, form);
        let became = (!is_kept).then(|| Became::of(manager, &seen));
        sent.push((manager, Arc::clone(row), became));
    }
    Ok(seen.resource_version == job.seen.resource_version)
}

async fn apply(
    shared: &Shared,
    job: &Job,
    (manager, row): (&str, &StatusRow),
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
    let what = what(&resource);
    let api = api(&shared.client, object, &resource);
    let (params, patch) = if plan::is_merged(manager) {
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            ..PatchParams::default()
        };
        (params, Patch::Merge(&body))
    } else {
        (PatchParams::apply(manager).force(), Patch::Apply(&body))
    };
    let request = api.patch_status(&object.key.name, &params, &patch);
    let deadline = term.until.min(Instant::now() + REQUEST_TIMEOUT);
    let failure = match tokio::time::timeout_at(deadline, request).await {
        Ok(Ok(answer)) => {
            shared.reports.allowed(&what, &object.key.ns);
            let answer = serde_json::to_value(&answer).unwrap_or(Value::Null);
            return Ok(plan::answered(&answer, manager));
        }
        Ok(Err(error)) => match Failure::of(&error, &object.key.name) {
            Failure::Other(message) if is_not_found(&error) => {
                shared.count(manager, "error");
                shared.reports.not_served(&what, &resource, &message);
                return Err(Some(Failure::Refused(message)));
            }
            failure => failure,
        },
        Err(_) if shared.leadership.term().is_none() => return Err(None),
        Err(_) => Failure::Other("no answer in time".to_owned()),
    };
    match &failure {
        Failure::Conflict => shared.count(manager, "conflict"),
        Failure::Gone => {}
        Failure::Refused(_) | Failure::Other(_) => shared.count(manager, "error"),
    }
    Err(Some(match failure {
        // Whether it is believed or not, others of the kind wait.
        Failure::Refused(message) => {
            let _ = shared.reports.refused(&what, &object.key.ns, &message);
            Failure::Refused(message)
        }
        failure => failure,
    }))
}

/// Whether the resource itself is not there, given that it is not the object.
fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What is asked for, as reports call it.
pub(super) fn what(resource: &ApiResource) -> String {
    let what = format!("patch {}/status.{}", resource.plural, resource.group);
    what.trim_end_matches('.').to_owned()
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
