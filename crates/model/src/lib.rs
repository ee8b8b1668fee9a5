//! Vocabulary of ambientd: names, rows and findings.
//!
//! In: Kubernetes objects as JSON values (from YAML files or an API server).
//! Out: one immutable [`Parsed`] row per input object, plus the derived rows
//! that later stages share ([`WaypointRow`], [`ServiceRow`], [`WorkloadRow`],
//! [`AuthorizationRow`]) and the [`Finding`]s that say what was rejected or ignored.
//!
//! **Invariants**
//! - Never does I/O, reads no clock, holds no state but the values that [`shared`] keeps once.
//! - Parsing never panics and never drops an object: a bad object is a row with
//!   its error ([`Parsed::body`] is `Err`), so that nobody else pays for it.
//! - Rows hold only ordered collections, so equal input gives equal output.
//! - `Display` and `FromStr` of the name types are the only formatters of wire names.

pub mod census;
pub mod defaults;
pub mod deployment;
pub mod derived;
pub mod finding;
mod frozen;
pub mod gateway;
pub mod input;
pub mod jwks;
pub mod labels;
pub mod names;
pub mod object;
pub mod ownership;
pub mod parse;
pub mod proxy;
pub mod rejection;
pub mod secret;
pub mod shared;
pub mod status;
pub mod validate;

pub use deployment::{DeploymentRow, ManagedObject};
pub use derived::{
    AuthorizationRow, GatewayAddress, MeshRow, PodFact, ServiceRow, WaypointRow, WorkloadRow,
};
pub use finding::{Finding, ObjectRef, Severity};
pub use frozen::{FrozenMap, Iter as FrozenIter};
pub use gateway::{GatewayController, GatewayRow, ListenerRow};
pub use names::{Kind, NamespacedHostname, ObjectKey, SpiffeId, WorkloadUid};
pub use object::{Labels, Meta, Object, Parsed};
pub use proxy::{ProxyClass, ProxyRole};
pub use secret::SecretBytes;

/// A cheaply cloned immutable string.
pub type Str = arcstr::ArcStr;
