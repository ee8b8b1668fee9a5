//! Small sorted maps that many rows share.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A sorted map for a few entries, made once: a clone shares them, a change copies them all.
///
/// A [`BTreeMap`] of two labels takes 200 bytes, and its clone as much again. Pods of one
/// deployment have one and the same map here (see [`crate::shared`]).
pub struct FrozenMap<K, V> {
    /// Sorted by key, each once; `None` when empty.
    entries: Option<Arc<[(K, V)]>>,
}

/// Entries of a [`FrozenMap`], sorted by key.
pub type Iter<'m, K, V> =
    std::iter::Map<std::slice::Iter<'m, (K, V)>, fn(&'m (K, V)) -> (&'m K, &'m V)>;

// === impl FrozenMap ===

impl<K, V> FrozenMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self { entries: None }
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_none()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// The entries, sorted by key.
    pub fn as_slice(&self) -> &[(K, V)] {
        self.entries.as_deref().unwrap_or_default()
    }

    /// The entries, sorted by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.as_slice().iter().map(|(key, value)| (key, value))
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Number of maps that share the entries, this one included.
    pub(crate) fn sharers_count(&self) -> usize {
        self.entries.as_ref().map_or(1, Arc::strong_count)
    }
}

impl<K: Ord, V> FrozenMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let entries = self.as_slice();
        let at = entries
            .binary_search_by(|(other, _)| other.borrow().cmp(key))
            .ok()?;
        entries.get(at).map(|(_, value)| value)
    }

    /// Whether there is an entry of this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V: Clone> FrozenMap<K, V> {
    /// Puts an entry into the place of the one of its key, if there is one.
    pub fn insert(&mut self, key: K, value: V) {
        self.extend([(key, value)]);
    }

    /// Adds an entry unless there is one of its key.
    pub fn insert_missing(&mut self, key: K, value: V) {
        if !self.contains_key(&key) {
            self.insert(key, value);
        }
    }

    /// Takes out what `is_kept` does not keep.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&K, &V) -> bool) {
        let kept = self.iter().filter(|(key, value)| is_kept(key, value));
        *self = kept
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
    }
}

impl<K, V> Clone for FrozenMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
        }
    }
}

impl<K, V> Default for FrozenMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for FrozenMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Eq, V: Eq> PartialEq for FrozenMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.entries, &other.entries) {
            (Some(own), Some(others)) => Arc::ptr_eq(own, others) || own == others,
            (None, None) => true,
            _ => false,
        }
    }
}

impl<K: Eq, V: Eq> Eq for FrozenMap<K, V> {}

impl<K: Ord, V: Ord> PartialOrd for FrozenMap<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, V: Ord> Ord for FrozenMap<K, V> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl<K: Hash, V: Hash> Hash for FrozenMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

/// Of entries with one key the last one counts, as in a [`BTreeMap`].
impl<K: Ord, V> FromIterator<(K, V)> for FrozenMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Self {
            entries: (!entries.is_empty()).then(|| Arc::from(entries)),
        }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for FrozenMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord, V> From<BTreeMap<K, V>> for FrozenMap<K, V> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for FrozenMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        let own = self.as_slice().iter().cloned();
        *self = own.chain(entries).collect();
    }
}

impl<'m, K, V> IntoIterator for &'m FrozenMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Iter<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Clone, V: Clone> IntoIterator for FrozenMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().to_vec().into_iter()
    }
}

impl<K: Eq, V: Eq> PartialEq<BTreeMap<K, V>> for FrozenMap<K, V> {
    fn eq(&self, other: &BTreeMap<K, V>) -> bool {
        self.iter().eq(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frozen_map_is_what_a_tree_is(
            entries in prop::collection::vec((0..6_u8, any::<u8>()), 0..8),
            more in prop::collection::vec((0..6_u8, any::<u8>()), 0..4),
            keep in 0..6_u8,
        ) {
            let mut tree: BTreeMap<u8, u8> = entries.iter().copied().collect();
            let mut frozen: FrozenMap<u8, u8> = entries.into_iter().collect();
            prop_assert_eq!(&frozen, &tree);
            for key in 0..6 {
                prop_assert_eq!(frozen.get(&key), tree.get(&key));
            }
            tree.extend(more.iter().copied());
            frozen.extend(more);
            tree.retain(|key, _| *key != keep);
            frozen.retain(|key, _| *key != keep);
            prop_assert_eq!(&frozen, &tree);
            prop_assert_eq!(frozen.len(), tree.len());
            prop_assert_eq!(frozen.is_empty(), tree.is_empty());
            prop_assert_eq!(format!("{frozen:?}"), format!("{tree:?}"));
            prop_assert_eq!(frozen.clone().into_iter().collect::<Vec<_>>(), Vec::from_iter(tree));
        }
    }
}
