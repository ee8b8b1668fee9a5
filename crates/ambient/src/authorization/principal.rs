//! Principals that match nobody, or not everybody who is meant.

use model::input::{AuthorizationPolicy, AuthzRule};
use model::{Finding, MeshRow, ObjectKey, Str, defaults};

use super::policy::reference;
use crate::tables::{error, warning};

/// Principals that can never match, wherever the policy is enforced.
pub(super) fn notes(key: &ObjectKey, policy: &AuthorizationPolicy, mesh: &MeshRow) -> Vec<Finding> {
    let mut notes = Vec::new();
    for (i, rule) in policy.rules.iter().enumerate() {
        for (field, text) in principals(i, rule) {
            let note = if text.starts_with("spiffe://") {
                error(
                    "authz-principal-scheme",
                    reference(key),
                    "Principals are written without spiffe://; this one never matches",
                    "Remove the prefix",
                )
            } else if has_inner_wildcard(text) {
                error(
                    "authz-principal-wildcard-middle",
                    reference(key),
                    format!(
                        "{text}: * works only at the start or at the end; this one is taken literally"
                    ),
                    "Rewrite the value",
                )
            } else if !text.contains('*') && !is_identity(text) {
                error(
                    "authz-principal-shape",
                    reference(key),
                    format!(
                        "{text} is not <trust-domain>/ns/<namespace>/sa/<account>; it never matches"
                    ),
                    "Correct it, or use serviceAccounts: [<namespace>/<account>]",
                )
            } else if let Some(domain) = unknown_domain(text, mesh) {
                error(
                    "authz-unknown-trust-domain",
                    reference(key),
                    format!(
                        "Trust domain {domain} is neither that of this mesh nor an alias; {text} matches nobody here"
                    ),
                    format!(
                        "Write {}, or add the domain to trustDomainAliases",
                        mesh.trust_domain
                    ),
                )
            } else {
                continue;
            };
            notes.push(note.at(field));
        }
    }
    notes
}

/// The trust domain of a principal, if no peer of this mesh can have it.
fn unknown_domain<'a>(principal: &'a str, mesh: &MeshRow) -> Option<&'a str> {
    let (domain, _) = principal.split_once('/')?;
    let known = domain.contains('*')
        || domain == mesh.trust_domain
        || domain == defaults::TRUST_DOMAIN
        || mesh
            .trust_domain_aliases
            .iter()
            .any(|alias| alias == domain);
    (!known).then_some(domain)
}

/// Principals of one trust domain where peers may have another: ztunnel knows no aliases.
pub(super) fn aliases(
    key: &ObjectKey,
    policy: &AuthorizationPolicy,
    mesh: &MeshRow,
) -> Option<Finding> {
    if mesh.trust_domain_aliases.is_empty() {
        return None;
    }
    let ours = |text: &Str| {
        let domain = text.split_once('/').map(|(domain, _)| domain);
        domain.is_some_and(|domain| {
            let mut aliases = mesh.trust_domain_aliases.iter();
            domain == mesh.trust_domain || aliases.any(|alias| alias == domain)
        })
    };
    let rules = policy.rules.iter().enumerate();
    let mut named = rules.flat_map(|(i, rule)| principals(i, rule));
    let (field, text) = named.find(|(_, text)| ours(text))?;
    let note = warning(
        "authz-td-alias-ztunnel",
        reference(key),
        format!(
            "ztunnel does not expand trust-domain aliases: {text} does not match the same account under another domain of this mesh"
        ),
        "List the principal under each domain, or use namespaces or serviceAccounts",
    );
    Some(note.at(field))
}

pub(super) fn principals(i: usize, rule: &AuthzRule) -> Vec<(String, &Str)> {
    let mut found = Vec::new();
    for (j, from) in rule.from.iter().enumerate() {
        let lists = [
            ("principals", &from.principals.values),
            ("notPrincipals", &from.principals.not_values),
        ];
        for (name, texts) in lists {
            let path = format!("spec.rules[{i}].from[{j}].source.{name}");
            found.extend(
                texts
                    .iter()
                    .enumerate()
                    .map(|(k, text)| (format!("{path}[{k}]"), text)),
            );
        }
    }
    for (j, (key, values)) in rule.when.iter().enumerate() {
        if key == "source.principal" {
            for (name, texts) in [
                ("values", &values.values),
                ("notValues", &values.not_values),
            ] {
                let path = format!("spec.rules[{i}].when[{j}].{name}");
                found.extend(
                    texts
                        .iter()
                        .enumerate()
                        .map(|(k, text)| (format!("{path}[{k}]"), text)),
                );
            }
        }
    }
    found
}

fn has_inner_wildcard(text: &str) -> bool {
    let body = text
        .strip_prefix('*')
        .or_else(|| text.strip_suffix('*'))
        .unwrap_or(text);
    body.contains('*')
}

fn is_identity(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    matches!(parts.as_slice(), [td, "ns", ns, "sa", sa] if !td.is_empty() && !ns.is_empty() && !sa.is_empty())
}
