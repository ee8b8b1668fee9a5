//! HTTPRoutes at a waypoint: which ones reach a service port, in what order, and where
//! they send requests.
//!
//! Used by the chain stage, and by the stage that derives findings, so that what is said
//! about a route and what is done with it come from the same functions.
//! Source: spec/envoy-config.md §5; spec/gateway-api.md §5.6, §5.9, §6.

mod backend;
mod entry;
mod reach;

use std::collections::BTreeSet;

use flow::{Reads, View};
use model::input::{HttpRoute, Namespace, ReferenceGrant};
use model::{MeshRow, NamespacedHostname, ObjectKey, Parsed, ServiceRow, Str, WaypointRow};

use crate::ir::{RouteIr, RoutesIr};

pub(crate) use backend::{Backend, Grants, outbound_name, resolve};
pub(crate) use entry::defect;
pub(crate) use reach::{admits, gateway_parent, host_rank};

/// What routes are read from.
#[derive(Clone, Copy)]
pub(crate) struct RouteTables<'t> {
    pub(crate) services: View<'t, NamespacedHostname, ServiceRow>,
    pub(crate) http_routes: View<'t, ObjectKey, Parsed<HttpRoute>>,
    pub(crate) reference_grants: View<'t, ObjectKey, Parsed<ReferenceGrant>>,
    pub(crate) namespaces: View<'t, ObjectKey, Parsed<Namespace>>,
}

/// The service and the waypoint that routes are made for.
pub(crate) struct Site<'a> {
    pub(crate) service: &'a ServiceRow,
    pub(crate) waypoint: &'a WaypointRow,
    pub(crate) mesh: &'a MeshRow,
}

/// The routes of an HTTP chain. Rules whose parent is the service decide alone; else those
/// of the waypoint Gateway come first and the addressed service last; else just the service.
pub(crate) fn for_port(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
    cluster: &Str,
) -> RoutesIr {
    let mut out = RoutesIr {
        name: cluster.clone(),
        port,
        domain: arcstr::literal!("*"),
        routes: Vec::new(),
        outbound: BTreeSet::new(),
    };
    let own = reach::own_routes(site, tables, reads, port);
    let own_count = entry::append(site, tables, reads, &own, port, &mut out);
    if own_count > 0 {
        return out;
    }
    let gateway = reach::gateway_routes(site, tables, reads);
    entry::append(site, tables, reads, &gateway, port, &mut out);
    out.routes.push(default_route(site.service, port, cluster));
    out
}

/// Whether routes of its own decide for a service port.
pub(crate) fn has_own(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
) -> bool {
    reach::own_routes(site, tables, reads, port)
        .iter()
        .flatten()
        .any(|reached| !reached.route.rules.is_empty())
}

/// Everything to the addressed service.
pub(crate) fn default_route(service: &ServiceRow, port: u16, cluster: &Str) -> RouteIr {
    let operation = arcstr::format!("{}:{port}/*", service.key.hostname);
    RouteIr::everything(arcstr::literal!("default"), cluster.clone(), operation)
}
