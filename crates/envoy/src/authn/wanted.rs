//! Stage `jwks_wanted`: which key sets the control plane must fetch, whoever is connected, so
//! that keys are there before the first waypoint asks. Source: spec/policy-and-traffic.md §2.2.

use std::collections::BTreeSet;

use flow::{Output, Reads, View};
use model::input::{JwtRule, RequestAuthentication};
use model::jwks::{JwksSource, SOURCES_OF_OBJECT_COUNT_MAX, Wanted};
use model::{Finding, ObjectKey, Parsed, Str};

use crate::index::AuthenticationBySource;

/// Primary: key of a [`JwksSource`].
pub type P = Str;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct JwksWantedView<'t> {
    /// RequestAuthentications; index [`AuthenticationBySource`].
    pub authentications: View<'t, ObjectKey, Parsed<RequestAuthentication>>,
}

/// The source of a rule's keys; `None` when they stand in the rule, or when it names neither an
/// address nor an issuer.
pub(crate) fn source(rule: &JwtRule) -> Option<JwksSource> {
    let named = !rule.jwks_uri.is_empty() || !rule.issuer.is_empty();
    (rule.jwks.is_empty() && named).then(|| JwksSource::of(&rule.jwks_uri, &rule.issuer))
}

/// The sources that are fetched for a RequestAuthentication, each once: primaries of this stage.
/// Nobody's object must take the fetches of all others, so those beyond the limit are not.
pub fn sources(row: &Parsed<RequestAuthentication>) -> impl Iterator<Item = Str> {
    row.ok().map(sources_of).into_iter().flatten()
}

/// The first sources of a spec.
pub(crate) fn sources_of(spec: &RequestAuthentication) -> BTreeSet<Str> {
    let mut out = BTreeSet::new();
    for source in spec.rules.iter().filter_map(source) {
        if out.len() >= SOURCES_OF_OBJECT_COUNT_MAX {
            break;
        }
        out.insert(source.key);
    }
    out
}

/// One row per source that some rule names.
pub fn derive(p: &P, view: &JwksWantedView<'_>, reads: &mut Reads) -> Output<Str, Wanted, Finding> {
    let mut wanted: Option<Wanted> = None;
    let rows = view.authentications.by::<AuthenticationBySource>(reads, p);
    for (key, row) in rows {
        let rules = row.ok().into_iter().flat_map(|spec| &spec.rules);
        for rule in rules.filter(|rule| source(rule).is_some_and(|source| source.key == *p)) {
            let into = wanted.get_or_insert_with(|| Wanted {
                uri: (!rule.jwks_uri.is_empty()).then(|| rule.jwks_uri.clone()),
                issuer: rule.issuer.clone(),
                timeout: None,
                namespaces: BTreeSet::new(),
            });
            if !into.namespaces.contains(&key.ns) {
                into.namespaces.insert(key.ns.clone());
            }
            if rule.issuer < into.issuer {
                into.issuer.clone_from(&rule.issuer);
            }
            into.timeout = into.timeout.max(rule.timeout);
        }
    }
    match wanted {
        Some(wanted) => Output::one(p.clone(), wanted),
        None => Output::gone(),
    }
}
