//! Stage `status::gateway`: a waypoint Gateway → its conditions, addresses and listeners.
//! Source: spec/gateway-api.md §3, §5.1.

mod listeners;
mod programmed;

use flow::{Reads, View};
use model::input::{Gateway, Service};
use model::ownership::Revisions;
use model::status::{Condition, ListenerStatus, MANAGER_GATEWAY_API, StatusKey, StatusRow};
use model::{
    Kind, MeshRow, Meta, NamespacedHostname, ObjectKey, ObjectRef, Parsed, Str, WaypointRow,
    WorkloadRow, WorkloadUid,
};

use super::{ACCEPTED, PROGRAMMED, RESOLVED_REFS, StatusOutput, is_ours};
use crate::attachment::mesh_row;
use crate::routes::RouteTables;
use listeners::{is_built, is_valid};
use programmed::Programmed;

/// Primary: a Gateway.
pub type P = ObjectKey;

/// Another name for the Service and Deployment of a Gateway.
const ANNOTATION_NAME: &str = "gateway.istio.io/name-override";
/// What type the Service of a managed Gateway shall have.
const ANNOTATION_SERVICE_TYPE: &str = "networking.istio.io/service-type";

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct GatewayStatusView<'t> {
    /// Gateways.
    pub gateways: View<'t, ObjectKey, Parsed<Gateway>>,
    /// What is ours.
    pub revisions: View<'t, (), Revisions>,
    /// Their rows.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Services as they are written.
    pub service_objects: View<'t, ObjectKey, Parsed<Service>>,
    /// Workloads; index [`crate::index::WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Services and routes; indexes [`crate::index::ServiceByHostname`] and
    /// [`crate::index::RouteByParent`].
    pub tables: RouteTables<'t>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// The status of a waypoint; no row for Gateways of other classes or control planes, or that cannot
/// be read.
pub fn derive(p: &P, view: &GatewayStatusView<'_>, reads: &mut Reads) -> StatusOutput {
    let Some(object) = view.gateways.get(reads, p) else {
        return StatusOutput::gone();
    };
    let waypoint = view.waypoints.get(reads, p);
    let Some(waypoint) = waypoint.filter(|waypoint| waypoint.is_mesh_class) else {
        return StatusOutput::none();
    };
    let Ok(gateway) = &object.body else {
        return StatusOutput::none();
    };
    if !is_ours(&object.meta, view.revisions, view.tables.namespaces, reads) {
        return StatusOutput::none();
    }
    let mesh = mesh_row(view.mesh, reads);
    let key = StatusKey {
        object: ObjectRef::new(Kind::Gateway, p.clone()),
        manager: MANAGER_GATEWAY_API,
    };
    let row = status(&object.meta, gateway, (waypoint, &mesh), view, reads);
    StatusOutput::one(key, row)
}

fn status(
    meta: &Meta,
    gateway: &Gateway,
    (waypoint, mesh): (&WaypointRow, &MeshRow),
    view: &GatewayStatusView<'_>,
    reads: &mut Reads,
) -> StatusRow {
    let targets = targets(meta, gateway, &mesh.domain);
    let refused = refused(meta, gateway);
    let listeners = if targets.is_empty() && refused.is_some() {
        Vec::new()
    } else {
        statuses(meta, gateway, waypoint, view, reads)
    };
    let built = gateway.listeners.iter().filter(|one| is_built(one));
    let ports = built.map(|listener| listener.port).collect();
    let programmed = Programmed::of(meta, &targets, &ports, view, reads);
    let (holds, reason, message) = refused.unwrap_or_else(|| accepted(gateway));
    let generation = meta.generation;
    let mut conditions = vec![
        Condition::new(ACCEPTED, holds, reason, message, generation),
        programmed.condition(PROGRAMMED, generation),
    ];
    // Whether a certificate for backends can be had is not looked at yet.
    if !gateway.has_client_certificate {
        let message = "The Gateway refers to nothing that is missing";
        conditions.push(Condition::new(
            RESOLVED_REFS,
            true,
            "ResolvedRefs",
            message,
            generation,
        ));
    }
    StatusRow {
        conditions,
        listeners: Some(listeners),
        gateway_addresses: Some(programmed.addresses(meta, &gateway.addresses)),
        ..StatusRow::default()
    }
}

fn statuses(
    meta: &Meta,
    gateway: &Gateway,
    waypoint: &WaypointRow,
    view: &GatewayStatusView<'_>,
    reads: &mut Reads,
) -> Vec<ListenerStatus> {
    let attached = listeners::attached_count(waypoint, &view.tables, reads);
    // Names are distinct in a cluster; of equal ones, the first has the routes.
    let mut first = true;
    let listeners = gateway.listeners.iter();
    listeners
        .map(|listener| {
            let takes = waypoint.listener.as_ref() == Some(&listener.name)
                && std::mem::replace(&mut first, false);
            let attached = if takes { attached } else { 0 };
            listeners::status(listener, attached, meta.generation)
        })
        .collect()
}

/// The Services behind which the instances are.
fn targets(meta: &Meta, gateway: &Gateway, domain: &str) -> Vec<NamespacedHostname> {
    let ns = &meta.key.ns;
    let local = |name: &str| arcstr::format!("{name}.{ns}.svc.{domain}");
    if gateway.is_managed {
        let name = meta.annotation(ANNOTATION_NAME).unwrap_or(&meta.key.name);
        return vec![NamespacedHostname::new(ns.clone(), local(name))];
    }
    let hosts = gateway.requested.iter();
    hosts
        .filter(|(ty, value)| is_hostname(ty) && !value.is_empty())
        .map(|(_, value)| {
            let host = if value.contains('.') {
                value.clone()
            } else {
                local(value)
            };
            NamespacedHostname::new(ns.clone(), host)
        })
        .collect()
}

fn is_hostname(ty: &str) -> bool {
    matches!(ty, "" | "Hostname")
}

/// Why a Gateway is not accepted whatever its listeners are.
fn refused(meta: &Meta, gateway: &Gateway) -> Option<(bool, &'static str, String)> {
    if gateway.is_managed {
        return None;
    }
    let odd = gateway.requested.iter().find(|(ty, _)| !is_hostname(ty));
    if let Some((ty, _)) = odd {
        let message = format!(
            "spec.addresses of type {ty} cannot be used beside others: write those of type Hostname alone, or none"
        );
        return Some((false, "UnsupportedAddress", message));
    }
    meta.annotation(ANNOTATION_SERVICE_TYPE).map(|_: &Str| {
        let message = format!(
            "Annotation {ANNOTATION_SERVICE_TYPE} has no effect on a Gateway with spec.addresses"
        );
        (false, "DeprecatedField", message)
    })
}

fn accepted(gateway: &Gateway) -> (bool, &'static str, String) {
    let wrong: Vec<&str> = gateway
        .listeners
        .iter()
        .filter(|listener| !is_valid(listener))
        .map(|listener| listener.name.as_str())
        .collect();
    if wrong.is_empty() {
        let message = "The Gateway is accepted".to_owned();
        return (true, "Accepted", message);
    }
    let some = wrong.len() < gateway.listeners.len();
    let message = format!("Listeners that are not valid: {}", wrong.join(", "));
    (some, "ListenersNotValid", message)
}
