//! Gateways of other networks as workloads, so that references to them resolve and their
//! identity is known. Source: spec/workload-discovery.md §2.3, §4.5.

use flow::{Output, Reads};
use model::derived::{GatewayAddress, NetworkGateway};
use model::{Finding, ObjectKey, Str, WorkloadRow, WorkloadUid};

use super::{WorkloadView, blank};
use crate::network_gateway;
use crate::tables;

/// The gateway of a workload's network.
pub(super) fn of(
    row: &WorkloadRow,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Option<NetworkGateway> {
    if row.network.is_empty() {
        return None;
    }
    network_gateway::of_network(view.network_gateways, reads, &row.network)
}

/// One workload per address. Two Gateways that give one address give one workload.
pub(super) fn derive(
    key: &ObjectKey,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Output<WorkloadUid, WorkloadRow, Finding> {
    let Some(row) = view.network_gateways.get(reads, key) else {
        return Output::gone();
    };
    let mesh = tables::mesh(view.mesh, reads);
    let workloads = row.gateways.iter().map(|gateway| {
        let (ip, hostname) = match &gateway.address {
            GatewayAddress::Ip { ip, .. } => (Some(*ip), Str::new()),
            GatewayAddress::Hostname(host) => (None, host.hostname.clone()),
        };
        let address = ip.map_or_else(|| hostname.clone(), |ip| Str::from(ip.to_string()));
        let uid = WorkloadUid::network_gateway(&row.network, &address, gateway.port);
        let workload = WorkloadRow {
            name: Str::from(uid.to_string()),
            addresses: ip.into_iter().collect(),
            hostname,
            network: row.network.clone(),
            service_account: row.service_account.clone(),
            is_slice_endpoint: true,
            cluster_id: Str::new(),
            ..blank(uid.clone(), key, &mesh)
        };
        (uid, workload)
    });
    let mut rows: Vec<_> = workloads.collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|a, b| a.0 == b.0);
    Output::new(rows, Vec::new())
}
