//! WorkloadEntries and endpoints of ServiceEntries. Source: spec/workload-discovery.md §2.3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Output, Reads};
use model::derived::Locality;
use model::input::{Resolution, ServiceEntry, WorkloadEntry};
use model::{
    Finding, Kind, Labels, MeshRow, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow,
    Str, WorkloadRow, WorkloadUid,
};

use super::membership::{self, Memberships};
use super::{WorkloadView, blank, entry_notes, naming, policies};
use crate::attach::Inbound;
use crate::keys::{ANNOTATION_AUTOREGISTRATION, LABEL_WORKLOAD_NAME};
use crate::tables;
use crate::tunnel::{self, Tunnel};

/// The workload of a WorkloadEntry.
pub(super) fn of_workload_entry(
    key: &ObjectKey,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Output<WorkloadUid, WorkloadRow, Finding> {
    let Some(object) = view.workload_entries.get(reads, key) else {
        return Output::gone();
    };
    let Some(entry) = object.ok() else {
        return Output::none();
    };
    let meta = &object.meta;
    let mut labels = entry.labels.clone();
    labels.extend(meta.labels.clone());
    let workload_name = meta
        .annotation(ANNOTATION_AUTOREGISTRATION)
        .or_else(|| labels.get(LABEL_WORKLOAD_NAME))
        .unwrap_or(&key.name)
        .clone();
    let mesh = tables::mesh(view.mesh, reads);
    let uid = WorkloadUid::object(&mesh.cluster_id, Kind::WorkloadEntry, key, None);
    let mut notes = Vec::new();
    let object_ref = ObjectRef::new(Kind::WorkloadEntry, key.clone());
    let inbound = (view.attach).of_workload(reads, &object_ref, &labels, &mut notes);
    let Tunnel { hbone, native } = tunnel::tunnel(&labels, &meta.annotations);
    let target = |_: &_, port: &_| membership::entry_target(entry, port);
    let kinds = |kind| kind == Kind::ServiceEntry || mesh.features.services_select_entries;
    let services = membership::selecting(view.services, reads, &key.ns, &labels, kinds);
    notes.extend(entry_notes::notes(&object_ref, entry, &services, hbone));
    if !hbone && entry.service_account.is_empty() {
        let asking = policies::naming_peers(view, reads, &key.ns, &mesh.root_namespace);
        notes.extend(asking.map(|policy| entry_notes::nameless(&object_ref, policy)));
    }
    let services: Memberships = (services.into_iter())
        .map(|row| (row.key.clone(), membership::ports(row, target)))
        .collect();
    let mut policies = policies::listed(view, reads, &key.ns, &labels);
    let waypoint = inbound.attachment.bound.as_ref();
    policies.extend(policies::of_waypoints(view, reads, waypoint, &services));
    let (canonical_name, canonical_revision) = naming::canonical(&labels, &workload_name);
    let row = WorkloadRow {
        hbone,
        native_tunnel: native,
        canonical_name,
        canonical_revision,
        workload_name,
        policies,
        services,
        labels,
        ..endpoint(uid.clone(), key, entry, inbound, &mesh)
    };
    Output::one(uid, row).with_notes(notes)
}

/// What every endpoint says of itself.
fn endpoint(
    uid: WorkloadUid,
    key: &ObjectKey,
    entry: &WorkloadEntry,
    inbound: Inbound,
    mesh: &MeshRow,
) -> WorkloadRow {
    let ip = entry.address.parse().ok();
    let network = if entry.network.is_empty() {
        &mesh.network
    } else {
        &entry.network
    };
    WorkloadRow {
        addresses: ip.into_iter().collect(),
        hostname: if ip.is_some() {
            Str::new()
        } else {
            entry.address.clone()
        },
        network: network.clone(),
        service_account: entry.service_account.clone(),
        waypoint: inbound.attachment.bound.map(Box::new),
        blocked: inbound.attachment.blocked,
        application_tunnel: inbound.application_tunnel,
        locality: Arc::new(locality(&entry.locality)),
        capacity: entry.weight,
        ..blank(uid, key, mesh)
    }
}

fn locality(text: &str) -> Locality {
    let mut parts = text.split('/');
    let mut next = || Str::from(parts.next().unwrap_or_default());
    Locality {
        region: next(),
        zone: next(),
        subzone: next(),
    }
}

/// The workloads of a ServiceEntry: its endpoints, else its hosts where they are resolved.
pub(super) fn of_service_entry(
    key: &ObjectKey,
    view: &WorkloadView<'_>,
    reads: &mut Reads,
) -> Output<WorkloadUid, WorkloadRow, Finding> {
    let Some(object) = view.service_entries.get(reads, key) else {
        return Output::gone();
    };
    let Some(entry) = object.ok() else {
        return Output::none();
    };
    let services = surviving(key, entry, view, reads);
    if services.is_empty() {
        return Output::none();
    }
    let mesh = tables::mesh(view.mesh, reads);
    let common = Common::new(object, view, reads, &mesh);
    let mut notes = Vec::new();
    let mut rows = BTreeMap::new();
    for inline in &entry.endpoints {
        let reference = ObjectRef::new(Kind::ServiceEntry, key.clone());
        let inbound = (view.attach).of_workload(reads, &reference, &inline.labels, &mut notes);
        let row = common.workload(inline, inbound, &services, view, reads);
        rows.entry(row.uid.clone()).or_insert(row);
    }
    let resolved = matches!(
        entry.resolution,
        Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns
    );
    if entry.endpoints.is_empty() && entry.selector.is_none() && resolved {
        for service in &services {
            let host = service.key.hostname.clone();
            let implicit = WorkloadEntry {
                address: host,
                ..WorkloadEntry::default()
            };
            let row = common.workload(&implicit, Inbound::default(), &[*service], view, reads);
            rows.entry(row.uid.clone()).or_insert(row);
        }
    }
    notes.sort();
    notes.dedup();
    Output::new(rows.into_iter().collect(), notes)
}

/// The services of this entry's hosts that it did not lose to another object.
fn surviving<'t>(
    key: &ObjectKey,
    entry: &ServiceEntry,
    view: &WorkloadView<'t>,
    reads: &mut Reads,
) -> Vec<&'t ServiceRow> {
    let hosts: BTreeSet<&Str> = entry.hosts.iter().collect();
    let own = hosts.into_iter().filter_map(|host| {
        let host = NamespacedHostname::new(key.ns.clone(), host.clone());
        let row = view.services.get(reads, &host)?;
        let is_own = row.source.kind == Kind::ServiceEntry.as_str() && row.source.key == *key;
        is_own.then_some(row.as_ref())
    });
    own.collect()
}

