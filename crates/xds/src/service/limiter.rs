//! How fast streams may open.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Longest wait for a turn. Source: spec/control-plane.md §2.2.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Gives turns at a steady rate, in the order of asking.
pub(super) struct Limiter {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Limiter {
    /// So many turns per second.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(None),
        }
    }

    /// Waits for a turn; `false` at once when it would come too late.
    pub(super) async fn turn(&self) -> bool {
        let now = Instant::now();
        let turn = {
            let mut next = self.next.lock();
            let turn = next.map_or(now, |next| next.max(now));
            if turn - now > WAIT_MAX {
                return false;
            }
            *next = Some(turn + self.interval);
            turn
        };
        tokio::time::sleep_until(turn).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate_and_those_beyond_a_second_are_refused() {
        let limiter = Limiter::new(10);
        let began = Instant::now();
        let turns = futures::future::join_all((0..20).map(|_| limiter.turn())).await;
        assert_eq!(turns.iter().filter(|turn| **turn).count(), 11);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert!(limiter.turn().await);
        tokio::time::advance(Duration::from_secs(5)).await;
        let later = Instant::now();
        assert!(limiter.turn().await);
        assert_eq!(later.elapsed(), Duration::ZERO);
    }
}
