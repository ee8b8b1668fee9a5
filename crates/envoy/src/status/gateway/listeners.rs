//! What is said of each listener of a waypoint. Source: spec/gateway-api.md §3.4, §3.5, §5.1.

use flow::Reads;
use model::defaults::HBONE_PORT;
use model::input::Listener;
use model::status::{Condition, ListenerStatus};
use model::{Kind, WaypointRow};

use super::super::{ACCEPTED, CONFLICTED, PROGRAMMED, RESOLVED_REFS};
use crate::index::{RouteByParent, Target, TargetKind};
use crate::routes::{RouteTables, attaches};

/// Whether the protocol is one that Gateways can have; nothing else makes a listener of a
/// waypoint invalid, which serves none but HBONE on 15008.
pub(super) fn is_valid(listener: &Listener) -> bool {
    listener.protocol_kinds().is_some()
}

/// Whether a listener asks for its port.
pub(super) fn is_built(listener: &Listener) -> bool {
    !matches!(listener.protocol.as_str(), "HTTPS" | "TLS") || listener.tls.is_some()
}

/// How many routes a waypoint has taken.
pub(super) fn attached_count(
    waypoint: &WaypointRow,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
) -> usize {
    let target = Target::new(TargetKind::Gateway, waypoint.key.clone());
    let mut count = 0;
    for (kind, view) in [
        (Kind::HttpRoute, tables.http_routes),
        (Kind::GrpcRoute, tables.grpc_routes),
    ] {
        let routes: Vec<_> = view.by::<RouteByParent>(reads, &target).collect();
        for (key, parsed) in routes {
            let Some(route) = parsed.ok() else { continue };
            let from = (kind, &key.ns);
            count += usize::from(attaches(tables.namespaces, reads, waypoint, from, route));
        }
    }
    count
}

/// The status of a listener of a waypoint.
pub(super) fn status(listener: &Listener, attached: usize, generation: i64) -> ListenerStatus {
    let (supported_kinds, vain) = listener.supported_kinds();
    let accepted = refused(listener).map_or_else(
        || (true, "Accepted", "The listener is accepted".to_owned()),
        |message| (false, "UnsupportedProtocol", message),
    );
    let resolved = if vain.is_empty() {
        let message = "All references are resolved".to_owned();
        (true, "ResolvedRefs", message)
    } else {
        let names: Vec<String> = vain
            .iter()
            .map(|(group, kind)| format!("{kind} of group {group:?}"))
            .collect();
        let message = format!(
            "Routes that this listener cannot take: {}",
            names.join(", ")
        );
        (false, "InvalidRouteKinds", message)
    };
    let none = "No other listener is in its way".to_owned();
    let programmed = "The listener is programmed".to_owned();
    let condition = |ty, (holds, reason, message): (bool, &'static str, String)| {
        Condition::new(ty, holds, reason, message, generation)
    };
    ListenerStatus {
        name: listener.name.clone(),
        supported_kinds,
        attached_routes: attached,
        conditions: vec![
            condition(ACCEPTED, accepted),
            condition(CONFLICTED, (false, "NoConflicts", none)),
            condition(PROGRAMMED, (true, "Programmed", programmed)),
            condition(RESOLVED_REFS, resolved),
        ],
    }
}

/// Why a waypoint does not serve a listener.
fn refused(listener: &Listener) -> Option<String> {
    let Listener { protocol, port, .. } = listener;
    if !is_valid(listener) {
        let upper = Listener {
            protocol: protocol.to_uppercase().into(),
            ..Listener::default()
        };
        let hint = if is_valid(&upper) {
            format!("; write {}", upper.protocol)
        } else {
            String::new()
        };
        return Some(format!("Protocol {protocol:?} is not supported{hint}"));
    }
    (protocol != "HBONE" || *port != HBONE_PORT).then(|| {
        format!("A waypoint serves HBONE on port {HBONE_PORT} alone, not {protocol} on {port}")
    })
}
