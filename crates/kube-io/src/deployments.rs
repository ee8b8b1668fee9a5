//! The writer of deployments: what Gateways run as, onto the cluster.
//!
//! In: snapshots, and the objects of Gateways as they are. Out: server-side applies of
//! ServiceAccounts, Deployments, Services, HorizontalPodAutoscalers and PodDisruptionBudgets, by
//! the leader alone, and only where they differ.
//!
//! **Invariants**
//! - Nothing is written before the snapshot and the list of the kind are complete.
//! - An object of that name which does not say that a controller of Gateways manages it is left
//!   alone, and so is one that another Gateway runs as; both are findings.
//! - A write names the version of the object that it was judged by.
//! - Nothing is ever deleted: objects go with their Gateway, which owns them.
//! - What cannot be written holds up no other object and no other Gateway.
//!
//! Source: spec/gateway-api.md §2.1, §2.8, §2.10.

mod children;
mod held;
mod judge;
mod live;
mod pace;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll, StreamExt as _, select_all};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::core::v1::Pod;
use kube::core::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use model::deployment::FIELD_MANAGER;
use model::labels::LABEL_GATEWAY_MANAGED;
use model::object::Input;
use model::{DeploymentRow, Finding, Kind, ObjectKey, ObjectRef, Str};
use snapshot::Snapshot;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::jitter::{Bucket, backoff};
use crate::parked::Parked;
use crate::queue::{Queue, due};
use crate::write::{BACKOFF, BACKOFF_MAX, watch_refused};
use crate::{Leadership, Reports, WriteMetrics};

use children::{Changed, ChildKey, Children, KINDS, key_of};
use pace::Pace;
use send::{Done, Shared};

/// Gateways that are written at the same time.
const CONCURRENCY: usize = 8;
/// Time between two requests after a burst.
const INTERVAL: Duration = Duration::from_millis(20);
/// Requests that may come at once.
const BURST: u32 = 50;
/// For how long an object that is gone is left so: that its Gateway has gone may come later.
const SETTLE: Duration = Duration::from_secs(1);
/// Name under which findings of this writer are given to the pipeline.
const SOURCE: &str = "kube-deployments";

/// What the writer needs.
pub struct DeploymentWriter {
    /// Of the API server.
    pub client: Client,
    /// The right to write.
    pub leadership: Leadership,
    /// What is to be written.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What was written.
    pub metrics: WriteMetrics,
    /// Where refusals are told.
    pub reports: Reports,
    /// Where findings go: what is left alone, and what the API server refuses.
    pub findings: mpsc::Sender<Vec<Input>>,
}

enum Change {
    Child(&'static str, Box<watcher::Event<DynamicObject>>),
    Failed(&'static str, watcher::Error),
}

/// Why an object of a Gateway is not as it should be; by object, for findings.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    /// Somebody else's. The time is that of the next look.
    Foreign(Instant),
    /// This other Gateway runs as it.
    Taken(ObjectKey),
    /// What the API server said, five times.
    Refused(String),
}

/// What holds while this replica leads.
struct Term<'a> {
    config: &'a DeploymentWriter,
    shared: Arc<Shared>,
    rows: Option<OrdMap<ObjectKey, Arc<DeploymentRow>>>,
    /// Gateways by the objects that they want to run as.
    wanting: HashMap<ChildKey, BTreeSet<ObjectKey>>,
    children: Children,
    queue: Queue,
    /// Being written, and whether they are to be judged again after that.
    running: HashMap<ObjectKey, bool>,
    /// Gateways that were claimed although they do not say so yet, with their uid.
    claimed: HashMap<ObjectKey, Str>,
    failures: HashMap<ObjectKey, u32>,
    troubles: BTreeMap<ObjectKey, BTreeMap<ChildKey, Trouble>>,
    /// By what is refused.
    parked: Parked<String>,
    pace: Pace,
    told: Vec<Finding>,
    is_telling_due: bool,
}

