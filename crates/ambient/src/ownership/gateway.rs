//! Stage `foreign_gateways`: a Gateway → a row if its status is another control plane's.
//!
//! Its proxies are served all the same: whoever moves a Gateway from one revision to another loses
//! no connection. Source: spec/gateway-api.md §0, §2.2.

use flow::{Output, Reads, View};
use model::input::{Gateway, Namespace};
use model::labels::LABEL_REVISION;
use model::ownership::{Owner, Revisions};
use model::{Finding, GatewayController, Kind, ObjectKey, ObjectRef, Severity};

use crate::tables::InputView;
use crate::waypoint::WaypointTable;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ForeignGatewayView<'t> {
    /// What is ours.
    pub revisions: View<'t, (), Revisions>,
    /// Gateways.
    pub gateways: InputView<'t, Gateway>,
    /// Namespaces.
    pub namespaces: InputView<'t, Namespace>,
    /// Their rows.
    pub waypoints: WaypointTable<'t>,
}

/// A row for a Gateway that is not ours, with a note if its class is.
pub fn derive(
    key: &ObjectKey,
    view: &ForeignGatewayView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, (), Finding> {
    let Some(gateway) = view.gateways.get(reads, key) else {
        return Output::gone();
    };
    let Some(revisions) = view.revisions.get(reads, &()) else {
        return Output::none();
    };
    let ns = ObjectKey::cluster(key.ns.clone());
    let owner = revisions.owner(&gateway.meta.labels, || {
        let namespace = view.namespaces.get(reads, &ns);
        namespace.map(|namespace| &namespace.meta.labels)
    });
    if owner == Owner::Us {
        return Output::none();
    }
    let output = Output::one(key.clone(), ());
    let row = view.waypoints.get(reads, key);
    let Some(controller) = row.and_then(|row| row.controller) else {
        return output;
    };
    output.with_notes(vec![note(key, controller, owner, revisions)])
}

fn note(
    key: &ObjectKey,
    controller: GatewayController,
    owner: Owner<'_>,
    revisions: &Revisions,
) -> Finding {
    let ours = match revisions {
        Revisions::Of(mine) => mine.revision.as_str(),
        Revisions::All => "",
    };
    let whose = match owner {
        Owner::Other(name) => format!(
            "belongs to {name}, which is neither this control plane's revision {ours} nor a tag of it"
        ),
        Owner::OtherDefault | Owner::Us => format!(
            "names no revision, like its namespace, and this control plane's revision {ours} is not the default one"
        ),
    };
    let left = if controller == GatewayController::Remote {
        "its status is left to the other control plane, and where it leads is used all the same"
    } else {
        "proxies that connect here are served, but its status and deployment are left to the other control plane"
    };
    Finding::new(
        "gw-other-revision",
        Severity::Info,
        ObjectRef::new(Kind::Gateway, key.clone()),
        format!("The Gateway {whose}: {left}"),
        format!(
            "Nothing if that one runs; else label the Gateway or its namespace {LABEL_REVISION}={ours}"
        ),
    )
    .at(format!("metadata.labels[{LABEL_REVISION}]"))
}
