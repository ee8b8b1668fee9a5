//! When which key set is fetched, and what is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::Str;
use model::jwks::{Jwks, JwksFailure, SOURCES_OF_NAMESPACE_COUNT_MAX, Wanted};
use model::object::Input;
use prometheus::{IntCounter, Registry};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::client::FetchError;
use crate::nobody::nobody;
use crate::store::{self, Book, Stored};

/// Sources that are fetched; further ones are refused.
pub const SOURCES_COUNT_MAX: usize = 1_000;
/// Fetches at a time.
const FETCHES_COUNT_MAX: usize = 8;
/// Of these, those for one namespace: slow issuers of one must not hold up all others.
const FETCHES_OF_NAMESPACE_COUNT_MAX: usize = 4;
/// Time from a failure to the next try; it doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest time from a failure to the next try.
const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Keys that could not be fetched again for so long are no good any more.
const KEYS_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How soon a change is saved; what else changes until then is saved with it.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// How old the saved time of a fetch can become.
const SAVE_AGAIN: Duration = Duration::from_secs(60 * 60);

/// What [`Fetch::fetch`] returns.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Str, FetchError>> + Send + 'a>>;

/// Where key sets come from: [`crate::Client`].
pub trait Fetch: Send + Sync + 'static {
    /// The key set in canonical form, or why there is none.
    fn fetch<'a>(&'a self, wanted: &'a Wanted) -> Fetching<'a>;
}

/// Counts of fetches. Source: spec/control-plane.md §7.
#[derive(Clone, Debug)]
pub struct Metrics {
    success: IntCounter,
    fail: IntCounter,
}

impl Metrics {
    /// Makes the counters known.
    ///
    /// # Errors
    /// When the registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            success: counter(
                "pilot_jwks_resolver_network_fetch_success_total",
                "Total number of successfully network fetch by pilot jwks resolver",
            )?,
            fail: counter(
                "pilot_jwks_resolver_network_fetch_fail_total",
                "Total number of failed network fetch by pilot jwks resolver",
            )?,
        })
    }
}

/// Keeps the rows of wanted sources.
pub struct Fetcher {
    client: Arc<dyn Fetch>,
    metrics: Metrics,
    /// Time from a good fetch to the next one.
    refresh: Duration,
    /// Where last good key sets are kept; `None` keeps none.
    state_file: Option<PathBuf>,
    sources: BTreeMap<Str, Source>,
    fetches: JoinSet<(Str, u64, Result<Str, FetchError>)>,
    /// What a previous process knew.
    stored: Book,
    /// Counts sources, to tell results of one that is gone from those of its successor.
    births: u64,
    /// When what is known is saved next; `None` when nothing is new.
    save: Option<Instant>,
}

struct Source {
    wanted: Wanted,
    /// The namespace whose share it takes; it names the source. `None` when it is not fetched.
    payer: Option<Str>,
    birth: u64,
    nobody: Str,
    keys: Option<Keys>,
    failure: Option<JwksFailure>,
    failures: u32,
    /// `None` when it is never fetched.
    due: Option<Instant>,
    running: Option<AbortHandle>,
}

struct Keys {
    text: Str,
    fetched: SystemTime,
    expire: Instant,
}

impl Source {
    fn row(&self) -> Jwks {
        Jwks {
            keys: self.keys.as_ref().map(|keys| keys.text.clone()),
            failure: self.failure.clone(),
            nobody: self.nobody.clone(),
        }
    }
}

// === impl Fetcher ===

impl Fetcher {
    /// A fetcher that knows what is in `state_file` and fetches good key sets again after
    /// `refresh`.
    pub fn new(
        client: Arc<dyn Fetch>,
        metrics: Metrics,
        refresh: Duration,
        state_file: Option<PathBuf>,
    ) -> Self {
        let stored = match state_file.as_deref().map(store::load) {
            None => Book::new(),
            Some(Ok(book)) => book,
            Some(Err(error)) => {
                tracing::warn!(%error, "the key sets of before cannot be read");
                Book::new()
            }
        };
        Self {
            client,
            metrics,
            refresh,
            state_file,
            sources: BTreeMap::new(),
            fetches: JoinSet::new(),
            stored,
            births: 0,
            save: None,
        }
    }

