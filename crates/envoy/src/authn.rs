//! RequestAuthentications at a waypoint: which ones attach, and the `jwt_authn` filter that they
//! become. A token that somebody looks for must be good; whether one must be there is for
//! AuthorizationPolicies to say. Source: spec/policy-and-traffic.md §0.3, §2.

pub(crate) mod keys;
pub mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Reads, View};
use model::input::{JwtRule, RequestAuthentication};
use model::jwks::Jwks;
use model::{MeshRow, ObjectKey, Parsed, Str};

use crate::authz::{PolicyTables, Selected, is_header_name};
use crate::index::{RequestAuthenticationByTarget, Target, UntargetedAuthenticationByNamespace};
use crate::ir::{ChainFilter, Expr, JwtIr, JwtProviderIr, RbacAction, RbacIr, RbacRuleIr};

/// The table of RequestAuthentications.
pub(crate) type Authentications<'t> = View<'t, ObjectKey, Parsed<RequestAuthentication>>;

/// Claims that are always split at spaces.
const SPACE_DELIMITED: [Str; 2] = [arcstr::literal!("permission"), arcstr::literal!("scope")];

/// RequestAuthentications attached to one of these, oldest first, each once.
pub(crate) fn attached<'t>(
    table: Authentications<'t>,
    reads: &mut Reads,
    targets: &[Target],
) -> Vec<&'t Arc<Parsed<RequestAuthentication>>> {
    let mut found = BTreeMap::new();
    for target in targets {
        for (_, row) in table.by::<RequestAuthenticationByTarget>(reads, target) {
            found.insert(row.meta.age_order(), row);
        }
    }
    found.into_values().collect()
}

/// The filter of tokens; `None` without any rule.
pub(crate) fn filter(
    tables: &PolicyTables<'_>,
    reads: &mut Reads,
    mesh: &MeshRow,
    targets: &[Target],
    selected: Option<&Selected<'_>>,
) -> Option<ChainFilter> {
    let mut found = attached(tables.authentications, reads, targets);
    if let Some(selected) = selected {
        for ns in selected.namespaces() {
            let table = tables.authentications;
            let all = table.by::<UntargetedAuthenticationByNamespace>(reads, ns);
            let rows = all.map(|(_, row)| row).filter(|row| {
                // Whom one that cannot be read was to select is not known.
                let spec = row.ok();
                spec.is_none_or(|spec| selected.meets(spec.selector.as_ref()))
            });
            found.extend(rows);
        }
        found.sort_by_cached_key(|row| row.meta.age_order());
    }
    let mut providers = Vec::new();
    for parsed in found {
        match &parsed.body {
            Ok(spec) => {
                for rule in &spec.rules {
                    let keys = usable_keys(rule, tables.jwks, reads, mesh);
                    providers.push(provider(rule, keys));
                }
            }
            // Whatever tokens it was to accept, none may pass for verified because of it.
            Err(_) => providers.push(nobody(mesh)),
        }
    }
    if providers.is_empty() {
        return None;
    }
    // Envoy refuses the whole listener for a provider without keys.
    if providers.iter().any(|provider| provider.jwks.is_empty()) {
        return Some(ChainFilter::Rbac(refuse_all()));
    }
    providers.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    Some(ChainFilter::Jwt(JwtIr { providers }))
}

/// The keys of a rule: those written, those fetched, else ones that nobody can sign with.
fn usable_keys(
    rule: &JwtRule,
    table: View<'_, Str, Jwks>,
    reads: &mut Reads,
    mesh: &MeshRow,
) -> Str {
    let instead = || mesh.nobody_jwks.clone();
    if !rule.jwks.is_empty() {
        let good = keys::check(&rule.jwks).is_ok();
        return if good { rule.jwks.clone() } else { instead() };
    }
    let Some(source) = wanted::source(rule) else {
        return instead();
    };
    let Some(row) = table.get(reads, &source.key) else {
        return instead();
    };
    let good = |keys: &&Str| keys::check(keys).is_ok();
    let found = row.keys.as_ref().filter(good);
    found.cloned().unwrap_or_else(|| {
        let own = Some(&row.nobody).filter(good);
        own.cloned().unwrap_or_else(instead)
    })
}

fn provider(rule: &JwtRule, jwks: Str) -> JwtProviderIr {
    let header = |name: &Str| is_header_name(name);
    let split = rule.space_delimited_claims.iter().cloned();
    let places = rule
        .from_headers
        .iter()
        .filter(|(name, prefix)| header(name) && !prefix.contains(['\0', '\r', '\n']));
    let claims = rule.claim_headers.iter();
    let claims = claims.filter(|(name, claim)| header(name) && !claim.is_empty());
    JwtProviderIr {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        jwks,
        from_headers: places.cloned().collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward: rule.forward,
        payload_header: Some(&rule.payload_header)
            .filter(|name| header(name))
            .cloned()
            .unwrap_or_default(),
        claim_headers: claims.cloned().collect(),
        space_delimited: split
            .filter(|claim| !claim.is_empty())
            .chain(SPACE_DELIMITED)
            .collect::<BTreeSet<Str>>(),
    }
}

/// A provider that no token satisfies.
fn nobody(mesh: &MeshRow) -> JwtProviderIr {
    provider(&JwtRule::default(), mesh.nobody_jwks.clone())
}

/// Instead of a filter of tokens, where there are not even keys of nobody.
fn refuse_all() -> RbacIr {
    let all = RbacRuleIr {
        permissions: vec![Expr::always()],
        principals: vec![Expr::always()],
    };
    RbacIr {
        action: RbacAction::Deny,
        rules: Some([(arcstr::literal!("tokens-without-keys"), all)].into()),
        shadow: None,
    }
}

#[cfg(test)]
mod tests;
