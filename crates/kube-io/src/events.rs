//! Kubernetes Events for error findings, so that `kubectl describe` shows them.
//!
//! In: findings of snapshots. Out: one Event for each appearance of an error, by the leader
//! alone; one that appears again counts up the Event that is there. A new leader repeats nothing
//! that an Event still tells.

mod tracker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use model::{Finding, Kind, ObjectRef};
use serde_json::{Value, json};
use snapshot::Snapshot;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::jitter::Bucket;
use crate::kinds::has_status;
use crate::queue::due;
use crate::status::{api, camel_case, cut, find_kind, resource, sentences};
use crate::write::{Failure, REQUEST_TIMEOUT};
use crate::{Leadership, Observed, Reports, WriteMetrics};

use tracker::{Appearance, Tracker, identity};

/// Component that Events name.
const COMPONENT: &str = "ambientd";
/// Time between two Events after a burst.
const INTERVAL: Duration = Duration::from_millis(200);
/// Events that may come at once.
const BURST: u32 = 50;
/// Objects and Events that are remembered.
const KNOWN_MAX: usize = 50_000;
/// Longest message of an Event, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Longest part of an object's name in the name of an Event, in bytes.
const NAME_BYTES_MAX: usize = 220;

/// What the writer of Events needs.
pub struct EventWriter {
    /// Of the API server.
    pub client: Client,
    /// The right to write.
    pub leadership: Leadership,
    /// Where findings come from.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Which objects there are.
    pub observed: Observed,
    /// Who we are: the name of the pod.
    pub identity: String,
    /// What was sent.
    pub metrics: WriteMetrics,
    /// Where refusals are told.
    pub reports: Reports,
}

/// What became of an Event.
enum Sent {
    Created,
    Repeated,
    Known,
    Gone,
}

/// Sends Events while this replica leads, until it is told to stop.
pub async fn run(config: EventWriter, stop: CancellationToken) {
    let mut leadership = config.leadership.clone();
    let mut snapshots = config.snapshots.clone();
    snapshots.mark_changed();
    let mut tracker = Tracker::default();
    let mut sender = Sender {
        counts: HashMap::new(),
        bucket: Bucket::new(INTERVAL, BURST),
        config,
    };
    loop {
        let is_leading = sender.config.leadership.term().is_some();
        let next = tracker.next_due().filter(|_| is_leading);
        let next = next.map(|next| next.max(sender.bucket.ready_at()));
        tokio::select! {
            () = stop.cancelled() => return,
            goes_on = leadership.changed() => {
                if !goes_on {
                    return;
                }
                tracker = Tracker::default();
                sender.counts.clear();
                snapshots.mark_changed();
            }
            Ok(()) = snapshots.changed(), if is_leading => {
                let snapshot = snapshots.borrow_and_update().clone();
                if let Some(snapshot) = snapshot {
                    let dropped = tracker.follow(&snapshot.findings);
                    sender.count("dropped", dropped);
                }
            }
            () = due(next), if next.is_some() => {
                if let Some(appearance) = tracker.pop() {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        is_over = sender.tell(&appearance) => {
                            if !is_over && let Some(result) = tracker.retry(appearance) {
                                sender.count(result, 1);
                            }
                        }
                    }
                }
            }
        }
    }
}

struct Sender {
    config: EventWriter,
    /// `count` of the Events that are known, by name.
    counts: HashMap<String, i32>,
    bucket: Bucket,
}

// === impl Sender ===

impl Sender {
    fn count(&self, result: &str, by: u64) {
        if by > 0 {
            let counter = self.config.metrics.events.with_label_values(&[result]);
            counter.inc_by(by);
        }
    }

