//! The policies that a workload lists. Source: spec/workload-discovery.md §5.5, §5.6.

use std::collections::BTreeSet;

use flow::Reads;
use model::derived::BoundWaypoint;
use model::{Labels, ObjectKey, Str, shared};

use super::WorkloadView;
use super::membership::Memberships;
use crate::authorization::waypoint::policy_key;
use crate::census;
use crate::peer_binding::{self, Enforcement};
use crate::policy_binding::{PeerPoliciesByNamespace, PoliciesBySelector};
use crate::selector;
use crate::tables;

/// Names of authorization policies that select the workload, sorted; then the one that enforces
/// its mTLS mode. Without labels only an empty selector matches.
pub(super) fn listed(
    view: &WorkloadView<'_>,
    reads: &mut Reads,
    ns: &Str,
    labels: &Labels,
) -> Vec<Str> {
    let mesh = tables::mesh(view.mesh, reads);
    let root = &mesh.root_namespace;
    let mut names = BTreeSet::new();
    for range in BTreeSet::from([ns, root]) {
        for at in selector::places(range, labels) {
            let found = view.policy_bindings.by::<PoliciesBySelector>(reads, &at);
            let selecting = found.filter(|(_, row)| {
                let selector = row.selector.as_ref();
                selector.is_some_and(|selector| selector::selects(selector, labels))
            });
            names.extend(selecting.map(|(key, _)| name_of(key)));
        }
    }
    let mut listed: Vec<Str> = names.into_iter().collect();
    let inherited = peer_binding::inherited_strict(view.peer_bindings, reads, ns, root);
    let own = peer_binding::selecting(view.peer_bindings, reads, ns, root, labels);
    match peer_binding::enforcement(own.map(|(_, peer)| peer.as_ref()), inherited) {
        Enforcement::Open => {}
        Enforcement::Static => listed.push(name_of(&peer_binding::static_key(root))),
        Enforcement::PerPort => {
            listed.extend(own.map(|(key, _)| name_of(&peer_binding::converted_key(key))));
        }
    }
    listed
}

/// A policy of the namespace or of the root namespace that names peers.
pub(super) fn naming_peers<'t>(
    view: &WorkloadView<'t>,
    reads: &mut Reads,
    ns: &Str,
    root: &Str,
) -> Option<&'t ObjectKey> {
    let bindings = view.policy_bindings;
    let mut first = |ns| {
        let all = bindings.by::<PeerPoliciesByNamespace>(reads, ns);
        all.map(|(key, _)| key).min()
    };
    first(ns).or_else(|| first(root))
}

/// Names of the policies that allow the waypoints of a workload and of its services, sorted;
/// none unless the installation wants them.
pub(super) fn of_waypoints(
    view: &WorkloadView<'_>,
    reads: &mut Reads,
    waypoint: Option<&BoundWaypoint>,
    services: &Memberships,
) -> Vec<Str> {
    if !tables::mesh(view.mesh, reads)
        .features
        .allow_waypoint_policies
    {
        return Vec::new();
    }
    let own = waypoint.map(|bound| &bound.key);
    let mut waypoints: BTreeSet<_> = own.into_iter().collect();
    for host in services.keys() {
        if let Some(service) = view.services.get(reads, host) {
            waypoints.extend(census::bound_to(service));
        }
    }
    let rows = waypoints
        .into_iter()
        .filter_map(|key| view.attach.waypoints.get(reads, key));
    let names: BTreeSet<Str> = rows
        .filter_map(|row| policy_key(row))
        .map(|key| name_of(&key))
        .collect();
    names.into_iter().collect()
}

fn name_of(key: &model::ObjectKey) -> Str {
    shared::text(&key.to_string())
}
