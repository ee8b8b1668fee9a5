//! The status writer: what snapshots say of objects, onto the objects.
//!
//! In: snapshots, and what watches saw. Out: server-side applies of the `status` subresource,
//! one field manager per reporter, by the leader alone; what is said of the Gateway API is a merge
//! patch of it (`merge`).
//!
//! **Invariants**
//! - Nothing is written that was seen to hold, and nothing twice: after a write the object is
//!   judged again only when the watch has told of it.
//! - A write names uid and version of what it was judged by: one who no longer leads, or who
//!   judged by something old, gets a conflict, and judges again.
//! - Conditions and entries of others stay as they are, whether the API server merges lists or not.
//! - An object that cannot be written holds up no other.
//!
//! Source: spec/workload-discovery.md §6; spec/gateway-api.md §3.10, §4.5.

mod apply;
mod findings;
mod judge;
mod merge;
mod plan;
mod repeat;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::ordmap::DiffItem;
use kube::Client;
use model::status::{StatusKey, StatusRow};
use model::{ObjectRef, Str};
use parking_lot::Mutex;
use snapshot::Snapshot;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::jitter::Bucket;
use crate::parked::Parked;
use crate::queue::{Queue, due};
use crate::{Leadership, Observed, Reports, WriteMetrics};

use apply::{Done, Shared};
pub(crate) use apply::{api, resource};
pub(crate) use findings::{camel_case, cut, sentences};
use plan::Form;
pub(crate) use plan::find as find_kind;
use repeat::Repeats;

/// For how long a change that the watch tells of waits, so that the pipeline has seen it too.
const SETTLE: Duration = Duration::from_secs(1);
/// Objects judged at once before others get their turn.
const JUDGED_MAX: usize = 1_000;

/// How much is written at once.
#[derive(Clone, Copy, Debug)]
pub struct WriteLimits {
    /// Requests per second.
    pub rate: u32,
    /// Requests that may come at once after a rest.
    pub burst: u32,
    /// Objects that are written at the same time.
    pub concurrency: usize,
}

/// Whose statuses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteScope {
    /// What Gateways, their classes, routes and policies say by the Gateway API.
    pub gateway_api: bool,
    /// All else: bindings to waypoints, policies, addresses of entries, findings.
    pub ambient: bool,
}

/// What the status writer needs.
pub struct StatusWriter {
    /// Of the API server.
    pub client: Client,
    /// The right to write.
    pub leadership: Leadership,
    /// What is to be written.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What is there.
    pub observed: Observed,
    /// What was written.
    pub metrics: WriteMetrics,
    /// Where refusals are told.
    pub reports: Reports,
    /// Bounds.
    pub limits: WriteLimits,
    /// What is left to others, or to nobody.
    pub scope: WriteScope,
}

/// What was written and not yet seen.
struct Written {
    /// Version that was judged.
    judged: String,
    /// Nothing came of it: the API server left the object as it was.
    is_unchanged: bool,
    rows: Rows,
}

/// What the managers say of one object.
type Rows = Vec<(&'static str, Arc<StatusRow>)>;

struct Writer {
    shared: Arc<Shared>,
    observed: Observed,
    limits: WriteLimits,
    scope: WriteScope,
    snapshot: Option<Arc<Snapshot>>,
    findings: BTreeMap<ObjectRef, Arc<StatusRow>>,
    queue: Queue,
    running: HashSet<ObjectRef>,
    failures: HashMap<ObjectRef, u32>,
    written: HashMap<ObjectRef, Written>,
    repeats: Repeats,
    /// By kind.
    parked: Parked<Str>,
    forms: BTreeMap<Str, Form>,
}

/// Writes statuses while this replica leads, until it is told to stop.
pub async fn run(config: StatusWriter, stop: CancellationToken) {
    let mut leadership = config.leadership.clone();
    let mut snapshots = config.snapshots.clone();
    snapshots.mark_changed();
    let mut seen = config.observed.subscribe();
    let leader = config.metrics.leader.clone();
    let mut writer = Writer::new(config);
    let mut tasks: JoinSet<Done> = JoinSet::new();
    let mut is_leading = false;
    let mut is_settled = Instant::now();
    let mut is_seen_due = false;
    loop {
        let next = if is_leading && tasks.len() < writer.limits.concurrency {
            writer.queue.next_due()
        } else {
            None
        };
        tokio::select! {
            () = stop.cancelled() => break,
            goes_on = leadership.changed() => {
                is_leading = leadership.term().is_some();
                leader.set(i64::from(is_leading));
                tasks = JoinSet::new();
                writer.forget();
                if !goes_on {
                    break;
                }
                if is_leading {
                    writer.mark_all();
                }
            }
            Ok(()) = snapshots.changed() => {
                let snapshot = snapshots.borrow_and_update().clone();
                writer.follow(snapshot, is_leading);
            }
            Ok(()) = seen.changed(), if !is_seen_due => {
                is_seen_due = true;
                is_settled = Instant::now() + SETTLE;
            }
            () = tokio::time::sleep_until(is_settled), if is_seen_due => {
                is_seen_due = false;
                writer.take_changed(is_leading);
            }
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(done) = done {
                    writer.finish(done);
                }
            }
            () = due(next), if next.is_some() => {
                writer.start(&mut tasks);
                tokio::task::yield_now().await;
            }
        }
    }
    leader.set(0);
}

