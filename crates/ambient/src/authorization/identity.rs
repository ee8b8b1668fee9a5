//! Names of peers that do not exist. Source: spec/policy-and-traffic.md §10.1.

use flow::Reads;
use model::census::CensusKey;
use model::input::{AuthorizationPolicy, AuthzRule, Values};
use model::{Finding, MeshRow, ObjectKey, Str, defaults};

use super::policy::reference;
use super::{AuthorizationView, principal};
use crate::census::AccountsByNamespace;
use crate::tables::warning;

/// A peer that a rule names: where, as written, and what must exist.
struct Named {
    field: String,
    ns: Str,
    account: Option<Str>,
}

/// One finding per value that names a namespace that does not exist, or an account under which
/// nothing runs there. Of a namespace without any workload nothing is known.
pub(super) fn notes(
    key: &ObjectKey,
    policy: &AuthorizationPolicy,
    mesh: &MeshRow,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    let rules = policy.rules.iter().enumerate();
    let named = rules.flat_map(|(i, rule)| named(key, i, rule, mesh));
    let mut notes = Vec::new();
    for Named { field, ns, account } in named.collect::<Vec<_>>() {
        let namespace = ObjectKey::cluster(ns.clone());
        let mut fix = "Check the spelling; often the name of a Service stands where that of a service account belongs".to_owned();
        let message = if view.namespaces.get(reads, &namespace).is_none() {
            format!("Namespace {ns} does not exist; nobody comes from there")
        } else if let Some(account) = account
            && is_unknown(&ns, &account, view, reads)
        {
            if let Some(known) = resembling(&ns, &account, view, reads) {
                fix = format!("Write {known}, if that is the service account meant");
            }
            format!(
                "Nothing in namespace {ns} runs under service account {account}; nobody has this identity"
            )
        } else {
            continue;
        };
        let note = warning("authz-unknown-identity", reference(key), message, fix);
        notes.push(note.at(field));
    }
    notes
}

fn is_unknown(ns: &Str, account: &Str, view: &AuthorizationView<'_>, reads: &mut Reads) -> bool {
    let key = CensusKey::Account(ObjectKey::new(ns.clone(), account.clone()));
    view.census.get(reads, &key).is_none()
        && (view.census.by::<AccountsByNamespace>(reads, ns))
            .next()
            .is_some()
}

/// An account of the namespace whose name is part of the one written, or the reverse: charts put
/// their own name in front.
fn resembling(
    ns: &Str,
    account: &Str,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Option<Str> {
    let has_part = |name: &str, part: &str| {
        let after = name.strip_suffix(part);
        let before = name.strip_prefix(part);
        after.is_some_and(|rest| rest.ends_with('-'))
            || before.is_some_and(|rest| rest.starts_with('-'))
    };
    let all = view.census.by::<AccountsByNamespace>(reads, ns);
    let names = all.filter_map(|(key, _)| match key {
        CensusKey::Account(key) => Some(&key.name),
        CensusKey::Served(_) | CensusKey::Captured(_) => None,
    });
    let like = names.filter(|name| has_part(name, account) || has_part(account, name));
    like.min_by_key(|name| (name.len(), *name)).cloned()
}

fn named(key: &ObjectKey, i: usize, rule: &AuthzRule, mesh: &MeshRow) -> Vec<Named> {
    let mut found = Vec::new();
    for (field, text) in principal::principals(i, rule) {
        let parts: Vec<&str> = text.split('/').collect();
        if let [domain, "ns", ns, "sa", account] = parts.as_slice()
            && !text.contains('*')
            && is_ours(domain, mesh)
            && !ns.is_empty()
            && !account.is_empty()
        {
            found.push(Named {
                field,
                ns: Str::from(*ns),
                account: Some(Str::from(*account)),
            });
        }
    }
    for (j, from) in rule.from.iter().enumerate() {
        let at = format!("spec.rules[{i}].from[{j}].source");
        let names = ("namespaces", "notNamespaces");
        namespaces(&mut found, &at, names, &from.namespaces);
        let accounts = &from.service_accounts;
        let lists = [
            ("serviceAccounts", &accounts.values),
            ("notServiceAccounts", &accounts.not_values),
        ];
        for (name, texts) in lists {
            for (k, text) in texts.iter().enumerate() {
                let (ns, account) = match text.split_once('/') {
                    Some((ns, account)) => (Str::from(ns), Str::from(account)),
                    None => (key.ns.clone(), text.clone()),
                };
                found.push(Named {
                    field: format!("{at}.{name}[{k}]"),
                    ns,
                    account: Some(account),
                });
            }
        }
    }
    for (j, (condition, values)) in rule.when.iter().enumerate() {
        if condition == "source.namespace" {
            let at = format!("spec.rules[{i}].when[{j}]");
            namespaces(&mut found, &at, ("values", "notValues"), values);
        }
    }
    found
}

fn namespaces(found: &mut Vec<Named>, at: &str, names: (&str, &str), values: &Values) {
    for (name, texts) in [(names.0, &values.values), (names.1, &values.not_values)] {
        let exact = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| !text.contains('*'));
        found.extend(exact.map(|(k, text)| Named {
            field: format!("{at}.{name}[{k}]"),
            ns: text.clone(),
            account: None,
        }));
    }
}

fn is_ours(domain: &str, mesh: &MeshRow) -> bool {
    let mut aliases = mesh.trust_domain_aliases.iter();
    domain == mesh.trust_domain
        || domain == defaults::TRUST_DOMAIN
        || aliases.any(|alias| alias == domain)
}
