//! Rows to Envoy IR, and IR to Envoy resources, for waypoints and ingress gateways of stock
//! Envoy.
//!
//! In: rows of services, workloads, waypoints, HTTPRoutes, AuthorizationPolicies and
//! connected proxy classes. Out: per stage one table of our own IR ([`ir`]), the bytes of
//! each resource ([`emit`]), findings about what has no effect ([`findings`]); besides, who
//! a node is ([`node`]) and what a proxy must be started with ([`bootstrap`]).
//!
//! Stages in order: [`attachment`], [`attachment::workload`], [`chains`], [`encoded`],
//! [`route_configs`], those of [`ingress`], [`backend_tls`], [`clusters`], [`endpoints`], [`local_endpoints`], [`listeners`], [`static_clusters`]; and on their own
//! [`findings::route`], [`findings::policy`], [`findings::service`] and
//! [`findings::waypoint`], [`status::route`], [`status::backend_tls`]; and, whoever is connected, [`credentials::materials`].
//!
//! **Invariants**
//! - Never does I/O, reads no clock, holds no state; equal rows give equal bytes.
//! - The only crate that names `envoy-types`; Istio's own extensions only to nodes that report them.
//! - Work is done only for waypoints with connected proxies; findings never depend on them.
//! - Security never widens: what cannot be expressed refuses rather than allows.
//! - No regular expression is made of user text, save fields that are one by definition; and
//!   a value that Envoy would refuse voids its own route, never the listener.

pub mod attachment;
pub mod authn;
mod authz;
pub mod backend_tls;
pub mod bootstrap;
pub mod chains;
pub mod clusters;
pub mod credentials;
pub mod east_west;
pub mod emit;
pub mod encoded;
pub mod endpoints;
pub mod findings;
pub mod index;
pub mod ingress;
pub mod ir;
pub mod listeners;
pub mod local_endpoints;
pub mod messages;
pub mod node;
mod regex;
pub mod route_configs;
mod routes;
pub mod static_clusters;
pub mod status;
mod traffic;
mod virtual_services;

pub use regex::check as check_regex;
