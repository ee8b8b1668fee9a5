//! How much is signed at once: everything above is shed, nothing queues for long.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use authn::{Caller, Peer};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use governor::clock::DefaultClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Known callers above which idle ones are forgotten.
const CALLERS_MAX: usize = 16_384;
/// Checks between two looks at how many callers are known.
const SWEEP_EVERY: u32 = 1024;
/// How long a client that was shed waits, milliseconds: this, and up to as much again.
const RETRY_AFTER_MS: u32 = 500;

/// The bounds of the certificate service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests per second of one caller: one pod, or one identity at one address.
    pub caller_per_second: NonZeroU32,
    /// Requests of one caller at once; a node start asks for all its pods.
    pub caller_burst: NonZeroU32,
    /// Requests per second of all.
    pub global_per_second: NonZeroU32,
    /// Requests of all at once.
    pub global_burst: NonZeroU32,
    /// Signatures in the making.
    pub concurrent: usize,
    /// Requests that wait for one of those.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            caller_per_second: at_least_one(100),
            caller_burst: at_least_one(500),
            global_per_second: at_least_one(2000),
            global_burst: at_least_one(8000),
            concurrent: std::thread::available_parallelism().map_or(2, usize::from),
            waiting: 1024,
        }
    }
}

/// Why a request is shed, and when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy {
    pub(super) reason: &'static str,
    pub(super) retry_after_ms: u32,
}

impl Busy {
    fn new(reason: &'static str) -> Self {
        let mut bytes = [0; 4];
        // Without randomness all wait equally long, which is worse but not wrong.
        let _ = SystemRandom::new().fill(&mut bytes);
        Self {
            reason,
            retry_after_ms: RETRY_AFTER_MS + u32::from_le_bytes(bytes) % RETRY_AFTER_MS,
        }
    }
}

/// All ztunnels share one account, so a caller is its pod, or else its address.
#[derive(Clone, PartialEq, Eq, Hash)]
enum CallerKey {
    Pod(authn::PodRef),
    Address(model::SpiffeId, IpAddr),
}

/// Admits requests.
pub(super) struct Admission {
    global: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
    callers: DefaultKeyedRateLimiter<CallerKey>,
    checks: AtomicU32,
    waiting: Arc<Semaphore>,
    signing: Arc<Semaphore>,
}

/// A place among those that sign; free again when dropped.
pub(super) struct Permit {
    _signing: OwnedSemaphorePermit,
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        let quota = |per_second, burst| Quota::per_second(per_second).allow_burst(burst);
        Self {
            global: RateLimiter::direct(quota(limits.global_per_second, limits.global_burst)),
            callers: RateLimiter::keyed(quota(limits.caller_per_second, limits.caller_burst)),
            checks: AtomicU32::new(0),
            waiting: Arc::new(Semaphore::new(limits.waiting.max(1))),
            signing: Arc::new(Semaphore::new(limits.concurrent.max(1))),
        }
    }

    /// A place to sign, after a wait that is bounded by the number of those before.
    pub(super) async fn admit(&self, peer: &Peer, caller: &Caller) -> Result<Permit, Busy> {
        self.sweep();
        let key = match caller.pod() {
            Some(pod) if !pod.uid.is_empty() => CallerKey::Pod(pod.clone()),
            _ => CallerKey::Address(caller.identity.clone(), peer.addr.ip()),
        };
        // The caller first: one that asks too much must not use up the share of all.
        if self.callers.check_key(&key).is_err() {
            return Err(Busy::new("caller_rate"));
        }
        if self.global.check().is_err() {
            return Err(Busy::new("global_rate"));
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(Busy::new("queue"));
        };
        match Arc::clone(&self.signing).acquire_owned().await {
            Ok(permit) => Ok(Permit { _signing: permit }),
            Err(_) => Err(Busy::new("closed")),
        }
    }

    /// Forgets callers that could ask for a full burst again.
    fn sweep(&self) {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks.is_multiple_of(SWEEP_EVERY) && self.callers.len() > CALLERS_MAX {
            self.callers.retain_recent();
        }
    }
}
