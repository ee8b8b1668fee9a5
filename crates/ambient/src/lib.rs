//! Rows to waypoints, services, authorizations and workloads, and those to WDS messages.
//!
//! In: the input tables (one [`model::Parsed`] row per object), read through tracked views.
//! Out: per stage one table of derived rows with the [`model::Finding`]s that go with them,
//! and in [`emit`] the messages that ztunnel reads.
//!
//! Stages, in the order in which they may read each other:
//! [`mesh`], [`node_locality`], [`network_gateway`], [`waypoint`], [`namespace_binding`],
//! [`allocation`], [`claim`], [`service`],
//! [`peer_binding`], [`policy_binding`], [`pod_link`], [`workload`], [`census`], [`authorization`], [`status`].
//! Each exports its view, its primary key, the index markers that it needs on earlier tables,
//! and one pure `derive`. What identity checks must know of a pod follows from it alone
//! ([`pod_facts`]) and has no table of its own.
//!
//! **Invariants**
//! - Never does I/O, reads no clock, holds no state: a stage is a function of what it reads.
//! - A bad object affects itself. Where what it meant cannot be known, the reading that denies
//!   is taken and a finding says so.
//! - Selectors are found through [`selector::SelectorAt`] places, never by trying every object.
//! - Rows are ordered collections, so equal input gives equal rows and equal bytes.

pub mod allocation;
pub mod attach;
pub mod authorization;
pub mod census;
pub mod claim;
pub mod emit;
mod entry_note;
mod keys;
pub mod mesh;
pub mod namespace_binding;
pub mod network_gateway;
pub mod node_locality;
pub mod ownership;
pub mod peer_binding;
pub mod pod_facts;
pub mod pod_link;
pub mod policy_binding;
mod protocol;
pub mod selector;
pub mod service;
pub mod status;
pub mod tables;
mod traffic;
mod tunnel;
mod visibility;
pub mod waypoint;
pub mod workload;

#[cfg(test)]
mod tests;