/// What the endpoints of a ServiceEntry share: they take it from the entry's metadata.
struct Common<'a> {
    key: &'a ObjectKey,
    metadata_labels: &'a Labels,
    tunnel: Tunnel,
    policies: Vec<Str>,
    mesh: &'a MeshRow,
}

// === impl Common ===

impl<'a> Common<'a> {
    fn new(
        object: &'a Parsed<ServiceEntry>,
        view: &WorkloadView<'_>,
        reads: &mut Reads,
        mesh: &'a MeshRow,
    ) -> Self {
        let meta = &object.meta;
        Self {
            key: &meta.key,
            metadata_labels: &meta.labels,
            tunnel: tunnel::tunnel(&meta.labels, &meta.annotations),
            policies: policies::listed(view, reads, &meta.key.ns, &meta.labels),
            mesh,
        }
    }

    fn workload(
        &self,
        entry: &WorkloadEntry,
        inbound: Inbound,
        services: &[&ServiceRow],
        view: &WorkloadView<'_>,
        reads: &mut Reads,
    ) -> WorkloadRow {
        let address = Some(entry.address.as_str());
        let uid = WorkloadUid::object(&self.mesh.cluster_id, Kind::ServiceEntry, self.key, address);
        let (canonical_name, canonical_revision) =
            naming::canonical(self.metadata_labels, &self.key.name);
        let target = |_: &_, port: &_| membership::entry_target(entry, port);
        let services: Memberships = services
            .iter()
            .map(|row| (row.key.clone(), membership::ports(row, target)))
            .collect();
        let mut policies = self.policies.clone();
        let waypoint = inbound.attachment.bound.as_ref();
        policies.extend(policies::of_waypoints(view, reads, waypoint, &services));
        WorkloadRow {
            hbone: self.tunnel.hbone,
            native_tunnel: self.tunnel.native,
            canonical_name,
            canonical_revision,
            workload_name: self.key.name.clone(),
            policies,
            services,
            labels: entry.labels.clone(),
            ..endpoint(uid, self.key, entry, inbound, self.mesh)
        }
    }
}
