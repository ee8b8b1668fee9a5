//! Tables of shared rows, and the tracked view through which stages read them.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::changes::{Change, Changes};
use crate::deps::{DepId, IndexId, Reads, TableId, hash_of};
use crate::index::{Index, Postings, is_at};
use crate::{Key, Row, verify};

/// Largest table, in rows, whose indexes debug builds compare with the rows after each commit.
pub(crate) const CHECKED_ROWS_MAX: usize = 2_000;

/// An ordered map from key to shared row, with secondary indexes that follow each commit.
///
/// Only its owner mutates it, through [`Table::commit`] and [`Table::resync`].
pub struct Table<K, V> {
    name: &'static str,
    id: TableId,
    rows: BTreeMap<K, Arc<V>>,
    indexes: Vec<Postings<K, V>>,
}

// === impl Table ===

impl<K: Key, V: Row> Table<K, V> {
    /// An empty table without indexes. The name serves reports only.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            id: TableId::next(),
            rows: BTreeMap::new(),
            indexes: Vec::new(),
        }
    }

    /// Adds an index; registering one twice is the same as once.
    pub fn with_index<I: Index<K, V>>(mut self) -> Self {
        if self.postings(TypeId::of::<I>()).is_none() {
            let id = IndexId(IndexId::FIRST + self.indexes.len() as u32);
            let mut postings = Postings::new::<I>(id);
            for (key, row) in &self.rows {
                postings.replace(key, None, Some(row), |_, _| {});
            }
            self.indexes.push(postings);
        }
        self
    }

    /// The name given at construction.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One row, untracked: for owners, encoders and debug pages. Stages hold a [`View`] instead.
    pub fn row(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(key)
    }

    /// All rows sorted by key, untracked: for owners, encoders and debug pages.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.rows.iter()
    }

    /// The tracked read path, for derive functions.
    pub fn view(&self) -> View<'_, K, V> {
        View { table: self }
    }

    /// Applies a batch: `Some` upserts, `None` removes. The last edit of a key wins; an edit that
    /// leaves a row equal to what it was is no change, and the old `Arc` stays.
    pub fn commit(
        &mut self,
        edits: impl IntoIterator<Item = (K, Option<Arc<V>>)>,
    ) -> Changes<K, V> {
        let was_empty = self.rows.is_empty();
        let mut rows = Vec::new();
        let mut touched = Vec::new();
        for (key, new) in last_edits(edits) {
            if same_row(self.rows.get(&key), new.as_ref()) {
                continue;
            }
            let old = match &new {
                Some(row) => self.rows.insert(key.clone(), Arc::clone(row)),
                None => self.rows.remove(&key),
            };
            touched.push(DepId::row(self.id, &key));
            for postings in &mut self.indexes {
                postings.replace(&key, old.as_deref(), new.as_deref(), |index, hash| {
                    touched.push(DepId::at(self.id, index, hash));
                });
            }
            rows.push(Change { key, old, new });
        }
        if !rows.is_empty() {
            touched.push(DepId::whole(self.id));
        }
        if was_empty {
            // Built anew of what is sorted, its nodes are full; inserted one by one, only half.
            self.rows = std::mem::take(&mut self.rows).into_iter().collect();
        }
        debug_assert!(
            self.is_consistent(),
            "invariant: indexes of {} follow its rows",
            self.name
        );
        Changes::new(rows, touched)
    }

    /// Replaces the whole content: absent keys are removed, equal rows are no change. The last
    /// row given for a key wins.
    pub fn resync(&mut self, rows: impl IntoIterator<Item = (K, Arc<V>)>) -> Changes<K, V> {
        let mut edits: BTreeMap<K, Option<Arc<V>>> = rows
            .into_iter()
            .map(|(key, row)| (key, Some(row)))
            .collect();
        let absent: Vec<K> = self
            .rows
            .keys()
            .filter(|key| !edits.contains_key(key))
            .cloned()
            .collect();
        edits.extend(absent.into_iter().map(|key| (key, None)));
        self.commit(edits)
    }

    fn postings(&self, marker: TypeId) -> Option<&Postings<K, V>> {
        self.indexes
            .iter()
            .find(|postings| postings.marker == marker)
    }

    fn is_consistent(&self) -> bool {
        self.len() > CHECKED_ROWS_MAX
            || !verify::is_on()
            || self.indexes.iter().all(|postings| {
                postings.agrees_with(self.rows.iter().map(|(key, row)| (key, row.as_ref())))
            })
    }
}