    /// Follows what is wanted until nobody says so any more, or nobody listens.
    pub async fn run(
        mut self,
        mut wanted: watch::Receiver<BTreeMap<Str, Arc<Wanted>>>,
        inputs: mpsc::Sender<Vec<Input>>,
    ) {
        wanted.mark_changed();
        loop {
            self.start_due();
            if self.save.is_some_and(|at| at <= Instant::now()) {
                self.save().await;
            }
            let next = self.next_due().into_iter().chain(self.save).min();
            let rows = tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = wanted.borrow_and_update().clone();
                    self.want(now)
                }
                Some(ended) = self.fetches.join_next() => {
                    if let Ok((key, birth, result)) = ended {
                        self.finish(&key, birth, result)
                    } else {
                        // An aborted fetch, or one that panicked, which its source survives.
                        self.revive();
                        continue;
                    }
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    continue;
                }
            };
            if !rows.is_empty() && inputs.send(rows).await.is_err() {
                return;
            }
        }
    }

    /// Takes up new sources and drops those that nobody wants. What is fetched stays so;
    /// namespaces with few sources come first.
    fn want(&mut self, wanted: BTreeMap<Str, Arc<Wanted>>) -> Vec<Input> {
        let mut rows = Vec::new();
        let sources = std::mem::take(&mut self.sources);
        for (key, source) in sources {
            if wanted.contains_key(&key) {
                self.sources.insert(key, source);
            } else {
                if let Some(running) = source.running {
                    running.abort();
                }
                rows.push(Input::Jwks(key, None));
            }
        }
        let mut shares = Shares::default();
        for (key, source) in &mut self.sources {
            if let Some(wanted) = wanted.get(key) {
                source.wanted = (**wanted).clone();
            }
            source.payer = shares.keep(source.payer.take(), &source.wanted.namespaces);
        }
        let idle = wanted.iter().filter(|(key, _)| {
            let source = self.sources.get(*key);
            source.is_none_or(|source| source.payer.is_none())
        });
        let mut payers = shares.give(idle);
        for (key, wanted) in &wanted {
            let payer = payers.remove(key);
            if let Some(source) = self.sources.get_mut(key) {
                if payer.is_some() {
                    source.payer = payer;
                    source.due = Some(Instant::now());
                }
                continue;
            }
            let source = self.source(key, wanted, payer);
            rows.push(Input::Jwks(key.clone(), Some(Arc::new(source.row()))));
            self.sources.insert(key.clone(), source);
        }
        rows
    }

    fn source(&mut self, key: &Str, wanted: &Wanted, payer: Option<Str>) -> Source {
        self.births += 1;
        let failure = payer.is_none().then(|| JwksFailure {
            blocked: false,
            reason: arcstr::format!(
                "no more than {SOURCES_OF_NAMESPACE_COUNT_MAX} key sets are fetched for one namespace, and {SOURCES_COUNT_MAX} in all"
            ),
        });
        Source {
            wanted: wanted.clone(),
            due: payer.as_ref().map(|_| Instant::now()),
            payer,
            birth: self.births,
            nobody: nobody().unwrap_or_default(),
            keys: self
                .stored
                .remove(key)
                .and_then(|stored| of_before(&stored)),
            failure,
            failures: 0,
            running: None,
        }
    }

    /// The time of the next fetch, if there is room for one.
    fn next_due(&self) -> Option<Instant> {
        if self.fetches.len() >= FETCHES_COUNT_MAX {
            return None;
        }
        let busy = self.busy();
        let idle = self.sources.values().filter(|s| s.running.is_none());
        let idle = idle.filter(|source| !is_full(&busy, source));
        idle.filter_map(|source| source.due).min()
    }

    /// Fetches under way by namespace.
    fn busy(&self) -> BTreeMap<Str, usize> {
        let mut busy = BTreeMap::new();
        let running = self.sources.values().filter(|s| s.running.is_some());
        for payer in running.filter_map(|source| source.payer.clone()) {
            *busy.entry(payer).or_default() += 1;
        }
        busy
    }

    /// Starts what is due, longest due first, as far as there is room.
    fn start_due(&mut self) {
        let now = Instant::now();
        let mut busy = self.busy();
        let mut due: Vec<(Instant, &Str, &mut Source)> = self
            .sources
            .iter_mut()
            .filter(|(_, source)| source.running.is_none())
            .filter_map(|(key, source)| Some((source.due.filter(|due| *due <= now)?, key, source)))
            .collect();
        due.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        for (_, key, source) in due {
            if self.fetches.len() >= FETCHES_COUNT_MAX {
                break;
            }
            if is_full(&busy, source) {
                continue;
            }
            if let Some(payer) = source.payer.clone() {
                *busy.entry(payer).or_default() += 1;
            }
            let (client, wanted) = (Arc::clone(&self.client), source.wanted.clone());
            let (key, birth) = (key.clone(), source.birth);
            source.running = Some(self.fetches.spawn(async move {
                let result = client.fetch(&wanted).await;
                (key, birth, result)
            }));
        }
    }

    /// What a fetch brought. Last good keys outlive failures.
    fn finish(&mut self, key: &Str, birth: u64, result: Result<Str, FetchError>) -> Vec<Input> {
        let Some(source) = self.sources.get_mut(key).filter(|s| s.birth == birth) else {
            return Vec::new();
        };
        let before = source.row();
        source.running = None;
        let now = Instant::now();
        let wait = match result {
            Ok(text) => {
                self.metrics.success.inc();
                source.failures = 0;
                source.failure = None;
                source.keys = Some(Keys {
                    text,
                    fetched: SystemTime::now(),
                    expire: now + KEYS_AGE_MAX,
                });
                jittered(self.refresh)
            }
            Err(error) => {
                self.metrics.fail.inc();
                tracing::warn!(source = %key, %error, "a key set cannot be fetched");
                source.failures = source.failures.saturating_add(1);
                if source.keys.as_ref().is_some_and(|keys| keys.expire <= now) {
                    source.keys = None;
                }
                source.failure = Some(JwksFailure {
                    blocked: matches!(error, FetchError::Blocked(_)),
                    reason: shortened(&error.to_string()),
                });
                jittered(retry(source.failures))
            }
        };
        source.due = Some(now + wait);
        let row = source.row();
        let save = match (row.keys == before.keys, &row.failure) {
            (false, _) => Some(now + SAVE_AFTER),
            (true, None) => Some(now + SAVE_AGAIN),
            (true, Some(_)) => None,
        };
        self.save = self.save.into_iter().chain(save).min();
        if row == before {
            return Vec::new();
        }
        vec![Input::Jwks(key.clone(), Some(Arc::new(row)))]
    }

    /// Sources whose fetch ended without a result are due again.
    fn revive(&mut self) {
        let due = Instant::now() + RETRY_FIRST;
        for source in self.sources.values_mut() {
            let ended = source
                .running
                .as_ref()
                .is_some_and(AbortHandle::is_finished);
            if ended {
                source.running = None;
                source.due = Some(due);
            }
        }
    }

    async fn save(&mut self) {
        self.save = None;
        let Some(path) = self.state_file.clone() else {
            return;
        };
        let keys = self.sources.iter();
        let keys = keys.filter_map(|(key, source)| Some((key, source.keys.as_ref()?)));
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let book: Book = keys
            .filter_map(|(key, keys)| {
                let stored = Stored {
                    keys: keys.text.clone(),
                    fetched_s: since(keys.fetched)?.as_secs(),
                };
                Some((key.clone(), stored))
            })
            .collect();
        let saved = tokio::task::spawn_blocking(move || store::save(&path, &book)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "key sets cannot be saved for the next start");
        }
    }
}

