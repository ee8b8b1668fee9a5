//! Who yields a key, and which of them shows.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// Every claim to every key. Most keys have one; where all primaries of a table claim the same
/// key, one more or less costs no look at the others.
pub(super) struct Claims<P, K, V> {
    keys: HashMap<K, Claim<P, V>>,
}

enum Claim<P, V> {
    One(P, Arc<V>),
    Many(BTreeMap<P, Arc<V>>),
}

// === impl Claims ===

impl<P: Ord + Clone, K: Hash + Eq, V> Claims<P, K, V> {
    pub(super) fn new() -> Self {
        Self {
            keys: HashMap::new(),
        }
    }

    /// Adds or replaces the claim of a primary.
    pub(super) fn insert(&mut self, key: K, primary: &P, row: &Arc<V>) {
        let (primary, row) = (primary.clone(), Arc::clone(row));
        match self.keys.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Claim::One(primary, row));
            }
            Entry::Occupied(mut entry) => entry.get_mut().insert(primary, row),
        }
    }

    /// Takes the claim of a primary back; a key without claims is forgotten.
    pub(super) fn remove(&mut self, key: &K, primary: &P) {
        let is_last = match self.keys.get_mut(key) {
            None => false,
            Some(Claim::One(claimant, _)) => claimant == primary,
            Some(Claim::Many(many)) => {
                many.remove(primary);
                many.is_empty()
            }
        };
        if is_last {
            self.keys.remove(key);
        }
    }

    /// The row of the smallest primary that claims a key.
    pub(super) fn first(&self, key: &K) -> Option<&Arc<V>> {
        match self.keys.get(key)? {
            Claim::One(_, row) => Some(row),
            Claim::Many(many) => many.values().next(),
        }
    }

    /// Number of keys that have a claim.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

// === impl Claim ===

impl<P: Ord + Clone, V> Claim<P, V> {
    fn insert(&mut self, primary: P, row: Arc<V>) {
        match self {
            Self::One(claimant, own) if *claimant == primary => *own = row,
            Self::One(claimant, own) => {
                let first = (claimant.clone(), Arc::clone(own));
                *self = Self::Many(BTreeMap::from([first, (primary, row)]));
            }
            Self::Many(many) => {
                many.insert(primary, row);
            }
        }
    }
}
