//! What watches saw of the objects that Gateways run as.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use model::{ManagedObject, ObjectKey};
use serde_json::Value;

use super::FIELD_MANAGER;

/// Kinds of these objects, in the order in which they are applied: `apiVersion` and `kind`.
pub(super) const KINDS: [(&str, &str); 5] = [
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
];

/// An object of one of [`KINDS`].
pub(super) type ChildKey = (&'static str, ObjectKey);

/// Every object that says that a controller of Gateways manages it.
#[derive(Default)]
pub(super) struct Children {
    kinds: BTreeMap<&'static str, Kind>,
}

#[derive(Default)]
struct Kind {
    rows: BTreeMap<ObjectKey, Value>,
    fresh: BTreeMap<ObjectKey, Value>,
    is_listed: bool,
}

/// What is to be judged after an event.
pub(super) enum Changed {
    Nothing,
    One(ChildKey),
    /// Everything of the kind.
    All,
}

/// Kind, namespace and name of an object.
pub(super) fn key_of(object: &ManagedObject) -> ChildKey {
    let key = ObjectKey::new(object.ns.clone(), object.name.clone());
    (object.kind, key)
}

// === impl Children ===

impl Children {
    /// Whether a first list of a kind is complete.
    pub(super) fn is_listed(&self, kind: &'static str) -> bool {
        self.kinds.get(kind).is_some_and(|kind| kind.is_listed)
    }

    pub(super) fn get(&self, key: &ChildKey) -> Option<&Value> {
        self.kinds.get(key.0)?.rows.get(&key.1)
    }

    /// Takes up what the API server answered to a write.
    pub(super) fn put(&mut self, key: &ChildKey, object: Value) {
        self.kinds
            .entry(key.0)
            .or_default()
            .put(key.1.clone(), object);
    }

    /// Takes up an event.
    pub(super) fn follow(&mut self, kind: &'static str, event: Event<DynamicObject>) -> Changed {
        let rows = self.kinds.entry(kind).or_default();
        match event {
            Event::Apply(object) => Changed::of(read(&object).and_then(|(key, value)| {
                let is_changed = rows.put(key.clone(), value);
                is_changed.then_some((kind, key))
            })),
            Event::Delete(object) => Changed::of(read(&object).and_then(|(key, value)| {
                let is_changed = rows.remove(&key, &value);
                is_changed.then_some((kind, key))
            })),
            Event::Init => {
                rows.fresh.clear();
                Changed::Nothing
            }
            Event::InitApply(object) => {
                rows.fresh.extend(read(&object));
                Changed::Nothing
            }
            Event::InitDone => {
                rows.rows = std::mem::take(&mut rows.fresh);
                rows.is_listed = true;
                Changed::All
            }
        }
    }
}

// === impl Changed ===

impl Changed {
    fn of(object: Option<ChildKey>) -> Self {
        object.map_or(Self::Nothing, Self::One)
    }
}

// === impl Kind ===

impl Kind {
    /// Says whether the object is another now.
    fn put(&mut self, key: ObjectKey, object: Value) -> bool {
        let known = self.rows.get(&key);
        if known.is_some_and(|known| is_older(&object, known)) {
            return false;
        }
        let is_same = known.is_some_and(|known| same(known, &object));
        self.rows.insert(key, object);
        !is_same
    }

    fn remove(&mut self, key: &ObjectKey, last: &Value) -> bool {
        let known = self.rows.get(key);
        if known.is_none_or(|known| is_older(last, known)) {
            return false;
        }
        self.rows.remove(key);
        true
    }
}

/// What is kept of an object: its status is nobody's business here.
fn read(object: &DynamicObject) -> Option<(ObjectKey, Value)> {
    let name = object.metadata.name.as_deref()?;
    let ns = object.metadata.namespace.as_deref().unwrap_or_default();
    let key = ObjectKey::new(ns, name);
    Some((key, kept(serde_json::to_value(object).ok()?)))
}

/// The same of an answer: not the status, and of the record of fields only our part.
pub(super) fn kept(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let entries = object.pointer_mut("/metadata/managedFields");
    if let Some(entries) = entries.and_then(Value::as_array_mut) {
        let own = Some(FIELD_MANAGER);
        entries.retain(|entry| entry.get("manager").and_then(Value::as_str) == own);
    }
    object
}

fn version(object: &Value) -> Option<u64> {
    let version = object.pointer("/metadata/resourceVersion")?;
    version.as_str()?.parse().ok()
}

/// An event of before our own write, say.
fn is_older(object: &Value, than: &Value) -> bool {
    let versions = version(object).zip(version(than));
    versions.is_some_and(|(of_object, of_other)| of_object < of_other)
}

/// Equal but for what changes with every write, also of a status.
fn same(a: &Value, b: &Value) -> bool {
    fingerprint(a) == fingerprint(b)
}

/// What decides whether something is to be written, in short.
pub(super) fn fingerprint(object: &Value) -> u64 {
    let mut object = object.clone();
    let own = super::held::own_fields(&object, object.get("apiVersion")).cloned();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("generation");
        match own {
            Some(own) => metadata.insert("managedFields".to_owned(), Value::Object(own)),
            None => metadata.remove("managedFields"),
        };
    }
    let text = object.to_string();
    xxhash_rust::xxh64::xxh64(text.as_bytes(), 0)
}
