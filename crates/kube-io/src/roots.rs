//! The namespace controller: what pods verify servers with, as a ConfigMap in every namespace.
//!
//! In: roots, namespaces and their selection, the ConfigMaps as they are. Out: own keys of own
//! ConfigMaps, by the leader alone, and only where they differ. Keys of others stay.
//! Source: spec/control-plane.md §4.8.

mod judge;
mod send;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _, select_all};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use model::input::LabelSelector;
use model::{Kind, Labels, ObjectKey, ObjectRef, Str};
use snapshot::Snapshot;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::jitter::Bucket;
use crate::parked::Parked;
use crate::queue::{Queue, due};
use crate::write::watch_refused;
use crate::{Leadership, Reports, WriteMetrics};

use send::Done;
use table::Listed;

/// Watches, as reports of refusals call them.
const WATCH_PLACES: &str = "watch namespaces";
const WATCH_MAPS: &str = "watch configmaps";
/// Key of the roots.
const KEY_ROOT: &str = "root-cert.pem";
/// Key of the revocation list.
const KEY_CRL: &str = "ca-crl.pem";
/// ConfigMaps written at the same time.
const CONCURRENCY: usize = 8;
/// Time between two writes after a burst.
const INTERVAL: Duration = Duration::from_millis(20);
/// Writes that may come at once.
const BURST: u32 = 50;

/// What every namespace is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Roots of trust, PEM. Nothing is written while it is empty.
    pub root_pem: String,
    /// Revocation lists, PEM, empty when there is none; `None` when they are switched off.
    pub crl_pem: Option<String>,
}

/// What the ConfigMaps are called.
#[derive(Clone, Debug)]
pub struct RootNames {
    /// That of the roots (`PILOT_CA_CERT_CONFIGMAP`).
    pub root: String,
    /// That of revocation lists (`PILOT_CRL_CONFIGMAP`).
    pub crl: String,
}

/// What the namespace controller needs.
pub struct RootWriter {
    /// Of the API server.
    pub client: Client,
    /// The right to write.
    pub leadership: Leadership,
    /// What is to be written.
    pub bundles: watch::Receiver<Roots>,
    /// Mesh config in force: which namespaces are selected.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Namespace of the control plane, which is always selected.
    pub system_namespace: String,
    /// Names.
    pub names: RootNames,
    /// What was written.
    pub metrics: WriteMetrics,
    /// Where refusals are told.
    pub reports: Reports,
}

/// What matters of a namespace.
struct Place {
    /// A namespace that was made anew has another.
    uid: String,
    labels: Labels,
    is_ending: bool,
}

/// What matters of a ConfigMap.
struct Seen {
    version: String,
    /// Our key, if it is there.
    value: Option<u64>,
    /// Our key stands where bytes stand.
    is_binary: bool,
}

enum Change {
    Place(watcher::Event<PartialObjectMeta<Namespace>>),
    Map(Str, watcher::Event<ConfigMap>),
    Failed(&'static str, watcher::Error),
}

/// What holds while this replica leads.
struct Term<'a> {
    config: &'a RootWriter,
    places: Listed<Place>,
    /// By name of the ConfigMap, then by namespace.
    maps: BTreeMap<Str, Listed<Seen>>,
    selectors: Option<Vec<LabelSelector>>,
    queue: Queue,
    /// Written, and no event of it seen since; with the `uid` of the namespace then.
    written: HashMap<ObjectRef, String>,
    /// By what is refused.
    parked: Parked<&'static str>,
    failures: HashMap<ObjectRef, u32>,
    bucket: Bucket,
}

/// Writes roots while this replica leads, until it is told to stop.
pub async fn run(config: RootWriter, stop: CancellationToken) {
    let mut leadership = config.leadership.clone();
    while leadership.begins(&stop).await {
        if !leadership.during(&stop, || lead(&config)).await {
            return;
        }
    }
}

/// Everything that is done while leading. Does not end.
async fn lead(config: &RootWriter) {
    let mut snapshots = config.snapshots.clone();
    let mut bundles = config.bundles.clone();
    snapshots.mark_changed();
    let mut changes = watch_all(config);
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
            Ok(()) = bundles.changed() => {
                bundles.mark_unchanged();
                term.mark_all();
            }
            Ok(()) = snapshots.changed() => {
                let snapshot = snapshots.borrow_and_update().clone();
                term.select(snapshot.as_deref());
            }
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(done) = done {
                    term.finish(done);
                }
            }
            () = due(next), if next.is_some() => {
                term.start(&mut tasks);
                tokio::task::yield_now().await;
            }
        }
    }
}

