//! The primaries of a derived table, and what the last run of each left behind.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::readers::Deps;

/// Primaries in numbered slots: four bytes name one elsewhere.
pub(super) struct Primaries<P, K, V> {
    entries: Vec<Option<Entry<P, K, V>>>,
    free: Vec<u32>,
    /// Slots by primary, which stands in the entry alone.
    slots: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

struct Entry<P, K, V> {
    primary: P,
    deps: Deps,
    /// Sorted by key, each once.
    rows: Box<[(K, Arc<V>)]>,
}

// === impl Primaries ===

impl<P: Clone + Hash + Eq, K: Ord, V> Primaries<P, K, V> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            slots: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Number of primaries.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&self, primary: &P) -> Option<u32> {
        let hash = self.hasher.hash_one(primary);
        let found = self
            .slots
            .find(hash, |slot| self.primary(*slot) == Some(primary));
        found.copied()
    }

    pub(super) fn primary(&self, slot: u32) -> Option<&P> {
        Some(&self.entry(slot)?.primary)
    }

    /// The rows of the last run, sorted by key.
    pub(super) fn rows(&self, slot: u32) -> &[(K, Arc<V>)] {
        self.entry(slot)
            .map(|entry| entry.rows.as_ref())
            .unwrap_or_default()
    }

    pub(super) fn set_rows(&mut self, slot: u32, rows: Vec<(K, Arc<V>)>) {
        if let Some(Some(entry)) = self.entries.get_mut(slot as usize) {
            entry.rows = rows.into_boxed_slice();
        }
    }

    pub(super) fn deps_mut(&mut self, slot: u32) -> Option<&mut Deps> {
        let entry = self.entries.get_mut(slot as usize)?.as_mut()?;
        Some(&mut entry.deps)
    }

    /// What each slot has read.
    pub(super) fn deps(&self) -> impl Iterator<Item = (u32, &Deps)> {
        let entries = (0u32..).zip(&self.entries);
        entries.filter_map(|(slot, entry)| Some((slot, &entry.as_ref()?.deps)))
    }

    /// Adds a primary that has no slot yet.
    pub(super) fn insert(&mut self, primary: P) -> u32 {
        let hash = self.hasher.hash_one(&primary);
        let slot = self.free.pop().unwrap_or(self.entries.len() as u32);
        let entry = Some(Entry {
            primary,
            deps: Deps::default(),
            rows: Box::default(),
        });
        if let Some(vacant) = self.entries.get_mut(slot as usize) {
            *vacant = entry;
        } else {
            if self.entries.len() == self.entries.capacity() {
                // An eighth: twice as many would be 64 bytes more for each that there is.
                let more = (self.entries.len() / 8).max(16);
                self.entries.reserve_exact(more);
            }
            self.entries.push(entry);
        }
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.slots.insert_unique(hash, slot, |slot| {
            let entry = entries.get(*slot as usize).and_then(Option::as_ref);
            entry.map_or(0, |entry| hasher.hash_one(&entry.primary))
        });
        slot
    }

    /// Forgets a primary; returns what it has read.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Deps> {
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        let hash = self.hasher.hash_one(&entry.primary);
        if let Ok(found) = self.slots.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        self.free.push(slot);
        Some(entry.deps)
    }

    fn entry(&self, slot: u32) -> Option<&Entry<P, K, V>> {
        self.entries.get(slot as usize)?.as_ref()
    }
}

/// Looks a key up in rows sorted by key.
pub(super) fn find<'r, K: Ord, V>(rows: &'r [(K, Arc<V>)], key: &K) -> Option<&'r Arc<V>> {
    let found = rows.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
    rows.get(found).map(|(_, row)| row)
}
