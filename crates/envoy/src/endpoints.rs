//! Stage `endpoints`: who stands behind each EDS cluster of a service.
//! Source: spec/envoy-config.md §4.1–§4.4.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use flow::{Output, Reads, View};
use model::derived::Locality;
use model::{Finding, NamespacedHostname, ServiceRow, WorkloadRow, WorkloadUid};

use crate::index::{ClusterByService, WorkloadByService};
use crate::ir::{
    ClusterIr, Discovery, EndpointGroup, EndpointIr, EndpointsIr, Health, WaypointResource,
};

use crate::ir::ENDPOINT_WEIGHT_MAX as WEIGHT_MAX;

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct EndpointView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Clusters; index [`ClusterByService`].
    pub clusters: View<'t, WaypointResource, ClusterIr>,
}

/// One row per EDS cluster, also when nobody stands behind it: Envoy waits for each.
pub fn derive(
    p: &P,
    view: &EndpointView<'_>,
    reads: &mut Reads,
) -> Output<WaypointResource, EndpointsIr, Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let clusters: Vec<_> = view
        .clusters
        .by::<ClusterByService>(reads, p)
        .filter(|(_, cluster)| cluster.discovery == Discovery::Eds)
        .collect();
    if clusters.is_empty() {
        return Output::none();
    }
    let workloads: Vec<_> = view
        .workloads
        .by::<WorkloadByService>(reads, p)
        .map(|(_, row)| row)
        .collect();
    let rows = clusters.into_iter().map(|(key, cluster)| {
        let row = EndpointsIr {
            name: cluster.name.clone(),
            direction: cluster.direction,
            groups: groups(service, &workloads, cluster.port),
        };
        (key.clone(), row)
    });
    Output::from(rows.collect::<Vec<_>>())
}

/// Endpoints of a service port by locality, each address and port once.
fn groups(service: &ServiceRow, workloads: &[&Arc<WorkloadRow>], port: u16) -> Vec<EndpointGroup> {
    let mut found: BTreeMap<(IpAddr, u16), (&Locality, EndpointIr)> = BTreeMap::new();
    for workload in workloads.iter().filter(|workload| !workload.terminating) {
        let Some(ip) = workload.addresses.first() else {
            continue;
        };
        let maps = workload.services.get(&service.key).into_iter().flatten();
        for map in maps.filter(|map| map.service_port == port) {
            let row = endpoint(service, workload, *ip, map.target_port);
            match found.entry((*ip, map.target_port)) {
                Entry::Vacant(entry) => {
                    entry.insert((&workload.locality, row));
                }
                Entry::Occupied(mut entry) if row.health < entry.get().1.health => {
                    entry.insert((&workload.locality, row));
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    let mut out: BTreeMap<Locality, Vec<EndpointIr>> = BTreeMap::new();
    for (locality, row) in found.into_values() {
        out.entry(locality.clone()).or_default().push(row);
    }
    let group = |(locality, endpoints)| EndpointGroup {
        locality,
        priority: 0,
        weight: None,
        endpoints,
    };
    out.into_iter().map(group).collect()
}

fn endpoint(service: &ServiceRow, workload: &WorkloadRow, ip: IpAddr, port: u16) -> EndpointIr {
    let name = if workload.workload_name.is_empty() {
        &workload.name
    } else {
        &workload.workload_name
    };
    EndpointIr {
        ip,
        port,
        tunnel: workload.hbone,
        health: if workload.healthy || service.publish_not_ready {
            Health::Healthy
        } else {
            Health::Unhealthy
        },
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
