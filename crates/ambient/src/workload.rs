//! Stage `workload`: Pod, WorkloadEntry, ServiceEntry or EndpointSlice → [`WorkloadRow`]s.
//!
//! Source: spec/workload-discovery.md §2, §5.5.

mod entry;
mod entry_notes;
mod gateway;
mod host_network;
mod membership;
mod naming;
mod pod;
mod policies;
mod slice;

use std::sync::Arc;

use flow::{Output, Reads, View};
use model::derived::{Locality, Memberships};
use model::input::{EndpointSlice, Pod, ServiceEntry, WorkloadEntry};
use model::{Finding, Labels, MeshRow, ObjectKey, Str, WorkloadRow, WorkloadUid};

use crate::attach::AttachView;
use crate::network_gateway::NetworkGatewayTable;
use crate::peer_binding::PeerBindingTable;
use crate::pod_link::PodLinkTable;
use crate::policy_binding::PolicyBindingTable;
use crate::service::ServiceTable;
use crate::tables::{InputView, MeshTable};

/// The object that workloads come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadSource {
    /// A Pod: at most one workload.
    Pod(ObjectKey),
    /// A WorkloadEntry: one workload.
    WorkloadEntry(ObjectKey),
    /// A ServiceEntry: one workload per endpoint, or per host without endpoints.
    ServiceEntry(ObjectKey),
    /// An EndpointSlice: one workload per endpoint that is no pod.
    EndpointSlice(ObjectKey),
    /// A Gateway that leads to another network: one workload per address.
    NetworkGateway(ObjectKey),
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct WorkloadView<'t> {
    /// The mesh row.
    pub mesh: MeshTable<'t>,
    /// Pods.
    pub pods: InputView<'t, Pod>,
    /// WorkloadEntries.
    pub workload_entries: InputView<'t, WorkloadEntry>,
    /// ServiceEntries.
    pub service_entries: InputView<'t, ServiceEntry>,
    /// EndpointSlices.
    pub endpoint_slices: InputView<'t, EndpointSlice>,
    /// Gateways of other networks, with index [`crate::network_gateway::GatewaysByNetwork`].
    pub network_gateways: NetworkGatewayTable<'t>,
    /// Localities of nodes.
    pub node_localities: View<'t, ObjectKey, Locality>,
    /// Services, with index [`crate::service::ServicesBySelector`].
    pub services: ServiceTable<'t>,
    /// Pod links, with index [`crate::pod_link::LinksByPod`].
    pub pod_links: PodLinkTable<'t>,
    /// Waypoints and what leads to them.
    pub attach: AttachView<'t>,
    /// Policy bindings, with indexes [`crate::policy_binding::PoliciesBySelector`] and
    /// [`crate::policy_binding::PeerPoliciesByNamespace`].
    pub policy_bindings: PolicyBindingTable<'t>,
    /// Peer bindings, with index [`crate::peer_binding::PeersBySelector`].
    pub peer_bindings: PeerBindingTable<'t>,
}

/// The workloads of an object. An unreadable object has none.
pub fn derive(
    source: &WorkloadSource,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Output<WorkloadUid, WorkloadRow, Finding> {
    let mut output = match source {
        WorkloadSource::Pod(key) => pod::derive(key, view, reads),
        WorkloadSource::WorkloadEntry(key) => entry::of_workload_entry(key, view, reads),
        WorkloadSource::ServiceEntry(key) => entry::of_service_entry(key, view, reads),
        WorkloadSource::EndpointSlice(key) => slice::derive(key, view, reads),
        WorkloadSource::NetworkGateway(key) => gateway::derive(key, view, reads),
    };
    match source {
        WorkloadSource::Pod(_)
        | WorkloadSource::WorkloadEntry(_)
        | WorkloadSource::ServiceEntry(_) => {
            for (_, row) in &mut output.rows {
                row.network_gateway = reads
                    .shared(|reads| gateway::of(row, view, reads))
                    .map(Box::new);
            }
        }
        // They are on the network of the cluster, or lead to another themselves.
        WorkloadSource::EndpointSlice(_) | WorkloadSource::NetworkGateway(_) => {}
    }
    output
}

/// A workload of this mesh without anything that its source decides.
fn blank(uid: WorkloadUid, key: &ObjectKey, mesh: &MeshRow) -> WorkloadRow {
    let is_default = mesh.trust_domain == model::defaults::TRUST_DOMAIN;
    WorkloadRow {
        uid,
        name: key.name.clone(),
        ns: key.ns.clone(),
        addresses: Vec::new(),
        hostname: Str::new(),
        network: mesh.network.clone(),
        hbone: false,
        native_tunnel: false,
        trust_domain: if is_default {
            Str::new()
        } else {
            mesh.trust_domain.clone()
        },
        service_account: Str::new(),
        waypoint: None,
        blocked: None,
        network_gateway: None,
        application_tunnel: None,
        node: Str::new(),
        canonical_name: Str::new(),
        canonical_revision: Str::new(),
        workload_name: Str::new(),
        policies: Vec::new(),
        healthy: true,
        terminating: false,
        host_network: false,
        is_slice_endpoint: false,
        locality: Arc::default(),
        capacity: 0,
        cluster_id: mesh.cluster_id.clone(),
        services: Memberships::new(),
        labels: Labels::new(),
    }
}
