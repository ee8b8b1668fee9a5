//! What is to be judged, and when.

use std::collections::{BTreeSet, HashMap};

use model::ObjectRef;
use tokio::time::Instant;

/// Each object once, at the earliest time that was asked for.
#[derive(Default)]
pub(crate) struct Queue {
    due: BTreeSet<(Instant, ObjectRef)>,
    at: HashMap<ObjectRef, Instant>,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn push(&mut self, object: ObjectRef, at: Instant) {
        if let Some(known) = self.at.get(&object) {
            if *known <= at {
                return;
            }
            self.due.remove(&(*known, object.clone()));
        }
        self.at.insert(object.clone(), at);
        self.due.insert((at, object));
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next object that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<ObjectRef> {
        if self.next_due()? > now {
            return None;
        }
        let (_, object) = self.due.pop_first()?;
        self.at.remove(&object);
        Some(object)
    }
}

/// Waits until then; with `None` not at all.
pub(crate) async fn due(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}
