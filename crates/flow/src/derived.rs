//! Derived tables: a pure function per primary, recomputed when what it read changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use rayon::prelude::*;

use crate::changes::{Changes, Touched};
use crate::deps::{DepId, Reads};
use crate::index::Index;
use crate::multimap::MultiMap;
use crate::table::{CHECKED_ROWS_MAX, Table, View};
use crate::{Key, Row};

mod claims;
mod dirty;
mod output;

use claims::Claims;
pub use dirty::Dirty;
pub use output::Output;

/// Smallest dirty set, in primaries, that is derived on several threads.
const PARALLEL_PRIMARIES_MIN: usize = 256;

/// A table computed from other tables: primary `P` → rows `(K, V)` and notes `N`.
///
/// Several primaries may yield the same key. All claims are kept and the smallest primary shows;
/// when it withdraws, the next one does. Notes are what a run has to say beside its rows (a
/// finding, a status condition); they are kept per primary and are not part of the table.
pub struct Derived<P, K, V, N> {
    table: Table<K, V>,
    /// Slots let the reverse map name a primary in four bytes.
    slots: HashMap<P, u32>,
    entries: Vec<Option<Entry<P, K, V>>>,
    free: Vec<u32>,
    /// Who read what: the reverse of `Entry::deps`.
    readers: MultiMap<DepId, u32>,
    /// Every claim to a key; that of the smallest primary is the row of the table.
    claims: Claims<P, K, V>,
    /// Only primaries that have a note.
    notes: BTreeMap<P, Vec<N>>,
    notes_generation: u64,
    runs: u64,
}

/// A primary, its reads and its output.
type Run<P, K, V, N> = (P, Box<[DepId]>, Output<K, V, N>);

/// What the last run of one primary left behind.
struct Entry<P, K, V> {
    primary: P,
    /// Sorted, each once.
    deps: Box<[DepId]>,
    /// Sorted by key, each once.
    rows: Vec<(K, Arc<V>)>,
}

impl<P: Key, K: Key, V: Row, N: PartialEq + Send + Sync + 'static> Derived<P, K, V, N> {
    /// An empty derived table. The name serves reports only.
    pub fn new(name: &'static str) -> Self {
        Self {
            table: Table::new(name),
            slots: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            readers: MultiMap::default(),
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
        for dep in ids {
            for slot in self.readers.at(*dep) {
                if let Some(entry) = self.entry(*slot) {
                    dirty.insert(entry.primary.clone());
                }
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
        for (primary, deps, output) in runs {
            let (rows, notes, gone) = output.into_parts();
            notes_changed |= self.replace_notes(&primary, notes);
            let previous = self.replace_entry(&primary, deps, gone);
            self.replace_claims(primary, previous, rows, &mut affected);
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
        self.slots.len()
    }

    /// Number of distinct things that some primary has read.
    pub fn dependency_count(&self) -> usize {
        self.readers.len()
    }

    fn entry(&self, slot: u32) -> Option<&Entry<P, K, V>> {
        self.entries.get(slot as usize)?.as_ref()
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

    /// Records new reads (or forgets a primary that is gone) and takes its previous rows out.
    fn replace_entry(&mut self, primary: &P, deps: Box<[DepId]>, gone: bool) -> Vec<(K, Arc<V>)> {
        if gone {
            let Some(slot) = self.slots.remove(primary) else {
                return Vec::new();
            };
            self.free.push(slot);
            let entry = self.entries.get_mut(slot as usize).and_then(Option::take);
            let (old_deps, rows) = entry
                .map(|entry| (entry.deps, entry.rows))
                .unwrap_or_default();
            self.replace_readers(slot, &old_deps, &[]);
            return rows;
        }
        let slot = self.slot_of(primary);
        let Some(Some(entry)) = self.entries.get_mut(slot as usize) else {
            return Vec::new();
        };
        let rows = std::mem::take(&mut entry.rows);
        if entry.deps != deps {
            let old_deps = std::mem::replace(&mut entry.deps, deps.clone());
            self.replace_readers(slot, &old_deps, &deps);
        }
        rows
    }

    fn slot_of(&mut self, primary: &P) -> u32 {
        if let Some(slot) = self.slots.get(primary) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or(self.entries.len() as u32);
        let entry = Some(Entry {
            primary: primary.clone(),
            deps: Box::default(),
            rows: Vec::new(),
        });
        match self.entries.get_mut(slot as usize) {
            Some(vacant) => *vacant = entry,
            None => self.entries.push(entry),
        }
        self.slots.insert(primary.clone(), slot);
        slot
    }

    fn replace_readers(&mut self, slot: u32, old: &[DepId], new: &[DepId]) {
        for dep in old.iter().filter(|dep| new.binary_search(dep).is_err()) {
            self.readers.remove(*dep, &slot);
        }
        for dep in new.iter().filter(|dep| old.binary_search(dep).is_err()) {
            self.readers.insert(*dep, slot);
        }
    }

    /// Moves the claims of a primary from its previous rows to its new ones.
    fn replace_claims(
        &mut self,
        primary: P,
        previous: Vec<(K, Arc<V>)>,
        rows: Vec<(K, V)>,
        affected: &mut Vec<K>,
    ) {
        let mut next: Vec<(K, Arc<V>)> = Vec::with_capacity(rows.len());
        for (key, row) in first_rows(rows) {
            match find(&previous, &key) {
                // An equal row keeps its `Arc`, and with it the cut-off by pointer downstream.
                Some(old) if **old == row => next.push((key, Arc::clone(old))),
                _ => {
                    let row = Arc::new(row);
                    self.claims.insert(key.clone(), &primary, &row);
                    affected.push(key.clone());
                    next.push((key, row));
                }
            }
        }
        for (key, _) in previous {
            if find(&next, &key).is_some() {
                continue;
            }
            self.claims.remove(&key, &primary);
            affected.push(key);
        }
        if let Some(slot) = self.slots.get(&primary)
            && let Some(Some(entry)) = self.entries.get_mut(*slot as usize)
        {
            entry.rows = next;
        }
    }

    fn commit(&mut self, mut affected: Vec<K>) -> Changes<K, V> {
        affected.sort_unstable();
        affected.dedup();
        let claims = &self.claims;
        let winners = affected.into_iter().map(|key| {
            let row = claims.first(&key).map(Arc::clone);
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
        if self.table.len() > CHECKED_ROWS_MAX || self.slots.len() > CHECKED_ROWS_MAX {
            return true;
        }
        let mut readers = MultiMap::default();
        for (slot, entry) in (0u32..).zip(&self.entries) {
            for dep in entry.iter().flat_map(|entry| &entry.deps) {
                readers.insert(*dep, slot);
            }
        }
        let mut keys = self.table.iter();
        self.table.len() == self.claims.len()
            && self.readers.same_content(&readers)
            && keys.all(|(key, row)| self.claims.first(key).is_some_and(|first| first == row))
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

/// Looks a key up in rows sorted by key.
fn find<'r, K: Ord, V>(rows: &'r [(K, Arc<V>)], key: &K) -> Option<&'r Arc<V>> {
    let found = rows.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
    rows.get(found).map(|(_, row)| row)
}
