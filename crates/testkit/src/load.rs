//! What load is made of: a world of objects, many cheap clients, the floor that a server is
//! held against, and the numbers that come of it.
//!
//! In: sizes. Out: objects, traffic and tables. Nothing here judges a time.

pub mod envoy;
pub mod floor;
pub mod process;
pub mod table;
pub mod world;
pub mod ztunnel;
