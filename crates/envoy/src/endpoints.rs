//! Stage `endpoints`: who stands behind each EDS cluster of a service, where that is the same
//! for every proxy; where it depends on the place of the proxy see [`crate::local_endpoints`].
//! Source: spec/envoy-config.md §4.1–§4.4.

use flow::{Output, Reads, View};
use model::{
    Finding, GatewayRow, NamespacedHostname, ObjectKey, ServiceRow, WorkloadRow, WorkloadUid,
};

use crate::index::{ClusterByService, WorkloadByService};
use crate::ingress::waypoint;
use crate::ir::{ClusterIr, Discovery, EndpointsIr, LocalityPolicy, WaypointResource};

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
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
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
    let workloads: Vec<_> = view
        .workloads
        .by::<WorkloadByService>(reads, p)
        .map(|(_, row)| &**row)
        .collect();
    let mut rows = Vec::new();
    for (key, cluster) in clusters {
        let groups = if waypoint::applies(view.gateways, reads, &key.waypoint, service) {
            waypoint::endpoints(service, cluster, view.workloads, reads)
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

#[cfg(test)]
mod tests;
