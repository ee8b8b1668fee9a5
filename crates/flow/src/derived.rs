//! Derived tables: a pure function per primary, recomputed when what it read changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::changes::{Changes, Touched};
use crate::deps::{DepId, Reads, Recorded};
use crate::index::Index;
use crate::table::{CHECKED_ROWS_MAX, Table, View};
use crate::verify;
use crate::{Key, Row};

mod claims;
mod dep_map;
mod dirty;
mod output;
mod primaries;
mod readers;

use claims::Claims;
pub use dirty::Dirty;
pub use output::Output;
use primaries::{Primaries, find};
use readers::Readers;

/// Smallest dirty set, in primaries, that is derived on several threads.
const PARALLEL_PRIMARIES_MIN: usize = 256;

/// A table computed from other tables: primary `P` → rows `(K, V)` and notes `N`.
///
/// Several primaries may yield the same key. All claims are kept and the smallest primary shows;
/// when it withdraws, the next one does. Notes are what a run has to say beside its rows (a
/// finding, a status condition); they are kept per primary and are not part of the table.
pub struct Derived<P, K, V, N> {
    table: Table<K, V>,
    primaries: Primaries<P, K, V>,
    readers: Readers,
    /// Every claim to a key; that of the smallest primary is the row of the table.
    claims: Claims<P, K, V>,
    /// Only primaries that have a note.
    notes: BTreeMap<P, Vec<N>>,
    notes_generation: u64,
    runs: u64,
}

/// A primary, its reads and its output.
type Run<P, K, V, N> = (P, Recorded, Output<K, V, N>);

