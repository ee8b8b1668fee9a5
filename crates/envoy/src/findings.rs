//! Findings: what of routes, policies, services and waypoints does not do what it says. They are derived from
//! the objects alone, so they exist whether or not any proxy is connected.
//! Source: spec/policy-and-traffic.md §10.1, §10.3, §10.5, §10.6.

pub mod destination_rule;
pub mod l4_route;
pub mod policy;
pub mod rejected;
pub mod request_authentication;
pub mod route;
mod selected;
pub mod service;
pub mod virtual_service;
pub mod waypoint;
