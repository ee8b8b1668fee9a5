//! The harness of the tables.

pub(crate) mod call;
pub(crate) mod case;
pub(crate) mod expect;
pub(crate) mod token;
pub(crate) mod world;