/// Writes deployments while this replica leads, until it is told to stop.
pub async fn run(config: DeploymentWriter, stop: CancellationToken) {
    let mut leadership = config.leadership.clone();
    while leadership.begins(&stop).await {
        if !leadership.during(&stop, || lead(&config)).await {
            return;
        }
        // Whoever leads now says what is so.
        let none = vec![Input::SourceFindings(SOURCE, Vec::new())];
        let _ = config.findings.send(none).await;
    }
}

/// Image of the first container of a pod, as its spec has it; `None` where there is no such pod,
/// or it cannot be read. Asks until there is an answer.
pub async fn image_of_pod(client: &Client, ns: &str, name: &str) -> Option<String> {
    let pods = Api::<Pod>::namespaced(client.clone(), ns);
    let mut attempt = 0_u32;
    loop {
        match pods.get_opt(name).await {
            Ok(pod) => return pod?.spec?.containers.into_iter().next()?.image,
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                debug!(ns, name, %status, "own pod cannot be read");
                return None;
            }
            Err(error) => {
                attempt = attempt.saturating_add(1);
                debug!(ns, name, %error, "own pod cannot be read yet");
                tokio::time::sleep(backoff(BACKOFF, BACKOFF_MAX, attempt)).await;
            }
        }
    }
}

/// Everything that is done while leading. Does not end.
async fn lead(config: &DeploymentWriter) {
    let mut snapshots = config.snapshots.clone();
    snapshots.mark_changed();
    let mut changes = watch_all(&config.client);
    let mut tasks: JoinSet<Done> = JoinSet::new();
    let mut term = Term::new(config);
    loop {
        let next = if tasks.len() < CONCURRENCY {
            term.queue.next_due()
        } else {
            None
        };
        tokio::select! {
            Some(change) = changes.next() => term.follow(change),
            Ok(()) = snapshots.changed() => {
                let snapshot = snapshots.borrow_and_update().clone();
                term.take(snapshot.as_deref());
            }
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(done) = done {
                    term.finish(done);
                }
            }
            Ok(permit) = config.findings.reserve(), if term.is_telling_due => {
                permit.send(term.telling());
            }
            () = due(next), if next.is_some() => {
                term.start(&mut tasks);
                tokio::task::yield_now().await;
            }
        }
    }
}

fn watch_all(client: &Client) -> SelectAll<BoxStream<'static, Change>> {
    let all = KINDS.map(|(api_version, kind)| {
        let object = ObjectRef {
            kind: Str::from(kind),
            key: ObjectKey::cluster(""),
        };
        let resource = crate::status::resource(&object, api_version);
        let api = crate::status::api(client, &object, &resource);
        let only = watcher::Config::default().labels(LABEL_GATEWAY_MANAGED);
        let events = watcher(api, only).default_backoff();
        events
            .map(move |event| match event {
                Ok(event) => Change::Child(kind, Box::new(event)),
                Err(error) => Change::Failed(kind, error),
            })
            .boxed()
    });
    select_all(all)
}

/// How a request is called in reports: `patch deployments.apps`.
fn request(verb: &str, api_version: &str, kind: &str) -> String {
    let plural = crate::kinds::plural(kind);
    match api_version.split_once('/') {
        Some((group, _)) => format!("{verb} {plural}.{group}"),
        None => format!("{verb} {plural}"),
    }
}

/// The same of the watch of a kind.
fn watched(kind: &str) -> String {
    let found = KINDS.iter().find(|(_, known)| *known == kind);
    request("watch", found.map_or("", |(version, _)| version), kind)
}

/// The Gateway, as the queue and reports know it.
fn object_of(gateway: &ObjectKey) -> ObjectRef {
    ObjectRef::new(Kind::Gateway, gateway.clone())
}

// === impl Term ===

