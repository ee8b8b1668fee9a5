//! Stage `local_endpoints`: who stands behind the EDS clusters that prefer endpoints by the
//! place of the proxy, once per class of connected proxies. The other clusters have one row for
//! all, see [`crate::endpoints`]. The primary is the service, so that a pod that comes or goes
//! costs its services and nothing else.
//! Source: spec/envoy-config.md §4.4; spec/policy-and-traffic.md §7.4.

use flow::{Output, Reads, View};
use model::{
    Finding, MeshRow, NamespacedHostname, ProxyClass, ServiceRow, WorkloadRow, WorkloadUid,
};

use crate::attachment::mesh_row;
use crate::endpoints::members;
use crate::endpoints::place::{self, Place};
use crate::index::{ClassByGateway, ClusterByService, WorkloadByService};
use crate::ir::{
    ClassResource, ClusterIr, Discovery, EndpointsIr, LocalityPolicy, WaypointResource,
};

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct LocalEndpointView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Clusters; index [`ClusterByService`].
    pub clusters: View<'t, WaypointResource, ClusterIr>,
    /// Classes of connected proxies; index [`ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
    /// Mesh settings, for the network of proxies that name none.
    pub mesh: View<'t, (), MeshRow>,
}

/// One row per class and EDS cluster with a locality policy.
pub fn derive(
    p: &P,
    view: &LocalEndpointView<'_>,
    reads: &mut Reads,
) -> Output<ClassResource, EndpointsIr, Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let clusters: Vec<_> = view
        .clusters
        .by::<ClusterByService>(reads, p)
        .filter(|(_, cluster)| cluster.discovery == Discovery::Eds)
        .filter(|(_, cluster)| cluster.locality != LocalityPolicy::None)
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
        let members = members::of(service, &workloads, cluster);
        for class in classes(view.proxies, reads, key) {
            let place = Place {
                locality: &class.locality,
                network: if class.network.is_empty() {
                    &mesh.network
                } else {
                    &class.network
                },
            };
            let row = EndpointsIr {
                name: cluster.name.clone(),
                direction: cluster.direction,
                groups: place::preferred(&cluster.locality, place, &members),
            };
            rows.push((ClassResource::new(class.clone(), key.name.clone()), row));
        }
    }
    Output::from(rows)
}

/// The connected classes of the waypoint of a cluster.
fn classes<'t>(
    proxies: View<'t, ProxyClass, ()>,
    reads: &mut Reads,
    key: &WaypointResource,
) -> Vec<&'t ProxyClass> {
    proxies
        .by::<ClassByGateway>(reads, &key.waypoint)
        .map(|(class, _)| class)
        .collect()
}
