//! Sans-I/O xDS sessions, wire framing and the ADS service.
//!
//! In: discovery requests of connected proxies, and [`snapshot::Snapshot`]s from a
//! `watch` channel. Out: discovery responses made of frames that every stream
//! shares; the proxy classes that somebody is interested in; the state of every
//! connection for the debug pages.
//!
//! **Invariants**
//! - [`session::Session`] holds the protocol and does no I/O and reads no clock;
//!   the task of a stream ([`service`]) only moves messages.
//! - At most one un-acknowledged response per type and stream; whatever happens
//!   meanwhile is merged into the next one, so a slow client costs bounded memory.
//! - No resource is encoded here: responses are a small header plus shared frames.
//! - A client only ever gets names that it subscribed to, and never twice the same
//!   content, be it accepted or rejected.
//! - A bad request ends at most the stream that it came on.

pub mod client;
pub mod connections;
pub mod identity;
pub mod metrics;
mod rarely;
pub mod response;
pub mod server;
pub mod service;
pub mod session;
pub mod wire;

pub use client::{Client, ClientKind, NodeError, NodeReader};
pub use connections::{Connection, Connections, SyncState};
pub use identity::IdentityPolicy;
pub use metrics::Metrics;
pub use response::Response;
pub use server::{Limits, ServerConfig, ServerError, serve, tls_config, tls_config_of};
pub use service::{AdsService, Deps, Report};
pub use session::{
    Effect, Effects, Flavour, Limits as SessionLimits, Observation, Request, Session, TypeStatus,
};
