//! Which findings are to be told, and when.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash as _;
use std::sync::Arc;
use std::time::Duration;

use model::{Finding, Kind, ObjectRef, Severity};
use tokio::time::Instant;

use super::KNOWN_MAX;
use crate::jitter::Bucket;
use crate::kinds::has_status;
use crate::status::find_kind;

/// For how long a finding must last: what one edit after the other leads to is no news.
const SETTLE: Duration = Duration::from_secs(2);
/// Time between two Events of one object after a burst.
const OBJECT_INTERVAL: Duration = Duration::from_secs(5);
/// Events of one object that may come at once.
const OBJECT_BURST: u32 = 25;
/// Events that wait; the rest is dropped.
const PENDING_MAX: usize = 10_000;
/// Attempts to send an Event, the first included.
const SENT_MAX: u32 = 5;
/// Wait before an Event is sent again; doubles.
const RESEND: Duration = Duration::from_secs(1);

/// A finding that appeared.
pub(super) struct Appearance {
    pub(super) finding: Finding,
    /// It was there when we began to lead.
    pub(super) is_initial: bool,
    due: Instant,
    /// How often it was sent in vain.
    failures: u32,
}

/// Which findings there are, and which of them are to be told. Pure but for the time.
#[derive(Default)]
pub(super) struct Tracker {
    findings: Option<Arc<[Finding]>>,
    present: HashSet<u64>,
    /// By the time when they are due.
    pub(super) pending: VecDeque<Appearance>,
    objects: HashMap<ObjectRef, Bucket>,
}

/// What an appearance is known by: not its message, which may hold numbers that change.
pub(super) fn identity(finding: &Finding) -> u64 {
    let mut hasher = xxhash_rust::xxh64::Xxh64::new(0);
    (&finding.object, finding.code, &finding.field).hash(&mut hasher);
    hasher.digest()
}

/// Whether the uid of an object is known or may be asked for. Errors of the kinds left out are
/// those of files: what the API server takes of these has none.
fn can_be_asked(kind: Kind) -> bool {
    has_status(kind)
        || matches!(
            kind,
            Kind::Namespace | Kind::Pod | Kind::Secret | Kind::ConfigMap
        )
}

/// Whether an Event can be about it: it is an object of the API server.
fn is_told(finding: &Finding) -> bool {
    let kind = find_kind(&finding.object.kind);
    let is_one = kind.is_some_and(|kind| !kind.api_version().is_empty() && can_be_asked(kind));
    // `*` stands for a kind as a whole.
    finding.severity == Severity::Error && is_one && *finding.object.key.name != *"*"
}

// === impl Tracker ===

impl Tracker {
    /// Takes up the findings of a snapshot; returns how many were dropped.
    pub(super) fn follow(&mut self, findings: &Arc<[Finding]>) -> u64 {
        let is_initial = self.findings.is_none();
        if self
            .findings
            .as_ref()
            .is_some_and(|old| Arc::ptr_eq(old, findings))
        {
            return 0;
        }
        self.findings = Some(Arc::clone(findings));
        let due = Instant::now() + SETTLE;
        let mut present = HashSet::new();
        let mut dropped = 0;
        for finding in findings.iter().filter(|finding| is_told(finding)) {
            let id = identity(finding);
            let is_first = present.insert(id);
            if !is_first || self.present.contains(&id) {
                continue;
            }
            if self.pending.len() >= PENDING_MAX {
                dropped += 1;
                continue;
            }
            self.wait(Appearance {
                finding: finding.clone(),
                is_initial,
                due,
                failures: 0,
            });
        }
        self.present = present;
        // What was dropped or has gone again in the meantime is not told.
        let present = &self.present;
        self.pending
            .retain(|it| present.contains(&identity(&it.finding)));
        let before = self.pending.len();
        let objects = &mut self.objects;
        let mut seen = HashSet::new();
        self.pending.retain(|it| {
            // An object over its rate loses what is new of it; what waits has been let through.
            let is_new = it.due == due && it.failures == 0;
            let passes = !is_new || bucket(objects, &it.finding.object).try_take();
            passes && seen.insert(identity(&it.finding))
        });
        dropped + u64::try_from(before - self.pending.len()).unwrap_or(0)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pending.front().map(|first| first.due)
    }

    pub(super) fn pop(&mut self) -> Option<Appearance> {
        self.pending.pop_front()
    }

    /// Takes back what could not be sent, for another attempt if it is still so; returns as what
    /// that is counted.
    pub(super) fn retry(&mut self, mut appearance: Appearance) -> Option<&'static str> {
        if !self.present.contains(&identity(&appearance.finding)) {
            return None;
        }
        appearance.failures += 1;
        let is_left = appearance.failures < SENT_MAX && self.pending.len() < PENDING_MAX;
        if is_left {
            let wait = RESEND * 2_u32.pow(appearance.failures - 1);
            appearance.due = Instant::now() + wait;
            self.wait(appearance);
            return Some("retried");
        }
        Some("error")
    }

    fn wait(&mut self, appearance: Appearance) {
        let due = appearance.due;
        let at = self.pending.partition_point(|it| it.due <= due);
        self.pending.insert(at, appearance);
    }
}

/// The rate of an object.
fn bucket<'a>(objects: &'a mut HashMap<ObjectRef, Bucket>, object: &ObjectRef) -> &'a mut Bucket {
    if objects.len() >= KNOWN_MAX {
        objects.clear();
    }
    objects
        .entry(object.clone())
        .or_insert_with(|| Bucket::new(OBJECT_INTERVAL, OBJECT_BURST))
}
