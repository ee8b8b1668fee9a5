//! What a listener is worth. Source: spec/gateway-api.md §3.4, §3.5, §5.1, §5.8.

use model::defaults::HBONE_PORT;
use model::gateway::{Defect, Defects, ListenerProtocol, ListenerRow};
use model::input::{Gateway, Listener};
use model::{GatewayController, Kind, Meta, Str};

use super::references::References;
use super::{Candidate, tls};

/// Group of every kind of route.
const GROUP: &str = "gateway.networking.k8s.io";

/// The Gateway that listeners are judged for.
pub(super) struct Site<'a> {
    pub(super) controller: GatewayController,
    pub(super) meta: &'a Meta,
    pub(super) gateway: &'a Gateway,
}

/// The row of a listener.
pub(super) fn judge(
    site: &Site<'_>,
    candidate: &Candidate<'_>,
    conflict: Option<Defect>,
    references: &mut References<'_, '_>,
) -> ListenerRow {
    let listener = candidate.listener;
    let (kinds, vain) = kinds(site.controller, candidate);
    let mut row = ListenerRow {
        owner: candidate.owner.clone(),
        index: candidate.index,
        name: listener.name.clone(),
        port: candidate.port,
        protocol: candidate.protocol.clone(),
        hostname: listener.hostname.clone(),
        kinds,
        allowed: listener.allowed.clone(),
        tls: None,
        defects: Defects::default(),
        conflict,
        is_built: false,
        is_valid: false,
        is_served: false,
    };
    if row.conflict.is_some() {
        return row;
    }
    row.is_built = !row.protocol.has_tls() || listener.tls.is_some();
    let unsupported = unsupported(site.controller, candidate);
    row.is_valid = unsupported.is_none();
    row.defects.accepted = unsupported.or_else(|| shape(site.controller, candidate));
    if row.protocol.has_tls() {
        let found = tls::of(site, candidate, references);
        row.is_valid &= found.is_valid;
        row.tls = found.row;
        let accepted = row.defects.accepted.take();
        row.defects = found.defects;
        row.defects.accepted = accepted.or(row.defects.accepted);
    }
    if !vain.is_empty() {
        row.defects.resolved_refs = Some(vain_kinds(&vain));
    }
    let is_whole = row.defects.accepted.is_none() && row.defects.programmed.is_none();
    row.is_served = row.is_built && row.is_valid && is_whole;
    row
}

/// Kinds of routes that the listener takes, and kinds that it names in vain.
fn kinds<'l>(
    controller: GatewayController,
    candidate: &Candidate<'l>,
) -> (Vec<Kind>, Vec<&'l (Str, Str)>) {
    let listener: &'l Listener = candidate.listener;
    if candidate.protocol == ListenerProtocol::Hbone && controller != GatewayController::Waypoint {
        return (Vec::new(), listener.kinds.iter().collect());
    }
    listener.supported_kinds()
}

fn vain_kinds(vain: &[&(Str, Str)]) -> Defect {
    let names: Vec<String> = vain
        .iter()
        .map(|(group, kind)| match group.as_str() {
            GROUP => kind.to_string(),
            _ => format!("{kind} of group {group:?}"),
        })
        .collect();
    let message = format!(
        "Routes that this listener cannot take: {}",
        names.join(", ")
    );
    Defect::new("InvalidRouteKinds", message)
}

/// Why nobody serves such a listener, which makes it invalid.
fn unsupported(controller: GatewayController, candidate: &Candidate<'_>) -> Option<Defect> {
    let message = match &candidate.protocol {
        ListenerProtocol::Other(word) => {
            let upper = ListenerProtocol::of(&Str::from(word.to_uppercase()));
            let hint = match upper {
                ListenerProtocol::Other(_) => String::new(),
                known => format!("; write {known}"),
            };
            format!("Protocol {word:?} is not supported{hint}")
        }
        ListenerProtocol::Hbone if controller == GatewayController::Ingress => {
            "Protocol HBONE is for waypoints and gateways between networks".to_owned()
        }
        protocol if candidate.port == 0 => {
            format!("A listener with protocol {protocol} needs a port")
        }
        _ => return None,
    };
    Some(Defect::new("UnsupportedProtocol", message))
}

/// Why the controller does not serve a listener that others could be.
fn shape(controller: GatewayController, candidate: &Candidate<'_>) -> Option<Defect> {
    let (protocol, port) = (&candidate.protocol, candidate.port);
    let is_hbone = *protocol == ListenerProtocol::Hbone;
    let tls = candidate.listener.tls.as_ref();
    let message = match controller {
        GatewayController::Waypoint if !is_hbone || port != HBONE_PORT => {
            format!("A waypoint serves HBONE on port {HBONE_PORT} alone, not {protocol} on {port}")
        }
        GatewayController::EastWest if port == HBONE_PORT && !is_hbone => {
            format!("Port {HBONE_PORT} between networks carries HBONE, not {protocol}")
        }
        // `Passthrough` is how some write it; it is ended all the same.
        GatewayController::EastWest if port == HBONE_PORT && tls.is_none() => {
            format!("HBONE on port {HBONE_PORT} between networks needs tls with mode: Terminate")
        }
        GatewayController::EastWest
            if port != HBONE_PORT
                && !(*protocol == ListenerProtocol::Tls
                    && tls.is_some_and(|tls| tls.passthrough)) =>
        {
            format!(
                "A gateway between networks serves HBONE on port {HBONE_PORT} and TLS with mode: Passthrough on others, not this {protocol} on {port}"
            )
        }
        _ => return None,
    };
    Some(Defect::new("UnsupportedProtocol", message))
}
