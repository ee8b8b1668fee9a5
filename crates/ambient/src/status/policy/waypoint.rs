//! What waypoints make of a policy with targets.

use flow::Reads;
use model::input::TargetRef;
use model::status::Condition;
use model::{GatewayController, Kind, ObjectKey, ObjectRef, Str};

use super::super::{ServicesBySource, WAYPOINT_ACCEPTED};
use super::{ACCEPTED, INVALID, PolicyStatusView, UNKNOWN};
use crate::tables;

/// Reason: there is no such object.
const NOT_FOUND: &str = "TargetNotFound";
/// Reason: the target has no waypoint.
const NOT_BOUND: &str = "AncestorNotBound";
/// Reason: some targets are enforced and some are not.
const PARTIALLY: &str = "PartiallyInvalid";

/// Who enforces the policy at one target, or the reason and text why nobody does.
type Outcome = Result<String, (&'static str, String)>;

/// The condition of the policy `key`.
pub(super) fn condition(
    key: &ObjectKey,
    targets: &[TargetRef],
    view: &PolicyStatusView<'_>,
    reads: &mut Reads,
) -> Condition {
    let outcomes: Vec<(&TargetRef, Outcome)> = targets
        .iter()
        .map(|target| (target, outcome(key, target, view, reads)))
        .collect();
    let (holds, reason, message) = match outcomes.as_slice() {
        [(_, Ok(by))] => (true, ACCEPTED, format!("The policy is enforced by {by}")),
        [(_, Err((reason, text)))] => (false, *reason, text.clone()),
        several => joint(key, several),
    };
    super::condition(WAYPOINT_ACCEPTED, holds, reason, message)
}

fn joint(key: &ObjectKey, outcomes: &[(&TargetRef, Outcome)]) -> (bool, &'static str, String) {
    let unbound: Vec<String> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_err())
        .map(|(target, _)| shown(key, target))
        .collect();
    if unbound.is_empty() {
        let by: Vec<&str> = outcomes
            .iter()
            .filter_map(|(_, outcome)| outcome.as_deref().ok())
            .collect();
        let message = format!("The policy is enforced by {}", by.join(", "));
        (true, ACCEPTED, message)
    } else if unbound.len() == outcomes.len() {
        let message = format!(
            "The policy is enforced at none of its targets: {}",
            unbound.join(", ")
        );
        (false, INVALID, message)
    } else {
        let message = format!(
            "The policy is not enforced at some of its targets: {}",
            unbound.join(", ")
        );
        (true, PARTIALLY, message)
    }
}

/// `Kind.group:ns/name`.
fn shown(key: &ObjectKey, target: &TargetRef) -> String {
    let group = if target.group.is_empty() {
        "core"
    } else {
        &target.group
    };
    let ns = namespace(key, target);
    format!("{}.{group}:{ns}/{}", target.kind, target.name)
}

fn namespace<'a>(key: &'a ObjectKey, target: &'a TargetRef) -> &'a Str {
    target
        .ns
        .as_ref()
        .filter(|ns| !ns.is_empty())
        .unwrap_or(&key.ns)
}

fn outcome(
    key: &ObjectKey,
    target: &TargetRef,
    view: &PolicyStatusView<'_>,
    reads: &mut Reads,
) -> Outcome {
    let named = ObjectKey::new(namespace(key, target).clone(), target.name.clone());
    let kind = match (target.group.as_str(), target.kind.as_str()) {
        ("gateway.networking.k8s.io", "GatewayClass") => {
            return class(key, &target.name, view, reads);
        }
        ("gateway.networking.k8s.io", "Gateway") => Kind::Gateway,
        ("" | "core", "Service") => Kind::Service,
        ("networking.istio.io", "ServiceEntry") => Kind::ServiceEntry,
        (group, kind) => {
            let text = format!("{kind} of group {group:?} cannot be a target of a policy");
            return Err((UNKNOWN, text));
        }
    };
    if named.ns != key.ns {
        let text = format!(
            "{kind} {named} is in another namespace; a policy is enforced at targets of its own namespace only"
        );
        return Err((NOT_FOUND, text));
    }
    if kind == Kind::Gateway {
        let waypoint = view.waypoints.get(reads, &named);
        return if waypoint.is_some_and(|waypoint| waypoint.ready) {
            Ok(format!("waypoint {named}"))
        } else {
            let text = format!("Gateway {named} does not exist or has no address yet");
            Err((NOT_FOUND, text))
        };
    }
    service(&ObjectRef::new(kind, named), view, reads)
}

fn service(object: &ObjectRef, view: &PolicyStatusView<'_>, reads: &mut Reads) -> Outcome {
    let ObjectRef { kind, key } = object;
    let mut rows = view
        .services
        .by::<ServicesBySource>(reads, object)
        .peekable();
    if rows.peek().is_none() {
        let text = format!("{kind} {key} does not exist or provides no service of the mesh");
        return Err((NOT_FOUND, text));
    }
    let bound = rows.find_map(|(_, row)| row.waypoint.as_ref());
    bound
        .map(|bound| format!("waypoint {}", bound.key))
        .ok_or_else(|| {
            let text = format!("{kind} {key} has no waypoint, so the policy is not enforced");
            (NOT_BOUND, text)
        })
}

/// A class stands for every waypoint of it, in the root namespace only.
fn class(key: &ObjectKey, name: &Str, view: &PolicyStatusView<'_>, reads: &mut Reads) -> Outcome {
    let root = tables::mesh(view.mesh, reads).root_namespace.clone();
    if key.ns != root {
        let text = format!(
            "A policy with a GatewayClass as its target is enforced in namespace {root} only"
        );
        return Err((INVALID, text));
    }
    let class = view
        .gateway_classes
        .get(reads, &ObjectKey::cluster(name.clone()));
    let controller = GatewayController::of(class.map(|class| &**class), name);
    let is_waypoint_class = controller == Some(GatewayController::Waypoint);
    if class.is_none() && !is_waypoint_class {
        let text = format!("GatewayClass {name} does not exist");
        return Err((NOT_FOUND, text));
    }
    if is_waypoint_class {
        Ok(format!("the waypoints of class {name}"))
    } else {
        let text = format!(
            "GatewayClass {name} is not one of waypoints (controller {})",
            GatewayController::Waypoint.name()
        );
        Err((INVALID, text))
    }
}