fn same_row<V: PartialEq>(old: Option<&Arc<V>>, new: Option<&Arc<V>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
        (None, None) => true,
        _ => false,
    }
}

/// The edits sorted by key, only the last one of each key.
fn last_edits<K: Ord, E>(edits: impl IntoIterator<Item = (K, E)>) -> Vec<(K, E)> {
    let mut edits: Vec<(K, E)> = edits.into_iter().collect();
    edits.sort_by(|a, b| a.0.cmp(&b.0));
    // `dedup_by` drops the later of two neighbours (its first argument), so swap it forward.
    edits.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    edits
}

/// The tracked read path into a table: every read, hit or miss, is recorded in [`Reads`].
pub struct View<'t, K, V> {
    table: &'t Table<K, V>,
}

// === impl View ===

impl<K, V> Clone for View<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for View<'_, K, V> {}

impl<'t, K: Key, V: Row> View<'t, K, V> {
    /// The row of a key. Depends on that key alone.
    pub fn get(&self, reads: &mut Reads, key: &K) -> Option<&'t Arc<V>> {
        reads.record(DepId::row(self.table.id, key));
        self.table.rows.get(key)
    }

    /// The rows found at an index key, sorted by their own key. Depends on that index key alone.
    ///
    /// An index that the table does not have is a programming error: debug builds assert, release
    /// builds answer rightly from a scan, with a dependency on the whole table.
    pub fn by<I: Index<K, V>>(
        &self,
        reads: &mut Reads,
        at: &I::At,
    ) -> impl Iterator<Item = (&'t K, &'t Arc<V>)> + use<'t, I, K, V> {
        let table = self.table;
        let mut found: SmallVec<[(&'t K, &'t Arc<V>); 4]> = SmallVec::new();
        if let Some(postings) = table.postings(TypeId::of::<I>()) {
            let hash = hash_of(at);
            reads.record(DepId::at(table.id, postings.id, hash));
            let rows = postings
                .candidates(hash)
                .filter_map(|key| table.rows.get_key_value(key));
            found.extend(rows.filter(|(key, row)| is_at::<I, K, V>(key, row, at)));
        } else {
            debug_assert!(
                false,
                "invariant: {} has index {}",
                table.name,
                std::any::type_name::<I>()
            );
            found.extend(
                self.scan(reads)
                    .filter(|(key, row)| is_at::<I, K, V>(key, row, at)),
            );
        }
        found.into_iter()
    }

    /// Whether any row is found at an index key: as [`View::by`], without a look at all of them.
    pub fn any<I: Index<K, V>>(&self, reads: &mut Reads, at: &I::At) -> bool {
        let table = self.table;
        let Some(postings) = table.postings(TypeId::of::<I>()) else {
            return self.by::<I>(reads, at).next().is_some();
        };
        let hash = hash_of(at);
        reads.record(DepId::at(table.id, postings.id, hash));
        let mut rows = postings
            .candidates(hash)
            .filter_map(|key| table.rows.get_key_value(key));
        rows.any(|(key, row)| is_at::<I, K, V>(key, row, at))
    }

    /// All rows sorted by key. Depends on the whole table: any change to it recomputes the
    /// reader, so prefer [`View::by`].
    pub fn scan(
        &self,
        reads: &mut Reads,
    ) -> impl Iterator<Item = (&'t K, &'t Arc<V>)> + use<'t, K, V> {
        reads.record(DepId::whole(self.table.id));
        self.table.rows.iter()
    }
}
