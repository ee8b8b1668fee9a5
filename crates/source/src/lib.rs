//! Sources of input objects. Today: a directory of YAML and JSON files.
//!
//! In: files. Out: [`model::object::Input`] batches, first a complete one of
//! every kind, then only what changed.
//!
//! **Invariants**
//! - [`FileSet`] does no I/O: what it publishes depends only on the contents it was given.
//! - A file that cannot be read keeps its last good objects: a typing error in one
//!   file never withdraws a policy.
//! - Everything is bounded: size, number and depth of files, work per batch.
//! - Bad content is a finding, never an error of the source.

mod directory;
mod file_set;
mod scan;
mod watch;
mod yaml;

pub use directory::{Directory, SourceError};
pub use file_set::FileSet;
pub use scan::{DEPTH_MAX, FILE_BYTES_MAX, FILES_COUNT_MAX, TOTAL_BYTES_MAX};
pub use yaml::{Format, Unreadable, documents};
