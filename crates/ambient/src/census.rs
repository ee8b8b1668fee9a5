//! Stage `census`: workloads that are alike → what policies ask of all workloads together.
//!
//! A projection: many workloads give the same rows, so that a pod that becomes ready touches no
//! policy, and a policy for the whole mesh finds whom it selects without a look at every pod.
//! Workloads with one [`Profile`] are one primary, for one each would cost 400 bytes a pod.
//! Source: spec/policy-and-traffic.md §10.1 ("selects ambient workloads").

use flow::{Changes, Output, Reads, View};
pub use model::census::{CensusKey, Served};
use model::derived::Memberships;
use model::labels::LABEL_GATEWAY_NAME;
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

/// What the census asks of a workload. All pods of a deployment have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Profile {
    ns: Str,
    service_account: Str,
    labels: Labels,
    hbone: bool,
    /// It is an endpoint of a ServiceEntry.
    is_endpoint: bool,
    waypoint: Option<ObjectKey>,
    services: Memberships,
}

impl Profile {
    /// That of a workload.
    pub fn of(uid: &WorkloadUid, row: &WorkloadRow) -> Self {
        Self {
            ns: row.ns.clone(),
            service_account: row.service_account.clone(),
            labels: row.labels.clone(),
            hbone: row.hbone,
            is_endpoint: uid.0.contains("/networking.istio.io/ServiceEntry/"),
            waypoint: row.waypoint.as_ref().map(|bound| bound.key.clone()),
            services: row.services.clone(),
        }
    }

    /// Those that changed workloads have or had.
    pub fn changed(
        workloads: &Changes<WorkloadUid, WorkloadRow>,
    ) -> impl Iterator<Item = Self> + '_ {
        let rows = workloads.rows().iter();
        rows.flat_map(|change| {
            let both = change.old.iter().chain(&change.new);
            both.map(|row| Self::of(&change.key, row))
        })
    }
}

/// Index of workloads by profile.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadsByProfile;

impl flow::Index<WorkloadUid, WorkloadRow> for WorkloadsByProfile {
    type At = Profile;

    fn keys(key: &WorkloadUid, row: &WorkloadRow, emit: &mut dyn FnMut(&Profile)) {
        emit(&Profile::of(key, row));
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct CensusView<'t> {
    /// Workloads, with index [`WorkloadsByProfile`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Services.
    pub services: ServiceTable<'t>,
}

/// What workloads with one profile add to the census.
pub fn derive(
    profile: &Profile,
    view: &CensusView<'_>,
    reads: &mut Reads,
) -> Output<CensusKey, (), Finding> {
    if !view.workloads.any::<WorkloadsByProfile>(reads, profile) {
        return Output::gone();
    }
    let mut out = Vec::new();
    if !profile.service_account.is_empty() {
        let account = ObjectKey::new(profile.ns.clone(), profile.service_account.clone());
        out.push((CensusKey::Account(account), ()));
    }
    if !profile.labels.contains_key(LABEL_GATEWAY_NAME) {
        out.push((CensusKey::Captured(profile.hbone), ()));
    }
    // Endpoints of ServiceEntries are selected by labels of their entry, which are not in the row.
    if profile.hbone && !profile.is_endpoint {
        let served = Served {
            ns: profile.ns.clone(),
            labels: profile.labels.clone(),
            waypoints: waypoints(profile, view, reads),
        };
        out.push((CensusKey::Served(served), ()));
    }
    Output::from(out)
}

fn waypoints(
    profile: &Profile,
    view: &CensusView<'_>,
    reads: &mut Reads,
) -> Vec<(ObjectKey, Option<NamespacedHostname>)> {
    let own = profile.waypoint.iter().map(|key| (key.clone(), None));
    let mut all: Vec<_> = own.collect();
    for host in profile.services.keys() {
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
