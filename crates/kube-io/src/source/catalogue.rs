//! Which kinds the API server serves, and in which versions.
//!
//! A kind counts as absent only when a server that calls itself ready says so; one that was there,
//! or on which access depends, only when it says so twice with a second in between. So a server
//! that starts, or fails, does not take anything away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::Client;
use kube::core::ApiResource;
use model::finding::Severity;
use model::object::Input;
use model::{Kind, Str};
use tokio::sync::{Notify, watch as channel};
use tokio::time::Instant;

use crate::kinds::{self, DISCOVERED_GROUPS, Need};

use super::SourceError;
use super::backoff::{Backoff, jitter};
use super::context::Context;
use super::failure::text;
use super::raw::RawObject;
use super::releases::{self, Releases};
use super::watch::Sink;

/// Resources by group. A group is missing until it was asked for.
pub(super) type Catalogue = BTreeMap<&'static str, Vec<Resource>>;

/// What is served.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resource {
    pub(super) api: ApiResource,
    /// The release that its definition is of, when that is too old.
    pub(super) outdated: Option<Str>,
}

/// How long after a definition changed its group is looked at again and again: that it is served
/// comes later than the event.
const ATTENTIVE: Duration = Duration::from_secs(5);
const ATTENTIVE_PERIOD: Duration = Duration::from_millis(250);
/// Pause before it is believed that something is gone.
const DOUBT: Duration = Duration::from_secs(1);
/// Events of several definitions go together.
const QUIET: Duration = Duration::from_millis(50);

/// Asks for a look at what is served. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Poke(Arc<PokeShared>);

#[derive(Debug, Default)]
struct PokeShared {
    notify: Notify,
    attentive: AtomicBool,
}

// === impl Poke ===

impl Poke {
    /// Soon.
    pub(super) fn now(&self) {
        self.0.notify.notify_one();
    }

    /// Soon, and for some seconds again.
    fn attentively(&self) {
        self.0.attentive.store(true, Ordering::Relaxed);
        self.now();
    }
}

/// Publishes what is served until it is stopped.
pub(super) async fn run(
    context: Arc<Context>,
    poke: Poke,
    entries: channel::Sender<Catalogue>,
) -> Result<(), SourceError> {
    let mut finder = Finder {
        client: context.client(false, &Arc::default()),
        known: Catalogue::default(),
        doubted: BTreeMap::new(),
        releases: context.releases.clone(),
    };
    let mut backoff = Backoff::new(context.config.retry_max);
    let mut attentive_until = Instant::now();
    let mut is_failing = false;
    loop {
        let problem = tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            problem = finder.refresh() => problem,
        };
        entries.send_if_modified(|published| {
            let is_news = *published != finder.known;
            if is_news {
                published.clone_from(&finder.known);
            }
            is_news
        });
        if is_failing != problem.is_some() {
            is_failing = problem.is_some();
            if let Some(error) = &problem {
                tracing::warn!(error, "cannot ask the API server what it serves");
            } else {
                tracing::info!("the API server says again what it serves");
            }
        }
        let wait = if problem.is_some() {
            context.config.metrics.error("discovery", "unavailable");
            backoff.pause()
        } else if let Some(left) = finder.doubt_left() {
            left
        } else if Instant::now() < attentive_until {
            ATTENTIVE_PERIOD
        } else {
            jitter(context.config.retry_max)
        };
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
            () = poke.0.notify.notified() => {
                if poke.0.attentive.swap(false, Ordering::Relaxed) {
                    attentive_until = Instant::now() + ATTENTIVE;
                }
                tokio::time::sleep(finder.doubt_left().unwrap_or_default().max(QUIET)).await;
            }
        }
    }
}

struct Finder {
    client: Client,
    known: Catalogue,
    /// What was said of groups that seem to lack something, and since when.
    doubted: BTreeMap<&'static str, (Instant, Vec<Resource>)>,
    releases: Releases,
}

// === impl Finder ===

impl Finder {
    /// Looks at every group. Returns what went wrong; what is known of such groups stays.
    async fn refresh(&mut self) -> Option<String> {
        if let Err(error) = self.ready().await {
            return Some(text(&error));
        }
        let mut problem = None;
        for group in DISCOVERED_GROUPS {
            // What is served of it means little without; who lists definitions asks again then.
            if group == Kind::Gateway.group() && !self.releases.is_known() {
                continue;
            }
            match self.group(group).await {
                Ok(resources) => self.learn(group, resources),
                Err(error) => problem = Some(text(&error)),
            }
        }
        problem
    }

