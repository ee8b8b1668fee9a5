//! What was written to an object, and what became of it: so that neither an API server that
//! changes what it is sent nor another writer of the same makes us write without end. Pure but
//! for the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use model::ObjectRef;
use model::status::StatusRow;
use serde_json::Value;
use tokio::time::Instant;

use super::plan;
use crate::ObservedStatus;
use crate::jitter::backoff;
use crate::write::PAUSE;

/// Writes of the same within [`WINDOW`] that need no wait.
const WRITES_MAX: u32 = 3;
/// Time in which writes are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Longest wait before the same is written once more.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What was written last, by object and field manager.
#[derive(Default)]
pub(super) struct Repeats {
    sent: HashMap<ObjectRef, BTreeMap<&'static str, Sent>>,
}

/// What the API server made of a row that it did not keep as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Became {
    generation: i64,
    own: Value,
}

struct Sent {
    row: Arc<StatusRow>,
    became: Option<Became>,
    /// Writes of this row until [`Self::window`].
    count: u32,
    window: Instant,
    /// Waits that this row had in a row.
    waits: u32,
    /// Before then it is not written again.
    until: Instant,
}

/// Whether a row may be written.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Now,
    /// Others have undone it too often.
    After(Instant),
    /// The API server would make of it what is there.
    Never,
}

// === impl Became ===

impl Became {
    pub(super) fn of(manager: &str, answer: &ObservedStatus) -> Self {
        Self {
            generation: answer.generation,
            own: plan::own(manager, answer),
        }
    }
}

// === impl Repeats ===

impl Repeats {
    pub(super) fn clear(&mut self) {
        self.sent.clear();
    }

    pub(super) fn remove(&mut self, object: &ObjectRef) {
        self.sent.remove(object);
    }

    /// Whether a row that differs from what is there may be written.
    pub(super) fn judge(
        &self,
        object: &ObjectRef,
        (manager, row): (&str, &StatusRow),
        seen: &ObservedStatus,
    ) -> Verdict {
        let sent = self.sent.get(object).and_then(|sent| sent.get(manager));
        let Some(sent) = sent.filter(|sent| *sent.row == *row) else {
            return Verdict::Now;
        };
        if sent.became.as_ref() == Some(&Became::of(manager, seen)) {
            return Verdict::Never;
        }
        if sent.until > Instant::now() {
            Verdict::After(sent.until)
        } else {
            Verdict::Now
        }
    }

    /// Notes a write. Returns whether the row must wait from now on.
    pub(super) fn note(
        &mut self,
        object: &ObjectRef,
        (manager, row): (&'static str, &Arc<StatusRow>),
        became: Option<Became>,
    ) -> bool {
        let now = Instant::now();
        let all = self.sent.entry(object.clone()).or_default();
        let sent = all.entry(manager).or_insert_with(|| Sent::new(row, now));
        if sent.row != *row || sent.window <= now {
            *sent = Sent::new(row, now);
        }
        sent.became = became;
        sent.count += 1;
        if sent.count <= WRITES_MAX {
            return false;
        }
        sent.waits += 1;
        sent.until = now + backoff(PAUSE, WAIT_MAX, sent.waits);
        sent.window = sent.until + WINDOW;
        sent.waits == 1
    }
}

// === impl Sent ===

impl Sent {
    fn new(row: &Arc<StatusRow>, now: Instant) -> Self {
        Self {
            row: Arc::clone(row),
            became: None,
            count: 0,
            window: now + WINDOW,
            waits: 0,
            until: now,
        }
    }
}
