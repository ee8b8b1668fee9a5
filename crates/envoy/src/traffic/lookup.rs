//! Which rules apply to a service. Source: spec/policy-and-traffic.md §7.1.

use std::collections::BTreeSet;

use flow::Reads;
use model::input::{DestinationRule, Subset, TrafficPolicy};
use model::labels::LABEL_GATEWAY_NAME;
use model::{MeshRow, NamespacedHostname, ObjectKey, Str};

use super::{Seen, TrafficTables};
use crate::index::{DestinationRuleByHost, RuleHost};
use crate::ir::Direction;

/// The rules for a service: at least one, of one namespace and one host.
#[derive(Clone, Debug)]
pub(crate) struct Resolved<'t> {
    /// The rule whose policy holds for the whole service: the oldest that has one, else the
    /// oldest.
    key: &'t ObjectKey,
    /// All that are merged, oldest first.
    rules: Vec<(&'t ObjectKey, &'t DestinationRule)>,
}

// === impl Resolved ===

impl<'t> Resolved<'t> {
    fn new(rules: Vec<(&'t ObjectKey, &'t DestinationRule)>) -> Option<Self> {
        let with_policy = rules.iter().find(|(_, rule)| rule.policy.is_some());
        let (key, _) = with_policy.or(rules.first())?;
        Some(Self { key, rules })
    }

    /// The rule whose policy holds for the whole service.
    pub(crate) fn key(&self) -> &'t ObjectKey {
        self.key
    }

    /// The policy for the whole service.
    pub(crate) fn policy(&self) -> Option<&'t TrafficPolicy> {
        self.rules.iter().find_map(|(_, rule)| rule.policy.as_ref())
    }

    /// All rules that are merged.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'t ObjectKey> {
        self.rules.iter().map(|(key, _)| *key)
    }

    /// Subsets: of several of one name the first of the oldest rule.
    pub(crate) fn subsets(&self) -> impl Iterator<Item = &'t Subset> {
        let mut seen = BTreeSet::new();
        let all = self.rules.iter().flat_map(|(_, rule)| &rule.subsets);
        all.filter(move |subset| seen.insert(subset.name.clone()))
    }

    /// A subset by name.
    pub(crate) fn subset(&self, name: &str) -> Option<&'t Subset> {
        self.subsets().find(|subset| *subset.name == *name)
    }
}

/// The rules for a service: those of the waypoint's namespace, else of the service's, else of
/// the root namespace; the first namespace with any decides. `None` also where the waypoint's
/// namespace does not see the service.
pub(crate) fn resolve<'t>(
    tables: TrafficTables<'t>,
    reads: &mut Reads,
    seen: &Seen<'_>,
) -> Option<Resolved<'t>> {
    let (service, mesh) = (seen.service, seen.mesh);
    let from = &seen.waypoint.ns;
    if !is_visible(&service.export_to, &service.key.ns, from) {
        return None;
    }
    let root = &mesh.root_namespace;
    // A proxy of the root namespace takes what is private there before what is for everybody.
    let own_only_private = from == root;
    let steps = [
        (from, own_only_private),
        (&service.key.ns, false),
        (root, false),
    ];
    steps.into_iter().find_map(|(ns, only_private)| {
        let visible = |rule: &DestinationRule| {
            let export_to = export_to(rule, mesh);
            if only_private {
                export_to.iter().all(|to| to == "." || to == ns)
            } else {
                is_visible(export_to, ns, from)
            }
        };
        in_namespace(tables, reads, seen, ns, visible)
    })
}

