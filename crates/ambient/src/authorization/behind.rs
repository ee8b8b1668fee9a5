//! Policies of ztunnel at workloads behind a waypoint: what comes through it has the waypoint's
//! identity. Source: spec/policy-and-traffic.md §1.10 (last row), §10.1.

use std::collections::BTreeMap;

use flow::Reads;
use model::census::Served;
use model::derived::L4Match;
use model::input::{Action, AuthorizationPolicy};
use model::{Finding, Labels, MeshRow, NamespacedHostname, ObjectKey, Parsed, Str};

use super::AuthorizationView;
use super::evaluate::{self, Identity};
use super::policy::{groups_of, reference};
use crate::tables::{error, warning};
use crate::{census, selector};

/// Index of ALLOW policies of ztunnel that are in force, by namespace.
#[derive(Clone, Copy, Debug)]
pub struct AllowPoliciesByNamespace;

impl flow::Index<ObjectKey, Parsed<AuthorizationPolicy>> for AllowPoliciesByNamespace {
    type At = Str;

    fn keys(key: &ObjectKey, row: &Parsed<AuthorizationPolicy>, emit: &mut dyn FnMut(&Str)) {
        let is_allow = |policy: &AuthorizationPolicy| {
            policy.action == Action::Allow && policy.targets.is_empty() && !policy.dry_run
        };
        if row.ok().is_some_and(is_allow) {
            emit(&key.ns);
        }
    }
}

type Groups = Vec<Vec<Vec<L4Match>>>;

/// A way into a served workload through a waypoint.
struct Way<'t> {
    served: &'t Served,
    waypoint: &'t ObjectKey,
    service: Option<&'t NamespacedHostname>,
    identities: Vec<Identity>,
}

/// Findings on a policy that is in force at ztunnel, with its groups.
pub(super) fn notes(
    key: &ObjectKey,
    policy: &AuthorizationPolicy,
    groups: &Groups,
    mesh: &MeshRow,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    let everything = Labels::new();
    let range = Some(&key.ns).filter(|ns| **ns != mesh.root_namespace);
    let selector = policy.selector.as_ref().unwrap_or(&everything);
    let served = census::served(view.census, reads, range, selector);
    let mut ways = Vec::new();
    for one in served {
        for (waypoint, service) in &one.waypoints {
            if let Some(row) = view.waypoints.get(reads, waypoint) {
                ways.push(Way {
                    served: one,
                    waypoint,
                    service: service.as_ref(),
                    identities: Identity::of_waypoint(row, &mesh.trust_domain),
                });
            }
        }
    }
    if policy.action == Action::Deny {
        return blind(key, groups, &ways, DENY);
    }
    let mut others = Others {
        key,
        mesh,
        view,
        by_namespace: BTreeMap::new(),
    };
    let shut = ways
        .iter()
        .filter(|_| !mesh.features.allow_waypoint_policies)
        .find(|way| {
            let refused = |peer: &&Identity| !admits(groups, peer);
            let mut refused = way.identities.iter().filter(refused);
            refused.any(|peer| !others.admit(way.served, peer, reads))
        });
    let Some(way) = shut else { return Vec::new() };
    let mut notes = blind(key, groups, std::slice::from_ref(way), ALLOW);
    notes.push(not_allowed(key, policy, way));
    notes
}

/// What rules about clients do that are seen only when they go to the pods directly, and how
/// to have them seen.
type Blind = (&'static str, &'static str);
const ALLOW: Blind = ("allows", "Move the rule into a policy with targetRefs");
const DENY: Blind = ("refuses", "Repeat the rule in a policy with targetRefs");

fn admits(groups: &Groups, peer: &Identity) -> bool {
    groups.iter().any(|group| evaluate::may_match(group, peer))
}

fn not_allowed(key: &ObjectKey, policy: &AuthorizationPolicy, way: &Way<'_>) -> Finding {
    let identity = way
        .identities
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (code, what) = if policy.rules.is_empty() {
        ("authz-deny-all-waypoint", "The policy allows nothing")
    } else {
        ("authz-waypoint-not-allowed", "No rule allows it")
    };
    let note = error(
        code,
        reference(key),
        format!(
            "{} arrives as waypoint {} ({identity}). {what}, nor does another policy; all of that traffic is refused",
            traffic(way),
            way.waypoint
        ),
        "Allow the service account of the waypoint, and put rules about clients into a policy with targetRefs",
    );
    note.at("spec.rules")
}

/// Rules about clients that ztunnel does not see.
fn blind(key: &ObjectKey, groups: &Groups, ways: &[Way<'_>], (does, fix): Blind) -> Vec<Finding> {
    let rules = groups.iter().enumerate();
    let notes = rules
        .filter(|(_, group)| evaluate::names_peers(group))
        .filter_map(|(i, group)| {
            let seen = |way: &&Way<'_>| {
                let mut peers = way.identities.iter();
                peers.any(|peer| evaluate::may_match(group, peer))
            };
            let way = ways.iter().find(|way| !seen(way))?;
            let note = warning(
                "authz-l4-source-at-waypoint",
                reference(key),
                format!(
                    "{} arrives as waypoint {}; the clients that this rule names are not seen there, so it {does} only what goes to the pods directly",
                    traffic(way), way.waypoint
                ),
                fix,
            );
            Some(note.at(format!("spec.rules[{i}]")))
        });
    notes.collect()
}

fn traffic(way: &Way<'_>) -> String {
    match way.service {
        Some(host) => format!("Traffic to {}", host.hostname),
        None => format!(
            "Traffic to addresses of workloads of namespace {}",
            way.served.ns
        ),
    }
}

/// The other ALLOW policies, converted once each.
struct Others<'a, 't> {
    key: &'a ObjectKey,
    mesh: &'a MeshRow,
    view: &'a AuthorizationView<'t>,
    by_namespace: BTreeMap<Str, Vec<(Labels, Groups)>>,
}

// === impl Others ===

impl Others<'_, '_> {
    /// Whether one of them that selects these workloads admits a peer.
    fn admit(&mut self, served: &Served, peer: &Identity, reads: &mut Reads) -> bool {
        let root = &self.mesh.root_namespace;
        let ranges = [&served.ns, root];
        let ranges = ranges
            .into_iter()
            .take(if served.ns == *root { 1 } else { 2 });
        for ns in ranges {
            if !self.by_namespace.contains_key(ns) {
                let policies = self.of_namespace(ns, reads);
                self.by_namespace.insert(ns.clone(), policies);
            }
            let mut policies = self.by_namespace.get(ns).into_iter().flatten();
            if policies.any(|(selector, groups)| {
                selector::selects(selector, &served.labels) && admits(groups, peer)
            }) {
                return true;
            }
        }
        false
    }

    fn of_namespace(&self, ns: &Str, reads: &mut Reads) -> Vec<(Labels, Groups)> {
        let all = self.view.policies;
        let others = all
            .by::<AllowPoliciesByNamespace>(reads, ns)
            .filter(|(key, _)| *key != self.key);
        let convert = |(key, row): (&ObjectKey, &std::sync::Arc<Parsed<AuthorizationPolicy>>)| {
            let policy = row.ok()?;
            let selector = policy.selector.clone().unwrap_or_default();
            Some((selector, groups_of(key, policy)))
        };
        others.filter_map(convert).collect()
    }
}
