//! Secondary indexes: what a user declares and how a table keeps it.

use std::any::TypeId;
use std::hash::Hash;

use smallvec::SmallVec;

use crate::deps::{IndexId, hash_of};
use crate::multimap::MultiMap;
use crate::{Key, Row};

/// A secondary index, named by a marker type: under which keys can a row be found?
///
/// `keys` must be a pure function of its arguments. It may emit any number of keys, none and the
/// same one twice included. It runs on lookups too, to weed out hash collisions, so it should
/// borrow rather than build where it can.
///
/// ```
/// # use ambientd_flow as flow;
/// struct ByHost;
/// impl flow::Index<u32, Vec<String>> for ByHost {
///     type At = str;
///     fn keys(_: &u32, hosts: &Vec<String>, emit: &mut dyn FnMut(&str)) {
///         hosts.iter().for_each(|host| emit(host));
///     }
/// }
/// ```
pub trait Index<K, V>: 'static {
    /// The key of the index: a host, an address, a (namespace, label) pair.
    type At: Hash + Eq + ?Sized;

    /// Emits every key under which the row is to be found.
    fn keys(key: &K, row: &V, emit: &mut dyn FnMut(&Self::At));
}

/// Sorted hashes of the keys of one row in one index, each once.
pub(crate) type Hashes = SmallVec<[u64; 4]>;

/// One registered index: hash of the index key → keys of rows.
pub(crate) struct Postings<K, V> {
    pub(crate) id: IndexId,
    pub(crate) marker: TypeId,
    hashes: fn(&K, &V) -> Hashes,
    map: MultiMap<u64, K>,
}

impl<K: Key, V: Row> Postings<K, V> {
    pub(crate) fn new<I: Index<K, V>>(id: IndexId) -> Self {
        Self {
            id,
            marker: TypeId::of::<I>(),
            hashes: hashes::<I, K, V>,
            map: MultiMap::default(),
        }
    }

    /// Moves a row from its old to its new places; reports the hashes of both.
    pub(crate) fn replace(
        &mut self,
        key: &K,
        old: Option<&V>,
        new: Option<&V>,
        mut touch: impl FnMut(IndexId, u64),
    ) {
        let before = old.map(|row| (self.hashes)(key, row)).unwrap_or_default();
        let after = new.map(|row| (self.hashes)(key, row)).unwrap_or_default();
        for hash in &before {
            touch(self.id, *hash);
            if after.binary_search(hash).is_err() {
                self.map.remove(*hash, key);
            }
        }
        for hash in &after {
            if before.binary_search(hash).is_err() {
                touch(self.id, *hash);
                self.map.insert(*hash, key.clone());
            }
        }
    }

    /// Keys of rows that may have the index key of this hash, in order.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = &K> {
        self.map.at(hash)
    }

    /// Whether the index holds exactly what these rows emit.
    pub(crate) fn agrees_with<'r>(&self, rows: impl Iterator<Item = (&'r K, &'r V)>) -> bool {
        let mut fresh = MultiMap::default();
        for (key, row) in rows {
            for hash in (self.hashes)(key, row) {
                fresh.insert(hash, key.clone());
            }
        }
        self.map.same_content(&fresh)
    }
}

fn hashes<I: Index<K, V>, K, V>(key: &K, row: &V) -> Hashes {
    let mut hashes = Hashes::new();
    I::keys(key, row, &mut |at| hashes.push(hash_of(at)));
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Whether a row really has this index key, hash collisions aside.
pub(crate) fn is_at<I: Index<K, V>, K, V>(key: &K, row: &V, at: &I::At) -> bool {
    let mut found = false;
    I::keys(key, row, &mut |other| found |= other == at);
    found
}
