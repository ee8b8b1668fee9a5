//! Who yields a key, and which of them shows.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::primaries::{Primaries, find};

/// Every claim to every key. Most keys have one; where all primaries of a table claim the same
/// key, one more or less costs no look at the others.
pub(super) struct Claims<P, K, V> {
    /// Claims to keys that nobody else has ever claimed. Key and row stand with the primary: all
    /// pods have such claims in several stages, at 9 bytes each instead of 50.
    single: HashTable<Single>,
    /// All claims to the other keys.
    contested: HashMap<K, BTreeMap<P, Arc<V>>>,
    hasher: DefaultHashBuilder,
}

/// A claim of the primary in a slot to one of its keys.
struct Single {
    /// Half of the hash of the key.
    hash: u32,
    slot: u32,
}

// === impl Claims ===

impl<P: Ord + Clone + Hash, K: Ord + Clone + Hash, V> Claims<P, K, V> {
    pub(super) fn new() -> Self {
        Self {
            single: HashTable::new(),
            contested: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Adds or replaces the claim of a primary, whose rows are still those of its last run.
    pub(super) fn insert(
        &mut self,
        primaries: &Primaries<P, K, V>,
        slot: u32,
        primary: &P,
        key: &K,
        row: &Arc<V>,
    ) {
        if let Some(claims) = self.contested.get_mut(key) {
            claims.insert(primary.clone(), Arc::clone(row));
            return;
        }
        let hash = self.hash(key);
        let is_claim = |one: &Single| one.hash == hash && holds(primaries, one.slot, key);
        let Ok(found) = self.single.find_entry(spread(hash), is_claim) else {
            let claim = Single { hash, slot };
            self.single
                .insert_unique(spread(hash), claim, |one| spread(one.hash));
            return;
        };
        let holder = found.get().slot;
        let held = primaries
            .primary(holder)
            .zip(find(primaries.rows(holder), key));
        if let Some((other, other_row)) = held.filter(|_| holder != slot) {
            let other = (other.clone(), Arc::clone(other_row));
            let claims = BTreeMap::from([other, (primary.clone(), Arc::clone(row))]);
            found.remove();
            self.contested.insert(key.clone(), claims);
        }
    }

    /// Takes the claim of a primary back; a key without claims is forgotten.
    pub(super) fn remove(&mut self, slot: u32, primary: &P, key: &K) {
        if let Some(claims) = self.contested.get_mut(key) {
            claims.remove(primary);
            if claims.is_empty() {
                self.contested.remove(key);
            }
            return;
        }
        let hash = self.hash(key);
        let is_claim = |one: &Single| one.hash == hash && one.slot == slot;
        if let Ok(found) = self.single.find_entry(spread(hash), is_claim) {
            found.remove();
        }
    }

    /// The row of the smallest primary that claims a key.
    pub(super) fn first<'c>(
        &'c self,
        primaries: &'c Primaries<P, K, V>,
        key: &K,
    ) -> Option<&'c Arc<V>> {
        if let Some(claims) = self.contested.get(key) {
            return claims.values().next();
        }
        let hash = self.hash(key);
        let is_claim = |one: &Single| one.hash == hash && holds(primaries, one.slot, key);
        let found = self.single.find(spread(hash), is_claim)?;
        find(primaries.rows(found.slot), key)
    }

    /// Number of keys that have a claim.
    pub(super) fn len(&self) -> usize {
        self.single.len() + self.contested.len()
    }

    fn hash(&self, key: &K) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}

fn holds<P: Clone + Hash + Eq, K: Ord, V>(
    primaries: &Primaries<P, K, V>,
    slot: u32,
    key: &K,
) -> bool {
    find(primaries.rows(slot), key).is_some()
}

/// The table looks at the upper bits too.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
