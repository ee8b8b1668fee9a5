//! Who of the replicas writes: one Lease, held with client-go's rules.
//!
//! A lease is taken over only after its record did not change for a whole lease time, measured
//! by our own monotonic clock since we saw it: what clocks say, here or there, decides nothing.
//! Source: spec/control-plane.md §8.4.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::jitter::jittered;
use crate::write::Failure;
use crate::{Reports, Term};

/// Longest lease of another holder that is believed.
const LEASE_MAX: Duration = Duration::from_secs(3600);
/// Shortest attempt to renew, and the wait after one that took too long.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);
/// How often a release is tried: once more than a renewal that was under way can get in its way.
const RELEASES_MAX: u32 = 2;
/// How long a release may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Which lease, and how long it lasts.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are: the name of the pod. No two processes that run may share one.
    pub identity: String,
    /// How long others wait after the last change of the record.
    pub lease: Duration,
    /// How long a holder goes on without renewing; well below `lease`.
    pub renew_deadline: Duration,
    /// Time between two attempts to renew, and about between two looks at another's lease.
    pub retry: Duration,
    /// Who is told that the API server refuses, if anybody.
    pub reports: Option<Reports>,
}

/// What a lease is asked for.
const VERBS: [&str; 3] = ["get", "create", "update"];

/// What the lease held when it was last read or written, and since when it holds that.
struct Record {
    lease: Lease,
    since: Instant,
}

struct Election {
    leases: Api<Lease>,
    config: ElectionConfig,
    record: Option<Record>,
    /// A write of the lease is under way, or was dropped while it was.
    is_asking: bool,
}

/// What an attempt came to.
enum Attempt {
    /// The lease is ours.
    Held(Term),
    /// Another holds it, at least until then unless it is released.
    Other(Instant),
}

