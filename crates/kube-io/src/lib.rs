//! Every use of a Kubernetes API server: watches, leases, statuses, roots, reviews.
//!
//! In: objects, as [`model::object::Input`] batches, first a complete list of every kind,
//! then only what changed. Out: what the leader writes to objects, from snapshots.
//!
//! **Invariants**
//! - A kind that is not there (no CRD yet) is an empty list, and is picked up when it appears.
//! - A list that is delivered again is a `Resync`: who reads it compares, so the restart of an
//!   API server changes nothing.
//! - Statuses, ConfigMaps of roots and webhook configurations are compared with what was observed
//!   first, are written under the [`Leadership`] of now, and a change names the version of the
//!   object that it was judged by. What differs:
//!   - Events are written under the leadership too, but name no version: their names say what
//!     they tell, so that a second one is the same one counted up.
//!   - The Secret of the root is every replica's, leading or not: it is created once and replaced
//!     only at the version that was read. The Lease, which leadership comes from, likewise.
//!   - GatewayClasses are every replica's too: those that are missing are created, and none that
//!     is there is changed.
//! - The API server being away stops no serving: [`Health`] says so, and everything is retried
//!   with backoff.

pub mod client;
pub mod deployments;
pub mod election;
pub mod events;
pub mod gateway_classes;
mod health;
mod jitter;
pub mod kinds;
mod leadership;
mod observed;
mod parked;
mod queue;
pub mod review;
pub mod root_store;
pub mod roots;
pub mod source;
pub mod status;
pub mod webhooks;
mod write;

#[cfg(test)]
mod scripted;

pub use kube::Client;

pub use health::{Health, KindHealth, KindState};
pub use leadership::{Leadership, Term};
pub use observed::{Observed, ObservedStatus};
pub use write::{Reports, WriteMetrics};
