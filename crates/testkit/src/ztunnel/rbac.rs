//! L4 policy as ztunnel evaluates it. Source: spec/workload-discovery.md §1.5, §5.1.

use std::net::IpAddr;

use proto::security::string_match::MatchType;
use proto::security::{Action, Address, Authorization, Match, Scope, StringMatch};
use proto::workload::Workload;

use super::MeshState;
use super::state::ip;
use crate::hbone::L4Connection;

/// Whether the workload accepts the connection: a DENY that matches refuses; without any
/// ALLOW everything else passes; else one ALLOW must match. Policies that the workload
/// names but that never came are skipped, and dry-run ones do not count.
pub fn allows(state: &MeshState, workload: &Workload, connection: &L4Connection) -> bool {
    let scoped = state
        .policies
        .values()
        .filter(|p| match Scope::try_from(p.scope) {
            Ok(Scope::Global) => true,
            Ok(Scope::Namespace) => p.namespace == workload.namespace,
            _ => false,
        });
    let named = workload
        .authorization_policies
        .iter()
        .filter_map(|n| state.policies.get(n));
    let policies: Vec<&Authorization> = scoped.chain(named).filter(|p| !p.dry_run).collect();
    let of = |action: Action| policies.iter().filter(move |p| p.action == action as i32);
    if of(Action::Deny).any(|p| policy_matches(p, connection)) {
        return false;
    }
    of(Action::Allow).next().is_none() || of(Action::Allow).any(|p| policy_matches(p, connection))
}

/// Groups are alternatives, the rules of a group all bind, the matches of a rule are
/// alternatives. No group never matches; a group without rules and a rule without
/// matches always do.
fn policy_matches(policy: &Authorization, connection: &L4Connection) -> bool {
    policy.groups.iter().any(|group| {
        group.rules.iter().all(|rule| {
            rule.matches.is_empty() || rule.matches.iter().any(|m| match_matches(m, connection))
        })
    })
}

/// Every kind of field that is present must hold; a match without fields never does.
fn match_matches(m: &Match, c: &L4Connection) -> bool {
    if *m == Match::default() {
        return false;
    }
    let principal = format!("{}/ns/{}/sa/{}", c.peer.trust_domain, c.peer.ns, c.peer.sa);
    let principal_is = |s: &StringMatch| string_matches(s, &principal);
    let namespace_is = |s: &StringMatch| string_matches(s, &c.peer.ns);
    let source_in = |a: &Address| contains(a, c.source);
    let destination_in = |a: &Address| contains(a, c.destination.ip());
    let port_is = |port: &u32| *port == u32::from(c.destination.port());
    let account_is = |s: &proto::security::ServiceAccountMatch| {
        *s.namespace == *c.peer.ns && *s.service_account == *c.peer.sa
    };
    holds(&m.namespaces, &m.not_namespaces, namespace_is)
        && holds(&m.principals, &m.not_principals, principal_is)
        && holds(&m.source_ips, &m.not_source_ips, source_in)
        && holds(&m.destination_ips, &m.not_destination_ips, destination_in)
        && holds(&m.destination_ports, &m.not_destination_ports, port_is)
        && holds(&m.service_accounts, &m.not_service_accounts, account_is)
}

fn holds<T>(any_of: &[T], none_of: &[T], is: impl Fn(&T) -> bool) -> bool {
    (any_of.is_empty() || any_of.iter().any(&is)) && !none_of.iter().any(&is)
}

fn string_matches(matcher: &StringMatch, value: &str) -> bool {
    match &matcher.match_type {
        Some(MatchType::Exact(s)) => value == plain(s),
        Some(MatchType::Prefix(s)) => value.starts_with(plain(s)),
        Some(MatchType::Suffix(s)) => value.ends_with(s.as_str()),
        Some(MatchType::Presence(())) => !value.is_empty(),
        None => false,
    }
}

/// Principals are compared without their scheme.
fn plain(principal: &str) -> &str {
    principal.strip_prefix("spiffe://").unwrap_or(principal)
}

fn contains(range: &Address, addr: IpAddr) -> bool {
    let (net, addr) = match (ip(&range.address), addr) {
        (Some(IpAddr::V4(n)), IpAddr::V4(a)) => (
            u128::from(u32::from(n)) << 96,
            u128::from(u32::from(a)) << 96,
        ),
        (Some(IpAddr::V6(n)), IpAddr::V6(a)) => (u128::from(n), u128::from(a)),
        _ => return false,
    };
    let differing = (net ^ addr).leading_zeros();
    range.length == 0 || differing >= range.length
}

#[cfg(test)]
mod tests;