fn watch_all(config: &RootWriter) -> futures::stream::SelectAll<BoxStream<'static, Change>> {
    let client = &config.client;
    let places = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let places = watcher(places, watcher::Config::default())
        .default_backoff()
        .map(|event| match event {
            Ok(event) => Change::Place(event),
            Err(error) => Change::Failed(WATCH_PLACES, error),
        });
    let mut all = vec![places.boxed()];
    for name in config.names.all() {
        let maps = Api::<ConfigMap>::all(client.clone());
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let name = Str::from(name);
        let maps = watcher(maps, only)
            .default_backoff()
            .map(move |event| match event {
                Ok(event) => Change::Map(name.clone(), event),
                Err(error) => Change::Failed(WATCH_MAPS, error),
            });
        all.push(maps.boxed());
    }
    select_all(all)
}

// === impl RootNames ===

impl Default for RootNames {
    fn default() -> Self {
        Self {
            root: "istio-ca-root-cert".to_owned(),
            crl: "istio-ca-crl".to_owned(),
        }
    }
}

impl RootNames {
    fn all(&self) -> [&str; 2] {
        [&self.root, &self.crl]
    }
}

// === impl Place ===

impl Place {
    fn of(namespace: &PartialObjectMeta<Namespace>) -> Self {
        let labels = namespace.labels().iter();
        Self {
            uid: namespace.uid().unwrap_or_default(),
            labels: labels
                .map(|(key, value)| (Str::from(key.as_str()), Str::from(value.as_str())))
                .collect(),
            is_ending: namespace.metadata.deletion_timestamp.is_some(),
        }
    }
}

// === impl Seen ===

impl Seen {
    fn of(map: &ConfigMap, key: &str) -> Self {
        let value = map.data.as_ref().and_then(|data| data.get(key));
        let binary = map.binary_data.as_ref();
        Self {
            version: map.resource_version().unwrap_or_default(),
            value: value.map(|value| hash(value)),
            is_binary: binary.is_some_and(|binary| binary.contains_key(key)),
        }
    }
}

fn hash(text: &str) -> u64 {
    xxhash_rust::xxh64::xxh64(text.as_bytes(), 0)
}

// === impl Term ===

impl<'a> Term<'a> {
    fn new(config: &'a RootWriter) -> Self {
        let names = config.names.all().into_iter();
        Self {
            config,
            places: Listed::default(),
            maps: names
                .map(|name| (Str::from(name), Listed::default()))
                .collect(),
            selectors: None,
            queue: Queue::default(),
            written: HashMap::new(),
            parked: Parked::default(),
            failures: HashMap::new(),
            bucket: Bucket::new(INTERVAL, BURST),
        }
    }

    /// Judges the ConfigMaps of a namespace.
    fn mark(&mut self, ns: &Str) {
        let now = Instant::now();
        for name in self.config.names.all() {
            let key = ObjectKey::new(ns.clone(), name);
            self.queue.push(ObjectRef::new(Kind::ConfigMap, key), now);
        }
    }

    fn mark_all(&mut self) {
        let all: Vec<Str> = self.places.keys().cloned().collect();
        for ns in all {
            self.mark(&ns);
        }
    }

    /// Takes up the mesh config in force.
    fn select(&mut self, snapshot: Option<&Snapshot>) {
        let Some(snapshot) = snapshot else {
            return;
        };
        let selectors = &snapshot.mesh.discovery_selectors;
        if self.selectors.as_ref() != Some(selectors) {
            self.selectors = Some(selectors.clone());
            self.mark_all();
        }
    }

    /// Takes up what a watch tells.
    fn follow(&mut self, change: Change) {
        let was_ready = self.is_ready();
        let changed = match change {
            Change::Place(event) => {
                let name = |namespace: &PartialObjectMeta<Namespace>| {
                    Some(Str::from(namespace.name_any()))
                };
                self.config.reports.allowed(WATCH_PLACES, "");
                self.places.follow(event, name, Place::of)
            }
            Change::Map(name, event) => {
                let key = if *name == *self.config.names.root {
                    KEY_ROOT
                } else {
                    KEY_CRL
                };
                self.config.reports.allowed(WATCH_MAPS, "");
                let ns = |map: &ConfigMap| map.namespace().map(Str::from);
                let Some(maps) = self.maps.get_mut(&name) else {
                    return;
                };
                let changed = maps.follow(event, ns, |map| Seen::of(map, key));
                for ns in &changed {
                    let key = ObjectKey::new(ns.clone(), name.clone());
                    self.written.remove(&ObjectRef::new(Kind::ConfigMap, key));
                }
                changed
            }
            Change::Failed(what, error) => {
                if let Some(message) = watch_refused(&error) {
                    let _ = self.config.reports.refused(what, "", message);
                }
                debug!(what, %error, "watch of roots fails");
                return;
            }
        };
        if !was_ready {
            return self.mark_all();
        }
        for ns in changed {
            self.mark(&ns);
        }
    }
}

#[cfg(test)]
mod tests;
