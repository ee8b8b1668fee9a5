//! How long to wait before the next attempt.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// The first pause.
const MIN: Duration = Duration::from_millis(200);
/// After so long without an error the next one is the first again.
const CALM: Duration = Duration::from_secs(45);

/// Pauses that double up to a limit, each between half and all of its length.
#[derive(Debug)]
pub(super) struct Backoff {
    max: Duration,
    next: Duration,
    last: Option<Instant>,
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self {
            max,
            next: MIN.min(max),
            last: None,
        }
    }

    /// The pause after an error that happened now.
    pub(super) fn pause(&mut self) -> Duration {
        let now = Instant::now();
        if self
            .last
            .is_some_and(|last| now.duration_since(last) > CALM.max(self.next * 2))
        {
            self.next = MIN.min(self.max);
        }
        let pause = jitter(self.next);
        self.next = (self.next * 2).min(self.max);
        self.last = Some(now + pause);
        pause
    }
}

/// Between half and all of a duration.
pub(super) fn jitter(whole: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let share = f64::from((random & 0xffff) as u32) / f64::from(0x1_0000_u32);
    whole.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_the_limit_and_begin_again_after_calm() {
        let mut backoff = Backoff::new(Duration::from_secs(30));
        for _ in 0..12 {
            let pause = backoff.pause();
            assert!(pause <= Duration::from_secs(30));
            tokio::time::advance(pause).await;
        }
        assert!(backoff.pause() >= Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(200)).await;
        assert!(backoff.pause() <= MIN);
    }
}
