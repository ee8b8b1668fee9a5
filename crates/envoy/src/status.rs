//! Stages of `status`: what belongs into the status of waypoint Gateways and of routes.
//!
//! They say what the stages that serve them do, by the same functions, and are derived from the
//! objects alone, so they exist whether or not any proxy is connected. Gateways of other classes
//! are not spoken of, neither by themselves nor as parents, and objects of other control planes
//! have no row. Source: spec/gateway-api.md §2.2, §3–§5.

pub mod gateway;
pub mod route;

use flow::{Output, Reads, View};
use model::input::Namespace;
use model::ownership::Revisions;
use model::status::{StatusKey, StatusRow};
use model::{Finding, Meta, ObjectKey, Parsed};

/// What a stage of statuses yields.
pub type StatusOutput = Output<StatusKey, StatusRow, Finding>;

/// Type of the condition that a route or Gateway is taken as it is.
const ACCEPTED: &str = "Accepted";
/// Type of the condition that a Gateway or listener works.
const PROGRAMMED: &str = "Programmed";
/// Type of the condition that what is referred to exists and may be used.
const RESOLVED_REFS: &str = "ResolvedRefs";
/// Type of the condition that speaks of the waypoint of a parent.
const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";
/// Type of the condition that two listeners want the same.
const CONFLICTED: &str = "Conflicted";

/// Whether the status of an object is ours to write.
fn is_ours(
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
