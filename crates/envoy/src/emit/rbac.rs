//! RBAC filters. Source: spec/policy-and-traffic.md §1.1–§1.3, §1.7.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, header_matcher};
use envoy_types::pb::envoy::extensions::filters::{http, network};
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use model::Str;

use super::chain::Peer;
use super::metadata;
use super::wire::{cidr, extension, string};
use crate::ir::{Expr, Fact, RbacAction, RbacIr, RbacRuleIr, StrMatch};

/// Name of the filter of requests.
pub(super) const HTTP: &str = "envoy.filters.http.rbac";
/// Name of the filter of connections.
pub(super) const NETWORK: &str = "envoy.filters.network.rbac";
/// Filter state with the identity of the client.
const PEER: &str = "io.istio.peer_principal";

/// The filter of requests.
pub(super) fn http(ir: &RbacIr, peer: Peer) -> http::rbac::v3::Rbac {
    let config = |rules| config(ir.action, rules, peer);
    http::rbac::v3::Rbac {
        rules: ir.rules.as_ref().map(config),
        shadow_rules: ir.shadow.as_ref().map(config),
        shadow_rules_stat_prefix: shadow_prefix(ir),
        ..Default::default()
    }
}

/// The filter of connections.
pub(super) fn network(ir: &RbacIr, peer: Peer) -> network::rbac::v3::Rbac {
    let config = |rules| config(ir.action, rules, peer);
    network::rbac::v3::Rbac {
        rules: ir.rules.as_ref().map(config),
        shadow_rules: ir.shadow.as_ref().map(config),
        shadow_rules_stat_prefix: shadow_prefix(ir),
        stat_prefix: "tcp.".into(),
        ..Default::default()
    }
}

fn shadow_prefix(ir: &RbacIr) -> String {
    match (&ir.shadow, ir.action) {
        (None, _) => String::new(),
        (Some(_), RbacAction::Allow) => "istio_dry_run_allow_".into(),
        (Some(_), RbacAction::Deny | RbacAction::Log) => "istio_dry_run_deny_".into(),
        (Some(_), RbacAction::Ask) => "istio_ext_authz_".into(),
    }
}

fn config(action: RbacAction, rules: &BTreeMap<Str, RbacRuleIr>, peer: Peer) -> rbac::Rbac {
    let action = match action {
        RbacAction::Allow => rbac::rbac::Action::Allow,
        RbacAction::Deny | RbacAction::Ask => rbac::rbac::Action::Deny,
        RbacAction::Log => rbac::rbac::Action::Log,
    };
    let policy = |rule: &RbacRuleIr| rbac::Policy {
        permissions: rule.permissions.iter().map(permission).collect(),
        principals: rule
            .principals
            .iter()
            .map(|one| principal(one, peer))
            .collect(),
        ..Default::default()
    };
    rbac::Rbac {
        action: action as i32,
        policies: rules
            .iter()
            .map(|(key, rule)| (key.to_string(), policy(rule)))
            .collect(),
        ..Default::default()
    }
}

fn permission(expr: &Expr) -> rbac::Permission {
    use rbac::permission::{Rule, Set};
    let wrap = |rule| rbac::Permission { rule: Some(rule) };
    let any = || wrap(Rule::Any(true));
    let set = |list: &[Expr]| Set {
        rules: list.iter().map(permission).collect(),
    };
    wrap(match expr {
        Expr::AllOf(list) if list.is_empty() => Rule::AndRules(Set { rules: vec![any()] }),
        Expr::AllOf(list) => Rule::AndRules(set(list)),
        Expr::AnyOf(list) if list.is_empty() => Rule::NotRule(Box::new(any())),
        Expr::AnyOf(list) => Rule::OrRules(set(list)),
        Expr::Not(inner) => Rule::NotRule(Box::new(permission(inner))),
        Expr::Is(Fact::Path(condition)) => Rule::UrlPath(path(condition)),
        Expr::Is(Fact::PathTemplate(template)) => {
            let config = UriTemplateMatchConfig {
                path_template: template.to_string(),
            };
            Rule::UriTemplate(extension("uri-template", &config))
        }
        Expr::Is(Fact::Header(name, condition, ignore_case)) => {
            Rule::Header(header(name, condition, *ignore_case))
        }
        Expr::Is(Fact::Port(port)) => Rule::DestinationPort(u32::from(*port)),
        Expr::Is(Fact::DestinationIp(net)) => Rule::DestinationIp(cidr(net)),
        Expr::Is(Fact::Sni(condition)) => Rule::RequestedServerName(string(condition, false)),
        // The compiler puts facts about the source among the principals; refuse elsewhere.
        Expr::Is(Fact::Identity(_) | Fact::SourceIp(_) | Fact::ForwardedIp(_)) => {
            Rule::NotRule(Box::new(any()))
        }
        Expr::Is(fact @ (Fact::Claim(..) | Fact::ClaimOrItem(..) | Fact::Metadata(..))) => {
            match dynamic(fact) {
                Some(condition) => permission_metadata(condition),
                None => Rule::NotRule(Box::new(any())),
            }
        }
    })
}

