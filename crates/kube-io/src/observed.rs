//! What watches saw of the status of objects, for who writes it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::finding::ObjectRef;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::watch;

/// The status of an object at one version of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedStatus {
    /// `metadata.resourceVersion`: a write that names it fails if the object has changed.
    pub resource_version: String,
    /// `metadata.generation`, 0 when unset.
    pub generation: i64,
    /// `metadata.uid`.
    pub uid: String,
    /// `apiVersion` that the object was read in.
    pub api_version: String,
    /// `status` as it is; `Null` when there is none.
    pub status: Value,
    /// `metadata.managedFields` of the `status` subresource: the managers that own a part of it.
    pub managers: Vec<String>,
}

/// Statuses of the objects that have one, by object. Clones share them.
#[derive(Clone, Debug)]
pub struct Observed {
    statuses: Arc<RwLock<HashMap<ObjectRef, Arc<ObservedStatus>>>>,
    /// Objects that changed since they were taken; at most every object once.
    changed: Arc<Mutex<HashSet<ObjectRef>>>,
    changes: Arc<watch::Sender<u64>>,
}

// === impl Observed ===

impl Default for Observed {
    fn default() -> Self {
        Self {
            statuses: Arc::default(),
            changed: Arc::default(),
            changes: Arc::new(watch::channel(0).0),
        }
    }
}

impl Observed {
    /// What was last seen of an object.
    pub fn get(&self, object: &ObjectRef) -> Option<Arc<ObservedStatus>> {
        self.statuses.read().get(object).cloned()
    }

    /// Notes what was seen; `None` when the object is gone.
    pub fn set(&self, object: ObjectRef, status: Option<ObservedStatus>) {
        if let Some(status) = status {
            let status = Arc::new(status);
            let old = self.statuses.write().insert(object.clone(), status.clone());
            if old.is_some_and(|old| old == status) {
                return;
            }
            self.changed.lock().insert(object);
        } else {
            self.statuses.write().remove(&object);
            self.changed.lock().remove(&object);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Forgets the objects of a kind that a complete list did not hold.
    pub fn retain(&self, kind: &str, keep: impl Fn(&ObjectRef) -> bool) {
        let mut statuses = self.statuses.write();
        statuses.retain(|object, _| object.kind != kind || keep(object));
    }

    /// Every object.
    pub fn objects(&self) -> Vec<ObjectRef> {
        self.statuses.read().keys().cloned().collect()
    }

    /// What was seen of objects that are new or changed since the last call, for the one who
    /// writes.
    pub fn take_changed(&self) -> HashSet<ObjectRef> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
