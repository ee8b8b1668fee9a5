//! A map from one key to an ordered set of values, cheap when most sets hold one value.

use std::collections::BTreeSet;
use std::hash::Hash;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

#[derive(Debug, PartialEq)]
enum Posting<T> {
    One(T),
    /// In a box, for most keys have one value, and a set would make those larger too.
    #[allow(clippy::box_collection)]
    Many(Box<BTreeSet<T>>),
}

/// Key → ordered set of values. A key without values is not kept, so equal content is `==` only
/// through [`MultiMap::same_content`]: a set that shrank to one value keeps its shape.
#[derive(Debug)]
pub(crate) struct MultiMap<Q, T> {
    map: HashMap<Q, Posting<T>>,
}

impl<Q, T> Default for MultiMap<Q, T> {
    fn default() -> Self {
        Self {
            map: HashMap::new(),
        }
    }
}

impl<Q: Hash + Eq + Copy, T: Ord + Clone> MultiMap<Q, T> {
    pub(crate) fn insert(&mut self, at: Q, value: T) {
        match self.map.entry(at) {
            Entry::Vacant(entry) => {
                entry.insert(Posting::One(value));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Posting::One(one) if *one == value => {}
                Posting::One(one) => {
                    let many = BTreeSet::from([one.clone(), value]);
                    entry.insert(Posting::Many(Box::new(many)));
                }
                Posting::Many(many) => {
                    many.insert(value);
                }
            },
        }
    }

    pub(crate) fn remove(&mut self, at: Q, value: &T) {
        let Entry::Occupied(mut entry) = self.map.entry(at) else {
            return;
        };
        let empty = match entry.get_mut() {
            Posting::One(one) => one == value,
            Posting::Many(many) => {
                many.remove(value);
                many.is_empty()
            }
        };
        if empty {
            entry.remove();
        }
    }

    /// The values at one key, in their order.
    pub(crate) fn at(&self, at: Q) -> impl Iterator<Item = &T> {
        let (one, many) = match self.map.get(&at) {
            None => (None, None),
            Some(Posting::One(one)) => (Some(one), None),
            Some(Posting::Many(many)) => (None, Some(many.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Number of keys that have a value.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether both hold the same values at the same keys.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        self.len() == other.len() && self.map.keys().all(|q| self.at(*q).eq(other.at(*q)))
    }
}
