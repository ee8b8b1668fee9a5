//! Stage `census`: workload → what policies ask of all workloads together.
//!
//! A projection: many workloads give the same rows, so that a pod that becomes ready touches no
//! policy, and a policy for the whole mesh finds whom it selects without a look at every pod.
//! Source: spec/policy-and-traffic.md §10.1 ("selects ambient workloads").

use std::sync::Arc;

use flow::{Output, Reads, View};
pub use model::census::{CensusKey, Served};
use model::{
    Finding, Labels, NamespacedHostname, ObjectKey, ServiceRow, Str, WorkloadRow, WorkloadUid,
};

use crate::selector::{self, SelectorAt};
use crate::service::ServiceTable;

/// The tracked view of the census.
pub type CensusTable<'t> = View<'t, CensusKey, ()>;

/// Index of served workloads by the places of selectors that may select them; the empty namespace
/// holds those of all namespaces.
#[derive(Clone, Copy, Debug)]
pub struct ServedByPlace;

impl flow::Index<CensusKey, ()> for ServedByPlace {
    type At = SelectorAt;

    fn keys(key: &CensusKey, (): &(), emit: &mut dyn FnMut(&SelectorAt)) {
        if let CensusKey::Served(served) = key {
            for ns in [&served.ns, &Str::new()] {
                selector::places(ns, &served.labels).for_each(|at| emit(&at));
            }
        }
    }
}

/// Index of service accounts by namespace.
#[derive(Clone, Copy, Debug)]
pub struct AccountsByNamespace;

impl flow::Index<CensusKey, ()> for AccountsByNamespace {
    type At = Str;

    fn keys(key: &CensusKey, (): &(), emit: &mut dyn FnMut(&Str)) {
        if let CensusKey::Account(account) = key {
            emit(&account.ns);
        }
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct CensusView<'t> {
    /// Workloads.
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Services.
    pub services: ServiceTable<'t>,
}

/// What one workload adds to the census.
pub fn derive(
    uid: &WorkloadUid,
    view: &CensusView<'_>,
    reads: &mut Reads,
) -> Output<CensusKey, (), Finding> {
    let Some(row) = view.workloads.get(reads, uid) else {
        return Output::gone();
    };
    let mut out = Vec::new();
    if !row.service_account.is_empty() {
        let account = ObjectKey::new(row.ns.clone(), row.service_account.clone());
        out.push((CensusKey::Account(account), ()));
    }
    // Endpoints of ServiceEntries are selected by labels of their entry, which are not in the row.
    let is_endpoint = uid
        .to_string()
        .contains("/networking.istio.io/ServiceEntry/");
    if row.hbone && !is_endpoint {
        let served = Served {
            ns: row.ns.clone(),
            labels: Arc::new(row.labels.clone()),
            waypoints: waypoints(row, view, reads),
        };
        out.push((CensusKey::Served(served), ()));
    }
    Output::from(out)
}

fn waypoints(
    row: &WorkloadRow,
    view: &CensusView<'_>,
    reads: &mut Reads,
) -> Vec<(ObjectKey, Option<NamespacedHostname>)> {
    let own = row.waypoint.iter().map(|bound| (bound.key.clone(), None));
    let mut all: Vec<_> = own.collect();
    for host in row.services.keys() {
        if let Some(service) = view.services.get(reads, host) {
            let bound = bound_to(service).map(|key| (key.clone(), Some(host.clone())));
            all.extend(bound);
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Every waypoint that traffic to a service may come through.
pub(crate) fn bound_to(service: &ServiceRow) -> impl Iterator<Item = &ObjectKey> {
    let weighted = service.weighted_waypoints.iter().map(|one| &one.bound);
    let all = service.waypoint.iter().chain(weighted);
    all.map(|bound| &bound.key)
}

/// The served workloads of a namespace (`None`: of every one) that a selector selects.
pub fn served<'t>(
    census: CensusTable<'t>,
    reads: &mut Reads,
    ns: Option<&Str>,
    selector: &Labels,
) -> impl Iterator<Item = &'t Served> + use<'t> {
    let range = ns.cloned().unwrap_or_default();
    let at = selector::place(&range, selector);
    let selector = selector.clone();
    let found = census.by::<ServedByPlace>(reads, &at);
    found.filter_map(move |(key, _)| match key {
        CensusKey::Served(served) if selector::selects(&selector, &served.labels) => Some(served),
        _ => None,
    })
}
