//! Generic incremental engine: tables, indexes, tracked reads, derived tables.
//!
//! **In:** batches of edits to input [`Table`]s ([`Table::commit`], [`Table::resync`]).
//! **Out:** [`Changes`], the rows that really differ, and the [`Derived`] tables that follow them.
//!
//! A derived table is a pure function from one *primary* to rows and notes. The function reads
//! other tables only through a [`View`], and every read is recorded in [`Reads`]. When rows
//! change, [`Derived::touched`] finds the primaries whose recorded reads meet the change (under
//! the old *or* the new row), and [`Derived::update`] recomputes just those:
//!
//! ```
//! use std::sync::Arc;
//! use flow::{Derived, Dirty, Output, Table};
//! # use ambientd_flow as flow;
//!
//! let mut prices: Table<u32, u64> = Table::new("prices");
//! let mut doubled: Derived<u32, u32, u64, String> = Derived::new("doubled");
//!
//! let changes = prices.commit([(1, Some(Arc::new(10)))]);
//! let mut dirty: Dirty<u32> = changes.keys().copied().collect();
//! doubled.touched(&mut dirty, &changes);
//! let view = prices.view();
//! let out = doubled.update(dirty, |key, reads| match view.get(reads, key) {
//!     Some(price) => Output::from(vec![(*key, **price * 2)]),
//!     None => Output::gone(),
//! });
//! assert_eq!(out.rows()[0].new.as_deref(), Some(&20));
//! ```
//!
//! A view cannot be read without a place to record the read:
//!
//! ```compile_fail,E0061
//! # use ambientd_flow as flow;
//! use flow::{Derived, Dirty, Output, Table};
//! let prices: Table<u32, u64> = Table::new("prices");
//! let mut doubled: Derived<u32, u32, u64, String> = Derived::new("doubled");
//! let view = prices.view();
//! doubled.update(Dirty::new(), |key, _reads| match view.get(key) {
//!     Some(price) => Output::from(vec![(*key, **price * 2)]),
//!     None => Output::gone(),
//! });
//! ```
//!
//! and a stage cannot read the table that it is writing, so the graph of stages has no cycle:
//!
//! ```compile_fail,E0502
//! # use ambientd_flow as flow;
//! use flow::{Derived, Dirty, Output};
//! let mut doubled: Derived<u32, u32, u64, String> = Derived::new("doubled");
//! let view = doubled.view();
//! doubled.update(Dirty::new(), |key, reads| match view.get(reads, key) {
//!     Some(price) => Output::from(vec![(*key, **price * 2)]),
//!     None => Output::gone(),
//! });
//! ```
//!
//! **Invariants**
//! - No I/O, no clock, no randomness, no logging. The statics are the counter that gives each
//!   table instance its identity, and whether debug builds verify; no output depends on either.
//! - The cost of a commit depends on the change, not on the size of the table (a resync reads
//!   all keys, for it replaces all).
//! - The result depends only on the content of the inputs: not on the order of events, nor on
//!   how they were batched, nor on the number of threads.
//! - Reads that primaries have in common are kept once ([`Reads::shared`]); how reads are grouped
//!   never shows in a result.
//! - A dependency is identified by a 64-bit hash. A collision costs a spurious recompute; it
//!   never hides a change and never puts a wrong row into an answer.
//! - Dirtying goes through [`Derived::touched_by`]: an owner adds every commit to one [`Touched`],
//!   so no stage can forget an upstream. ([`Derived::touched`] takes a single table's changes.)

mod changes;
mod deps;
mod derived;
mod index;
mod multimap;
mod table;
mod verify;

pub use changes::{Change, Changes, Touched};
pub use deps::Reads;
pub use derived::{Derived, Dirty, Output};
pub use index::Index;
pub use table::{Table, View};
pub use verify::stop_verifying;

use std::fmt::Debug;
use std::hash::Hash;

/// What a key of a table, or a primary of a derived table, must be able to do.
///
/// Implemented for every type that qualifies. `Hash` must agree with `Eq`.
pub trait Key: Clone + Ord + Hash + Debug + Send + Sync + 'static {}
impl<T: Clone + Ord + Hash + Debug + Send + Sync + 'static> Key for T {}

/// What a row must be able to do: `==` is the cut-off that stops a change from travelling on.
///
/// Implemented for every type that qualifies.
pub trait Row: PartialEq + Send + Sync + 'static {}
impl<T: PartialEq + Send + Sync + 'static> Row for T {}

#[cfg(test)]
mod tests;
