//! Which routes a waypoint takes as its own: who serves them and who tells of them ask the same.
//! Source: spec/gateway-api.md §4.2, §5.9.

use flow::{Reads, View};
use model::defaults::HBONE_PORT;
use model::input::{Namespace, RouteRef};
use model::{Kind, ObjectKey, Parsed, Str, WaypointRow};

use crate::admission::admits;

/// Why a waypoint does not take a route by one of its parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No listener is the one that the parent selects.
    Listener,
    /// The listener does not admit the namespace of the route.
    Namespace,
    /// The listener takes no routes of the kind.
    Kind,
}

// === impl Refusal ===

impl Refusal {
    /// The same in words, as a clause about a route of a kind and namespace.
    pub fn clause(self, (kind, ns): (Kind, &Str)) -> String {
        match self {
            Self::Listener => "no HBONE listener has that sectionName and port".to_owned(),
            Self::Namespace => format!("its listener does not admit routes of namespace {ns}"),
            Self::Kind => format!("its listener takes no {kind}"),
        }
    }

    /// The reason of the API.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Listener => "NoMatchingParent",
            Self::Namespace | Self::Kind => "NotAllowedByListeners",
        }
    }
}

/// Why a waypoint does not take a route of a kind and namespace by one of its parents, which
/// names the waypoint; `None` when it does.
pub fn refusal(
    namespaces: View<'_, ObjectKey, Parsed<Namespace>>,
    reads: &mut Reads,
    waypoint: &WaypointRow,
    (kind, ns): (Kind, &Str),
    parent: &RouteRef,
) -> Option<Refusal> {
    let allowed = (&waypoint.allowed, waypoint.key.ns.as_str());
    if !is_selected(parent, waypoint) {
        Some(Refusal::Listener)
    } else if !admits(namespaces, reads, allowed, ns) {
        Some(Refusal::Namespace)
    } else if !waypoint.takes.contains(&kind) {
        Some(Refusal::Kind)
    } else {
        None
    }
}

/// Whether a parent reference to a waypoint selects its HBONE listener.
fn is_selected(parent: &RouteRef, waypoint: &WaypointRow) -> bool {
    let section = parent.section.as_ref();
    waypoint.listener.is_some()
        && parent.port.is_none_or(|port| port == HBONE_PORT)
        && section.is_none_or(|name| waypoint.listener.as_ref() == Some(name))
}
