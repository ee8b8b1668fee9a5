//! Routes of Gateway API at a waypoint: which ones reach a service port, in what order, and where
//! they send requests and connections.
//!
//! Used by the stages that serve routes and chains, and by those that derive findings, so that
//! what is said about a route and what is done with it come from the same functions.
//! Source: spec/envoy-config.md §5; spec/gateway-api.md §5.6, §5.9, §6.

mod action;
mod backend;
mod defect;
mod entry;
mod filters;
mod hash;
mod headers;
mod l4;
mod reach;
mod retry;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use flow::{Reads, View};
use model::input::{
    DestinationRule, GrpcRoute, HttpRoute, Namespace, ReferenceGrant, TcpRoute, TlsRoute,
    VirtualService,
};
use model::{Kind, MeshRow, NamespacedHostname, ObjectKey, Parsed, ServiceRow, Str, WaypointRow};

use crate::attachment::is_dynamic;
use crate::ir::{Direction, ForwardIr, Outbound, RouteAction, RouteIr, RoutePath, RoutesIr};
use crate::traffic::Seen;
use crate::virtual_services;

pub(crate) use backend::{Backend, Grants, Referrer, UNKNOWN, cluster, is_backend, resolve};
pub(crate) use defect::{bad_matches, contributes, defect, l4_defect, mirror_defect};
pub(crate) use entry::Precedence;
pub(crate) use gateway::waypoint_routes::refusal;
pub(crate) use l4::{by_listener as connections_by_listener, sni_fits, tcp_for_port};
pub(crate) use reach::host_rank;
pub(crate) use retry::retry_of;

/// What routes are read from.
#[derive(Clone, Copy)]
pub struct RouteTables<'t> {
    /// Services; index [`crate::index::ServiceByHostname`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// HTTPRoutes; index [`crate::index::RouteByParent`].
    pub http_routes: View<'t, ObjectKey, Parsed<HttpRoute>>,
    /// GRPCRoutes; index [`crate::index::RouteByParent`].
    pub grpc_routes: View<'t, ObjectKey, Parsed<GrpcRoute>>,
    /// TCPRoutes; index [`crate::index::L4RouteByParent`].
    pub tcp_routes: View<'t, ObjectKey, Parsed<TcpRoute>>,
    /// TLSRoutes; index [`crate::index::L4RouteByParent`].
    pub tls_routes: View<'t, ObjectKey, Parsed<TlsRoute>>,
    /// VirtualServices.
    pub virtual_services: View<'t, ObjectKey, Parsed<VirtualService>>,
    /// DestinationRules; index [`crate::index::DestinationRuleByHost`].
    pub destination_rules: View<'t, ObjectKey, Parsed<DestinationRule>>,
    /// Grants; index [`crate::index::GrantByNamespace`].
    pub reference_grants: View<'t, ObjectKey, Parsed<ReferenceGrant>>,
    /// Namespaces.
    pub namespaces: View<'t, ObjectKey, Parsed<Namespace>>,
}

/// The service and the waypoint that routes are made for.
pub(crate) struct Site<'a> {
    pub(crate) service: &'a ServiceRow,
    pub(crate) waypoint: &'a WaypointRow,
    pub(crate) mesh: &'a MeshRow,
}

impl<'a> Site<'a> {
    /// Where the routes are used.
    pub(crate) fn at(&self) -> At<'a> {
        At {
            gateway: &self.waypoint.key,
            is_ingress: false,
            mesh: self.mesh,
        }
    }
}

/// The proxies that routes are made for.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// Their Gateway.
    pub(crate) gateway: &'a ObjectKey,
    /// They are no waypoint, so that no service is behind them.
    pub(crate) is_ingress: bool,
    /// Mesh settings.
    pub(crate) mesh: &'a MeshRow,
}

impl<'a> At<'a> {
    /// The cluster of a service port, or of a subset of it, and the `outbound` destination
    /// behind it if it is one.
    pub(crate) fn cluster(
        &self,
        service: &ServiceRow,
        (port, subset): (u16, &str),
    ) -> (Str, Option<Outbound>) {
        if self.is_ingress {
            let (name, to) = backend::outbound(service, (port, subset));
            return (name, Some(to));
        }
        cluster(service, (port, subset), self.gateway)
    }

    /// A service as it is seen from here.
    pub(crate) fn seen(&self, service: &'a ServiceRow) -> Seen<'a> {
        if self.is_ingress {
            return Seen {
                waypoint: self.gateway,
                direction: Direction::Outbound,
                service,
                mesh: self.mesh,
            };
        }
        Seen::from(self.gateway, service, self.mesh)
    }
}

/// The routes of an HTTP chain. Rules whose parent is the service decide alone; else those of
/// the waypoint Gateway come first and the addressed service last; else VirtualServices of the
/// service decide alone; else it is just the service.
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
        domain: domain(site.service),
        routes: Vec::new(),
        outbound: BTreeSet::new(),
    };
    let own = reach::own_routes(site, tables, reads, port);
    if entry::append(site, tables, reads, &own, port, &mut out) > 0 {
        return out;
    }
    let gateway = reach::gateway_routes(site, tables, reads);
    if entry::append(site, tables, reads, &gateway, port, &mut out) == 0
        && let Some((routes, outbound)) = virtual_services::http_routes(site, tables, reads, port)
    {
        out.routes = routes;
        out.outbound = outbound;
        return out;
    }
    out.routes
        .push(default_route(site, tables, reads, port, cluster));
    out
}

/// Ranked entries of a route, and where they lead.
pub(crate) type Entries = (Vec<(Precedence, RouteIr)>, BTreeSet<Outbound>);

/// The entries of an HTTPRoute or GRPCRoute that a listener of a port takes, which speaks plain
/// HTTP or HTTPS, and where they lead; `None` where nothing is left of it.
pub(crate) fn entries_by_listener(
    at: At<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    route: (Kind, &ObjectKey),
    port: (u16, bool),
) -> Option<Entries> {
    let reached = reach::by_listener(at.mesh, tables, reads, route)?;
    let mut outbound = BTreeSet::new();
    let entries = entry::entries_of(at, tables, reads, &reached, port, &mut outbound);
    Some((entries, outbound))
}

/// What requests must be for: anything, but of a wildcard host, whose hosts are resolved per
/// request, only those.
fn domain(service: &ServiceRow) -> Str {
    if is_dynamic(service) {
        service.key.hostname.clone()
    } else {
        arcstr::literal!("*")
    }
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
        .any(|reached| contributes(reached.route))
}

/// Whether routes of Gateway API, its own or those of the waypoint Gateway, reach a service port,
/// so that no VirtualService applies there.
pub(crate) fn has_any(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
) -> bool {
    has_own(site, tables, reads, port)
        || reach::gateway_routes(site, tables, reads)
            .iter()
            .flatten()
            .any(|reached| contributes(reached.route))
}

/// Everything to the addressed service. Source: spec/envoy-config.md §5.1.
fn default_route(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
    cluster: &Str,
) -> RouteIr {
    let operation = arcstr::format!("{}:{port}/*", site.service.key.hostname);
    let hash = hash::of_default(site, tables, reads, port);
    let forward = ForwardIr {
        retry: retry_of(site.mesh, None, !hash.is_empty()),
        hash,
        ..ForwardIr::to(cluster.clone())
    };
    let action = RouteAction::Forward(Box::new(forward));
    RouteIr::new(
        arcstr::literal!("default"),
        RoutePath::Any,
        action,
        operation,
    )
}
