//! Backends that an ingress gateway reaches through their waypoint.
//! Source: spec/envoy-config.md §4.6.

use std::net::IpAddr;

use flow::{Reads, View};
use model::derived::Locality;
use model::labels::LABEL_GATEWAY_NAME;
use model::{GatewayRow, ObjectKey, ServiceRow, WorkloadRow, WorkloadUid};

use super::ingress;
use crate::index::InstanceByNamespace;
use crate::ir::{ClusterIr, EndpointGroup, EndpointIr, Health};

/// Weight of the whole of a waypoint among several, in parts of one hundredth.
const SHARE: u32 = 10_000;

/// Whether proxies of a Gateway reach a service through its waypoint. A Gateway that is named as
/// waypoint itself serves nothing as such.
pub(crate) fn applies(
    gateways: View<'_, ObjectKey, GatewayRow>,
    reads: &mut Reads,
    gateway: &ObjectKey,
    service: &ServiceRow,
) -> bool {
    let is_asked = match &service.waypoint {
        Some(bound) => bound.key != *gateway,
        None => service.blocked.is_some(),
    };
    service.ingress_use_waypoint
        && is_asked
        && vip(service).is_some()
        && ingress(gateways, reads, gateway).is_some()
}

/// The address by which proxies ask a waypoint for a service.
pub(crate) fn vip(service: &ServiceRow) -> Option<IpAddr> {
    let full = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let mut hosts = service.vips.iter();
    let vip = hosts.find(|vip| vip.prefix.is_none_or(|prefix| prefix == full(vip.ip)))?;
    Some(vip.ip)
}

/// The pods of the waypoint as endpoints that lead to the address of the service. There is no
/// way past them: a waypoint without pods serves nobody, nor does one that cannot be used where
/// that is to fail closed.
pub(crate) fn endpoints(
    service: &ServiceRow,
    cluster: &ClusterIr,
    workloads: View<'_, WorkloadUid, WorkloadRow>,
    reads: &mut Reads,
) -> Vec<EndpointGroup> {
    let Some(ip) = vip(service).filter(|_| service.blocked.is_none()) else {
        return Vec::new();
    };
    let shares = service.weighted_waypoints.iter();
    let mut shares: Vec<(&ObjectKey, u32)> =
        shares.map(|one| (&one.bound.key, one.weight)).collect();
    if shares.is_empty() {
        shares.extend(service.waypoint.as_ref().map(|bound| (&bound.key, 100)));
    }
    let mut found = Vec::new();
    for (waypoint, weight) in shares.into_iter().filter(|(_, weight)| *weight > 0) {
        let pods = pods(waypoint, workloads, reads);
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX).max(1);
        for (pod, address) in pods {
            let endpoint = EndpointIr {
                ip,
                more: Vec::new(),
                port: cluster.port,
                tunnel: true,
                waypoint: Some(address),
                health: Health::Healthy,
                weight: (weight.saturating_mul(SHARE) / count).max(1),
                workload: arcstr::format!(
                    "{};{};{};{};{}",
                    if pod.workload_name.is_empty() {
                        &pod.name
                    } else {
                        &pod.workload_name
                    },
                    pod.ns,
                    pod.canonical_name,
                    pod.canonical_revision,
                    pod.cluster_id
                ),
            };
            found.push((Locality::clone(&pod.locality), endpoint));
        }
    }
    found.sort();
    let mut groups: Vec<EndpointGroup> = Vec::new();
    for (locality, endpoint) in found {
        match groups.last_mut() {
            Some(group) if group.locality == locality => group.endpoints.push(endpoint),
            _ => groups.push(EndpointGroup {
                locality,
                priority: 0,
                weight: None,
                endpoints: vec![endpoint],
            }),
        }
    }
    groups
}

/// Ready pods of a waypoint with their addresses.
fn pods<'t>(
    waypoint: &ObjectKey,
    workloads: View<'t, WorkloadUid, WorkloadRow>,
    reads: &mut Reads,
) -> Vec<(&'t WorkloadRow, IpAddr)> {
    let instances = workloads.by::<InstanceByNamespace>(reads, &waypoint.ns);
    let own = instances.filter(|(_, row)| {
        row.healthy
            && row
                .labels
                .get(LABEL_GATEWAY_NAME)
                .is_some_and(|name| *name == waypoint.name)
    });
    own.filter_map(|(_, row)| Some((&**row, *row.addresses.first()?)))
        .collect()
}
