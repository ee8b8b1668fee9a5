//! Gateways of Gateway API: what is made of them, by whom, and what is said of it.
//!
//! In: rows of Gateways, GatewayClasses, ListenerSets, routes and what they refer to.
//! Out: [`model::GatewayRow`] (stage [`gateways`]) and [`model::gateway::RouteParents`] (stage
//! [`route_parents`]), which translation to Envoy reads; the status of GatewayClasses, Gateways
//! and ListenerSets ([`status`]); the objects that a managed Gateway consists of ([`deployment`],
//! stage [`deployments`]).
//!
//! **Invariants**
//! - No I/O, no clock; every read of a table is recorded.
//! - Whether a listener may have a Secret is decided once, in [`gateways`]: the same walk fills
//!   the conditions, the names that translation uses and the grants that serving asks.
//! - Bad input costs its own listener. When in doubt nothing is let in, and it is said.

pub mod admission;
pub mod deployment;
pub mod deployments;
pub mod gateways;
pub mod grants;
pub mod hostnames;
pub mod index;
pub mod pem;
pub mod reference_grant;
pub mod route_parents;
pub mod status;
#[cfg(test)]
mod testworld;
pub mod waypoint_routes;