    /// A server that starts may not know its definitions yet.
    async fn ready(&self) -> Result<(), kube::Error> {
        match self.client.request_text(get("/readyz")?).await {
            // Not everybody may ask.
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn group(&self, group: &'static str) -> Result<Vec<Resource>, kube::Error> {
        let found: APIGroup = match self.client.request(get(&format!("/apis/{group}"))?).await {
            Err(error) if is_not_found(&error) => return Ok(Vec::new()),
            other => other?,
        };
        let mut out = Vec::new();
        for version in found.versions {
            let path = &version.group_version;
            let list = match self.client.list_api_group_resources(path).await {
                Err(error) if is_not_found(&error) => continue,
                other => other?,
            };
            let whole = list.resources.into_iter();
            let whole = whole.filter(|resource| !resource.name.contains('/'));
            out.extend(whole.map(|resource| {
                Resource {
                    outdated: (group == Kind::Gateway.group())
                        .then(|| self.releases.outdated(&resource.kind))
                        .flatten(),
                    api: ApiResource {
                        group: group.to_owned(),
                        version: version.version.clone(),
                        api_version: version.group_version.clone(),
                        kind: resource.kind,
                        plural: resource.name,
                    },
                }
            }));
        }
        Ok(out)
    }

    fn learn(&mut self, group: &'static str, resources: Vec<Resource>) {
        let is_less = match self.known.get(group) {
            Some(known) => known.iter().any(|one| !resources.contains(one)),
            None => is_needed_missing(group, &resources),
        };
        if is_less {
            let doubted = self.doubted.get(group);
            let since = doubted.and_then(|(since, same)| (*same == resources).then_some(*since));
            if since.is_none_or(|since| since.elapsed() < DOUBT) {
                let since = since.unwrap_or_else(Instant::now);
                self.doubted.insert(group, (since, resources));
                return;
            }
        }
        self.doubted.remove(group);
        self.known.insert(group, resources);
    }

    /// After how long the oldest doubt can be settled.
    fn doubt_left(&self) -> Option<Duration> {
        let since = self.doubted.values().map(|(since, _)| *since).min()?;
        Some(DOUBT.saturating_sub(since.elapsed()))
    }
}

/// Whether the group lacks a kind without which access would not be what it should be.
fn is_needed_missing(group: &str, resources: &[Resource]) -> bool {
    let mut needed = kinds::watched()
        .filter(|kind| kind.group() == group && kinds::need(*kind) == Need::Required);
    needed.any(|kind| resources.iter().all(|one| one.api.kind != kind.as_str()))
}

fn get(path: &str) -> Result<http::Request<Vec<u8>>, kube::Error> {
    http::Request::get(path)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Definitions of kinds: nothing is read of them but that they changed, and of which release they
/// are.
pub(super) struct Definitions {
    poke: Poke,
    releases: Releases,
    list: BTreeMap<Str, Option<Str>>,
}

// === impl Definitions ===

impl Definitions {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self {
            poke: context.poke.clone(),
            releases: context.releases.clone(),
            list: BTreeMap::new(),
        }
    }

    fn look(&self, object: &RawObject) {
        let Some(key) = object.key() else { return };
        let group = key.name.split_once('.').map(|(_, group)| group);
        if group.is_some_and(|group| DISCOVERED_GROUPS.contains(&group)) {
            self.poke.attentively();
        }
    }
}

impl Sink for Definitions {
    fn begin(&mut self) {
        self.list.clear();
    }

    fn listed(&mut self, object: RawObject, _: &ApiResource) {
        self.list.extend(releases::of(&object));
    }

    fn complete(&mut self) -> Vec<Input> {
        self.releases.replace(std::mem::take(&mut self.list));
        self.poke.now();
        Vec::new()
    }

    fn applied(&mut self, object: RawObject, _: &ApiResource) -> Option<Input> {
        if let Some((name, release)) = releases::of(&object) {
            self.releases.set(name, release);
        }
        self.look(&object);
        None
    }

    fn deleted(&mut self, object: &RawObject) -> Option<Input> {
        if let Some((name, _)) = releases::of(object) {
            self.releases.remove(&name);
        }
        self.look(object);
        None
    }

    fn emptied(&mut self) -> Vec<Input> {
        Vec::new()
    }

    fn refused(&mut self) -> Vec<Input> {
        self.releases.refuse();
        self.poke.now();
        Vec::new()
    }

    fn refusal(&self) -> (Severity, &'static str) {
        let effect = "kinds that are installed later are noticed late";
        (Severity::Warning, effect)
    }
}