// === impl WriteLimits ===

impl Default for WriteLimits {
    /// 80 requests a second, 160 at once, 16 objects at a time.
    fn default() -> Self {
        Self {
            rate: 80,
            burst: 160,
            concurrency: 16,
        }
    }
}

// === impl WriteScope ===

impl WriteScope {
    /// Everything.
    pub const ALL: Self = Self {
        gateway_api: true,
        ambient: true,
    };

    /// Whether what a manager says is written.
    fn serves(self, manager: &str) -> bool {
        let is_on = if plan::is_merged(manager) {
            self.gateway_api
        } else {
            self.ambient
        };
        is_on && plan::is_served(manager)
    }
}

// === impl Writer ===

impl Writer {
    fn new(config: StatusWriter) -> Self {
        let interval = Duration::from_secs(1) / config.limits.rate.max(1);
        Self {
            shared: Arc::new(Shared {
                client: config.client,
                leadership: config.leadership,
                metrics: config.metrics,
                reports: config.reports,
                bucket: Mutex::new(Bucket::new(interval, config.limits.burst)),
            }),
            observed: config.observed,
            limits: config.limits,
            scope: config.scope,
            snapshot: None,
            findings: BTreeMap::new(),
            queue: Queue::default(),
            running: HashSet::new(),
            failures: HashMap::new(),
            written: HashMap::new(),
            repeats: Repeats::default(),
            parked: Parked::default(),
            forms: BTreeMap::new(),
        }
    }

    /// Drops whatever was pending.
    fn forget(&mut self) {
        self.queue = Queue::default();
        self.running.clear();
        self.failures.clear();
        self.written.clear();
        self.repeats.clear();
        self.parked.clear();
    }

    /// Judges everything anew.
    fn mark_all(&mut self) {
        self.observed.take_changed();
        let now = Instant::now();
        for object in self.observed.objects() {
            self.queue.push(object, now);
        }
    }

    /// Takes up a snapshot, and what of it differs from the one before.
    fn follow(&mut self, snapshot: Option<Arc<Snapshot>>, is_leading: bool) {
        let Some(new) = snapshot else {
            return;
        };
        let old = self.snapshot.replace(Arc::clone(&new));
        let now = Instant::now();
        let mut objects: HashSet<ObjectRef> = HashSet::new();
        let is_same = old
            .as_ref()
            .is_some_and(|old| Arc::ptr_eq(&old.findings, &new.findings));
        if !is_same {
            let findings = findings::by_object(&new.findings);
            let old = std::mem::take(&mut self.findings);
            let changed = findings
                .iter()
                .filter(|(key, row)| old.get(key) != Some(row));
            objects.extend(changed.map(|(key, _)| key.clone()));
            let gone = old.keys().filter(|key| !findings.contains_key(key));
            objects.extend(gone.cloned());
            self.findings = findings;
        }
        match old {
            Some(old) => {
                for change in old.statuses.diff(&new.statuses) {
                    objects.insert(changed_key(change).object.clone());
                }
                // What became somebody else's need not be judged, only what became ours.
                let was_foreign = old.foreign.iter();
                let is_ours = was_foreign.filter(|object| !new.foreign.contains(*object));
                objects.extend(is_ours.cloned());
            }
            None => objects.extend(new.statuses.keys().map(|key| key.object.clone())),
        }
        if is_leading {
            for object in objects {
                self.failures.remove(&object);
                self.queue.push(object, now);
            }
        }
    }

    /// Takes up what the watches saw.
    fn take_changed(&mut self, is_leading: bool) {
        let changed = self.observed.take_changed();
        if is_leading {
            let now = Instant::now();
            for object in changed {
                self.queue.push(object, now);
            }
        }
    }
}

fn changed_key<'a, V>(change: DiffItem<'a, 'a, StatusKey, V>) -> &'a StatusKey {
    match change {
        DiffItem::Add(key, _)
        | DiffItem::Remove(key, _)
        | DiffItem::Update { new: (key, _), .. } => key,
    }
}

#[cfg(test)]
mod tests;
