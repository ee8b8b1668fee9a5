//! Stage `pod_link`: EndpointSlice → pods that it adds to a Service without selector.
//!
//! A projection: readiness in a slice, and slices of Services with a selector, touch no pod.
//! Source: spec/workload-discovery.md §2.9.

use std::collections::{BTreeMap, BTreeSet};

use flow::{Output, Reads, View};
use model::input::EndpointSlice;
use model::{Finding, Kind, NamespacedHostname, ObjectKey, ServiceRow, Str};

use crate::service::ServiceTable;
use crate::tables::{self, InputView, MeshTable};

/// The pod, and the slice that names it.
pub type PodLinkKey = (ObjectKey, ObjectKey);

/// A pod's membership by EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// Uids of which the pod must have one: a slice may still name its predecessor.
    pub uids: BTreeSet<Str>,
    /// The service.
    pub service: NamespacedHostname,
}

/// The tracked view of pod links.
pub type PodLinkTable<'t> = View<'t, PodLinkKey, PodLink>;

/// Index of links by pod.
#[derive(Clone, Copy, Debug)]
pub struct LinksByPod;

impl flow::Index<PodLinkKey, PodLink> for LinksByPod {
    type At = ObjectKey;

    fn keys(key: &PodLinkKey, _: &PodLink, emit: &mut dyn FnMut(&ObjectKey)) {
        emit(&key.0);
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct PodLinkView<'t> {
    /// EndpointSlices.
    pub endpoint_slices: InputView<'t, EndpointSlice>,
    /// Services.
    pub services: ServiceTable<'t>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The links of a slice.
pub fn derive(
    key: &ObjectKey,
    view: &PodLinkView<'_>,
    reads: &mut Reads,
) -> Output<PodLinkKey, PodLink, Finding> {
    let Some(object) = view.endpoint_slices.get(reads, key) else {
        return Output::gone();
    };
    let Some(slice) = object.ok().filter(|slice| !slice.fqdn) else {
        return Output::none();
    };
    let Some(service) = service_of(key, slice, view.services, view.mesh, reads) else {
        return Output::none();
    };
    if service.selector.is_some() {
        return Output::none();
    }
    let mut links: BTreeMap<PodLinkKey, PodLink> = BTreeMap::new();
    for (ns, name, uid) in slice
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.pod.as_ref())
    {
        let pod = ObjectKey::new(ns.clone(), name.clone());
        let link = links.entry((pod, key.clone())).or_insert_with(|| PodLink {
            uids: BTreeSet::new(),
            service: service.key.clone(),
        });
        link.uids.insert(uid.clone());
    }
    Output::from(links.into_iter().collect::<Vec<_>>())
}

/// The Kubernetes Service of a slice.
pub(crate) fn service_of<'t>(
    key: &ObjectKey,
    slice: &EndpointSlice,
    services: ServiceTable<'t>,
    mesh: MeshTable<'_>,
    reads: &mut Reads,
) -> Option<&'t ServiceRow> {
    let name = slice.service.clone()?;
    let domain = &tables::mesh(mesh, reads).domain;
    let host = NamespacedHostname::service(&ObjectKey::new(key.ns.clone(), name), domain);
    let row = services.get(reads, &host)?;
    (row.source.kind == Kind::Service.as_str()).then_some(row)
}
