//! Test helpers: HBONE client and server, ADS client, stand-in ztunnel, Envoy and
//! daemon runners, the demo mesh.
//!
//! In: a development CA, addresses of running servers, manifests.
//! Out: real mTLS, HTTP/2 CONNECT and discovery traffic against them, and what came
//! back, as plain values that a test can compare.
//!
//! **Invariants**
//! - Never part of the product: the binary does not depend on this crate.
//! - Everything that is started stops when its handle is dropped, and only that.
//! - No fixed sleeps: waiting is polling with a deadline, and a missed deadline is
//!   an error that names what was awaited.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests: a broken assumption should stop the test at once"
)]

pub mod ads;
pub mod app;
pub mod cluster;
pub mod daemon;
pub mod demo;
pub mod echo;
pub mod envoy;
pub mod hbone;
pub mod http_client;
pub mod lab;
pub mod load;
pub mod scenario;
pub mod wait;
pub mod ztunnel;
