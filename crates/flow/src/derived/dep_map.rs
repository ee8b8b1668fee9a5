//! From one thing that was read to those who read it, in few bytes.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::readers::Reader;
use crate::deps::DepId;

/// Key → ordered set of readers.
///
/// An entry is twelve bytes, the halves of the key and one word: a general map takes twice that,
/// which was 140 bytes more for each pod of a mesh.
#[derive(Default)]
pub(super) struct DepMap {
    /// The key is a hash already.
    entries: HashTable<Entry>,
    sets: Vec<BTreeSet<Reader>>,
    free: Vec<u32>,
}

struct Entry {
    dep: [u32; 2],
    value: u32,
}

/// What the word of an entry says.
enum Value {
    One(Reader),
    /// Where in the sets.
    Many(u32),
}

/// The bit of a set's place; readers leave it to us.
const MANY: u32 = 1 << 30;

// === impl Entry ===

impl Entry {
    fn new(dep: DepId, value: &Value) -> Self {
        let bits = dep.bits();
        let mut entry = Self {
            dep: [(bits >> 32) as u32, bits as u32],
            value: 0,
        };
        entry.set(value);
        entry
    }

    fn dep(&self) -> DepId {
        let [high, low] = self.dep;
        DepId::from_bits(u64::from(high) << 32 | u64::from(low))
    }

    fn value(&self) -> Value {
        if self.value & MANY == 0 {
            Value::One(Reader::from_bits(self.value))
        } else {
            Value::Many(self.value & !MANY)
        }
    }

    fn set(&mut self, value: &Value) {
        self.value = match value {
            Value::One(reader) => reader.bits(),
            Value::Many(at) => at | MANY,
        };
    }
}

// === impl DepMap ===

impl DepMap {
    pub(super) fn insert(&mut self, dep: DepId, reader: Reader) {
        let Some(entry) = self
            .entries
            .find_mut(dep.bits(), |entry| entry.dep() == dep)
        else {
            let entry = Entry::new(dep, &Value::One(reader));
            self.entries
                .insert_unique(dep.bits(), entry, |entry| entry.dep().bits());
            return;
        };
        match entry.value() {
            Value::One(one) if one == reader => {}
            Value::One(one) => {
                let set = BTreeSet::from([one, reader]);
                let at = self.free.pop().unwrap_or(self.sets.len() as u32);
                match self.sets.get_mut(at as usize) {
                    Some(vacant) => *vacant = set,
                    None => self.sets.push(set),
                }
                entry.set(&Value::Many(at));
            }
            Value::Many(at) => {
                if let Some(set) = self.sets.get_mut(at as usize) {
                    set.insert(reader);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, dep: DepId, reader: Reader) {
        let Ok(entry) = self
            .entries
            .find_entry(dep.bits(), |entry| entry.dep() == dep)
        else {
            return;
        };
        let is_last = match entry.get().value() {
            Value::One(one) => one == reader,
            Value::Many(at) => {
                let Some(set) = self.sets.get_mut(at as usize) else {
                    return;
                };
                set.remove(&reader);
                if set.is_empty() {
                    self.free.push(at);
                }
                set.is_empty()
            }
        };
        if is_last {
            entry.remove();
        }
    }

    /// The readers of one key, in their order.
    pub(super) fn at(&self, dep: DepId) -> impl Iterator<Item = Reader> {
        let found = self.entries.find(dep.bits(), |entry| entry.dep() == dep);
        let (one, many) = match found.map(Entry::value) {
            None => (None, None),
            Some(Value::One(one)) => (Some(one), None),
            Some(Value::Many(at)) => (None, self.sets.get(at as usize)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }

    /// Number of keys that have a reader.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether both hold the same readers at the same keys.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        let mut deps = self.entries.iter().map(Entry::dep);
        self.len() == other.len() && deps.all(|dep| self.at(dep).eq(other.at(dep)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_of_sets(
            steps in prop::collection::vec((any::<bool>(), 0u64..12, 0u32..5, any::<bool>()), 0..200)
        ) {
            let mut map = DepMap::default();
            let mut model = BTreeMap::<u64, BTreeSet<Reader>>::new();
            for (adds, key, number, is_group) in steps {
                // Keys that differ in either half.
                let key = (key & 3) << 33 | key >> 2;
                let dep = DepId::from_bits(key);
                let bits = if is_group { number | 1 << 31 } else { number };
                let reader = Reader::from_bits(bits);
                if adds {
                    map.insert(dep, reader);
                    model.entry(key).or_default().insert(reader);
                } else {
                    map.remove(dep, reader);
                    model.get_mut(&key).map(|set| set.remove(&reader));
                    model.retain(|_, set| !set.is_empty());
                }
            }
            prop_assert_eq!(map.len(), model.len());
            let mut again = DepMap::default();
            for (key, set) in &model {
                let dep = DepId::from_bits(*key);
                prop_assert!(map.at(dep).eq(set.iter().copied()));
                for reader in set {
                    again.insert(dep, *reader);
                }
            }
            prop_assert!(map.same_content(&again));
            again.insert(DepId::from_bits(1 << 60), Reader::from_bits(0));
            prop_assert!(!map.same_content(&again));
        }
    }
}
