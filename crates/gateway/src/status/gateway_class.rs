//! Stage `status::gateway_class`: a GatewayClass of ours → that it is accepted.
//! Source: spec/gateway-api.md §1.3.

use flow::{Reads, View};
use model::input::GatewayClass;
use model::status::{Condition, StatusRow};
use model::{GatewayController, Kind, MeshRow, ObjectKey, Parsed};

use super::{ACCEPTED, StatusOutput, of};

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct GatewayClassStatusView<'t> {
    /// GatewayClasses.
    pub gateway_classes: View<'t, ObjectKey, Parsed<GatewayClass>>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// The status of a class; no row for those of others.
pub fn derive(
    key: &ObjectKey,
    view: &GatewayClassStatusView<'_>,
    reads: &mut Reads,
) -> StatusOutput {
    let Some(object) = view.gateway_classes.get(reads, key) else {
        return StatusOutput::gone();
    };
    let controller = object
        .ok()
        .and_then(|class| GatewayController::named(&class.controller));
    let Some(controller) = controller else {
        return StatusOutput::none();
    };
    let generation = object.meta.generation;
    let mesh = view.mesh.get(reads, &()).cloned().unwrap_or_default();
    let accepted = if controller == GatewayController::EastWest && !mesh.features.multi_network {
        let message = "Gateways between networks are switched off";
        Condition::new(ACCEPTED, false, "Unsupported", message, generation)
    } else {
        let message = "Handled by the Istio controller";
        Condition::new(ACCEPTED, true, "Accepted", message, generation)
    };
    let row = StatusRow {
        conditions: vec![accepted],
        ..StatusRow::default()
    };
    of(Kind::GatewayClass, key, row)
}
