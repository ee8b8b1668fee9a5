//! Stage `status::service`: Service or ServiceEntry → what became of its waypoint.

use flow::{Reads, View};
use model::derived::{NeedsWaypoint, Visibility};
use model::input::{Service, ServiceEntry};
use model::labels::LABEL_INGRESS_USE_WAYPOINT;
use model::status::{Condition, MANAGER_SERVICE};
use model::{Meta, ObjectKey, ServiceRow};

use super::{
    ServicesBySource, StatusOutput, VISIBILITY_APPLIED, WAYPOINT_MISSING, bound, condition, row,
};
use crate::claim::{ClaimRow, ClaimTable, ServiceSource};
use crate::namespace_binding::NamespaceBinding;
use crate::service::ServiceTable;
use crate::tables::{self, InputView, MeshTable};

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ServiceStatusView<'t> {
    /// Services as written.
    pub services: InputView<'t, Service>,
    /// ServiceEntries as written.
    pub service_entries: InputView<'t, ServiceEntry>,
    /// Claims to hosts.
    pub claims: ClaimTable<'t>,
    /// The hosts that survived, with index [`ServicesBySource`].
    pub hosts: ServiceTable<'t>,
    /// What namespaces give to their objects.
    pub namespace_bindings: View<'t, ObjectKey, NamespaceBinding>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The status of a Service or ServiceEntry. Only hosts that it did not lose count.
pub fn derive(
    source: &ServiceSource,
    view: &ServiceStatusView<'_>,
    reads: &mut Reads,
) -> StatusOutput {
    let meta = match source {
        ServiceSource::Service(key) => view.services.get(reads, key).map(|object| &object.meta),
        ServiceSource::ServiceEntry(key) => {
            let object = view.service_entries.get(reads, key);
            object.map(|object| &object.meta)
        }
    };
    let Some(meta) = meta else {
        return StatusOutput::gone();
    };
    let reference = source.object_ref();
    let hosts: Vec<&ServiceRow> = view
        .hosts
        .by::<ServicesBySource>(reads, &reference)
        .map(|(_, row)| row.as_ref())
        .collect();
    let mut conditions = Vec::new();
    if let Some(first) = hosts.first()
        && let Some(claim) = view.claims.get(reads, &(first.key.clone(), source.clone()))
    {
        conditions.extend(waypoint(meta, claim, view, reads));
        if matches!(source, ServiceSource::ServiceEntry(_)) {
            conditions.extend(missing(claim, &hosts));
            let configured = tables::mesh(view.mesh, reads).entry_visibility.is_some();
            conditions.extend(visibility(first.visibility).filter(|_| configured));
        }
    }
    StatusOutput::from(vec![row(&reference, MANAGER_SERVICE, conditions)])
}

fn waypoint(
    meta: &Meta,
    claim: &ClaimRow,
    view: &ServiceStatusView<'_>,
    reads: &mut Reads,
) -> Option<Condition> {
    let attachment = &claim.attachment;
    let Some(waypoint) = &attachment.bound else {
        return bound(attachment, "");
    };
    let namespace = ObjectKey::cluster(meta.key.ns.clone());
    let is_said = meta.label(LABEL_INGRESS_USE_WAYPOINT).is_some()
        || (view.namespace_bindings.get(reads, &namespace))
            .is_some_and(|binding| binding.ingress_use_waypoint.is_some());
    let ingress = if claim.ingress_use_waypoint {
        format!(
            ". Traffic of ingress gateways goes through waypoint {} too",
            waypoint.key
        )
    } else if is_said {
        format!(
            ". Traffic of ingress gateways does not go through it: label {LABEL_INGRESS_USE_WAYPOINT} is not true"
        )
    } else {
        String::new()
    };
    let canary = attachment.canary_refusal.as_ref();
    let canary = canary.map_or_else(String::new, |refused| {
        format!(". {}: {}", refused.reason.as_str(), refused.message)
    });
    bound(attachment, &format!("{ingress}{canary}"))
}

/// A ServiceEntry that is of no use without a waypoint and has none.
fn missing(claim: &ClaimRow, hosts: &[&ServiceRow]) -> Option<Condition> {
    if claim.attachment.bound.is_some() {
        return None;
    }
    let needs = hosts.iter().filter_map(|row| row.needs_waypoint).max()?;
    let (reason, message) = match needs {
        NeedsWaypoint::Wildcard => (
            "NoWaypointForWildcardService",
            "A wildcard host works through a waypoint only, and there is none; clients do not reach it through this entry",
        ),
        NeedsWaypoint::RacingConnect => (
            "NoWaypointForRacingConnectStrategy",
            "Connect strategy RACE_FIRST_TCP_CONNECT works through a waypoint only, and there is none; it has no effect",
        ),
    };
    Some(condition(WAYPOINT_MISSING, true, reason, message))
}

fn visibility(visibility: Visibility) -> Option<Condition> {
    let (reason, message) = match visibility {
        Visibility::Public => ("Public", "The hosts are visible in every namespace"),
        Visibility::Namespace => ("Namespace", "The hosts are visible in this namespace only"),
        Visibility::None => return None,
    };
    Some(condition(VISIBILITY_APPLIED, true, reason, message))
}