/// The rules of one namespace for a service: those with the most specific host, and of these
/// those that are as visible as the oldest. Rules that select their proxies count for services
/// elsewhere, where they come first.
fn in_namespace<'t>(
    tables: TrafficTables<'t>,
    reads: &mut Reads,
    seen: &Seen<'_>,
    ns: &Str,
    visible: impl Fn(&DestinationRule) -> bool,
) -> Option<Resolved<'t>> {
    let host = &seen.service.key;
    let mut found = Vec::new();
    for at in RuleHost::all(ns, &host.hostname) {
        for (key, parsed) in tables
            .destination_rules
            .by::<DestinationRuleByHost>(reads, &at)
        {
            let Some(rule) = parsed.ok() else { continue };
            let Some(rank) = host_rank(&rule_host(key, rule, &seen.mesh.domain), &host.hostname)
            else {
                continue;
            };
            if !visible(rule)
                || (!seen.mesh.features.foreign_hosts && claims_foreign_host(key, host, seen.mesh))
            {
                continue;
            }
            match &rule.workload_selector {
                None => found.push((rank, parsed, key, rule)),
                // Selecting rules concern no other namespace than theirs, nor what is behind
                // the waypoint; and of a waypoint's labels the one that names it is known.
                Some(labels)
                    if seen.direction == Direction::Outbound
                        && *ns == seen.waypoint.ns
                        && labels.iter().all(|(label, value)| {
                            label == LABEL_GATEWAY_NAME && *value == seen.waypoint.name
                        }) =>
                {
                    found.push((rank, parsed, key, rule));
                }
                Some(_) => {}
            }
        }
    }
    let best = found.iter().map(|(rank, ..)| *rank).max()?;
    found.retain(|(rank, ..)| *rank == best);
    let selecting = found
        .iter()
        .any(|(.., rule)| rule.workload_selector.is_some());
    found.retain(|(.., rule)| rule.workload_selector.is_some() == selecting);
    found.sort_by_cached_key(|(_, parsed, ..)| parsed.meta.age_order());
    let namespaces = |rule: &DestinationRule| -> BTreeSet<Str> {
        export_to(rule, seen.mesh).iter().cloned().collect()
    };
    let oldest = namespaces(found.first()?.3);
    let rules = found.into_iter().filter(|(.., rule)| {
        // Policies of selecting rules are not merged: the oldest counts alone.
        namespaces(rule) == oldest
    });
    let mut rules: Vec<_> = rules.map(|(_, _, key, rule)| (key, rule)).collect();
    if selecting {
        rules.truncate(1);
    }
    Resolved::new(rules)
}

/// The host of a rule in full: a short one is of the rule's own namespace.
pub(crate) fn rule_host(key: &ObjectKey, rule: &DestinationRule, domain: &str) -> Str {
    let host = &rule.host;
    if host.contains('.') || host.starts_with('*') {
        return host.clone();
    }
    arcstr::format!("{host}.{}.svc.{domain}", key.ns)
}

/// How well the host of a rule fits that of a service: exact beats wildcards, of which the
/// longest wins; `None` when it does not.
pub(crate) fn host_rank(pattern: &str, host: &str) -> Option<(bool, usize)> {
    if pattern.eq_ignore_ascii_case(host) {
        return Some((true, pattern.len()));
    }
    let suffix = pattern.strip_prefix('*')?;
    let cut = host.len().checked_sub(suffix.len())?;
    let (head, tail) = host.is_char_boundary(cut).then(|| host.split_at(cut))?;
    (!head.is_empty() && tail.eq_ignore_ascii_case(suffix)).then_some((false, pattern.len()))
}

/// Where a rule is exported to, the default of the mesh applied.
pub(crate) fn export_to<'r>(rule: &'r DestinationRule, mesh: &'r MeshRow) -> &'r [Str] {
    if rule.export_to.is_empty() {
        &mesh.traffic.destination_rule_export_to
    } else {
        &rule.export_to
    }
}

/// Whether something of namespace `own` that is exported to these is seen from namespace
/// `from`. An empty list means everybody.
pub(crate) fn is_visible(export_to: &[Str], own: &str, from: &str) -> bool {
    export_to.is_empty()
        || export_to.iter().any(|to| match to.as_str() {
            "*" => true,
            "." => own == from,
            ns => ns == from,
        })
}

/// Whether a rule is neither of the namespace of a host nor of the root namespace, whose rules
/// are the mesh's.
pub(crate) fn claims_foreign_host(
    rule: &ObjectKey,
    host: &NamespacedHostname,
    mesh: &MeshRow,
) -> bool {
    rule.ns != host.ns && rule.ns != mesh.root_namespace
}
