//! Stage `status::policy`: AuthorizationPolicy → whether it is enforced, and where.

mod waypoint;
mod ztunnel;

use flow::Reads;
use model::input::{AuthorizationPolicy, GatewayClass};
use model::object::Invalid;
use model::status::{Condition, MANAGER_WAYPOINT_POLICY, MANAGER_ZTUNNEL_POLICY};
use model::{Kind, ObjectKey, ObjectRef};

use super::{StatusOutput, WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED, condition, row};
use crate::service::ServiceTable;
use crate::tables::{self, InputView, MeshTable};
use crate::waypoint::WaypointTable;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct PolicyStatusView<'t> {
    /// AuthorizationPolicies.
    pub policies: InputView<'t, AuthorizationPolicy>,
    /// GatewayClasses.
    pub gateway_classes: InputView<'t, GatewayClass>,
    /// Services, with index [`super::ServicesBySource`].
    pub services: ServiceTable<'t>,
    /// Waypoints.
    pub waypoints: WaypointTable<'t>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The status of a policy: a row for each of the two managers.
pub fn derive(key: &ObjectKey, view: &PolicyStatusView<'_>, reads: &mut Reads) -> StatusOutput {
    let Some(object) = view.policies.get(reads, key) else {
        return StatusOutput::gone();
    };
    let (ztunnel, waypoint) = match &object.body {
        Err(invalid) => unreadable(key, invalid),
        Ok(policy) if policy.targets.is_empty() => {
            let features = tables::mesh(view.mesh, reads).features;
            (Some(ztunnel::condition(&key.ns, policy, features)), None)
        }
        Ok(policy) => {
            let waypoint = waypoint::condition(key, &policy.targets, view, reads);
            (None, Some(waypoint))
        }
    };
    let generation = Some(object.meta.generation).filter(|generation| *generation != 0);
    let stamped = |condition: Option<Condition>| {
        let condition = condition.into_iter();
        let stamp = |condition| Condition {
            observed_generation: generation,
            ..condition
        };
        condition.map(stamp).collect::<Vec<_>>()
    };
    let reference = ObjectRef::new(Kind::AuthorizationPolicy, key.clone());
    let rows = vec![
        row(&reference, MANAGER_ZTUNNEL_POLICY, stamped(ztunnel)),
        row(&reference, MANAGER_WAYPOINT_POLICY, stamped(waypoint)),
    ];
    StatusOutput::new(rows, Vec::new())
}

/// Path under which targets stand.
const FIELD_TARGETS: &str = "spec.targetRef";

/// A policy that cannot be read: it denies at ztunnel whatever it was meant for, and waypoints
/// refuse everything at those of its targets that can be read.
fn unreadable(key: &ObjectKey, invalid: &Invalid) -> (Option<Condition>, Option<Condition>) {
    let Invalid {
        field,
        reason,
        targets,
    } = invalid;
    let at = if field.is_empty() { "" } else { ": " };
    let denied = format!(
        "The policy cannot be read ({field}{at}{reason}); until it is corrected, it allows nothing to ambient workloads of namespace {}",
        key.ns
    );
    let ztunnel = condition(ZTUNNEL_ACCEPTED, false, INVALID, denied);
    let about_targets = field.starts_with(FIELD_TARGETS);
    let waypoint = (about_targets || !targets.is_empty()).then(|| {
        let unknown_kind = about_targets && field.ends_with(".kind");
        let reason_word = if unknown_kind { UNKNOWN } else { INVALID };
        let effect = if targets.is_empty() {
            "No waypoint enforces this policy"
        } else {
            "Waypoints refuse everything at the targets of this policy until it is corrected"
        };
        let message = format!("{effect} ({field}{at}{reason})");
        condition(WAYPOINT_ACCEPTED, false, reason_word, message)
    });
    (Some(ztunnel), waypoint)
}

/// Reason: the policy, or the place of its target, is not valid.
const INVALID: &str = "Invalid";
/// Reason: a kind that cannot be a target.
const UNKNOWN: &str = "unknown";
/// Reason: it is enforced.
const ACCEPTED: &str = "Accepted";
