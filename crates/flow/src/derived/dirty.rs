//! The set of primaries to recompute.

use std::collections::BTreeSet;

/// Primaries to recompute, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty<P> {
    primaries: BTreeSet<P>,
}

impl<P: Ord> Dirty<P> {
    /// Nothing to recompute.
    pub fn new() -> Self {
        Self {
            primaries: BTreeSet::new(),
        }
    }

    /// Adds one primary.
    pub fn insert(&mut self, primary: P) {
        self.primaries.insert(primary);
    }

    /// Whether nothing is to be recomputed.
    pub fn is_empty(&self) -> bool {
        self.primaries.is_empty()
    }

    /// Number of primaries to recompute.
    pub fn len(&self) -> usize {
        self.primaries.len()
    }

    /// The primaries, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &P> {
        self.primaries.iter()
    }

    pub(super) fn into_sorted(self) -> Vec<P> {
        self.primaries.into_iter().collect()
    }
}

impl<P: Ord> Default for Dirty<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Ord> Extend<P> for Dirty<P> {
    fn extend<T: IntoIterator<Item = P>>(&mut self, primaries: T) {
        self.primaries.extend(primaries);
    }
}

impl<P: Ord> FromIterator<P> for Dirty<P> {
    fn from_iter<T: IntoIterator<Item = P>>(primaries: T) -> Self {
        Self {
            primaries: primaries.into_iter().collect(),
        }
    }
}
