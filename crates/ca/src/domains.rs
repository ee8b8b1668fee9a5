//! The trust domains whose identities are ours.

use std::collections::BTreeSet;

use model::Str;

/// The trust domain that is certified, and those whose certificates are accepted besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomains {
    own: Str,
    /// Aliases, and what the process began with: certificates of then live on.
    others: BTreeSet<Str>,
}

// === impl TrustDomains ===

impl TrustDomains {
    /// One domain and its aliases, which are names that the mesh had or has elsewhere.
    pub(crate) fn new(own: Str, aliases: impl IntoIterator<Item = Str>) -> Self {
        Self {
            own,
            others: aliases.into_iter().filter(|td| !td.is_empty()).collect(),
        }
    }

    /// The only one that is certified.
    pub fn own(&self) -> &Str {
        &self.own
    }

    /// Whether a client may come with a certificate of this domain.
    pub fn accepts(&self, trust_domain: &str) -> bool {
        self.own == *trust_domain || self.others.contains(trust_domain)
    }
}
