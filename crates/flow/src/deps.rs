//! Identities of what a derive function read, and the record of its reads.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

/// Identity of one table instance, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TableId(u32);

impl TableId {
    /// Takes the next identity. The counter is a source of identity only: no result depends on
    /// the number, so two processes that hand them out in another order still agree.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Which way into a table was read: the key itself, the whole table, or one of its indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IndexId(pub(crate) u32);

impl IndexId {
    const PRIMARY: Self = Self(0);
    const WHOLE: Self = Self(1);
    /// The first of the ids given to the indexes that a table registers.
    pub(crate) const FIRST: u32 = 2;
}

/// One thing that can be read and can change: a hash of the table, the way into it and the key.
///
/// A mesh of 100,000 pods has some millions of them, so each is no more than that hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DepId(u64);

impl DepId {
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn row<K: Hash>(table: TableId, key: &K) -> Self {
        Self::at(table, IndexId::PRIMARY, hash_of(key))
    }

    pub(crate) fn at(table: TableId, index: IndexId, hash: u64) -> Self {
        /// Odd, so that no two ways into tables are mapped to the same mask.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let way = u64::from(table.0) << 32 | u64::from(index.0);
        Self(hash ^ way.wrapping_mul(SPREAD))
    }

    pub(crate) fn whole(table: TableId) -> Self {
        Self::at(table, IndexId::WHOLE, 0)
    }
}

/// Hashes with fixed keys, so that runs are reproducible. Chosen collisions are harmless to
/// correctness: they cost recomputes.
pub(crate) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The record of what one run of a derive function read, hits and misses alike.
///
/// [`crate::Derived::update`] makes one for each primary; a derive function only passes it on.
#[derive(Debug, Default)]
pub struct Reads {
    own: SmallVec<[DepId; 8]>,
    shared: SmallVec<[DepId; 8]>,
    is_shared: bool,
}

/// Finished [`Reads`]: no dependency stands twice.
pub(crate) struct Recorded {
    /// What this primary alone is expected to have read.
    pub(crate) own: Vec<DepId>,
    /// What it is expected to have read with others, sorted.
    pub(crate) shared: Vec<DepId>,
}

impl Reads {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A record that belongs to no primary, to call a derive function alone in a test or on a
    /// debug page.
    ///
    /// Never use it inside a derive function: what it records makes nothing recompute.
    pub fn detached() -> Self {
        Self::new()
    }

    /// Records what `read` reads as what many primaries are expected to read alike, as pods of
    /// one deployment do that look for what selects them. Such a set is kept once for all of them.
    ///
    /// Memory alone depends on it: ten equal sets cost what one does, while a set that no other
    /// primary has costs more than it would outside.
    pub fn shared<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.is_shared, true);
        let found = read(self);
        self.is_shared = outer;
        found
    }

    pub(crate) fn record(&mut self, dep: DepId) {
        let deps = if self.is_shared {
            &mut self.shared
        } else {
            &mut self.own
        };
        if deps.last() != Some(&dep) {
            deps.push(dep);
        }
    }

    pub(crate) fn finish(self) -> Recorded {
        let shared = sorted(self.shared);
        let mut own = sorted(self.own);
        own.retain(|dep| shared.binary_search(dep).is_err());
        Recorded { own, shared }
    }
}

fn sorted(mut deps: SmallVec<[DepId; 8]>) -> Vec<DepId> {
    deps.sort_unstable();
    deps.dedup();
    deps.into_vec()
}