/// Whether the namespace of a source has all the fetches under way that it may.
fn is_full(busy: &BTreeMap<Str, usize>, source: &Source) -> bool {
    let payer = source.payer.as_ref();
    let running = payer.and_then(|payer| busy.get(payer));
    running.is_some_and(|running| *running >= FETCHES_OF_NAMESPACE_COUNT_MAX)
}

/// How many sources are fetched, and for whom.
#[derive(Default)]
struct Shares {
    all: usize,
    of: BTreeMap<Str, usize>,
}

impl Shares {
    fn take(&mut self, ns: &Str) {
        self.all += 1;
        *self.of.entry(ns.clone()).or_default() += 1;
    }

    /// Who pays for what is fetched already: the same as before, else any that names it.
    fn keep(&mut self, payer: Option<Str>, namespaces: &BTreeSet<Str>) -> Option<Str> {
        let before = payer?;
        let any = namespaces.first().cloned();
        let payer = match any {
            Some(any) if !namespaces.contains(&before) => any,
            _ => before,
        };
        self.take(&payer);
        Some(payer)
    }

    /// Who pays for what is not fetched yet, while there is room: one source after the other
    /// for the namespace that has the fewest.
    fn give<'a>(
        &mut self,
        idle: impl Iterator<Item = (&'a Str, &'a Arc<Wanted>)>,
    ) -> BTreeMap<Str, Str> {
        let mut queues: BTreeMap<&Str, Vec<&Str>> = BTreeMap::new();
        for (key, wanted) in idle {
            for ns in &wanted.namespaces {
                queues.entry(ns).or_default().push(key);
            }
        }
        // Taken from the end.
        for queue in queues.values_mut() {
            queue.reverse();
        }
        let mut out = BTreeMap::new();
        let mut turns: BTreeSet<(usize, &Str)> = queues
            .keys()
            .map(|ns| (self.of.get(*ns).copied().unwrap_or_default(), *ns))
            .collect();
        while let Some((count, ns)) = turns.pop_first() {
            if self.all >= SOURCES_COUNT_MAX {
                break;
            }
            if count >= SOURCES_OF_NAMESPACE_COUNT_MAX {
                continue;
            }
            let Some(key) = queues.get_mut(ns).and_then(Vec::pop) else {
                continue;
            };
            if out.contains_key(key) {
                turns.insert((count, ns));
                continue;
            }
            self.take(ns);
            out.insert(key.clone(), ns.clone());
            turns.insert((count + 1, ns));
        }
        out
    }
}

/// Keys of a previous process, unless they are too old. A time in the future counts as now.
fn of_before(stored: &Stored) -> Option<Keys> {
    let fetched = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(stored.fetched_s))?;
    let age = fetched.elapsed().unwrap_or_default();
    let left = KEYS_AGE_MAX.checked_sub(age)?;
    Some(Keys {
        text: stored.keys.clone(),
        fetched,
        expire: Instant::now() + left,
    })
}

/// Time to the next try after so many failures in a row.
fn retry(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX)
}

/// A tenth longer at most, so that sources of one start do not stay together.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0_u8; 1];
    let _ = aws_lc_rs::rand::fill(&mut random);
    let [random] = random;
    wait + wait / 10 * u32::from(random) / 256
}

fn shortened(text: &str) -> Str {
    const CHARS_MAX: usize = 300;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars()
        .take(CHARS_MAX)
        .map(plain)
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests;
