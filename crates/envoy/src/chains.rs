//! Stage `chains`: the filter chains of a service behind a waypoint, with its policies. Their
//! routes are resources of their own, see [`crate::route_configs`], so that an edit of a route
//! leaves the listener as it is. Source: spec/envoy-config.md §2.3–§2.5.

use std::collections::BTreeSet;

use flow::{Output, Reads, View};
use model::derived::{AppProtocol, PortRow};
use model::{
    Finding, MeshRow, NamespacedHostname, ObjectKey, ProxyClass, ServiceRow, Str, WaypointRow,
};

use crate::attachment::mesh_row;
use crate::attachment::{chains_of, dynamic_host, inbound_name, served_by};
use crate::authz::{self, Layer};
use crate::ir::{ChainBody, ChainFilter, ChainIr, Outbound, RouteSource, TcpIr, WaypointResource};
use crate::routes::{self, Site};

pub use crate::authz::PolicyTables;
pub use crate::routes::RouteTables;

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ChainView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// What policies are made of.
    pub policies: PolicyTables<'t>,
    /// What destinations are made of.
    pub tables: RouteTables<'t>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// Classes of connected proxies; index [`crate::index::ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// One row per chain, named like the cluster that it forwards to.
pub fn derive(
    p: &P,
    view: &ChainView<'_>,
    reads: &mut Reads,
) -> Output<WaypointResource, ChainIr, Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let waypoints = served_by(view.proxies, reads, service);
    let mut rows = Vec::new();
    for waypoint in waypoints {
        if let Some(waypoint) = view.waypoints.get(reads, waypoint) {
            rows.extend(at_waypoint(service, waypoint, view, reads));
        }
    }
    Output::from(rows)
}

/// The chains of a service at one of its waypoints.
fn at_waypoint(
    service: &ServiceRow,
    waypoint: &WaypointRow,
    view: &ChainView<'_>,
    reads: &mut Reads,
) -> Vec<(WaypointResource, ChainIr)> {
    let mesh = &*mesh_row(view.mesh, reads);
    let attached = authz::attached(&view.policies, reads, mesh, waypoint, Some(service));
    let filters = |layer| attached.filters(mesh, layer);
    let site = Site {
        service,
        waypoint,
        mesh,
    };
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for port in &service.ports {
        let Some(chains) = chains_of(service, port).filter(|_| seen.insert(port.port)) else {
            continue;
        };
        if chains.http() {
            rows.push(http(&site, port, filters(Layer::Http)));
        }
        if chains.tcp() {
            let name = inbound_name(port.port, "tcp", &service.wire_host());
            let (body, led_to) = routes::tcp_for_port(&site, &view.tables, reads, port.port, &name);
            let mut chain = tcp(port, name, body, filters(Layer::Tcp));
            chain.outbound.extend(led_to);
            rows.push(chain);
        }
    }
    let key = |chain: &ChainIr| WaypointResource::new(waypoint.key.clone(), chain.name.clone());
    rows.into_iter().map(|chain| (key(&chain), chain)).collect()
}

/// Filters, and what they need clusters for.
type Filters = (Vec<ChainFilter>, BTreeSet<Outbound>);

fn http(site: &Site<'_>, port: &PortRow, (filters, outbound): Filters) -> ChainIr {
    ChainIr {
        name: inbound_name(port.port, "http", &site.service.wire_host()),
        port: port.port,
        body: ChainBody::Http {
            http2: port.protocol.is_http2(),
            grpc_web: port.protocol == AppProtocol::GrpcWeb,
            normalization: ChainFilter::normalization(
                &filters,
                site.mesh.traffic.path_normalization,
            ),
            forwards_identity: site.waypoint.forwards_identity,
            dynamic_host: dynamic_host(site.service, port),
            routes: RouteSource::Discovery,
        },
        filters,
        republish_destination: false,
        outbound,
    }
}

fn tcp(port: &PortRow, name: Str, body: TcpIr, (filters, outbound): Filters) -> ChainIr {
    ChainIr {
        name,
        port: port.port,
        filters,
        body: ChainBody::Tcp(body),
        republish_destination: false,
        outbound,
    }
}