impl<P: Key, K: Key, V: Row, N: PartialEq + Send + Sync + 'static> Derived<P, K, V, N> {
    /// An empty derived table. The name serves reports only.
    pub fn new(name: &'static str) -> Self {
        Self {
            table: Table::new(name),
            primaries: Primaries::new(),
            readers: Readers::default(),
            claims: Claims::new(),
            notes: BTreeMap::new(),
            notes_generation: 0,
            runs: 0,
        }
    }

    /// Adds an index to the derived rows.
    pub fn with_index<I: Index<K, V>>(mut self) -> Self {
        self.table = self.table.with_index::<I>();
        self
    }

    /// The tracked read path, for the derive functions of later stages.
    pub fn view(&self) -> View<'_, K, V> {
        self.table.view()
    }

    /// The rows, untracked: for encoders and debug pages.
    pub fn table(&self) -> &Table<K, V> {
        &self.table
    }

    /// Adds every primary whose recorded reads meet the change, under old or new rows.
    ///
    /// Call it once for each upstream table. A primary that has never run has read nothing, so
    /// the keys of the *primary* table must be inserted into `dirty` as well.
    pub fn touched<K2, V2>(&self, dirty: &mut Dirty<P>, changes: &Changes<K2, V2>) {
        self.touched_ids(dirty, changes.touched());
    }

    /// As [`Self::touched`], for everything that a batch has touched so far.
    pub fn touched_by(&self, dirty: &mut Dirty<P>, touched: &Touched) {
        self.touched_ids(dirty, touched.ids());
    }

    fn touched_ids(&self, dirty: &mut Dirty<P>, ids: &[DepId]) {
        for slot in ids.iter().flat_map(|dep| self.readers.of(*dep)) {
            if let Some(primary) = self.primaries.primary(slot) {
                dirty.insert(primary.clone());
            }
        }
    }

    /// Recomputes the dirty primaries and commits what differs.
    ///
    /// `derive` must be a pure function of its primary and of what it reads through `reads`. From
    /// 256 primaries on it runs on several threads; the commit is sequential and ordered, so
    /// neither threads nor batching show in the result.
    pub fn update(
        &mut self,
        dirty: Dirty<P>,
        derive: impl Fn(&P, &mut Reads) -> Output<K, V, N> + Sync,
    ) -> Changes<K, V> {
        let primaries: Vec<P> = dirty.into_sorted();
        let run = |primary: P| {
            let mut reads = Reads::new();
            let output = derive(&primary, &mut reads);
            (primary, reads.finish(), output)
        };
        let runs: Vec<Run<P, K, V, N>> = if primaries.len() >= PARALLEL_PRIMARIES_MIN {
            primaries.into_par_iter().map(run).collect()
        } else {
            primaries.into_iter().map(run).collect()
        };
        self.runs += runs.len() as u64;
        let mut affected = Vec::new();
        let mut notes_changed = false;
        for (primary, recorded, output) in runs {
            let (rows, notes, gone) = output.into_parts();
            notes_changed |= self.replace_notes(&primary, notes);
            let slot = match self.primaries.slot(&primary) {
                None if gone => continue,
                None => self.primaries.insert(primary.clone()),
                Some(slot) => slot,
            };
            self.replace_rows(slot, &primary, rows, &mut affected);
            if !gone {
                if let Some(deps) = self.primaries.deps_mut(slot) {
                    self.readers.replace(slot, deps, recorded);
                }
            } else if let Some(deps) = self.primaries.remove(slot) {
                self.readers.forget(slot, deps);
            }
        }
        self.notes_generation += u64::from(notes_changed);
        self.commit(affected)
    }

    /// The notes of every primary that has some, sorted by primary.
    pub fn notes(&self) -> impl Iterator<Item = (&P, &[N])> {
        self.notes
            .iter()
            .map(|(primary, notes)| (primary, notes.as_slice()))
    }

    /// The notes of one primary.
    pub fn notes_of(&self, primary: &P) -> &[N] {
        self.notes
            .get(primary)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Grows whenever an update changed any note, so that equal generations mean equal notes.
    pub fn notes_generation(&self) -> u64 {
        self.notes_generation
    }

    /// How many times a primary was derived so far: what edits cost, whatever came of them.
    pub fn run_count(&self) -> u64 {
        self.runs
    }

    /// Number of primaries that are kept, those that yield nothing included.
    pub fn primary_count(&self) -> usize {
        self.primaries.len()
    }

    /// Number of distinct things that some primary has read.
    pub fn dependency_count(&self) -> usize {
        self.readers.len()
    }

    fn replace_notes(&mut self, primary: &P, notes: Vec<N>) -> bool {
        if self.notes_of(primary) == notes {
            return false;
        }
        if notes.is_empty() {
            self.notes.remove(primary);
        } else {
            self.notes.insert(primary.clone(), notes);
        }
        true
    }

    /// Puts new rows into the place of those of the last run, and moves the claims.
    fn replace_rows(&mut self, slot: u32, primary: &P, rows: Vec<(K, V)>, affected: &mut Vec<K>) {
        let previous = self.primaries.rows(slot);
        let mut next: Vec<(K, Arc<V>)> = Vec::with_capacity(rows.len());
        for (key, row) in first_rows(rows) {
            match find(previous, &key) {
                // An equal row keeps its `Arc`, and with it the cut-off by pointer downstream.
                Some(old) if **old == row => next.push((key, Arc::clone(old))),
                _ => {
                    let row = Arc::new(row);
                    self.claims
                        .insert(&self.primaries, slot, primary, &key, &row);
                    affected.push(key.clone());
                    next.push((key, row));
                }
            }
        }
        for (key, _) in previous {
            if find(&next, key).is_none() {
                self.claims.remove(slot, primary, key);
                affected.push(key.clone());
            }
        }
        self.primaries.set_rows(slot, next);
    }

    fn commit(&mut self, mut affected: Vec<K>) -> Changes<K, V> {
        affected.sort_unstable();
        affected.dedup();
        let (claims, primaries) = (&self.claims, &self.primaries);
        let winners = affected.into_iter().map(|key| {
            let row = claims.first(primaries, &key).map(Arc::clone);
            (key, row)
        });
        let changes = self.table.commit(winners);
        debug_assert!(
            self.is_consistent(),
            "invariant: {} shows its claims",
            self.table.name()
        );
        changes
    }

    /// Whether the table shows the first claim of every key, and the reverse map the reads.
    fn is_consistent(&self) -> bool {
        let len = self.table.len().max(self.primaries.len());
        if len > CHECKED_ROWS_MAX || !verify::is_on() {
            return true;
        }
        let shows = |key, row| self.claims.first(&self.primaries, key) == Some(row);
        self.table.len() == self.claims.len()
            && self.readers.agree_with(self.primaries.deps())
            && self.table.iter().all(|(key, row)| shows(key, row))
    }
}

/// Rows sorted by key, the first one of each key.
fn first_rows<K: Ord, V>(mut rows: Vec<(K, V)>) -> Vec<(K, V)> {
    let emitted = rows.len();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|later, kept| later.0 == kept.0);
    debug_assert!(
        rows.len() == emitted,
        "invariant: a primary yields each key once"
    );
    rows
}
