//! How often the same object is written again: so that neither an API server that changes what it
//! is sent nor another writer of the same makes us write without end. Pure but for the time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::children::ChildKey;
use crate::jitter::backoff;

/// Writes within [`WINDOW`] that need no wait.
const WRITES_MAX: u32 = 3;
/// Time in which writes are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Wait before one more; doubles.
const WAIT: Duration = Duration::from_secs(5);
/// Longest wait before one more.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What was written last, by object.
#[derive(Default)]
pub(super) struct Pace {
    written: HashMap<ChildKey, Written>,
}

struct Written {
    /// What was wanted.
    wanted: u64,
    /// What the API server made of it, where that is not what was meant.
    became: Option<u64>,
    /// Writes of this until [`Self::window`].
    count: u32,
    window: Instant,
    /// Waits that it had in a row.
    waits: u32,
    /// Before then it is not written again; else when it was written.
    until: Instant,
}

/// Whether an object may be written.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Now,
    /// Others have undone it too often.
    After(Instant),
    /// The API server would make of it what is there.
    Never,
}

// === impl Pace ===

impl Pace {
    pub(super) fn forget(&mut self, key: &ChildKey) {
        self.written.remove(key);
    }

    /// Whether `wanted` may be written where `live` is.
    pub(super) fn judge(&self, key: &ChildKey, wanted: u64, live: Option<u64>) -> Verdict {
        let Some(written) = self.written.get(key).filter(|last| last.wanted == wanted) else {
            return Verdict::Now;
        };
        if live.is_some() && live == written.became {
            return Verdict::Never;
        }
        if Instant::now() < written.until {
            return Verdict::After(written.until);
        }
        Verdict::Now
    }

    /// Notes a write; `became` is what is there now unless that is what was meant.
    pub(super) fn note(&mut self, key: ChildKey, wanted: u64, became: Option<u64>) {
        let now = Instant::now();
        let fresh = || Written {
            wanted,
            became,
            count: 0,
            window: now + WINDOW,
            waits: 0,
            until: now,
        };
        let written = self.written.entry(key).or_insert_with(fresh);
        if written.wanted != wanted {
            *written = fresh();
        }
        written.became = became;
        if written.until + WINDOW <= now {
            // Nobody undid it for as long.
            written.waits = 0;
        }
        if written.window <= now {
            written.count = 0;
            written.window = now + WINDOW;
        }
        written.count += 1;
        written.until = now;
        if written.count > WRITES_MAX || written.waits > 0 {
            written.waits += 1;
            written.until = now + backoff(WAIT, WAIT_MAX, written.waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::ObjectKey;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_undoes_it_again_and_again_makes_it_rare() {
        let key: ChildKey = ("Service", ObjectKey::new("shop", "gw"));
        let mut pace = Pace::default();
        for _ in 0..WRITES_MAX {
            assert_eq!(pace.judge(&key, 1, Some(9)), Verdict::Now);
            pace.note(key.clone(), 1, None);
        }
        assert_eq!(pace.judge(&key, 1, Some(9)), Verdict::Now);
        pace.note(key.clone(), 1, None);
        assert!(matches!(pace.judge(&key, 1, Some(9)), Verdict::After(_)));
        // What is wanted now is another thing.
        assert_eq!(pace.judge(&key, 2, Some(9)), Verdict::Now);
        let mut writes = 0;
        for _ in 0..3600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            if pace.judge(&key, 1, Some(9)) == Verdict::Now {
                pace.note(key.clone(), 1, None);
                writes += 1;
            }
        }
        assert!(writes < 30, "{writes} in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_api_server_makes_of_it_is_not_written_again() {
        let key: ChildKey = ("Service", ObjectKey::new("shop", "gw"));
        let mut pace = Pace::default();
        pace.note(key.clone(), 1, Some(7));
        assert_eq!(pace.judge(&key, 1, Some(7)), Verdict::Never);
        assert_eq!(pace.judge(&key, 1, Some(8)), Verdict::Now);
        assert_eq!(pace.judge(&key, 1, None), Verdict::Now);
        assert_eq!(pace.judge(&key, 2, Some(7)), Verdict::Now);
    }
}
