//! Key sets of token issuers, as table input: the control plane fetches them, stages read them.
//! Source: spec/policy-and-traffic.md §2.2.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Str;

/// Longest time that a rule can allow a fetch.
pub const FETCH_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Key sets that are fetched for one object.
pub const SOURCES_OF_OBJECT_COUNT_MAX: usize = 32;
/// Key sets that are fetched for one namespace.
pub const SOURCES_OF_NAMESPACE_COUNT_MAX: usize = 100;

/// What is known of the key set behind a `jwksUri` (or behind an issuer whose discovery
/// document names it).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwks {
    /// The last good key set: a JSON object with a `keys` array, keys sorted by `kid`, in
    /// canonical form. `None` while none was ever received.
    pub keys: Option<Str>,
    /// Why the last fetch failed; `None` after a good one.
    pub failure: Option<JwksFailure>,
    /// A key set that no token satisfies: a public key whose private half was thrown away,
    /// new in each process and for each source. It stands in while there are no `keys`.
    pub nobody: Str,
}

/// Why a key set is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksFailure {
    /// The address is one that must not be called.
    pub blocked: bool,
    /// What happened, as a clause.
    pub reason: Str,
}

/// Where a key set comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JwksSource {
    /// Key of the table: the `jwksUri`, or `issuer:<issuer>` where discovery names it.
    pub key: Str,
}

impl JwksSource {
    /// The source of a rule without inline keys: its `jwksUri`, else discovery at its issuer.
    pub fn of(jwks_uri: &str, issuer: &str) -> Self {
        let key = if jwks_uri.is_empty() {
            arcstr::format!("issuer:{issuer}")
        } else {
            Str::from(jwks_uri)
        };
        Self { key }
    }
}

/// A key set that some RequestAuthentication needs and the control plane must fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is; `None` when discovery at the issuer must find that out.
    pub uri: Option<Str>,
    /// The issuer; the first in order when several rules share the address.
    pub issuer: Str,
    /// Limit of a fetch, the longest that a rule states; `None` = the default.
    pub timeout: Option<Duration>,
    /// Namespaces of the rules: at least one, whose share of fetches it takes.
    pub namespaces: BTreeSet<Str>,
}
