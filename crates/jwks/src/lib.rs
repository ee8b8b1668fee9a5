//! Fetches the key sets of token issuers, and keeps the last good ones.
//!
//! In: which key sets configuration needs ([`model::jwks::Wanted`] by key of their source). Out:
//! [`model::object::Input::Jwks`] rows, at once for each new source and whenever something of
//! it changed, and none any more for a source that nobody needs.
//!
//! **Invariants**
//! - No source is ever without a row: while it has no keys, its key set for nobody stands in.
//! - No connection is opened to an address that [`AddressRule`] refuses, whatever a name
//!   resolves to, whatever it resolves to a second time, and wherever a redirect leads.
//! - Everything is bounded: sources, concurrent fetches, time, redirects, bytes.
//! - Configured proxies are not used: behind one, nobody could tell which address is called.
//!
//! Source: spec/policy-and-traffic.md §2.2, spec/control-plane.md §9.1.

mod address;
mod client;
mod fetcher;
mod key_set;
mod nobody;
mod store;

pub use address::AddressRule;
pub use client::{Client, FetchError, Resolution, Resolve, SystemResolver};
pub use fetcher::{Fetch, Fetcher, Fetching, Metrics, SOURCES_COUNT_MAX};
pub use nobody::nobody;