/// Takes part in the election until it is told to stop, and releases the lease then.
///
/// `terms` holds the current term, or `None`; a term that is not renewed ends by itself.
pub async fn run(
    client: Client,
    config: ElectionConfig,
    terms: watch::Sender<Option<Term>>,
    stop: CancellationToken,
) {
    let mut election = Election::new(client, config);
    tokio::select! {
        () = stop.cancelled() => {}
        () = election.take_part(&terms) => {}
    }
    let held = terms.send_replace(None);
    // An answer that we did not wait for may have made the lease ours.
    if held.is_some() || election.is_asking {
        let release = tokio::time::timeout(RELEASE_TIMEOUT, election.release());
        match release.await {
            Ok(Ok(true)) => info!(lease = %election.config.name, "lease released"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn!(lease = %election.config.name, %error, "lease not released"),
            Err(_) => warn!(lease = %election.config.name, "lease not released in time"),
        }
    }
}

// === impl ElectionConfig ===

impl ElectionConfig {
    /// The lease that guards what replicas of a revision write, with client-go's times.
    pub fn new(namespace: impl Into<String>, revision: &str, identity: impl Into<String>) -> Self {
        let name = match revision {
            "" | "default" => "istio-status-leader".to_owned(),
            revision => format!("istio-status-leader-{revision}"),
        };
        Self {
            namespace: namespace.into(),
            name,
            identity: identity.into(),
            lease: Duration::from_secs(30),
            renew_deadline: Duration::from_secs(15),
            retry: Duration::from_millis(7_500),
            reports: None,
        }
    }
}

// === impl Election ===

impl Election {
    fn new(client: Client, config: ElectionConfig) -> Self {
        Self {
            leases: Api::namespaced(client, &config.namespace),
            config,
            record: None,
            is_asking: false,
        }
    }

    /// Candidate and leader in turn, for ever.
    async fn take_part(&mut self, terms: &watch::Sender<Option<Term>>) {
        loop {
            let term = self.acquire().await;
            info!(lease = %self.config.name, transitions = term.transitions, "leading");
            terms.send_replace(Some(term));
            self.keep(terms, term).await;
            terms.send_replace(None);
            warn!(lease = %self.config.name, "no longer leading");
        }
    }

    /// Waits until the lease is ours.
    async fn acquire(&mut self) -> Term {
        let mut is_failing = false;
        loop {
            let retry = jittered(self.config.retry);
            let deadline = Instant::now() + self.config.renew_deadline;
            let wait = match timeout_at(deadline, self.attempt()).await {
                Ok(Ok(Attempt::Held(term))) if Instant::now() < term.until => return term,
                Ok(Ok(Attempt::Other(until))) => {
                    is_failing = false;
                    // Just past the end, so that the next look finds it over.
                    let left = until.saturating_duration_since(Instant::now());
                    retry.min(left + Duration::from_millis(10))
                }
                Ok(Err(error)) => {
                    self.tell(&mut is_failing, &error);
                    retry
                }
                Ok(Ok(Attempt::Held(_))) | Err(_) => Duration::ZERO,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Renews until that fails for as long as a term lasts, or another holds the lease.
    async fn keep(&mut self, terms: &watch::Sender<Option<Term>>, mut term: Term) {
        let mut is_failing = false;
        let mut wait = self.config.retry;
        loop {
            let next = Instant::now() + wait;
            tokio::time::sleep_until(next.min(term.until)).await;
            let now = Instant::now();
            let left = term.until.saturating_duration_since(now);
            if left.is_zero() {
                return;
            }
            // One request that hangs must leave time for another.
            let most = self.config.retry.min(left * 2 / 3).max(ATTEMPT_MIN);
            match timeout_at(term.until.min(now + most), self.attempt()).await {
                Err(_) => {
                    debug!(lease = %self.config.name, "lease not renewed in time");
                    // Whether it was written is not known: read it again.
                    self.record = None;
                    wait = ATTEMPT_MIN;
                }
                Ok(Ok(Attempt::Other(_))) => return,
                Ok(Ok(Attempt::Held(renewed))) => {
                    is_failing = false;
                    wait = self.config.retry;
                    term = renewed;
                    terms.send_replace(Some(term));
                }
                Ok(Err(error)) => {
                    self.tell(&mut is_failing, &error);
                    // There is little time left, unlike for a candidate.
                    wait = self.config.retry / 4;
                }
            }
        }
    }

    /// Tells of the first failure of a row, and whoever collects refusals of each.
    fn tell(&self, is_failing: &mut bool, error: &Error) {
        if let (Some(reports), Failure::Refused(message)) =
            (&self.config.reports, Failure::of(error, &self.config.name))
        {
            let is_it = |verb: &&str| message.contains(&format!("cannot {verb} "));
            let verb = VERBS.into_iter().find(is_it).unwrap_or("use");
            let _ = reports.refused(&format!("{verb} leases"), "", &message);
        }
        if std::mem::replace(is_failing, true) {
            debug!(lease = %self.config.name, %error, "lease cannot be had");
        } else {
            warn!(lease = %self.config.name, %error, "lease cannot be had");
        }
    }

    /// Takes or renews the lease if that is right now.
    async fn attempt(&mut self) -> Result<Attempt, Error> {
        let begun = Instant::now();
        // What we wrote last is the record unless somebody else wrote; then this conflicts.
        let is_ours = |record: &Record| holder(&record.lease) == self.config.identity;
        if !self.record.as_ref().is_some_and(is_ours) {
            match self.leases.get_opt(&self.config.name).await? {
                Some(lease) => self.observe(lease),
                None => return self.create(begun).await,
            }
        }
        let Some(record) = &self.record else {
            return self.create(begun).await;
        };
        let name = holder(&record.lease);
        let free_at = record.since + self.duration(&record.lease);
        if !name.is_empty() && name != self.config.identity && Instant::now() < free_at {
            return Ok(Attempt::Other(free_at));
        }
        let lease = self.claim(&record.lease);
        match self.replace(&lease).await {
            Ok(lease) => Ok(self.held(lease, begun)),
            Err(error) => {
                // Whether it was written is not known: read it again.
                if let Some(record) = &mut self.record
                    && holder(&record.lease) == self.config.identity
                {
                    self.record = None;
                }
                Err(error)
            }
        }
    }

    async fn create(&mut self, begun: Instant) -> Result<Attempt, Error> {
        let empty = Lease {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        let lease = self.claim(&empty);
        self.is_asking = true;
        let lease = self.leases.create(&PostParams::default(), &lease).await;
        self.is_asking = false;
        Ok(self.held(lease?, begun))
    }

    async fn replace(&mut self, lease: &Lease) -> Result<Lease, Error> {
        self.is_asking = true;
        let params = PostParams::default();
        let answer = self.leases.replace(&self.config.name, &params, lease).await;
        self.is_asking = false;
        answer
    }

    fn held(&mut self, lease: Lease, begun: Instant) -> Attempt {
        let spec = lease.spec.as_ref();
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        self.observe(lease);
        if let Some(reports) = &self.config.reports {
            for verb in VERBS {
                reports.allowed(&format!("{verb} leases"), "");
            }
        }
        Attempt::Held(Term {
            transitions,
            until: begun + self.config.renew_deadline,
        })
    }

    /// Notes what the lease holds; a record that did not change keeps its age.
    fn observe(&mut self, lease: Lease) {
        let same = self.record.as_ref().is_some_and(|record| {
            record.lease.spec == lease.spec && record.lease.metadata.uid == lease.metadata.uid
        });
        let since = match &self.record {
            Some(record) if same => record.since,
            _ => Instant::now(),
        };
        self.record = Some(Record { lease, since });
    }

    /// How long a record protects its holder: what it says, at least our own time.
    fn duration(&self, lease: &Lease) -> Duration {
        let seconds = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds);
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let theirs = seconds.map_or(Duration::ZERO, Duration::from_secs);
        self.config.lease.max(theirs.min(LEASE_MAX))
    }

    /// The lease as ours, at the version of `old`.
    fn claim(&self, old: &Lease) -> Lease {
        let before = old.spec.clone().unwrap_or_default();
        let is_renewal = before.holder_identity.as_deref() == Some(&self.config.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let is_new = before.holder_identity.is_none();
        let now = MicroTime(Timestamp::now());
        let spec = LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(whole_seconds(self.config.lease)),
            acquire_time: match before.acquire_time {
                Some(time) if is_renewal => Some(time),
                _ => Some(now.clone()),
            },
            renew_time: Some(now),
            lease_transitions: Some(if is_renewal || is_new {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..before
        };
        Lease {
            metadata: old.metadata.clone(),
            spec: Some(spec),
        }
    }

    /// Lets the next one have the lease at once. Returns whether it was ours.
    async fn release(&mut self) -> Result<bool, Error> {
        let mut known = self.record.take().map(|record| record.lease);
        known.take_if(|lease| holder(lease) != self.config.identity);
        let mut tries = 0;
        loop {
            let lease = match known.take() {
                Some(lease) => Some(lease),
                None => self.leases.get_opt(&self.config.name).await?,
            };
            let Some(lease) = lease.filter(|lease| holder(lease) == self.config.identity) else {
                return Ok(false);
            };
            let mut lease = self.claim(&lease);
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
            }
            tries += 1;
            match self.replace(&lease).await {
                Ok(_) => return Ok(true),
                // A renewal of ours was written that we did not hear of.
                Err(Error::Api(status)) if status.code == 409 && tries < RELEASES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    holder.unwrap_or_default()
}

/// At least one: that is what the API takes.
fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_millis().div_ceil(1000).max(1);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
