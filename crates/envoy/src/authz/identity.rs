//! Peer identities as typed matchers over `spiffe://<trust domain>/ns/<ns>/sa/<account>`.
//!
//! A waypoint accepts clients of the mesh's own trust domains only, so a condition that
//! holds in any trust domain is the alternative over those.
//! Source: spec/policy-and-traffic.md §1.3, §1.6.

use model::{MeshRow, Str};

use crate::ir::{Expr, Fact, StrMatch};

/// The mesh's trust domain and its aliases, each once.
pub(crate) fn bundle(mesh: &MeshRow) -> Vec<&Str> {
    let mut all = vec![&mesh.trust_domain];
    for alias in &mesh.trust_domain_aliases {
        if !all.contains(&alias) {
            all.push(alias);
        }
    }
    all
}

/// A principal written without scheme. `*` alone is any identity.
pub(super) fn principal(value: &str, mesh: &MeshRow) -> Vec<StrMatch> {
    if value == "*" {
        return vec![StrMatch::Prefix(arcstr::literal!("spiffe://"))];
    }
    expand(value, mesh)
        .into_iter()
        .map(|value| {
            if let Some(suffix) = value.strip_prefix('*') {
                StrMatch::Suffix(suffix.into())
            } else if let Some(prefix) = value.strip_suffix('*') {
                StrMatch::Prefix(arcstr::format!("spiffe://{prefix}"))
            } else {
                StrMatch::Exact(arcstr::format!("spiffe://{value}"))
            }
        })
        .collect()
}

/// One copy per trust domain of the mesh, when the value is a complete identity in one of
/// them (or in `cluster.local`); else the value itself.
fn expand(value: &str, mesh: &MeshRow) -> Vec<String> {
    let own = vec![value.to_owned()];
    let Some((domain, rest)) = value.split_once('/') else {
        return own;
    };
    if domain == "*" || rest.split('/').count() != 4 {
        return own;
    }
    let bundle = bundle(mesh);
    let known = domain == model::defaults::TRUST_DOMAIN
        || bundle.iter().any(|entry| wildcard(domain, entry));
    if !known {
        return own;
    }
    bundle
        .iter()
        .map(|entry| format!("{entry}/{rest}"))
        .collect()
}

/// One star at either end of a pattern.
fn wildcard(pattern: &str, text: &str) -> bool {
    if let Some(suffix) = pattern.strip_prefix('*') {
        text.ends_with(suffix)
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        text.starts_with(prefix)
    } else {
        pattern == text
    }
}

/// `account` (of the policy's namespace) or `namespace/account`.
pub(super) fn service_account(value: &str, ns: &str, mesh: &MeshRow) -> Vec<StrMatch> {
    let (ns, account) = value.split_once('/').unwrap_or((ns, value));
    bundle(mesh)
        .into_iter()
        .map(|domain| StrMatch::Exact(arcstr::format!("spiffe://{domain}/ns/{ns}/sa/{account}")))
        .collect()
}

/// A trust domain, a star at one end allowed; a member of the mesh stands for all of them.
pub(super) fn trust_domain(value: &str, mesh: &MeshRow) -> Vec<StrMatch> {
    let prefix = |domain: &str| StrMatch::Prefix(arcstr::format!("spiffe://{domain}/"));
    let bundle = bundle(mesh);
    if value == "*" {
        vec![StrMatch::Prefix(arcstr::literal!("spiffe://"))]
    } else if value.starts_with('*') || value.ends_with('*') {
        // No other trust domain gets past TLS, so the pattern is decided here.
        bundle
            .into_iter()
            .filter(|d| wildcard(value, d))
            .map(|d| prefix(d))
            .collect()
    } else if bundle.iter().any(|domain| *domain == value) {
        bundle.into_iter().map(|domain| prefix(domain)).collect()
    } else {
        vec![prefix(value)]
    }
}

/// Whether [`namespace`] can be said.
pub(super) fn is_namespace(value: &str) -> bool {
    !value.is_empty() && !value.contains('/') && value.matches('*').count() <= 1
}

/// A namespace with at most one star. `None` for more of them: typed matchers cannot say it
/// exactly.
pub(super) fn namespace(value: &str, mesh: &MeshRow) -> Option<Vec<Expr>> {
    if !is_namespace(value) {
        return None;
    }
    if let Some((start, end)) = value.split_once('*')
        && !start.is_empty()
        && !end.is_empty()
    {
        let domains = bundle(mesh).into_iter();
        return Some(
            domains
                .map(|domain| star_inside(domain, start, end))
                .collect(),
        );
    }
    let inner = value.trim_matches('*');
    let is = |m| Expr::Is(Fact::Identity(m));
    let one = |domain: &Str| {
        if inner.is_empty() {
            is(StrMatch::Prefix(arcstr::format!("spiffe://{domain}/ns/")))
        } else if value.starts_with('*') {
            // A namespace has no slash, so this can only be the end of one.
            let mut all = vec![
                is(StrMatch::Prefix(arcstr::format!("spiffe://{domain}/ns/"))),
                is(StrMatch::Contains(arcstr::format!("{inner}/sa/"))),
            ];
            all.extend(but_for_sa(domain, inner));
            Expr::AllOf(all)
        } else if value.ends_with('*') {
            is(StrMatch::Prefix(arcstr::format!(
                "spiffe://{domain}/ns/{inner}"
            )))
        } else {
            is(StrMatch::Prefix(arcstr::format!(
                "spiffe://{domain}/ns/{inner}/"
            )))
        }
    };
    Some(bundle(mesh).into_iter().map(one).collect())
}

/// In a namespace of the name `sa`, what stands before its own name looks like the end of one:
/// `/ns/sa/`. That name ends otherwise.
fn but_for_sa(domain: &Str, end: &str) -> Option<Expr> {
    let own = || StrMatch::Prefix(arcstr::format!("spiffe://{domain}/ns/sa/"));
    "ns".ends_with(end)
        .then(|| Expr::Is(Fact::Identity(own())).negated())
}

/// A namespace that starts and ends like this, where the two do not overlap.
fn star_inside(domain: &Str, start: &str, end: &str) -> Expr {
    let is = |m| Expr::Is(Fact::Identity(m));
    let mut all = vec![
        is(StrMatch::Prefix(arcstr::format!(
            "spiffe://{domain}/ns/{start}"
        ))),
        is(StrMatch::Contains(arcstr::format!("{end}/sa/"))),
    ];
    all.extend(but_for_sa(domain, end));
    // Namespaces shorter than both texts together fit the two conditions where the texts
    // overlap; those few are excepted by name.
    let overlaps = end
        .char_indices()
        .map(|(at, letter)| at + letter.len_utf8());
    for shared in overlaps.filter_map(|length| end.split_at_checked(length)) {
        let (shared, rest) = shared;
        if start.ends_with(shared) {
            let name = StrMatch::Prefix(arcstr::format!("spiffe://{domain}/ns/{start}{rest}/sa/"));
            all.push(is(name).negated());
        }
    }
    Expr::AllOf(all)
}
