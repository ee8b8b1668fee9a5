//! What of a policy ztunnel cannot evaluate, for its status. Source:
//! spec/workload-discovery.md §5.3 (last table), §6.

use std::collections::BTreeSet;

use model::Str;
use model::input::AuthorizationPolicy;

use super::rule::{self, Entry};

/// What of a policy ztunnel cannot evaluate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unsupported {
    /// Attributes: names of fields, or keys of conditions.
    pub(crate) attributes: BTreeSet<Str>,
    /// Something that stands beside them is still evaluated: as a DENY it denies more.
    pub(crate) stricter: bool,
    /// Something holds nothing else and never matches: as a DENY it denies nothing.
    pub(crate) without_effect: bool,
}

/// What of a policy of namespace `ns` ztunnel cannot evaluate.
pub(crate) fn of(ns: &Str, policy: &AuthorizationPolicy) -> Unsupported {
    let mut found = Unsupported::default();
    for rule in &policy.rules {
        let clauses = rule::convert(ns, "", rule);
        for entry in clauses.iter().flatten() {
            found.attributes.extend(entry.l7.iter().cloned());
            if entry.trust_domains {
                found.attributes.insert(Str::from("trustDomains"));
            }
        }
        let is_lost = |entry: &Entry| entry.is_void() && entry.has_unsupported();
        let mut clauses_of_entries = clauses.iter();
        if clauses_of_entries.any(|clause| clause.iter().all(is_lost)) {
            found.without_effect = true;
            continue;
        }
        for entry in clauses.iter().flatten().filter(|e| e.has_unsupported()) {
            found.without_effect |= entry.is_void();
            found.stricter |= !entry.is_void();
        }
    }
    found
}
