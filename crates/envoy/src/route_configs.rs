//! Stage `route_configs`: the route configuration of every HTTP chain of a service behind a
//! waypoint. Source: spec/envoy-config.md §5.

use std::collections::BTreeSet;

use flow::{Output, Reads, View};
use model::{Finding, MeshRow, NamespacedHostname, ObjectKey, ProxyClass, ServiceRow, WaypointRow};

use crate::attachment::{chains_of, inbound_name, mesh_row, served_by};
use crate::ir::{RoutesIr, WaypointResource};
use crate::routes::{self, Site};

pub use crate::routes::RouteTables;

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct RouteConfigView<'t> {
    /// What routes are made of.
    pub tables: RouteTables<'t>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// Classes of connected proxies; index [`crate::index::ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// One row per HTTP chain, of the same name.
pub fn derive(
    p: &P,
    view: &RouteConfigView<'_>,
    reads: &mut Reads,
) -> Output<WaypointResource, RoutesIr, Finding> {
    let Some(service) = view.tables.services.get(reads, p) else {
        return Output::gone();
    };
    let mut rows = Vec::new();
    for key in served_by(view.proxies, reads, service) {
        if let Some(waypoint) = view.waypoints.get(reads, key) {
            rows.extend(at_waypoint(service, waypoint, view, reads));
        }
    }
    Output::from(rows)
}

fn at_waypoint(
    service: &ServiceRow,
    waypoint: &WaypointRow,
    view: &RouteConfigView<'_>,
    reads: &mut Reads,
) -> Vec<(WaypointResource, RoutesIr)> {
    let mesh = &*mesh_row(view.mesh, reads);
    let site = Site {
        service,
        waypoint,
        mesh,
    };
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for port in &service.ports {
        let http = chains_of(service, port).is_some_and(|chains| {
            // As for chains, the first port of a number counts, whatever it speaks.
            seen.insert(port.port) && chains.http()
        });
        if http {
            let name = inbound_name(port.port, "http", &service.wire_host());
            let key = WaypointResource::new(waypoint.key.clone(), name.clone());
            let row = routes::for_port(&site, &view.tables, reads, port.port, &name);
            rows.push((key, row));
        }
    }
    rows
}
