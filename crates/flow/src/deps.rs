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

/// One thing that can be read and can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DepId {
    table: TableId,
    index: IndexId,
    hash: u64,
}

impl DepId {
    pub(crate) fn row<K: Hash>(table: TableId, key: &K) -> Self {
        Self {
            table,
            index: IndexId::PRIMARY,
            hash: hash_of(key),
        }
    }

    pub(crate) fn at(table: TableId, index: IndexId, hash: u64) -> Self {
        Self { table, index, hash }
    }

    pub(crate) fn whole(table: TableId) -> Self {
        Self {
            table,
            index: IndexId::WHOLE,
            hash: 0,
        }
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
#[derive(Debug)]
pub struct Reads {
    deps: SmallVec<[DepId; 8]>,
}

impl Reads {
    pub(crate) fn new() -> Self {
        Self {
            deps: SmallVec::new(),
        }
    }

    /// A record that belongs to no primary, to call a derive function alone in a test or on a
    /// debug page.
    ///
    /// Never use it inside a derive function: what it records makes nothing recompute.
    pub fn detached() -> Self {
        Self::new()
    }

    pub(crate) fn record(&mut self, dep: DepId) {
        if self.deps.last() != Some(&dep) {
            self.deps.push(dep);
        }
    }

    /// The recorded reads, sorted, each once.
    pub(crate) fn finish(mut self) -> Box<[DepId]> {
        self.deps.sort_unstable();
        self.deps.dedup();
        self.deps.into_vec().into_boxed_slice()
    }
}
