//! Stage `chains`: the filter chains of a service behind a waypoint, with its policies, and those of
//! what other networks reach at gateways between networks. Their
//! routes are resources of their own, see [`crate::route_configs`], so that an edit of a route
//! leaves the listener as it is. Source: spec/envoy-config.md §2.3–§2.5.

use std::collections::{BTreeMap, BTreeSet};

use flow::{Output, Reads, View};
use model::derived::{AppProtocol, PortRow};
use model::{
    Finding, GatewayRow, MeshRow, NamespacedHostname, ObjectKey, ProxyClass, ServiceRow, Str,
    WaypointRow,
};

use crate::attachment::mesh_row;
use crate::attachment::{chains_of, dynamic_host, inbound_name, networks_of, served_by};
use crate::authz::{self, Destination, Layer, Place};
use crate::east_west::{self, crossings::Crossings};
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
    /// Services that other networks reach.
    pub crossings: Crossings<'t>,
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// Classes of connected proxies; indexes [`crate::index::ClassByGateway`] and
    /// [`crate::east_west::index::ClassByRole`].
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
    rows.extend(crossing(p, view, reads));
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    Output::from(rows.into_iter().collect::<Vec<_>>())
}

/// The chains of a service at gateways between networks: only policies of the Gateway itself
/// apply there.
fn crossing(p: &P, view: &ChainView<'_>, reads: &mut Reads) -> Vec<(WaypointResource, ChainIr)> {
    let Some(crossing) = view.crossings.get(reads, p) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for key in east_west::connected(view.gateways, view.proxies, reads) {
        let Some(gateway) = view.waypoints.get(reads, &key) else {
            continue;
        };
        let mesh = &*mesh_row(view.mesh, reads);
        let attached = authz::attached(&view.policies, reads, mesh, gateway, None);
        for port in &crossing.ports {
            let to = Destination::of(*port, &crossing.vips);
            let place = Place {
                to: Some(&to),
                ..Place::of(Layer::Tcp)
            };
            let (filters, outbound) = attached.filters(mesh, place);
            let chain = ChainIr {
                filters,
                outbound,
                ..east_west::chain(*port, crossing)
            };
            let name = chain.name.clone();
            rows.push((WaypointResource::new(key.clone(), name), chain));
        }
    }
    rows
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
    // What comes from other networks names the service and not its address.
    let is_named = mesh.features.multi_network;
    let vips = networks_of(service);
    let filters = |port: u16, layer| {
        let to = is_named.then(|| Destination::of(port, &vips));
        let place = Place {
            to: to.as_ref(),
            ..Place::of(layer)
        };
        attached.filters(mesh, place)
    };
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
            rows.push(http(&site, port, filters(port.port, Layer::Http)));
        }
        if chains.tcp() {
            let name = inbound_name(port.port, "tcp", &service.wire_host());
            let (body, led_to) = routes::tcp_for_port(&site, &view.tables, reads, port.port, &name);
            let mut chain = tcp(port, name, body, filters(port.port, Layer::Tcp));
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
