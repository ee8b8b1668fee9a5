//! Times that differ a little, so that many who wait do not come at once; and a bound on a rate.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// A time between `base` and 1.2 times that.
pub(crate) fn jittered(base: Duration) -> Duration {
    // Every `RandomState` has keys of its own.
    let random = RandomState::new().hash_one(0_u8) % 1024;
    base + base * u32::try_from(random).unwrap_or(0) / (1024 * 5)
}

/// The wait before attempt `attempt` (from 1): doubles from `base` up to `most`.
pub(crate) fn backoff(base: Duration, most: Duration, attempt: u32) -> Duration {
    let factor = 1_u32 << attempt.saturating_sub(1).min(16);
    jittered(base.saturating_mul(factor).min(most))
}

/// A token bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    slack: Duration,
    /// When the next token would be due if none had been saved.
    due: Option<Instant>,
}

// === impl Bucket ===

impl Bucket {
    /// One token every `interval`; `burst` are saved, at least one.
    pub(crate) fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            slack: interval.saturating_mul(burst.max(1) - 1),
            due: None,
        }
    }

    /// When the next token may be taken.
    pub(crate) fn ready_at(&self) -> Instant {
        let now = Instant::now();
        let due = self.due.unwrap_or(now);
        due.checked_sub(self.slack).unwrap_or(now).max(now)
    }

    /// Takes a token that may be used from the time returned on.
    pub(crate) fn take(&mut self) -> Instant {
        let at = self.ready_at();
        let due = self.due.map_or(at, |due| due.max(at));
        self.due = Some(due + self.interval);
        at
    }

    /// Takes a token if there is one now.
    pub(crate) fn try_take(&mut self) -> bool {
        let is_ready = self.ready_at() <= Instant::now();
        if is_ready {
            self.take();
        }
        is_ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::new(Duration::from_secs(5), 3);
        let start = Instant::now();
        let waits: Vec<u64> = (0..5).map(|_| (bucket.take() - start).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 5, 10]);
        assert!(!bucket.try_take());
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(bucket.try_take());
        assert!(!bucket.try_take());
        tokio::time::advance(Duration::from_secs(3600)).await;
        let saved = (0..10).filter(|_| bucket.try_take()).count();
        assert_eq!(saved, 3);
    }
}
