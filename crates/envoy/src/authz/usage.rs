//! Which attributes a rule uses, for findings. Source: spec/policy-and-traffic.md §1.5.

use model::Str;
use model::input::{AuthzOperation, AuthzRule, AuthzSource};

use super::conditions::{claim_of, header_of, is_about_destination, template};
use super::identity;

/// Attributes of a rule by what they need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Needs validated tokens.
    pub(crate) jwt: bool,
    /// Cannot be evaluated at all: unknown keys, unreadable templates, namespaces with several
    /// stars.
    pub(crate) unknown: bool,
}

/// What a rule uses.
pub(crate) fn usage(rule: &AuthzRule) -> Usage {
    let mut out = Usage::default();
    for to in &rule.to {
        let paths = to.paths.values.iter().chain(&to.paths.not_values);
        out.unknown |= paths
            .filter(|path| path.contains("{*}") || path.contains("{**}"))
            .any(|path| template(path).is_none());
    }
    out.jwt |= rule
        .from
        .iter()
        .any(|from| !from.request_principals.is_empty());
    let namespaces = rule.from.iter().map(|from| &from.namespaces);
    let keyed = rule
        .when
        .iter()
        .filter(|(key, _)| key == "source.namespace");
    let mut namespaces = namespaces
        .chain(keyed.map(|(_, values)| values))
        .flat_map(|list| list.values.iter().chain(&list.not_values));
    out.unknown |= namespaces.any(|value| !identity::is_namespace(value));
    for (key, _) in &rule.when {
        if is_about_token(key) {
            out.jwt = true;
        } else {
            out.unknown |= header_of(key).is_none() && !is_known(key);
        }
    }
    out
}

/// Paths below a rule of the fields that need verified tokens.
pub(crate) fn token_fields(rule: &AuthzRule) -> Vec<String> {
    fn lists(from: &AuthzSource) -> [List<'_>; 2] {
        let list = &from.request_principals;
        [
            ("requestPrincipals", &list.values),
            ("notRequestPrincipals", &list.not_values),
        ]
    }
    client_fields(rule, lists, is_about_token)
}

/// Paths below a rule of the fields that need to know who the client is.
pub(crate) fn peer_fields(rule: &AuthzRule) -> Vec<String> {
    fn lists(from: &AuthzSource) -> [List<'_>; 8] {
        [
            ("principals", &from.principals.values),
            ("notPrincipals", &from.principals.not_values),
            ("namespaces", &from.namespaces.values),
            ("notNamespaces", &from.namespaces.not_values),
            ("serviceAccounts", &from.service_accounts.values),
            ("notServiceAccounts", &from.service_accounts.not_values),
            ("trustDomains", &from.trust_domains.values),
            ("notTrustDomains", &from.trust_domains.not_values),
        ]
    }
    client_fields(rule, lists, is_about_peer)
}

/// Paths below a rule of the fields that need requests (hosts, methods, paths, headers);
/// with a port only those that concern it.
pub(crate) fn http_fields(rule: &AuthzRule, port: Option<u16>) -> Vec<String> {
    let concerns = |to: &AuthzOperation| port.is_none_or(|port| covers(to, port));
    let mut fields = Vec::new();
    for (index, to) in rule.to.iter().enumerate().filter(|(_, to)| concerns(to)) {
        let lists = [
            ("hosts", &to.hosts.values),
            ("notHosts", &to.hosts.not_values),
            ("methods", &to.methods.values),
            ("notMethods", &to.methods.not_values),
            ("paths", &to.paths.values),
            ("notPaths", &to.paths.not_values),
        ];
        fields.extend(used(&format!("to[{index}].operation"), lists));
    }
    if rule.to.is_empty() || rule.to.iter().any(concerns) {
        fields.extend(keys(rule, |key| header_of(key).is_some()));
    }
    fields
}

/// A list of a rule, and the name of its field.
type List<'r> = (&'static str, &'r Vec<Str>);

/// Paths of these lists of every source, where they are not empty, and of conditions on keys.
fn client_fields<const N: usize>(
    rule: &AuthzRule,
    lists: fn(&AuthzSource) -> [List<'_>; N],
    is_key: fn(&str) -> bool,
) -> Vec<String> {
    let sources = rule.from.iter().enumerate();
    sources
        .flat_map(|(index, from)| used(&format!("from[{index}].source"), lists(from)))
        .chain(keys(rule, is_key))
        .collect()
}

/// Paths of the lists of a part that are not empty.
fn used<const N: usize>(part: &str, lists: [List<'_>; N]) -> Vec<String> {
    let used = lists.into_iter().filter(|(_, values)| !values.is_empty());
    used.map(|(name, _)| format!("{part}.{name}")).collect()
}

/// Paths of conditions on keys.
fn keys(rule: &AuthzRule, is_key: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
    let keys = rule.when.iter().enumerate();
    keys.filter(move |(_, (key, _))| is_key(key))
        .map(|(index, _)| format!("when[{index}].key"))
}

/// Whether an operation can be about a port.
fn covers(to: &AuthzOperation, port: u16) -> bool {
    let lists = |values: &[Str]| values.iter().any(|value| value.parse() == Ok(port));
    (to.ports.values.is_empty() || lists(&to.ports.values)) && !lists(&to.ports.not_values)
}

fn is_about_token(key: &str) -> bool {
    claim_of(key).is_some() || key == "request.auth.principal"
}

fn is_about_peer(key: &str) -> bool {
    matches!(
        key,
        "source.namespace" | "source.principal" | "source.serviceAccount" | "source.trustDomain"
    )
}

fn is_known(key: &str) -> bool {
    is_about_destination(key) || is_about_peer(key) || matches!(key, "source.ip" | "remote.ip")
}
