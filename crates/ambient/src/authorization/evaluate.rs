//! Whom groups of ztunnel let match, by identity alone. Source: spec/workload-discovery.md §5.1.

use model::derived::{L4Match, StringCondition};
use model::{Str, WaypointRow};

/// The identity of a peer.
pub(super) struct Identity {
    trust_domain: Str,
    ns: Str,
    account: Str,
}

/// Whether a peer may match a group, if addresses and ports fit.
pub(super) fn may_match(group: &[Vec<L4Match>], peer: &Identity) -> bool {
    let any = |rule: &Vec<L4Match>| rule.is_empty() || rule.iter().any(|one| fits(one, peer));
    group.iter().all(any)
}

/// Whether a group asks who the peer is.
pub(super) fn names_peers(group: &[Vec<L4Match>]) -> bool {
    let names = |one: &L4Match| {
        !one.principals.is_empty() || !one.namespaces.is_empty() || !one.service_accounts.is_empty()
    };
    group
        .iter()
        .any(|rule| !rule.is_empty() && rule.iter().all(names))
}

/// A match without conditions never matches.
fn fits(one: &L4Match, peer: &Identity) -> bool {
    let Identity {
        trust_domain,
        ns,
        account,
    } = peer;
    let principal = format!("{trust_domain}/ns/{ns}/sa/{account}");
    let any = |texts: &[StringCondition], value: &str| texts.iter().any(|text| is(text, value));
    let is_account = |(of, name): &(Str, Str)| of == ns && name == account;
    let listed = |empty: bool, found: bool| empty || found;
    *one != L4Match::default()
        && listed(one.principals.is_empty(), any(&one.principals, &principal))
        && !any(&one.not_principals, &principal)
        && listed(one.namespaces.is_empty(), any(&one.namespaces, ns))
        && !any(&one.not_namespaces, ns)
        && listed(
            one.service_accounts.is_empty(),
            one.service_accounts.iter().any(is_account),
        )
        && !one.not_service_accounts.iter().any(is_account)
}

fn is(condition: &StringCondition, value: &str) -> bool {
    match condition {
        StringCondition::Exact(text) => text == value,
        StringCondition::Prefix(text) => value.starts_with(text.as_str()),
        StringCondition::Suffix(text) => value.ends_with(text.as_str()),
        StringCondition::Presence => !value.is_empty(),
    }
}

// === impl Identity ===

impl Identity {
    /// The identities of a waypoint: those of its instances, else the one that deployments give
    /// it.
    pub(super) fn of_waypoint(waypoint: &WaypointRow, trust_domain: &Str) -> Vec<Self> {
        let known = &waypoint.service_accounts;
        let accounts = if known.is_empty() {
            std::slice::from_ref(&waypoint.key.name)
        } else {
            known.as_slice()
        };
        let identity = |account: &Str| Self {
            trust_domain: trust_domain.clone(),
            ns: waypoint.key.ns.clone(),
            account: account.clone(),
        };
        accounts.iter().map(identity).collect()
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/ns/{}/sa/{}",
            self.trust_domain, self.ns, self.account
        )
    }
}
