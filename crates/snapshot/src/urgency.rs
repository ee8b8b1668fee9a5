//! What of a change goes first.
//!
//! Urgent is what makes traffic fail while a client does not know it: a workload that
//! became unhealthy, one that is new on the client's own node, and one that took over an
//! address of a workload that goes. Source: docs/architecture.md, "The data's way".

use std::collections::BTreeSet;
use std::sync::Arc;

use model::Str;

use crate::{AddressKind, EncodedResource, ResourceMap};

/// Orders changed resources by urgency, for a client that holds `held` and runs on `node`
/// (empty: anywhere); otherwise by their present order. Says how many of them are urgent.
///
/// The services of urgent workloads are urgent too: a service that comes after its
/// workload would leave out what it filtered from the workload's state before.
/// Services come before workloads for the same reason.
/// Source: spec/workload-discovery.md §1.8, "Service replaced".
pub fn by_urgency(
    changed: Vec<Arc<EncodedResource>>,
    removed: &[Str],
    held: &ResourceMap,
    node: &str,
) -> (Vec<Arc<EncodedResource>>, usize) {
    if changed.iter().all(|resource| resource.facts().is_none()) {
        return (changed, 0);
    }
    let gone = removed.iter().filter_map(|name| held.get(name));
    let freed: BTreeSet<&Str> = gone.flat_map(|resource| resource.aliases()).collect();
    let is_urgent = |resource: &EncodedResource| {
        let Some(facts) = resource.facts() else {
            return false;
        };
        if facts.kind != AddressKind::Workload {
            return false;
        }
        let takes_over = || resource.aliases().iter().any(|alias| freed.contains(alias));
        match held.get(resource.name()) {
            // A client that reconnected does not say how healthy what it holds is.
            Some(old) => {
                facts.unhealthy && old.facts().is_none_or(|old| !old.unhealthy) || takes_over()
            }
            None => (!node.is_empty() && facts.node == node) || takes_over(),
        }
    };
    let mut needed = BTreeSet::new();
    for resource in changed.iter().filter(|resource| is_urgent(resource)) {
        needed.extend(
            resource
                .facts()
                .iter()
                .flat_map(|f| f.services.iter().cloned()),
        );
    }
    let rank = |resource: &Arc<EncodedResource>| match resource.facts().map(|facts| facts.kind) {
        Some(AddressKind::Service) if needed.contains(resource.name()) => 0,
        Some(AddressKind::Workload) if is_urgent(resource) => 1,
        Some(AddressKind::Service) => 2,
        _ => 3_u8,
    };
    let mut ranked: Vec<(u8, Arc<EncodedResource>)> =
        changed.iter().map(|r| (rank(r), Arc::clone(r))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let urgent_count = ranked.partition_point(|(rank, _)| *rank < 2);
    (ranked.into_iter().map(|(_, r)| r).collect(), urgent_count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddressFacts;

    fn workload(name: &str, ip: &str, node: &str, unhealthy: bool, of: &str) -> EncodedResource {
        let facts = AddressFacts {
            kind: AddressKind::Workload,
            node: Str::from(node),
            unhealthy,
            services: of.split_whitespace().map(Str::from).collect(),
        };
        let payload = format!("{ip} {node} {unhealthy} {of}");
        let aliases = vec![Str::from(ip)];
        EncodedResource::address(Str::from(name), payload.as_bytes(), aliases, facts, 0)
    }

    fn service(name: &str, content: &str) -> EncodedResource {
        let facts = AddressFacts::service();
        EncodedResource::address(Str::from(name), content.as_bytes(), vec![], facts, 0)
    }

    #[test]
    fn failing_local_and_replacing_workloads_go_first_with_their_services() {
        let held: ResourceMap = [
            workload("a-fails", "/1", "far", false, "s/needed"),
            workload("b-was-unhealthy", "/2", "far", true, ""),
            workload("c-gone", "/3", "far", false, ""),
            service("s/needed", "1"),
            service("s/other", "1"),
        ]
        .into_iter()
        .collect();
        let target: ResourceMap = [
            workload("a-fails", "/1", "far", true, "s/needed"),
            workload("b-was-unhealthy", "/2", "far2", true, ""),
            workload("d-new-here", "/4", "near", false, ""),
            workload("e-new-there", "/5", "far", true, ""),
            workload("f-takes-over", "/3", "far", false, ""),
            service("s/needed", "2"),
            service("s/other", "2"),
        ]
        .into_iter()
        .collect();
        let diff = held.diff(&target);
        let names = |node: &str| {
            let (changed, count) = by_urgency(diff.changed.clone(), &diff.removed, &held, node);
            let names = changed.iter().map(|r| r.name().to_string());
            (names.collect::<Vec<_>>().join(" "), count)
        };
        let rest = "s/other b-was-unhealthy";
        assert_eq!(
            names("near"),
            (
                format!("s/needed a-fails d-new-here f-takes-over {rest} e-new-there"),
                4
            )
        );
        assert_eq!(
            names(""),
            (
                format!("s/needed a-fails f-takes-over {rest} d-new-here e-new-there"),
                3
            )
        );
    }
}
