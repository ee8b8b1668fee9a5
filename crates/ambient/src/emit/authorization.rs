//! Authorizations.

use std::net::IpAddr;

use model::AuthorizationRow;
use model::Str;
use model::derived::{L4Match, PolicyScope, StringCondition};
use proto::security as sec;
use proto::security::string_match::MatchType;

use super::ip_bytes;

/// The message of an authorization. Empty groups, rules and matches are kept: each means
/// something else to ztunnel (spec/workload-discovery.md §5.1).
pub fn authorization(row: &AuthorizationRow) -> sec::Authorization {
    let scope = match row.scope {
        PolicyScope::Global => sec::Scope::Global,
        PolicyScope::Namespace => sec::Scope::Namespace,
        PolicyScope::Selector => sec::Scope::WorkloadSelector,
    };
    let action = if row.deny {
        sec::Action::Deny
    } else {
        sec::Action::Allow
    };
    sec::Authorization {
        name: row.key.name.to_string(),
        namespace: row.key.ns.to_string(),
        scope: scope.into(),
        action: action.into(),
        groups: row.groups.iter().map(|rules| group(rules)).collect(),
        dry_run: row.dry_run,
        extensions: Vec::new(),
    }
}

fn group(rules: &[Vec<L4Match>]) -> sec::Group {
    let rules = rules.iter().map(|matches| sec::Rules {
        matches: matches.iter().map(one_match).collect(),
    });
    sec::Group {
        rules: rules.collect(),
    }
}

fn one_match(row: &L4Match) -> sec::Match {
    sec::Match {
        namespaces: strings(&row.namespaces),
        not_namespaces: strings(&row.not_namespaces),
        principals: strings(&row.principals),
        not_principals: strings(&row.not_principals),
        source_ips: blocks(&row.source_ips),
        not_source_ips: blocks(&row.not_source_ips),
        destination_ips: blocks(&row.destination_ips),
        not_destination_ips: blocks(&row.not_destination_ips),
        destination_ports: ports(&row.destination_ports),
        not_destination_ports: ports(&row.not_destination_ports),
        service_accounts: accounts(&row.service_accounts),
        not_service_accounts: accounts(&row.not_service_accounts),
        extensions: Vec::new(),
    }
}

fn strings(conditions: &[StringCondition]) -> Vec<sec::StringMatch> {
    let string = |condition: &StringCondition| match condition {
        StringCondition::Exact(text) => MatchType::Exact(text.to_string()),
        StringCondition::Prefix(text) => MatchType::Prefix(text.to_string()),
        StringCondition::Suffix(text) => MatchType::Suffix(text.to_string()),
        StringCondition::Presence => MatchType::Presence(()),
    };
    conditions
        .iter()
        .map(|condition| sec::StringMatch {
            match_type: Some(string(condition)),
        })
        .collect()
}

fn blocks(blocks: &[(IpAddr, u8)]) -> Vec<sec::Address> {
    blocks
        .iter()
        .map(|(ip, length)| sec::Address {
            address: ip_bytes(*ip),
            length: u32::from(*length),
        })
        .collect()
}

fn ports(ports: &[u16]) -> Vec<u32> {
    ports.iter().map(|port| u32::from(*port)).collect()
}

fn accounts(accounts: &[(Str, Str)]) -> Vec<sec::ServiceAccountMatch> {
    accounts
        .iter()
        .map(|(ns, name)| sec::ServiceAccountMatch {
            namespace: ns.to_string(),
            service_account: name.to_string(),
        })
        .collect()
}
