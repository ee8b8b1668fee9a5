//! Stage `ingress::routes`: a route → what it does at each ingress gateway whose listeners take
//! it. Source: spec/gateway-api.md §6; spec/envoy-config.md §5, §6.4, §6.6.

use std::collections::{BTreeMap, BTreeSet};

use flow::{Output, Reads, View};
use model::gateway::{ListenerProtocol, ParentRow, RouteParents};
use model::{Finding, GatewayRow, Kind, MeshRow, ObjectKey, ProxyClass};

use super::{Gateways, wanted};
use crate::attachment::mesh_row;
use crate::emit;
use crate::ir::{EntryIr, RouteAt, RouteAtIr, RouteBody};
use crate::routes::{self, At, RouteTables};

/// Primary: kind and key of a route.
pub type P = (Kind, ObjectKey);

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct IngressRouteView<'t> {
    /// What became of the parents of routes.
    pub route_parents: View<'t, (Kind, ObjectKey), RouteParents>,
    /// Gateways of ours.
    pub gateways: Gateways<'t>,
    /// What routes are made of.
    pub tables: RouteTables<'t>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// Classes of connected proxies; index [`crate::index::ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// A row for each Gateway, and of routes of requests for each port of its listeners.
pub fn derive(
    p: &P,
    view: &IngressRouteView<'_>,
    reads: &mut Reads,
) -> Output<RouteAt, RouteAtIr, Finding> {
    let Some(row) = view.route_parents.get(reads, p) else {
        return Output::gone();
    };
    let mut rows = BTreeMap::new();
    for parent in row.parents.iter().filter(|one| !one.taken.is_empty()) {
        let Some(gateway) = wanted(view.gateways, view.proxies, reads, &parent.gateway) else {
            continue;
        };
        for port in ports(p.0, parent, gateway) {
            let key = RouteAt {
                gateway: gateway.key.clone(),
                route: p.clone(),
                port,
            };
            if rows.contains_key(&key) {
                continue;
            }
            if let Some(row) = at(&key, view, reads) {
                rows.insert(key, row);
            }
        }
    }
    Output::from(rows.into_iter().collect::<Vec<_>>())
}

/// Ports of the listeners that take a route of requests, and whether they speak HTTPS; for
/// routes of connections ports do not matter.
fn ports(kind: Kind, parent: &ParentRow, gateway: &GatewayRow) -> BTreeSet<Option<(u16, bool)>> {
    let is_http = matches!(kind, Kind::HttpRoute | Kind::GrpcRoute);
    let taken = parent.taken.iter().filter_map(|taken| {
        let mut listeners = gateway.listeners.iter();
        listeners.find(|one| one.owner == taken.owner && one.name == taken.listener)
    });
    let served = taken.filter(|listener| listener.is_served);
    served
        .map(|one| is_http.then(|| (one.port, one.protocol == ListenerProtocol::Https)))
        .collect()
}

fn at(key: &RouteAt, view: &IngressRouteView<'_>, reads: &mut Reads) -> Option<RouteAtIr> {
    let mesh = &*mesh_row(view.mesh, reads);
    let at = At {
        gateway: &key.gateway,
        is_ingress: true,
        mesh,
    };
    let (kind, route) = &key.route;
    let (body, outbound) = if let Some(port) = key.port {
        let found = routes::entries_by_listener(at, &view.tables, reads, (*kind, route), port)?;
        let entries = found.0.into_iter().map(|(rank, route)| EntryIr {
            rank,
            bytes: emit::route_entry(&route),
        });
        (RouteBody::Requests(entries.collect()), found.1)
    } else {
        let found = routes::connections_by_listener(at, &view.tables, reads, (*kind, route))?;
        (RouteBody::Connections(found.0), found.1)
    };
    Some(RouteAtIr {
        age: age(*kind, route, view, reads)?,
        body,
        outbound,
    })
}

fn age(
    kind: Kind,
    key: &ObjectKey,
    view: &IngressRouteView<'_>,
    reads: &mut Reads,
) -> Option<(i64, ObjectKey)> {
    let tables = &view.tables;
    Some(match kind {
        Kind::HttpRoute => tables.http_routes.get(reads, key)?.meta.age_order(),
        Kind::GrpcRoute => tables.grpc_routes.get(reads, key)?.meta.age_order(),
        Kind::TcpRoute => tables.tcp_routes.get(reads, key)?.meta.age_order(),
        Kind::TlsRoute => tables.tls_routes.get(reads, key)?.meta.age_order(),
        _ => return None,
    })
}
