//! A stand-in for ztunnel: subscribes as one, keeps what it is sent, routes and
//! authorises connections by it.
//!
//! In: an ADS stream with workload discovery and L4 policies. Out: the state as it
//! stands ([`MeshState`]), the decisions a ztunnel would take ([`route`], [`allows`]),
//! and a record of every response ([`Received`]) for tests.
//!
//! Source: spec/workload-discovery.md §1.6 to §1.8, §5.1.

mod client;
mod node;
mod rbac;
mod route;
mod state;

pub use client::{Received, Ztunnel};
pub use node::{MeshError, NodeProxy, Pod, Via};
pub use rbac::allows;
pub use route::{Hop, Route, RouteError, route};
pub use state::MeshState;
