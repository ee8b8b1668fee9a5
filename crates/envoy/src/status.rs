//! Stages of `status`: what belongs into the status of routes and BackendTLSPolicies.
//!
//! They say what the stages that serve them do, by the same functions, and are derived from the
//! objects alone, so they exist whether or not any proxy is connected. Gateways of other classes
//! are not spoken of, and objects of other control planes have no row.
//! Source: spec/gateway-api.md §2.2, §4, §5.

pub mod backend_tls;
pub mod route;

use flow::{Output, Reads, View};
use model::input::Namespace;
use model::ownership::Revisions;
use model::status::{StatusKey, StatusRow};
use model::{Finding, Meta, ObjectKey, Parsed};

/// What a stage of statuses yields.
pub type StatusOutput = Output<StatusKey, StatusRow, Finding>;

/// Type of the condition that a route is taken as it is.
const ACCEPTED: &str = "Accepted";
/// Type of the condition that what is referred to exists and may be used.
const RESOLVED_REFS: &str = "ResolvedRefs";
/// Type of the condition that speaks of the waypoint of a parent.
const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";

/// Whether the status of an object is ours to write.
fn is_ours(
    meta: &Meta,
    revisions: View<'_, (), Revisions>,
    namespaces: View<'_, ObjectKey, Parsed<Namespace>>,
    reads: &mut Reads,
) -> bool {
    gateway::status::is_ours(meta, revisions, namespaces, reads)
}
