//! Stages of `status`: what belongs into the status of objects.
//!
//! Every object that a field manager may write to has a row, an empty one where nothing is to
//! be said. Conditions state what traffic really does now, also where that differs from what
//! the object asks for. Source: spec/workload-discovery.md §6.

pub mod allocation;
pub mod policy;
pub mod service;
pub mod workload_entry;

use flow::Output;
use model::status::{Condition, ConditionStatus, StatusKey, StatusRow};
use model::{Finding, NamespacedHostname, ObjectRef, ServiceRow, Str};

use crate::attach::Attachment;

/// What a stage of statuses yields.
pub type StatusOutput = Output<StatusKey, StatusRow, Finding>;

/// Index of services by the object behind them.
#[derive(Clone, Copy, Debug)]
pub struct ServicesBySource;

impl flow::Index<NamespacedHostname, ServiceRow> for ServicesBySource {
    type At = ObjectRef;

    fn keys(_: &NamespacedHostname, row: &ServiceRow, emit: &mut dyn FnMut(&ObjectRef)) {
        emit(&row.source);
    }
}

/// Type of the condition that names the waypoint of an object.
pub(crate) const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// Type of the condition that a waypoint is needed and there is none.
pub(crate) const WAYPOINT_MISSING: &str = "istio.io/WaypointMissing";
/// Type of the condition that says who sees a ServiceEntry.
pub(crate) const VISIBILITY_APPLIED: &str = "istio.io/VisibilityApplied";
/// Type of the condition that says what ztunnel makes of a policy.
pub(crate) const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
/// Type of the condition that says what waypoints make of a policy.
pub(crate) const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// A condition without generation.
pub(crate) fn condition(
    ty: &'static str,
    holds: bool,
    reason: impl Into<Str>,
    message: impl Into<Str>,
) -> Condition {
    Condition {
        ty: Str::from(ty),
        status: if holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        },
        reason: reason.into(),
        message: message.into(),
        observed_generation: None,
    }
}

/// What became of a reference to a waypoint; nothing where none is requested. `more` is added to
/// the message of one that is bound.
pub(crate) fn bound(attachment: &Attachment, more: &str) -> Option<Condition> {
    if let Some(waypoint) = &attachment.bound {
        let address = match (&waypoint.address, &attachment.blocked) {
            (Some(_), _) => "",
            (None, None) => ", which has no usable address: traffic does not go through it",
            (None, Some(_)) => ", which has no usable address: traffic is refused",
        };
        let message = format!("Bound to waypoint {}{address}{more}", waypoint.key);
        return Some(condition(WAYPOINT_BOUND, true, "WaypointAccepted", message));
    }
    let refused = attachment.refusal.as_ref()?;
    let (reason, message) = (refused.reason.as_str(), refused.message.clone());
    Some(condition(WAYPOINT_BOUND, false, reason, message))
}

/// The row of one manager.
pub(crate) fn row(
    object: &ObjectRef,
    manager: &'static str,
    conditions: Vec<Condition>,
) -> (StatusKey, StatusRow) {
    let key = StatusKey {
        object: object.clone(),
        manager,
    };
    let row = StatusRow {
        conditions,
        ..StatusRow::default()
    };
    (key, row)
}
