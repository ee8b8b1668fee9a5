//! The endpoints of a cluster. Source: spec/envoy-config.md §4.1–§4.3.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use model::{Labels, MeshRow, ServiceRow, WorkloadRow};

use crate::ir::ENDPOINT_WEIGHT_MAX as WEIGHT_MAX;
use crate::ir::{ClusterIr, EndpointIr, Health};

/// An endpoint and the workload that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Member<'w> {
    /// Endpoint.
    pub(crate) endpoint: EndpointIr,
    /// Workload.
    pub(crate) workload: &'w WorkloadRow,
}

/// Endpoints of a service port (and subset), each address and port once, by address. Of several
/// at one address the healthiest counts. Whoever has no address is left out.
pub(crate) fn of<'w>(
    service: &ServiceRow,
    workloads: &[&'w WorkloadRow],
    cluster: &ClusterIr,
) -> Vec<Member<'w>> {
    let mut found: BTreeMap<(IpAddr, u16), Member<'w>> = BTreeMap::new();
    for workload in workloads {
        let (Some(health), true) = (
            health(service, workload),
            covers(&workload.labels, &cluster.subset_labels),
        ) else {
            continue;
        };
        let Some((ip, more)) = workload.addresses.split_first() else {
            continue;
        };
        let maps = workload.services.get(&service.key).into_iter().flatten();
        for map in maps.filter(|map| map.service_port == cluster.port) {
            let member = Member {
                endpoint: EndpointIr {
                    // Only one address can be tunnelled to.
                    more: if workload.hbone {
                        Vec::new()
                    } else {
                        more.to_vec()
                    },
                    ..endpoint(workload, *ip, map.target_port, health)
                },
                workload,
            };
            match found.entry((*ip, map.target_port)) {
                Entry::Vacant(entry) => {
                    entry.insert(member);
                }
                Entry::Occupied(mut entry) if health < entry.get().endpoint.health => {
                    entry.insert(member);
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    found.into_values().collect()
}

/// Whether a proxy reaches a workload: those of other networks lie behind gateways, into which
/// only node proxies open tunnels. Their address may well be somebody else's here.
pub(crate) fn is_reached(mesh: &MeshRow, workload: &WorkloadRow) -> bool {
    !mesh.features.multi_network || workload.network == mesh.network
}

/// Whether labels have all of a subset's.
fn covers(labels: &Labels, subset: &Labels) -> bool {
    subset
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// The health of a workload as an endpoint; `None` leaves it out. One that leaves is announced
/// only where sessions stick to it.
fn health(service: &ServiceRow, workload: &WorkloadRow) -> Option<Health> {
    if workload.terminating {
        return service.persistent_session.then_some(Health::Draining);
    }
    Some(if workload.healthy || service.publish_not_ready {
        Health::Healthy
    } else {
        Health::Unhealthy
    })
}

fn endpoint(workload: &WorkloadRow, ip: IpAddr, port: u16, health: Health) -> EndpointIr {
    let name = if workload.workload_name.is_empty() {
        &workload.name
    } else {
        &workload.workload_name
    };
    EndpointIr {
        ip,
        more: Vec::new(),
        port,
        tunnel: workload.hbone,
        waypoint: None,
        health,
        weight: workload.capacity.clamp(1, WEIGHT_MAX),
        workload: arcstr::format!(
            "{name};{};{};{};{}",
            workload.ns,
            workload.canonical_name,
            workload.canonical_revision,
            workload.cluster_id
        ),
    }
}