    /// Sends an Event if the object is there. Returns whether that is over; else it failed, and
    /// may be tried again.
    async fn tell(&mut self, appearance: &Appearance) -> bool {
        self.bucket.take();
        let Some(term) = self.config.leadership.term() else {
            return true;
        };
        let deadline = term.until.min(Instant::now() + REQUEST_TIMEOUT);
        let sending = tokio::time::timeout_at(deadline, self.send(appearance));
        let object = &appearance.finding.object;
        match sending.await {
            Ok(Ok(Sent::Created)) => self.count("sent", 1),
            Ok(Ok(Sent::Repeated)) => self.count("repeated", 1),
            Ok(Ok(Sent::Known)) => self.count("known", 1),
            Ok(Ok(Sent::Gone)) => {}
            Ok(Err(failure)) => {
                debug!(kind = %object.kind, object = %object.key, ?failure, "event not sent");
                // A refusal that is believed lasts, and a finding says so.
                if matches!(failure, Failure::Refused(_)) {
                    self.count("error", 1);
                    return true;
                }
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    async fn send(&mut self, appearance: &Appearance) -> Result<Sent, Failure> {
        let finding = &appearance.finding;
        let Some(about) = self.about(&finding.object).await? else {
            return Ok(Sent::Gone);
        };
        let event = event(finding, about, &self.config.identity);
        let name = event.metadata.name.clone().unwrap_or_default();
        let ns = event.metadata.namespace.clone().unwrap_or_default();
        let events = Api::<Event>::namespaced(self.config.client.clone(), &ns);
        if self.counts.len() >= KNOWN_MAX {
            self.counts.clear();
        }
        if let Some(count) = self.counts.get(&name).copied()
            && let Some(count) = self.repeat(&events, &event, Some(count)).await?
        {
            self.counts.insert(name, count);
            return Ok(Sent::Repeated);
        }
        let created = events.create(&PostParams::default(), &event).await;
        match self.judge(created, "create events", (&ns, &name)) {
            Ok(_) => {
                self.counts.insert(name, 1);
                Ok(Sent::Created)
            }
            Err(Failure::Gone) => Ok(Sent::Gone),
            // It is there from before we led.
            Err(Failure::Conflict) if appearance.is_initial => Ok(Sent::Known),
            Err(Failure::Conflict) => {
                let count = self.repeat(&events, &event, None).await?.unwrap_or(1);
                self.counts.insert(name, count);
                Ok(Sent::Repeated)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Counts an Event up; `None` when it has expired.
    async fn repeat(
        &self,
        events: &Api<Event>,
        event: &Event,
        known: Option<i32>,
    ) -> Result<Option<i32>, Failure> {
        let name = event.metadata.name.clone().unwrap_or_default();
        let ns = event.metadata.namespace.as_deref().unwrap_or_default();
        let mut patch = json!({
            "message": event.message,
            "lastTimestamp": event.last_timestamp,
        });
        if let Some(count) = known {
            set_count(&mut patch, count.saturating_add(1));
        }
        let send = async |patch: &Value| {
            let patch = Patch::Merge(patch);
            let answer = events.patch(&name, &PatchParams::default(), &patch).await;
            self.judge(answer, "patch events", (ns, &name))
        };
        let answer = match send(&patch).await {
            Ok(answer) => answer,
            Err(Failure::Gone) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let count = answer.count.unwrap_or(1);
        if known.is_some() {
            return Ok(Some(count));
        }
        // Only now is it known how often it was counted.
        set_count(&mut patch, count.saturating_add(1));
        send(&patch).await.map(|answer| answer.count)
    }

    fn judge(
        &self,
        answer: Result<Event, kube::Error>,
        what: &str,
        (ns, name): (&str, &str),
    ) -> Result<Event, Failure> {
        match answer {
            Ok(event) => {
                self.config.reports.allowed(what, ns);
                Ok(event)
            }
            Err(error) => {
                let failure = Failure::of(&error, name);
                Err(match failure {
                    Failure::Refused(message) => self.config.reports.refused(what, ns, &message),
                    failure => failure,
                })
            }
        }
    }

    /// How an Event names an object; `None` when it is gone. Without uid nobody finds the Event.
    async fn about(&self, object: &ObjectRef) -> Result<Option<ObjectReference>, Failure> {
        let seen = self.config.observed.get(object);
        let (version, uid) = match seen {
            Some(seen) if !seen.uid.is_empty() => (seen.api_version.clone(), seen.uid.clone()),
            // Had it been there, the watch would have told.
            None if find_kind(&object.kind).is_some_and(has_status) => return Ok(None),
            _ => {
                let version = find_kind(&object.kind).map(Kind::api_version);
                let version = version.unwrap_or_default();
                let resource = resource(object, &version);
                let api = api(&self.config.client, object, &resource);
                let (request, ns) = (format!("get {}", resource.plural), &object.key.ns);
                let reports = &self.config.reports;
                match api.get_metadata(&object.key.name).await {
                    Ok(found) => {
                        reports.allowed(&request, ns);
                        (version, found.metadata.uid.unwrap_or_default())
                    }
                    Err(error) => match Failure::of(&error, &object.key.name) {
                        Failure::Gone => return Ok(None),
                        Failure::Refused(message) => {
                            return Err(reports.refused(&request, ns, &message));
                        }
                        failure => return Err(failure),
                    },
                }
            }
        };
        let ns = object.key.ns.to_string();
        Ok(Some(ObjectReference {
            api_version: Some(version),
            kind: Some(object.kind.to_string()),
            name: Some(object.key.name.to_string()),
            namespace: Some(ns).filter(|ns| !ns.is_empty()),
            uid: Some(uid),
            ..ObjectReference::default()
        }))
    }
}

fn set_count(patch: &mut Value, count: i32) {
    if let Some(fields) = patch.as_object_mut() {
        fields.insert("count".to_owned(), json!(count));
    }
}

/// The Event of a finding; its name is the same for every leader.
fn event(finding: &Finding, about: ObjectReference, identity_of_us: &str) -> Event {
    let uid = about.uid.as_deref().unwrap_or_default();
    let id = identity(finding) ^ xxhash_rust::xxh64::xxh64(uid.as_bytes(), 1);
    let object = finding.object.key.name.as_str();
    let cut_at = object.len().min(NAME_BYTES_MAX);
    let stem = object
        .get(..cut_at)
        .unwrap_or_default()
        .trim_end_matches(['.', '-']);
    let now = Time(Timestamp::now());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{stem}.{id:016x}")),
            // Events about objects without namespace are there.
            namespace: Some(
                about
                    .namespace
                    .clone()
                    .unwrap_or_else(|| "default".to_owned()),
            ),
            ..ObjectMeta::default()
        },
        reason: Some(camel_case(finding.code)),
        message: Some(cut(sentences(finding), MESSAGE_BYTES_MAX)),
        type_: Some("Warning".to_owned()),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: None,
        }),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(identity_of_us.to_owned()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        involved_object: about,
        ..Event::default()
    }
}

#[cfg(test)]
mod tests;
