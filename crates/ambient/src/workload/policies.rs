//! The policies that a workload lists. Source: spec/workload-discovery.md §5.5.

use std::collections::BTreeSet;

use flow::Reads;
use model::{Labels, Str};

use super::WorkloadView;
use crate::peer_binding::{self, Enforcement};
use crate::policy_binding::PoliciesBySelector;
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
            let selecting = found.filter(|(_, row)| selector::selects(&row.selector, labels));
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

fn name_of(key: &model::ObjectKey) -> Str {
    Str::from(key.to_string())
}
