//! Endpoints of EndpointSlices that are no pods. Source: spec/workload-discovery.md §2.3.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flow::{Output, Reads};
use model::derived::PortMap;
use model::input::{EndpointSlice, Transport};
use model::{Finding, Kind, ObjectKey, ServiceRow, WorkloadRow, WorkloadUid, shared};

use super::{WorkloadView, blank};
use crate::pod_link::service_of;
use crate::tables;

/// One workload per endpoint without pod; the first endpoint of an address wins.
pub(super) fn derive(
    key: &ObjectKey,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Output<WorkloadUid, WorkloadRow, Finding> {
    let Some(object) = view.endpoint_slices.get(reads, key) else {
        return Output::gone();
    };
    let Some(slice) = object.ok().filter(|slice| !slice.fqdn) else {
        return Output::none();
    };
    let Some(service) = service_of(key, slice, view.services, view.mesh, reads) else {
        return Output::none();
    };
    let mesh = tables::mesh(view.mesh, reads);
    let ports = ports(slice, service);
    let mut rows = BTreeMap::new();
    for endpoint in slice
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.pod.is_none())
    {
        let parsed = endpoint.addresses.iter().map(|text| text.parse());
        let (Some(first), Ok(addresses)) = (
            endpoint.addresses.first(),
            parsed.collect::<Result<Vec<IpAddr>, _>>(),
        ) else {
            continue;
        };
        let uid = WorkloadUid::object(&mesh.cluster_id, Kind::EndpointSlice, key, Some(first));
        rows.entry(uid.clone()).or_insert_with(|| WorkloadRow {
            addresses,
            healthy: endpoint.ready,
            host_network: true,
            is_slice_endpoint: true,
            services: shared::memberships([(service.key.clone(), ports.clone())].into()),
            ..blank(uid, key, &mesh)
        });
    }
    Output::from(rows.into_iter().collect::<Vec<_>>())
}

/// Slice ports joined to service ports by name.
fn ports(slice: &EndpointSlice, service: &ServiceRow) -> Vec<PortMap> {
    let joined = slice.ports.iter().filter_map(|port| {
        let name = port.name.as_ref()?;
        let target_port = port
            .port
            .filter(|_| port.transport == Some(Transport::Tcp))?;
        let of_service = service
            .ports
            .iter()
            .find(|other| other.name == *name && other.transport == Transport::Tcp)?;
        Some(PortMap {
            service_port: of_service.port,
            target_port,
        })
    });
    joined.collect()
}
