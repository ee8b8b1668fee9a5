//! `istio.io/ingress-use-waypoint`: whether gateways send through the waypoint of a service.
//!
//! Source: spec/workload-discovery.md §4.1, §4.4.

use model::labels::LABEL_INGRESS_USE_WAYPOINT;
use model::{Finding, Meta, ObjectRef};

use crate::tables::warning;
use crate::traffic;

const FIELD: &str = "metadata.labels[istio.io/ingress-use-waypoint]";

/// What the label says: `None` when absent, false when it is no boolean.
pub(crate) fn ingress_use_waypoint(
    meta: &Meta,
    object: &ObjectRef,
    notes: &mut Vec<Finding>,
) -> Option<bool> {
    let text = meta.label(LABEL_INGRESS_USE_WAYPOINT)?;
    let is_true = traffic::parse_bool(text);
    if !is_true && !matches!(text.as_str(), "0" | "f" | "F" | "false" | "FALSE" | "False") {
        notes.push(
            warning(
                "wp-ingress-label-invalid",
                object.clone(),
                format!("{text:?} is no boolean and counts as false: ingress gateways go past the waypoint"),
                "Write \"true\" or \"false\"",
            )
            .at(FIELD),
        );
    }
    Some(is_true)
}

/// The finding on a service that asks for its waypoint without having one.
pub(crate) fn ingress_without_waypoint(object: &ObjectRef) -> Finding {
    warning(
        "wp-ingress-unbound",
        object.clone(),
        "The service has no waypoint, so ingress gateways go directly to its pods",
        "Name a waypoint with istio.io/use-waypoint, or remove the label",
    )
    .at(FIELD)
}