impl<'a> Term<'a> {
    fn new(config: &'a DeploymentWriter) -> Self {
        Self {
            config,
            shared: Arc::new(Shared {
                client: config.client.clone(),
                leadership: config.leadership.clone(),
                metrics: config.metrics.clone(),
                reports: config.reports.clone(),
                bucket: parking_lot::Mutex::new(Bucket::new(INTERVAL, BURST)),
            }),
            rows: None,
            wanting: HashMap::new(),
            children: Children::default(),
            queue: Queue::default(),
            running: HashMap::new(),
            claimed: HashMap::new(),
            failures: HashMap::new(),
            troubles: BTreeMap::new(),
            parked: Parked::default(),
            pace: Pace::default(),
            told: Vec::new(),
            is_telling_due: false,
        }
    }

    fn mark(&mut self, gateway: &ObjectKey) {
        self.queue.push(object_of(gateway), Instant::now());
    }

    fn mark_all(&mut self) {
        let rows = self.rows.clone().unwrap_or_default();
        rows.keys().for_each(|gateway| self.mark(gateway));
    }

    /// Takes up what of a snapshot differs from the one before.
    fn take(&mut self, snapshot: Option<&Snapshot>) {
        let Some(snapshot) = snapshot else {
            return;
        };
        let new = snapshot.deployments.clone();
        let old = self.rows.replace(new.clone()).unwrap_or_default();
        for change in old.diff(&new) {
            let (gateway, before, now) = match change {
                DiffItem::Add(key, row) => (key, None, Some(row)),
                DiffItem::Remove(key, row) => (key, Some(row), None),
                DiffItem::Update {
                    old: (key, old),
                    new: (_, new),
                } => (key, Some(old), Some(new)),
            };
            self.want(gateway, before, now);
            self.failures.remove(gateway);
            match now {
                Some(row) => {
                    if !row.claim {
                        self.claimed.remove(gateway);
                    }
                    self.mark(gateway);
                }
                None => self.forget(gateway),
            }
        }
    }

    /// Repeats what a Gateway wants to run as.
    fn want(
        &mut self,
        gateway: &ObjectKey,
        before: Option<&Arc<DeploymentRow>>,
        now: Option<&Arc<DeploymentRow>>,
    ) {
        for object in before.iter().flat_map(|row| &row.objects) {
            let key = key_of(object);
            if let Some(all) = self.wanting.get_mut(&key) {
                all.remove(gateway);
                if all.is_empty() {
                    self.wanting.remove(&key);
                    self.pace.forget(&key);
                }
                // Who waited for it may have it now.
                self.mark_wanting(&key);
            }
            self.is_well(gateway, &key);
        }
        for object in now.iter().flat_map(|row| &row.objects) {
            let all = self.wanting.entry(key_of(object)).or_default();
            all.insert(gateway.clone());
        }
    }

    fn forget(&mut self, gateway: &ObjectKey) {
        self.claimed.remove(gateway);
        self.is_well(gateway, &("Gateway", gateway.clone()));
        self.troubles.remove(gateway);
        self.tell();
    }

    fn mark_wanting(&mut self, key: &ChildKey) {
        self.mark_wanting_at(key, Instant::now());
    }

    fn mark_wanting_at(&mut self, key: &ChildKey, at: Instant) {
        for gateway in self.wanting.get(key).into_iter().flatten() {
            self.queue.push(object_of(gateway), at);
        }
    }

    /// Takes up what a watch tells.
    fn follow(&mut self, change: Change) {
        match change {
            Change::Child(kind, event) => {
                self.config.reports.allowed(&watched(kind), "");
                match self.children.follow(kind, *event) {
                    Changed::Nothing => {}
                    Changed::One(key) if self.children.get(&key).is_some() => {
                        self.mark_wanting(&key);
                    }
                    // Its Gateway may be going too, which the next snapshot tells.
                    Changed::One(key) => self.mark_wanting_at(&key, Instant::now() + SETTLE),
                    Changed::All => self.mark_all(),
                }
            }
            Change::Failed(kind, error) => {
                if let Some(message) = watch_refused(&error) {
                    let _ = self.config.reports.refused(&watched(kind), "", message);
                }
                debug!(kind, %error, "watch of deployments fails");
            }
        }
    }
}
