//! TLS around TLS: what clients open to a service, and what the gateway opens around it.
//! Source: spec/gateway-api.md §4.7, §6.7; spec/envoy-config.md §3.8, §6.6.

use flow::Reads;
use model::gateway::{ListenerRow, ParentRow};
use model::{Finding, Kind, ObjectKey, ObjectRef, Severity};

use super::RouteFindingView;
use crate::backend_tls;
use crate::routes::Backend;

/// A finding on a route of connections that a listener leads on with the TLS that they begin
/// with, where a BackendTLSPolicy has the gateway open TLS too; for the backend at `at`.
pub(super) fn of(
    (kind, key): (Kind, &ObjectKey),
    (at, backend): (&str, &Backend),
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Option<Finding> {
    let Backend::Service(host, number) = backend else {
        return None;
    };
    let service = view.tables.services.get(reads, host)?;
    let port = service.ports.iter().find(|port| port.port == *number)?;
    backend_tls::of_port(view.backend_tls, reads, host, &port.name)?;
    let (parent, listener) = leading_on((kind, key), view, reads)?;
    let message = format!(
        "Listener {listener} of gateway {} leads on the TLS that clients open, and opens that of a BackendTLSPolicy around it on the way to port {number} of {}: backends that expect one see two",
        parent.gateway, host.hostname
    );
    let fix =
        "End TLS at the listener (mode Terminate), or leave the port out of the BackendTLSPolicy";
    let object = ObjectRef::new(kind, key.clone());
    let found = Finding::new("btls-double-tls", Severity::Warning, object, message, fix);
    Some(found.at(at))
}

/// A listener that takes the route and does not end the TLS of its connections.
fn leading_on<'t>(
    (kind, key): (Kind, &ObjectKey),
    view: &RouteFindingView<'t>,
    reads: &mut Reads,
) -> Option<(&'t ParentRow, model::Str)> {
    let row = view.route_parents.get(reads, &(kind, key.clone()))?;
    let is_open = |one: &ListenerRow| {
        let tls = one.tls.as_ref();
        one.is_served && tls.is_some_and(|tls| !tls.mode.terminates())
    };
    for parent in &row.parents {
        let Some(gateway) = view.gateways.get(reads, &parent.gateway) else {
            continue;
        };
        let mut taken = parent.taken.iter();
        let found = taken.find(|taken| {
            let mut listeners = gateway.listeners.iter();
            let own = listeners.find(|one| one.owner == taken.owner && one.name == taken.listener);
            own.is_some_and(is_open)
        });
        if let Some(taken) = found {
            return Some((parent, taken.listener.clone()));
        }
    }
    None
}
