//! Wire messages, their descriptors, canonical encoding and proto-JSON.
//!
//! In: the `.proto` files under `proto/`, written from the field tables of the
//! specification, and a pruned descriptor set of Envoy's own messages.
//! Out: message types for workload discovery, authorization and the discovery
//! protocol; service stubs; one descriptor pool that knows all of them.
//!
//! **Invariants.** Never does I/O. Maps of our own messages are ordered, so that
//! equal messages encode to equal bytes. Bytes from outside are data: every
//! function here returns an error for garbage and never panics.

pub mod canonical;
pub mod descriptor;
mod error;
mod generated;
pub mod json;
mod matcher;
pub mod type_url;

/// `istio.workload`: what ztunnel knows of workloads and services.
pub mod workload {
    pub use crate::generated::istio::workload::*;
}

/// `istio.security`: what ztunnel enforces.
pub mod security {
    pub use crate::generated::istio::security::*;
}

/// `istio.v1.auth`: certificates for workloads, and the service stubs.
pub mod auth {
    pub use crate::generated::istio::v1::auth::*;
}

/// `envoy.service.discovery.v3`: the discovery protocol and its service stubs.
pub mod discovery {
    pub use crate::generated::envoy::service::discovery::v3::*;
    pub use crate::generated::google::rpc::Status;
}

/// `envoy.service.secret.v3`: the stubs of secret discovery.
pub mod secret {
    pub use crate::generated::envoy::service::secret::v3::*;
}

/// `envoy.config.core.v3`: the node of a discovery request.
pub mod core {
    pub use crate::generated::envoy::{config::core::v3::*, r#type::v3::SemanticVersion};
}

pub use descriptor::pool;
pub use error::Error;
pub use matcher::{CidrRange, IpMatcher, IpRangeMatcher};
pub use prost_types::{Any, ListValue, Struct, Value, value};
