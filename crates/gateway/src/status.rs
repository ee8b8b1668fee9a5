//! Stages of `status`: what belongs into the status of GatewayClasses, Gateways and ListenerSets.
//!
//! They say what [`crate::gateways`] and [`crate::route_parents`] made of them, whether or not any
//! proxy is connected. What the writer needs to know beside the rows is in [`model::status`].
//! Source: spec/gateway-api.md §1.3, §3.

pub mod gateway;
pub mod gateway_class;
pub mod listener_set;
mod listeners;
mod programmed;

use flow::{Output, Reads, View};
use model::gateway::RouteParents;
use model::input::{Namespace, Service};
use model::ownership::Revisions;
use model::status::{MANAGER_GATEWAY_API, StatusKey, StatusRow};
use model::{
    Finding, GatewayRow, Kind, Meta, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow,
    WorkloadRow, WorkloadUid,
};

/// What a stage of statuses yields.
pub type StatusOutput = Output<StatusKey, StatusRow, Finding>;

/// Type of the condition that an object is taken as it is.
const ACCEPTED: &str = "Accepted";
/// Type of the condition that a Gateway or listener works.
const PROGRAMMED: &str = "Programmed";
/// Type of the condition that what is referred to exists and may be used.
const RESOLVED_REFS: &str = "ResolvedRefs";
/// Type of the condition that two listeners want the same.
const CONFLICTED: &str = "Conflicted";
/// Type of the condition that clients without a valid certificate are let in.
const INSECURE_FRONTEND: &str = "InsecureFrontendValidationMode";

/// What the stages of Gateways and ListenerSets read beside the objects themselves.
#[derive(Clone, Copy)]
pub struct StatusTables<'t> {
    /// Gateways of ours; index [`crate::index::GatewayByListenerSet`].
    pub rows: View<'t, ObjectKey, GatewayRow>,
    /// Routes; index [`crate::index::RouteByListener`].
    pub route_parents: View<'t, (Kind, ObjectKey), RouteParents>,
    /// Services; index [`crate::index::ServiceByHostname`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Services as they are written.
    pub service_objects: View<'t, ObjectKey, Parsed<Service>>,
    /// What is ours.
    pub revisions: View<'t, (), Revisions>,
    /// Namespaces.
    pub namespaces: View<'t, ObjectKey, Parsed<Namespace>>,
    /// Workloads; index [`crate::index::WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
}

/// Whether the status of an object is ours to write. Source: spec/gateway-api.md §2.2.
pub fn is_ours(
    meta: &Meta,
    revisions: View<'_, (), Revisions>,
    namespaces: View<'_, ObjectKey, Parsed<Namespace>>,
    reads: &mut Reads,
) -> bool {
    let Some(revisions) = revisions.get(reads, &()) else {
        return false;
    };
    let ns = ObjectKey::cluster(meta.key.ns.clone());
    revisions.is_ours(&meta.labels, || {
        let namespace = namespaces.get(reads, &ns);
        namespace.map(|namespace| &namespace.meta.labels)
    })
}

/// What is said of an object.
fn of(kind: Kind, key: &ObjectKey, row: StatusRow) -> StatusOutput {
    let key = StatusKey {
        object: ObjectRef::new(kind, key.clone()),
        manager: MANAGER_GATEWAY_API,
    };
    StatusOutput::one(key, row)
}