/// A condition on what filters left behind; `None` when nothing meets it.
fn dynamic(fact: &Fact) -> Option<matcher::MetadataMatcher> {
    match fact {
        Fact::Claim(path, texts) => Some(metadata::claim(path, metadata::one_of(texts)?)),
        Fact::ClaimOrItem(path, texts) => {
            let value = metadata::itself_or_item(metadata::one_of(texts)?);
            Some(metadata::claim(path, value))
        }
        Fact::Metadata(filter, key, texts, items) => {
            let value = metadata::one_of(texts)?;
            let value = if *items { metadata::item(value) } else { value };
            Some(metadata::entry(filter, [&**key], value))
        }
        _ => None,
    }
}

/// Refuses the connections that were marked for an authorizer that cannot be asked about them.
pub(super) fn refuse_marked(mark: matcher::MetadataMatcher) -> network::rbac::v3::Rbac {
    let rule = permission_metadata(mark);
    let policy = rbac::Policy {
        permissions: vec![rbac::Permission { rule: Some(rule) }],
        principals: vec![rbac::Principal {
            identifier: Some(rbac::principal::Identifier::Any(true)),
        }],
        ..Default::default()
    };
    network::rbac::v3::Rbac {
        rules: Some(rbac::Rbac {
            action: rbac::rbac::Action::Deny as i32,
            policies: [("istio-ext-authz-http-provider".to_owned(), policy)].into(),
            ..Default::default()
        }),
        stat_prefix: "tcp.".into(),
        ..Default::default()
    }
}

fn principal(expr: &Expr, peer: Peer) -> rbac::Principal {
    use rbac::principal::{Identifier, Set};
    let wrap = |identifier| rbac::Principal {
        identifier: Some(identifier),
    };
    let any = || wrap(Identifier::Any(true));
    let set = |list: &[Expr]| Set {
        ids: list.iter().map(|one| principal(one, peer)).collect(),
    };
    wrap(match expr {
        Expr::AllOf(list) if list.is_empty() => Identifier::AndIds(Set { ids: vec![any()] }),
        Expr::AllOf(list) => Identifier::AndIds(set(list)),
        Expr::AnyOf(list) if list.is_empty() => Identifier::NotId(Box::new(any())),
        Expr::AnyOf(list) => Identifier::OrIds(set(list)),
        Expr::Not(inner) => Identifier::NotId(Box::new(principal(inner, peer))),
        Expr::Is(Fact::Identity(condition)) => match peer {
            Peer::Hbone => Identifier::FilterState(identity(condition)),
            Peer::Tls => authenticated(condition),
        },
        // The client address as HBONE carried it: of the matchers of stock Envoy only this
        // one sees what original_dst restored on an internal connection.
        Expr::Is(Fact::SourceIp(net)) => match peer {
            Peer::Hbone => source_ip(net),
            Peer::Tls => Identifier::DirectRemoteIp(cidr(net)),
        },
        Expr::Is(Fact::ForwardedIp(net)) => match peer {
            Peer::Hbone => source_ip(net),
            Peer::Tls => Identifier::RemoteIp(cidr(net)),
        },
        Expr::Is(Fact::Header(name, condition, ignore_case)) => {
            Identifier::Header(header(name, condition, *ignore_case))
        }
        Expr::Is(Fact::Path(condition)) => Identifier::UrlPath(path(condition)),
        Expr::Is(Fact::PathTemplate(_) | Fact::Port(_) | Fact::DestinationIp(_) | Fact::Sni(_)) => {
            Identifier::NotId(Box::new(any()))
        }
        Expr::Is(fact @ (Fact::Claim(..) | Fact::ClaimOrItem(..) | Fact::Metadata(..))) => {
            match dynamic(fact) {
                Some(condition) => principal_metadata(condition),
                None => Identifier::NotId(Box::new(any())),
            }
        }
    })
}

#[allow(deprecated, reason = "the successor is a field that older Envoys lack")]
fn permission_metadata(condition: matcher::MetadataMatcher) -> rbac::permission::Rule {
    rbac::permission::Rule::Metadata(condition)
}

#[allow(deprecated, reason = "the successor is a field that older Envoys lack")]
fn principal_metadata(condition: matcher::MetadataMatcher) -> rbac::principal::Identifier {
    rbac::principal::Identifier::Metadata(condition)
}

#[allow(
    deprecated,
    reason = "direct_remote_ip does not see the restored address"
)]
fn source_ip(net: &ipnet::IpNet) -> rbac::principal::Identifier {
    rbac::principal::Identifier::SourceIp(cidr(net))
}

/// The identity of a certificate that the client showed on this very connection.
fn authenticated(condition: &StrMatch) -> rbac::principal::Identifier {
    rbac::principal::Identifier::Authenticated(rbac::principal::Authenticated {
        principal_name: Some(string(condition, false)),
    })
}

fn identity(condition: &StrMatch) -> matcher::FilterStateMatcher {
    use matcher::filter_state_matcher::Matcher;
    let matcher = Some(Matcher::StringMatch(string(condition, false)));
    matcher::FilterStateMatcher {
        key: PEER.into(),
        matcher,
    }
}

fn path(condition: &StrMatch) -> matcher::PathMatcher {
    let rule = matcher::path_matcher::Rule::Path(string(condition, false));
    matcher::PathMatcher { rule: Some(rule) }
}

fn header(name: &Str, condition: &StrMatch, ignore_case: bool) -> HeaderMatcher {
    use header_matcher::HeaderMatchSpecifier;
    let specifier = match condition {
        StrMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
        condition => HeaderMatchSpecifier::StringMatch(string(condition, ignore_case)),
    };
    HeaderMatcher {
        name: name.to_string(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}
