//! Stage `status::backend_tls`: a BackendTLSPolicy → an entry for each of its targets, and for each
//! Gateway whose routes lead to one. Source: spec/gateway-api.md §4.7.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Reads, View};
use model::gateway::Defect;
use model::input::{BackendTlsPolicy, HttpRoute, L4Route, Namespace, RouteRef};
use model::ownership::Revisions;
use model::status::{
    ANCESTOR_CONTROLLERS, AncestorStatus, Condition, MANAGER_GATEWAY_API, ParentRef, StatusKey,
    StatusRow,
};
use model::{Finding, GatewayRow, Kind, ObjectKey, ObjectRef, Parsed, ServiceRow, Severity, Str};

use super::{ACCEPTED, RESOLVED_REFS, StatusOutput, is_ours};
use crate::backend_tls::{BackendTlsRow, TargetRow};
use crate::index::{RouteByBackend, RouteByBackendHost, Target, TargetKind};
use crate::routes::RouteTables;

/// Primary: a policy.
pub type P = ObjectKey;

/// Most entries of `status.ancestors`, as the API limits them.
const ANCESTORS_COUNT_MAX: usize = 16;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct BackendTlsStatusView<'t> {
    /// Policies.
    pub policies: View<'t, ObjectKey, Parsed<BackendTlsPolicy>>,
    /// What became of them.
    pub rows: View<'t, ObjectKey, BackendTlsRow>,
    /// Routes and services; indexes [`RouteByBackend`] and [`RouteByBackendHost`].
    pub tables: RouteTables<'t>,
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// What is ours.
    pub revisions: View<'t, (), Revisions>,
    /// Namespaces.
    pub namespaces: View<'t, ObjectKey, Parsed<Namespace>>,
}

/// The status of a policy; no row for those of other control planes.
pub fn derive(key: &P, view: &BackendTlsStatusView<'_>, reads: &mut Reads) -> StatusOutput {
    let Some(policy) = view.policies.get(reads, key) else {
        return StatusOutput::gone();
    };
    let Some(row) = view.rows.get(reads, key) else {
        return StatusOutput::none();
    };
    if !is_ours(&policy.meta, view.revisions, view.namespaces, reads) {
        return StatusOutput::none();
    }
    let (ancestors, note) = ancestors(policy, row, view, reads);
    let at = ObjectRef::new(Kind::BackendTlsPolicy, key.clone());
    let status = StatusRow {
        ancestors: Some(ancestors),
        ..StatusRow::default()
    };
    let key = StatusKey {
        object: at,
        manager: MANAGER_GATEWAY_API,
    };
    StatusOutput::one(key, status).with_notes(note)
}

/// Entries of targets in their order, then those of Gateways, each with what is worst of the
/// targets that its routes lead to.
fn ancestors(
    policy: &Parsed<BackendTlsPolicy>,
    row: &BackendTlsRow,
    view: &BackendTlsStatusView<'_>,
    reads: &mut Reads,
) -> (Vec<AncestorStatus>, Option<Finding>) {
    let ns = &policy.meta.key.ns;
    let mut out: Vec<AncestorStatus> = Vec::new();
    let mut gateways: BTreeMap<ObjectKey, Option<&Defect>> = BTreeMap::new();
    let mut is_in_mesh = false;
    for target in &row.targets {
        let entry = of_target(policy, row, target);
        if !out
            .iter()
            .any(|other| other.ancestor_ref == entry.ancestor_ref)
        {
            out.push(entry);
        }
        is_in_mesh |= is_behind_waypoint(target, view, reads);
        for gateway in leading_to(ns, target, view, reads) {
            let worst = gateways.entry(gateway).or_default();
            *worst = worst.or(target.defect.as_ref());
        }
    }
    let is_idle = gateways.is_empty() && !is_in_mesh;
    let works = row.targets.iter().any(|target| !target.services.is_empty());
    let note = (is_idle && works).then(|| nobody(&policy.meta.key));
    for (gateway, worst) in gateways {
        let reference = ParentRef {
            group: Some(Str::from(Kind::Gateway.group())),
            kind: Some(Str::from(Kind::Gateway.as_str())),
            // Where none is written, readers take that of the policy.
            namespace: (gateway.ns != *ns).then(|| gateway.ns.clone()),
            name: gateway.name,
            ..ParentRef::default()
        };
        out.push(AncestorStatus {
            ancestor_ref: reference,
            controller_name: ANCESTOR_CONTROLLERS[1],
            conditions: conditions(policy, row, worst),
        });
    }
    out.truncate(ANCESTORS_COUNT_MAX);
    (out, note)
}

