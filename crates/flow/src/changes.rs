//! What a commit changed.

use std::fmt;
use std::sync::Arc;

use crate::deps::DepId;

/// One row that differs after a commit. `old` and `new` are never equal and never both `None`.
pub struct Change<K, V> {
    /// Key of the row.
    pub key: K,
    /// The row before the commit; `None` if it was not there.
    pub old: Option<Arc<V>>,
    /// The row after the commit; `None` if it was removed.
    pub new: Option<Arc<V>>,
}

impl<K: Clone, V> Clone for Change<K, V> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            old: self.old.clone(),
            new: self.new.clone(),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Change<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?} -> {:?}", self.key, self.old, self.new)
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Change<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.old == other.old && self.new == other.new
    }
}

/// All rows that differ after a commit, sorted by key, with the dependencies they touch.
pub struct Changes<K, V> {
    rows: Vec<Change<K, V>>,
    /// Sorted, each once; empty exactly when `rows` is.
    touched: Vec<DepId>,
}

impl<K, V> Changes<K, V> {
    pub(crate) fn new(rows: Vec<Change<K, V>>, mut touched: Vec<DepId>) -> Self {
        touched.sort_unstable();
        touched.dedup();
        Self { rows, touched }
    }

    /// The changed rows, sorted by key.
    pub fn rows(&self) -> &[Change<K, V>] {
        &self.rows
    }

    /// Keys of the changed rows, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.rows.iter().map(|change| &change.key)
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of changed rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn touched(&self) -> &[DepId] {
        &self.touched
    }
}

/// Everything that one batch has touched so far, over all tables.
///
/// An owner that adds the changes of every table as it commits them, and lets each stage ask
/// [`crate::Derived::touched_by`], cannot forget an upstream: ids are unique per table, so the
/// changes of tables that a stage does not read dirty nothing.
#[derive(Default)]
pub struct Touched {
    ids: Vec<DepId>,
}

impl Touched {
    /// Nothing touched yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a commit touched.
    pub fn add<K, V>(&mut self, changes: &Changes<K, V>) {
        self.ids.extend_from_slice(changes.touched());
    }

    pub(crate) fn ids(&self) -> &[DepId] {
        &self.ids
    }
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            touched: Vec::new(),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Changes<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rows).finish()
    }
}
