//! What is written for a Gateway, and what becomes of it.

use std::sync::Arc;

use model::labels::{LABEL_GATEWAY_MANAGED, LABEL_GATEWAY_NAME};
use model::object::Input;
use model::{Finding, ManagedObject, ObjectKey, ObjectRef, Severity, Str};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::children::{ChildKey, fingerprint, key_of};
use super::pace::Verdict;
use super::send::{Done, Job, Outcome, write};
use super::{CONCURRENCY, Term, Trouble, held, live, object_of, request};
use crate::jitter::{backoff, jittered};
use crate::write::{ATTEMPTS_MAX, BACKOFF, BACKOFF_MAX, Failure, PAUSE};

/// Gateways judged before others get their turn.
const JUDGED_MAX: usize = 1_000;
/// Findings that are told.
const FINDINGS_MAX: usize = 1_000;
/// Characters of what the API server says that are passed on.
const MESSAGE_MAX: usize = 500;
/// Stands for the Gateway itself among the objects of its deployment.
const GATEWAY: &str = "Gateway";

const SERVICE_ACCOUNT: &str = "ServiceAccount";

/// What is to be done about an object.
enum Step {
    Nothing,
    Write,
    /// Nothing before then.
    Wait(Instant),
}

fn child_ref((kind, key): &ChildKey) -> ObjectRef {
    ObjectRef {
        kind: Str::from(*kind),
        key: key.clone(),
    }
}

/// What the API server made of an object that it did not take as it was sent.
fn became(wanted: &ManagedObject, object: &Value) -> Option<u64> {
    let mut wanted = wanted.clone();
    live::adapt(&mut wanted, Some(object));
    (!held::holds(&wanted.body, object)).then(|| fingerprint(object))
}

/// The Gateway that a managed object says it is of: the one that controls it, else the one of its
/// label. One of the same name that is gone since is no other: its successor takes over.
pub(super) fn named_by(live: &Value) -> Option<&str> {
    let labels = live.pointer("/metadata/labels")?;
    labels.get(LABEL_GATEWAY_MANAGED)?;
    let owners = live.pointer("/metadata/ownerReferences");
    let mut owners = owners.and_then(Value::as_array).into_iter().flatten();
    let owner = owners.find(|owner| {
        let text = |field: &str| owner.get(field).and_then(Value::as_str);
        let group = text("apiVersion").and_then(|version| version.split('/').next());
        let is_controller = owner.get("controller").and_then(Value::as_bool);
        is_controller == Some(true)
            && text("kind") == Some(GATEWAY)
            && group == Some("gateway.networking.k8s.io")
    });
    let name = match owner {
        Some(owner) => owner.get("name")?,
        None => labels.get(LABEL_GATEWAY_NAME)?,
    };
    name.as_str()
}

fn hash(body: &Value) -> u64 {
    xxhash_rust::xxh64::xxh64(body.to_string().as_bytes(), 0)
}

// === impl Term ===

