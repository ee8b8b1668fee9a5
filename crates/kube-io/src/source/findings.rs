//! Findings that only a source can raise: what it may not read, and what it cannot use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::finding::Finding;
use model::object::Input;
use model::{ObjectKey, Str};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::SourceError;

/// Name of this source.
const SOURCE: &str = "kubernetes";
/// Findings of many objects at once go together.
const QUIET: Duration = Duration::from_millis(50);

/// Of what a finding is: `group/kind`, and the object, or `None` for the kind as a whole.
type Place = (Str, Option<ObjectKey>);

/// The list of all of them. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceFindings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    places: Mutex<BTreeMap<Place, Finding>>,
    changed: Notify,
}

// === impl SourceFindings ===

impl SourceFindings {
    /// Sets or takes back what is said of an object, or of a kind.
    pub(super) fn set(&self, what: &Str, object: Option<ObjectKey>, finding: Option<Finding>) {
        let place = (what.clone(), object);
        let mut places = self.0.places.lock();
        let has_changed = match finding {
            Some(finding) => places.insert(place, finding.clone()) != Some(finding),
            None => places.remove(&place).is_some(),
        };
        drop(places);
        if has_changed {
            self.0.changed.notify_one();
        }
    }

    /// Replaces what is said of all objects of a kind.
    pub(super) fn replace(&self, what: &Str, list: BTreeMap<ObjectKey, Finding>) {
        let mut places = self.0.places.lock();
        places.retain(|(known, object), _| known != what || object.is_none());
        for (key, finding) in list {
            places.insert((what.clone(), Some(key)), finding);
        }
        drop(places);
        self.0.changed.notify_one();
    }

    /// Sends the complete list whenever it differs from what was sent.
    pub(super) async fn run(
        self,
        inputs: mpsc::Sender<Vec<Input>>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        let mut sent = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.0.changed.notified() => {}
            }
            tokio::time::sleep(QUIET).await;
            let mut all: Vec<Finding> = self.0.places.lock().values().cloned().collect();
            all.sort();
            if all == sent {
                continue;
            }
            sent.clone_from(&all);
            let batch = vec![Input::SourceFindings(SOURCE, all)];
            if inputs.send(batch).await.is_err() {
                return Err(SourceError::ReceiverGone);
            }
        }
    }
}
