//! Pods as workloads. Source: spec/workload-discovery.md §2.2.

use flow::{Output, Reads};
use model::input::Pod;
use model::{
    Finding, Kind, MeshRow, ObjectKey, ObjectRef, Parsed, WorkloadRow, WorkloadUid, shared,
};

use super::membership::{self, Memberships};
use super::{WorkloadView, blank, host_network, naming, policies};
use crate::attach::Inbound;
use crate::pod_link::LinksByPod;
use crate::tables;
use crate::tunnel::{self, Tunnel};

/// The workload of a pod that runs and whose addresses are all known.
pub(super) fn derive(
    key: &ObjectKey,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Output<WorkloadUid, WorkloadRow, Finding> {
    let Some(object) = view.pods.get(reads, key) else {
        return Output::gone();
    };
    let meta = &object.meta;
    let Some(pod) = object.ok().filter(|pod| !pod.terminal) else {
        return Output::none();
    };
    let Some(ips) = pod.ips.as_ref().filter(|ips| !ips.is_empty()) else {
        return Output::none();
    };
    let mesh = reads.shared(|reads| tables::mesh(view.mesh, reads));
    let uid = WorkloadUid::pod(&mesh.cluster_id, key);
    let Tunnel { hbone, native } = tunnel::tunnel(&meta.labels, &meta.annotations);
    let workload_name = naming::of_pod(meta);
    let (canonical_name, canonical_revision) = naming::canonical(&meta.labels, &workload_name);
    let note = reads.shared(|reads| host_network::note(object, pod, view.attach.namespaces, reads));
    let mut notes: Vec<Finding> = note.into_iter().collect();
    let object_ref = ObjectRef::new(Kind::Pod, key.clone());
    let Inbound {
        attachment,
        application_tunnel,
    } = reads
        .shared(|reads| (view.attach).of_workload(reads, &object_ref, &meta.labels, &mut notes));
    let node = ObjectKey::cluster(pod.node.clone());
    let locality = view.node_localities.get(reads, &node);
    let services = services(object, pod, &mesh, view, reads);
    let waypoint = attachment.bound.as_ref();
    let policies = reads.shared(|reads| {
        let mut policies = policies::listed(view, reads, &key.ns, &meta.labels);
        policies.extend(policies::of_waypoints(view, reads, waypoint, &services));
        policies
    });
    let row = WorkloadRow {
        addresses: ips.clone(),
        hbone,
        native_tunnel: native,
        service_account: pod.service_account.clone(),
        waypoint: attachment.bound.map(Box::new),
        blocked: attachment.blocked,
        application_tunnel,
        node: pod.node.clone(),
        canonical_name,
        canonical_revision,
        workload_name,
        policies,
        healthy: pod.ready && !meta.deleting,
        terminating: meta.deleting,
        host_network: pod.host_network,
        locality: locality.cloned().unwrap_or_default(),
        services,
        labels: meta.labels.clone(),
        ..blank(uid.clone(), key, &mesh)
    };
    Output::one(uid, row).with_notes(notes)
}

fn services(
    object: &Parsed<Pod>,
    pod: &Pod,
    mesh: &MeshRow,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Memberships {
    let target = |row: &_, port: &_| membership::pod_target(pod, row, port);
    let meta = &object.meta;
    let kinds = |kind| kind == Kind::Service || mesh.features.entries_select_pods;
    let selecting = reads.shared(|reads| {
        membership::selecting(view.services, reads, &meta.key.ns, &meta.labels, kinds)
    });
    let mut services: Memberships = (selecting.into_iter())
        .map(|row| (row.key.clone(), membership::ports(row, target)))
        .collect();
    for (_, link) in view.pod_links.by::<LinksByPod>(reads, &meta.key) {
        if !link.uids.contains(&meta.uid) || services.contains_key(&link.service) {
            continue;
        }
        if let Some(row) = view.services.get(reads, &link.service) {
            services.insert(row.key.clone(), membership::ports(row, target));
        }
    }
    shared::memberships(services)
}
