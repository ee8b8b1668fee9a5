//! Which attributes a rule uses, for findings. Source: spec/policy-and-traffic.md §1.5.

use model::input::AuthzRule;

use super::conditions::{header_of, template};

/// Attributes of a rule by what they need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Needs requests: hosts, methods, paths, headers.
    pub(crate) http: bool,
    /// Needs validated tokens, which this version has not.
    pub(crate) jwt: bool,
    /// Cannot be evaluated at all: unknown keys, unreadable templates.
    pub(crate) unknown: bool,
}

/// What a rule uses.
pub(crate) fn usage(rule: &AuthzRule) -> Usage {
    let mut out = Usage::default();
    for to in &rule.to {
        out.http |= !(to.hosts.is_empty() && to.methods.is_empty() && to.paths.is_empty());
        let paths = to.paths.values.iter().chain(&to.paths.not_values);
        out.unknown |= paths
            .filter(|path| path.contains("{*}") || path.contains("{**}"))
            .any(|path| template(path).is_none());
    }
    out.jwt |= rule
        .from
        .iter()
        .any(|from| !from.request_principals.is_empty());
    for (key, _) in &rule.when {
        if key.starts_with("request.auth.") {
            out.jwt = true;
        } else if header_of(key).is_some() {
            out.http = true;
        } else {
            out.unknown |= !is_known(key);
        }
    }
    out
}

fn is_known(key: &str) -> bool {
    matches!(
        key,
        "destination.ip"
            | "destination.port"
            | "connection.sni"
            | "source.ip"
            | "remote.ip"
            | "source.namespace"
            | "source.principal"
            | "source.serviceAccount"
            | "source.trustDomain"
    )
}
