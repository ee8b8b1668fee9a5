//! HBONE: mutual TLS 1.3, HTTP/2, CONNECT.
//!
//! [`Identity`] is a workload's certificate, [`HboneClient`] the outbound side,
//! [`HboneServer`] the inbound side of a destination ztunnel.
//!
//! Source: spec/workload-discovery.md §1.8, spec/envoy-config.md §2.

mod client;
mod fetch;
mod identity;
mod server;

pub use client::{HboneClient, HboneError, HboneStream};
pub use fetch::CertificateRequest;
pub use identity::Identity;
pub use server::{Authorize, HboneServer, L4Connection, Verdict};

/// The port on which every HBONE server listens.
pub const HBONE_PORT: u16 = 15008;