impl Term<'_> {
    pub(super) fn start(&mut self, tasks: &mut JoinSet<Done>) {
        let now = Instant::now();
        for _ in 0..JUDGED_MAX {
            if tasks.len() >= CONCURRENCY {
                return;
            }
            let Some(object) = self.queue.pop(now) else {
                return;
            };
            let gateway = object.key;
            if let Some(is_due_again) = self.running.get_mut(&gateway) {
                *is_due_again = true;
                continue;
            }
            let Some(job) = self.job(&gateway) else {
                continue;
            };
            self.running.insert(gateway, false);
            tasks.spawn(write(Arc::clone(&self.shared), job));
        }
    }

    /// What is to be written for a Gateway now, if anything.
    fn job(&mut self, gateway: &ObjectKey) -> Option<Job> {
        let row = self.rows.as_ref()?.get(gateway).cloned()?;
        let is_claimed = self.claimed.get(gateway) == Some(&row.uid);
        let claim = row.claim && !is_claimed && !row.uid.is_empty();
        let of_gateway = (GATEWAY, gateway.clone());
        if !claim {
            self.is_well(gateway, &of_gateway);
        }
        let claim = claim && !self.is_parked(&of_gateway, super::send::GATEWAY_API);
        let mut objects = Vec::new();
        for object in &row.objects {
            match self.judge(gateway, object) {
                Step::Nothing => {}
                Step::Write => {
                    if !self.is_parked(&key_of(object), object.api_version) {
                        objects.push(object.clone());
                    }
                }
                Step::Wait(at) => self.queue.push(object_of(gateway), at),
            }
        }
        self.tell();
        let job = Job {
            gateway: gateway.clone(),
            claim: claim.then_some(row.uid.clone()),
            objects,
        };
        (claim || !job.objects.is_empty()).then_some(job)
    }

    fn judge(&mut self, gateway: &ObjectKey, object: &ManagedObject) -> Step {
        // All are judged again when the list is there.
        if !self.children.is_listed(object.kind) {
            return Step::Nothing;
        }
        let key = key_of(object);
        let live = self.children.get(&key).cloned();
        if let Some(other) = self.holder(gateway, &key, live.as_ref()) {
            self.trouble(gateway, key, Trouble::Taken(other));
            return Step::Nothing;
        }
        if let Some(Trouble::Foreign(until)) = self.trouble_of(gateway, &key)
            && live.is_none()
            && Instant::now() < until
        {
            return Step::Wait(until);
        }
        let mut wanted = object.clone();
        live::adapt(&mut wanted, live.as_ref());
        if live
            .as_ref()
            .is_some_and(|live| held::holds(&wanted.body, live))
        {
            self.is_well(gateway, &key);
            return Step::Nothing;
        }
        let live = live.as_ref().map(fingerprint);
        match self.pace.judge(&key, hash(&object.body), live) {
            Verdict::Now => Step::Write,
            Verdict::After(at) => Step::Wait(at),
            Verdict::Never => {
                self.is_well(gateway, &key);
                Step::Nothing
            }
        }
    }

    /// The other Gateway that runs as this object: the one that it says it is of, whether that
    /// still wants it or not, else the first of those that do.
    fn holder(
        &self,
        gateway: &ObjectKey,
        key: &ChildKey,
        live: Option<&Value>,
    ) -> Option<ObjectKey> {
        let named = live.and_then(named_by);
        let named = named.map(|name| ObjectKey::new(gateway.ns.clone(), name));
        let holder = named.or_else(|| self.wanting.get(key)?.first().cloned())?;
        (holder != *gateway).then_some(holder)
    }

    /// Whether requests for an object are refused and another one is tried.
    fn is_parked(&mut self, key: &ChildKey, api_version: &str) -> bool {
        let object = child_ref(key);
        ["get", "patch"].iter().any(|verb| {
            let what = request(verb, api_version, key.0);
            self.parked.holds(&what, &object)
        })
    }

    /// An object is as it should be, or is wanted no longer.
    pub(super) fn is_well(&mut self, gateway: &ObjectKey, key: &ChildKey) {
        if let Some(troubles) = self.troubles.get_mut(gateway) {
            troubles.remove(key);
            if troubles.is_empty() {
                self.troubles.remove(gateway);
            }
        }
        let object = child_ref(key);
        let skipped = self.parked.skip(&object, None);
        for probe in skipped.probes {
            self.mark_of(&probe);
        }
        for ended in skipped.ended {
            self.config.reports.forget(&ended, &object.key.ns);
        }
    }

    /// Judges the Gateways of an object that was refused.
    fn mark_of(&mut self, object: &ObjectRef) {
        if object.kind == GATEWAY {
            return self.mark(&object.key);
        }
        let mut kinds = super::KINDS.iter();
        if let Some((_, kind)) = kinds.find(|(_, kind)| object.kind == *kind) {
            self.mark_wanting(&(kind, object.key.clone()));
        }
    }

    fn trouble(&mut self, gateway: &ObjectKey, key: ChildKey, trouble: Trouble) {
        let all = self.troubles.entry(gateway.clone()).or_default();
        all.insert(key, trouble);
    }

    fn trouble_of(&self, gateway: &ObjectKey, key: &ChildKey) -> Option<Trouble> {
        self.troubles.get(gateway)?.get(key).cloned()
    }

    pub(super) fn finish(&mut self, done: Done) {
        let gateway = done.gateway;
        let is_due_again = self.running.remove(&gateway).unwrap_or(false);
        let mut failed = Vec::new();
        if let Some((uid, outcome)) = done.claim {
            if matches!(outcome, Outcome::Is(..)) {
                self.claimed.insert(gateway.clone(), uid);
            }
            let key = (GATEWAY, gateway.clone());
            failed.extend(self.settle(&gateway, key, None, outcome));
        }
        for (object, outcome) in done.objects {
            let key = key_of(&object);
            failed.extend(self.settle(&gateway, key, Some(&object), outcome));
        }
        if failed.is_empty() {
            self.failures.remove(&gateway);
        } else {
            self.fail(&gateway, failed);
        }
        if is_due_again {
            self.mark(&gateway);
        }
        self.tell();
    }

    /// Takes up what became of one object; returns what failed and is to be tried again.
    fn settle(
        &mut self,
        gateway: &ObjectKey,
        key: ChildKey,
        wanted: Option<&ManagedObject>,
        outcome: Outcome,
    ) -> Option<(ChildKey, String)> {
        match outcome {
            Outcome::Is(object, is_written) => {
                self.allow(&key, wanted);
                self.is_well(gateway, &key);
                if let Some(wanted) = wanted {
                    if is_written {
                        let became = became(wanted, &object);
                        self.pace.note(key.clone(), hash(&wanted.body), became);
                    }
                    self.children.put(&key, *object);
                }
                None
            }
            Outcome::Foreign => {
                let until = Instant::now() + jittered(PAUSE);
                self.queue.push(object_of(gateway), until);
                self.trouble(gateway, key, Trouble::Foreign(until));
                None
            }
            Outcome::Failed(_, Failure::Gone) => {
                // Events tell when its namespace is there again.
                self.is_well(gateway, &key);
                None
            }
            Outcome::Failed(what, Failure::Refused(message)) => {
                debug!(%gateway, what, message, "deployment refused");
                if let Some(wait) = self.parked.refuse(what, &child_ref(&key)) {
                    let at = Instant::now() + jittered(wait);
                    self.queue.push(object_of(gateway), at);
                }
                None
            }
            Outcome::Failed(_, Failure::Conflict) => Some((key, "it changes all the time".into())),
            Outcome::Failed(_, Failure::Other(message)) => Some((key, message)),
            Outcome::Over => Some((key, "no longer leading".to_owned())),
        }
    }

    /// Requests for an object went through: what waited for that is tried.
    fn allow(&mut self, key: &ChildKey, wanted: Option<&ManagedObject>) {
        let version = wanted.map_or(super::send::GATEWAY_API, |wanted| wanted.api_version);
        for verb in ["get", "patch"] {
            let what = request(verb, version, key.0);
            for due in self.parked.allow(&what, &child_ref(key)) {
                self.mark_of(&due);
            }
        }
    }

    fn fail(&mut self, gateway: &ObjectKey, failed: Vec<(ChildKey, String)>) {
        let failures = self.failures.entry(gateway.clone()).or_default();
        *failures += 1;
        let wait = if *failures < ATTEMPTS_MAX {
            debug!(%gateway, ?failed, "deployment not written");
            backoff(BACKOFF, BACKOFF_MAX, *failures)
        } else {
            *failures = 0;
            warn!(%gateway, ?failed, "deployment not written, it is tried again in a minute");
            for (key, message) in failed {
                let message = message.replace(['\n', '\r'], " ");
                let message: String = message.chars().take(MESSAGE_MAX).collect();
                self.trouble(gateway, key, Trouble::Refused(message));
            }
            jittered(PAUSE)
        };
        self.queue.push(object_of(gateway), Instant::now() + wait);
    }

    /// Has findings told if they are others than before.
    pub(super) fn tell(&mut self) {
        let all = self.troubles.iter().flat_map(|(gateway, troubles)| {
            let troubles = troubles.iter();
            troubles.map(move |(key, trouble)| finding(gateway, key, trouble))
        });
        let all: Vec<Finding> = all.take(FINDINGS_MAX).collect();
        if all != self.told {
            self.told = all;
            self.is_telling_due = true;
        }
    }

    /// What is told, for the pipeline.
    pub(super) fn telling(&mut self) -> Vec<Input> {
        self.is_telling_due = false;
        vec![Input::SourceFindings(super::SOURCE, self.told.clone())]
    }
}

