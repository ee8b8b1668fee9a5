//! Stage `endpoints`: who stands behind each EDS cluster of a service, where that is the same
//! for every proxy; where it depends on the place of the proxy see [`crate::local_endpoints`].
//! Source: spec/envoy-config.md §4.1–§4.4.

use flow::{Output, Reads, View};
use model::{
    Finding, GatewayRow, MeshRow, NamespacedHostname, ObjectKey, ServiceRow, WorkloadRow,
    WorkloadUid,
};

use crate::attachment::mesh_row;
use crate::east_west::waypoint_behind;
use crate::index::{ClusterByService, WorkloadByService};
use crate::ingress::waypoint;
use crate::ir::{ClusterIr, Direction, Discovery, EndpointsIr, LocalityPolicy, WaypointResource};
use members::Member;

pub(crate) mod members;
pub(crate) mod place;

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct EndpointView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; indexes [`WorkloadByService`] and [`crate::index::InstanceByNamespace`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Clusters; index [`ClusterByService`].
    pub clusters: View<'t, WaypointResource, ClusterIr>,
    /// Gateways of ours; index [`gateway::index::GatewayByTarget`].
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// One row per EDS cluster without locality policy, also when nobody stands behind it: Envoy
/// waits for each.
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
        .filter(|(_, cluster)| cluster.locality == LocalityPolicy::None)
        .collect();
    if clusters.is_empty() {
        return Output::none();
    }
    let mesh = mesh_row(view.mesh, reads);
    let workloads: Vec<_> = view
        .workloads
        .by::<WorkloadByService>(reads, p)
        .map(|(_, row)| &**row)
        .filter(|row| members::is_reached(&mesh, row))
        .collect();
    let mut rows = Vec::new();
    for (key, cluster) in clusters {
        let groups = if waypoint::applies(view.gateways, reads, &key.waypoint, service) {
            waypoint::endpoints(service, cluster, view.workloads, reads)
        } else if cluster.direction == Direction::Crossing {
            place::by_locality(&across(service, &workloads, cluster, view, reads))
        } else {
            place::by_locality(&members::of(service, &workloads, cluster))
        };
        let row = EndpointsIr {
            name: cluster.name.clone(),
            direction: cluster.direction,
            groups,
        };
        rows.push((key.clone(), row));
    }
    Output::from(rows)
}

/// Who takes an inner tunnel: captured workloads, and waypoints.
fn across<'w>(
    service: &ServiceRow,
    workloads: &[&'w WorkloadRow],
    cluster: &ClusterIr,
    view: &EndpointView<'_>,
    reads: &mut Reads,
) -> Vec<Member<'w>> {
    let is_waypoint = waypoint_behind(view.gateways, reads, &service.key).is_some();
    let mut members = members::of(service, workloads, cluster);
    members.retain(|member| is_waypoint || member.workload.hbone);
    for member in &mut members {
        member.endpoint.tunnel = true;
        member.endpoint.more.clear();
    }
    members
}

#[cfg(test)]
mod tests;