fn of_target(
    policy: &Parsed<BackendTlsPolicy>,
    row: &BackendTlsRow,
    target: &TargetRow,
) -> AncestorStatus {
    let written = &target.target;
    AncestorStatus {
        ancestor_ref: ParentRef {
            group: Some(written.group.clone()),
            kind: Some(written.kind.clone()),
            name: written.name.clone(),
            section_name: written.section.clone(),
            ..ParentRef::default()
        },
        controller_name: ANCESTOR_CONTROLLERS[0],
        conditions: conditions(policy, row, target.defect.as_ref()),
    }
}

fn conditions(
    policy: &Parsed<BackendTlsPolicy>,
    row: &BackendTlsRow,
    defect: Option<&Defect>,
) -> Vec<Condition> {
    let generation = policy.meta.generation;
    let accepted = if let Some(defect) = defect {
        let message = defect.message.clone();
        Condition::new(ACCEPTED, false, defect.reason, message, generation)
    } else {
        let remark = row.remark.as_deref().unwrap_or("The policy is applied");
        Condition::new(ACCEPTED, true, "Accepted", remark, generation)
    };
    let refs = match &row.refs {
        Some(defect) => Condition::new(
            RESOLVED_REFS,
            false,
            defect.reason,
            defect.message.clone(),
            generation,
        ),
        None => Condition::new(
            RESOLVED_REFS,
            true,
            "ResolvedRefs",
            "All references are resolved",
            generation,
        ),
    };
    vec![accepted, refs]
}

fn is_behind_waypoint(
    target: &TargetRow,
    view: &BackendTlsStatusView<'_>,
    reads: &mut Reads,
) -> bool {
    let mut hosts = target.services.iter();
    hosts.any(|host| {
        let service = view.tables.services.get(reads, host);
        service.is_some_and(|service: &Arc<ServiceRow>| service.waypoint.is_some())
    })
}

/// The Gateways of ours that any route with the target as backend names as its parent.
fn leading_to(
    ns: &Str,
    target: &TargetRow,
    view: &BackendTlsStatusView<'_>,
    reads: &mut Reads,
) -> BTreeSet<ObjectKey> {
    let written = &target.target;
    let Some(kind) = TargetKind::of(&written.group, &written.kind) else {
        return BTreeSet::new();
    };
    let key = ObjectKey::new(ns.clone(), written.name.clone());
    let object = Target::new(kind, key);
    let tables = &view.tables;
    let mut parents: Vec<&RouteRef> = Vec::new();
    for routes in [tables.http_routes, tables.grpc_routes] {
        let found = routes.by::<RouteByBackend>(reads, &object);
        parents.extend(found.flat_map(|(_, row)| parents_of_http(row)));
        for host in &target.services {
            let found = routes.by::<RouteByBackendHost>(reads, host.hostname.as_str());
            parents.extend(found.flat_map(|(_, row)| parents_of_http(row)));
        }
    }
    for routes in [tables.tcp_routes, tables.tls_routes] {
        let found = routes.by::<RouteByBackend>(reads, &object);
        parents.extend(found.flat_map(|(_, row)| parents_of_l4(row)));
        for host in &target.services {
            let found = routes.by::<RouteByBackendHost>(reads, host.hostname.as_str());
            parents.extend(found.flat_map(|(_, row)| parents_of_l4(row)));
        }
    }
    let named: BTreeSet<ObjectKey> = parents
        .into_iter()
        .filter(|parent| TargetKind::of(&parent.group, &parent.kind) == Some(TargetKind::Gateway))
        .map(|parent| ObjectKey::new(parent.ns.clone(), parent.name.clone()))
        .collect();
    let mut is_known = |key: &ObjectKey| view.gateways.get(reads, key).is_some();
    named.into_iter().filter(|key| is_known(key)).collect()
}

fn parents_of_http(row: &Parsed<HttpRoute>) -> &[RouteRef] {
    row.ok().map_or(&[], |route| &route.parents)
}

fn parents_of_l4(row: &Parsed<L4Route>) -> &[RouteRef] {
    row.ok().map_or(&[], |route| &route.parents)
}

fn nobody(key: &ObjectKey) -> Finding {
    Finding::new(
        "btls-no-proxy",
        Severity::Warning,
        ObjectRef::new(Kind::BackendTlsPolicy, key.clone()),
        "No target has a waypoint, and no route of a Gateway leads to one: nobody opens TLS, and clients in the mesh speak to the backends as they did",
        "Label the Service with istio.io/use-waypoint, or add a route to it",
    )
}