fn finding(gateway: &ObjectKey, (kind, key): &ChildKey, trouble: &Trouble) -> Finding {
    let object = object_of(gateway);
    let (code, severity, message, fix) = match trouble {
        Trouble::Foreign(_) => (
            "gw-deployment-foreign",
            Severity::Info,
            format!(
                "{kind} {key} exists and has no label gateway.istio.io/managed: it is left as it is, and the Gateway uses it"
            ),
            "Delete it if it is to be made for the Gateway",
        ),
        // Accounts may well be shared.
        Trouble::Taken(other) if *kind == SERVICE_ACCOUNT => (
            "gw-deployment-taken",
            Severity::Info,
            format!(
                "{kind} {key} is that of Gateway {other} too: it is left as it is, the pods of this Gateway use it, and it goes with the other one"
            ),
            "Give this Gateway an account of its own if it is to outlive the other one",
        ),
        Trouble::Taken(other) => (
            "gw-deployment-taken",
            Severity::Error,
            format!("{kind} {key} is what Gateway {other} runs as: none is made for this Gateway"),
            "Give this Gateway another name, or annotation gateway.istio.io/name-override",
        ),
        Trouble::Refused(message) => (
            "gw-deployment-refused",
            Severity::Error,
            format!(
                "The API server does not take {kind} {key}: {message}. What is there stays as it is; it is tried again every minute"
            ),
            "Correct what the message names: the Gateway, its parameters, or who refuses",
        ),
    };
    Finding::new(code, severity, object, message, fix)
}
