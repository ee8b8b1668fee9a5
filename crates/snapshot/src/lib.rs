//! Encoded resources, resource maps, snapshots and shared deltas.
//!
//! In: the bytes of resources, encoded once when their rows changed.
//! Out: an immutable [`Snapshot`] per generation; a [`DeltaCache`] that gives every
//! stream the same frames for the same step from one map to another.
//!
//! **Invariants**
//! - Never does I/O, reads no clock; the only locks are those of a `DeltaCache` and of
//!   [`LazyWorkloads`].
//! - A resource is encoded and framed once; every stream sends slices of that one
//!   allocation.
//! - A version is the xxh64 of the payload: equal payloads have equal versions on
//!   every replica and after every restart.
//! - Secrets are in no map: [`Snapshot::secret`] judges every caller, and nothing prints them.
//! - Cloning a map or a snapshot is O(1); a diff skips what two maps share.

mod delta;
mod encoded;
mod index;
mod map;
mod pods;
mod resource_type;
mod secrets;
mod snapshot;
mod urgency;
mod workloads;

pub use delta::{DeltaCache, EncodedDelta};
pub use encoded::{AddressFacts, AddressKind, EncodedResource};
pub use index::{AddressIndex, AddressTable};
pub use map::{Diff, ResourceMap};
pub use model::Str;
pub use pods::PodFacts;
pub use resource_type::ResourceType;
pub use secrets::{GatewayAccounts, SecretAccess, SecretStore, needs_access};
pub use snapshot::{ProxyResources, Snapshot};
pub use urgency::by_urgency;
pub use workloads::LazyWorkloads;
