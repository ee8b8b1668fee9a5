//! Groups of endpoints by where they are, and which a proxy prefers.
//! Source: spec/envoy-config.md §4.4; spec/policy-and-traffic.md §7.4.

use std::collections::{BTreeMap, BTreeSet};

use model::derived::Locality;
use model::labels::{LABEL_NETWORK, LABEL_REGION, LABEL_SUBZONE, LABEL_ZONE};
use model::{Str, WorkloadRow};

use super::members::Member;
use crate::ir::{EndpointGroup, EndpointIr, LocalityPolicy};

/// Where a proxy is, as far as its class says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Locality.
    pub(crate) locality: &'a Locality,
    /// Network.
    pub(crate) network: &'a Str,
}

/// One group per locality, none preferred.
pub(crate) fn by_locality(members: &[Member<'_>]) -> Vec<EndpointGroup> {
    grouped(members, |_| 0)
}

/// The groups as a proxy at a place prefers them.
pub(crate) fn preferred(
    policy: &LocalityPolicy,
    place: Place<'_>,
    members: &[Member<'_>],
) -> Vec<EndpointGroup> {
    match policy {
        LocalityPolicy::None => by_locality(members),
        LocalityPolicy::Failover(entries) => grouped(members, |workload| {
            distance(entries, place.locality, &workload.locality)
        }),
        LocalityPolicy::Labels(keys) => grouped(members, |workload| {
            let alike = keys.iter().take_while(|key| agrees(key, place, workload));
            u32::try_from(keys.len() - alike.count()).unwrap_or(u32::MAX)
        }),
        LocalityPolicy::Distribute(entries) => {
            let groups = by_locality(members);
            let entry = entries
                .iter()
                .find(|(from, _)| matches(from, place.locality));
            match entry {
                Some((_, to)) => distributed(to, groups),
                None => groups,
            }
        }
    }
}

/// Groups by priority and locality, priorities without gaps: Envoy refuses gaps.
fn grouped(members: &[Member<'_>], rank: impl Fn(&WorkloadRow) -> u32) -> Vec<EndpointGroup> {
    let mut groups: BTreeMap<(u32, &Locality), Vec<EndpointIr>> = BTreeMap::new();
    for member in members {
        let at = (rank(member.workload), &*member.workload.locality);
        groups.entry(at).or_default().push(member.endpoint.clone());
    }
    let ranks: BTreeSet<u32> = groups.keys().map(|(rank, _)| *rank).collect();
    let priorities: BTreeMap<u32, u32> = ranks.into_iter().zip(0..).collect();
    let group =
        |((rank, locality), endpoints): ((u32, &Locality), Vec<EndpointIr>)| EndpointGroup {
            locality: locality.clone(),
            priority: priorities.get(&rank).copied().unwrap_or_default(),
            weight: None,
            endpoints,
        };
    groups.into_iter().map(group).collect()
}

/// How far an endpoint is: 0 in the same subzone, 1 zone, 2 region, 3 elsewhere; of elsewhere,
/// where an entry says which region takes over, the others are one further. A proxy that does
/// not know where it is prefers nobody.
fn distance(entries: &[(Str, Str)], from: &Locality, to: &Locality) -> u32 {
    if from.region.is_empty() {
        return 0;
    }
    if from.region == to.region {
        return match (from.zone == to.zone, from.subzone == to.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    let mut over = entries.iter().filter(|(region, _)| *region == from.region);
    match over.next() {
        Some((_, region)) if *region != to.region => 4,
        _ => 3,
    }
}

/// Whether a proxy and an endpoint agree on a label (`key`), or the endpoint has the value that
/// is given (`key=value`). Of the proxy only its network and place are known: other keys
/// without value never agree.
fn agrees(key: &str, place: Place<'_>, workload: &WorkloadRow) -> bool {
    let (key, value) = match key.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (key, None),
    };
    let (mine, theirs) = match key {
        LABEL_NETWORK => (Some(place.network), &workload.network),
        LABEL_REGION => (known(&place.locality.region), &workload.locality.region),
        LABEL_ZONE => (known(&place.locality.zone), &workload.locality.zone),
        LABEL_SUBZONE => (known(&place.locality.subzone), &workload.locality.subzone),
        _ => return value.is_some() && workload.labels.get(key).map(Str::as_str) == value,
    };
    match value {
        Some(value) => theirs == value,
        None => mine == Some(theirs),
    }
}

fn known(name: &Str) -> Option<&Str> {
    Some(name).filter(|name| !name.is_empty())
}

/// Whether a locality is under `region/zone/subzone`, where `*` or nothing is any.
fn matches(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    let mut wanted = pattern.split('/');
    for (index, part) in parts.into_iter().enumerate() {
        match wanted.next() {
            Some("*") => return true,
            None | Some("") if index > 0 => return true,
            Some(name) if name == part => {}
            _ => return false,
        }
    }
    true
}

/// Splits shares: each pattern's weight over the groups that it matches, in proportion to
/// theirs. Of several patterns the narrowest takes a group; what none lists gets nothing.
fn distributed(to: &BTreeMap<Str, u32>, groups: Vec<EndpointGroup>) -> Vec<EndpointGroup> {
    let depth = |pattern: &str| {
        let named = |part: &&str| !part.is_empty() && *part != "*";
        pattern.split('/').filter(named).count()
    };
    let share = |group: &EndpointGroup| {
        to.iter()
            .filter(|(pattern, weight)| **weight > 0 && matches(pattern, &group.locality))
            .max_by_key(|(pattern, _)| depth(pattern))
    };
    let sum = |group: &EndpointGroup| -> u64 {
        group.endpoints.iter().map(|e| u64::from(e.weight)).sum()
    };
    let mut totals: BTreeMap<&Str, u64> = BTreeMap::new();
    for group in &groups {
        if let Some((pattern, _)) = share(group) {
            *totals.entry(pattern).or_default() += sum(group);
        }
    }
    let mut out = Vec::new();
    for mut group in groups {
        let Some((pattern, weight)) = share(&group) else {
            continue;
        };
        let total = totals.get(pattern).copied().unwrap_or(1).max(1);
        let weight = (u64::from(*weight) * sum(&group)).div_ceil(total);
        group.weight = Some(u32::try_from(weight).unwrap_or(u32::MAX));
        out.push(group);
    }
    out
}
