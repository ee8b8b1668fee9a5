//! Which routes reach which services. Source: spec/gateway-api.md §5.6, §5.9.

use std::cmp::Reverse;
use std::sync::Arc;

use flow::{Reads, View};
use model::defaults::HBONE_PORT;
use model::input::{AllowedNamespaces, HttpRoute, Namespace, RouteRef};
use model::{ObjectKey, Parsed, ServiceRow, Str, WaypointRow};

use super::entry::defect;
use super::{RouteTables, Site};
use crate::index::{RouteByParent, Target, TargetKind};

/// A route that reaches a service.
pub(super) struct Reached<'t> {
    pub(super) parsed: &'t Arc<Parsed<HttpRoute>>,
    pub(super) route: &'t HttpRoute,
    /// How well its hostnames fit; greater is more specific.
    pub(super) host_rank: (u8, usize),
    /// The parent is a Gateway, so grants are checked.
    pub(super) by_gateway: bool,
}

/// Usable routes with this service as parent: first those of the waypoint's namespace, then
/// those of the service's. The groups are not mixed; inside one, oldest first.
pub(super) fn own_routes<'t>(
    site: &Site<'_>,
    tables: &RouteTables<'t>,
    reads: &mut Reads,
    port: u16,
) -> Vec<Vec<Reached<'t>>> {
    let Some(target) = Target::of_service(site.service) else {
        return Vec::new();
    };
    let found: Vec<_> = tables
        .http_routes
        .by::<RouteByParent>(reads, &target)
        .collect();
    let mut namespaces = vec![&site.waypoint.key.ns];
    if site.service.key.ns != site.waypoint.key.ns {
        namespaces.push(&site.service.key.ns);
    }
    let group = |ns: &Str| {
        let routes = found.iter().filter(|(key, _)| key.ns == *ns);
        let reached = routes.filter_map(|(_, parsed)| {
            let route = usable(parsed)?;
            let mut parents = own_parents(route, &target);
            parents
                .any(|parent| parent.port.is_none_or(|p| p == port))
                .then_some(Reached {
                    parsed,
                    route,
                    host_rank: (0, 0),
                    by_gateway: false,
                })
        });
        oldest_first(reached.collect())
    };
    namespaces.into_iter().map(group).collect()
}

/// Usable routes with this waypoint as parent that reach the service, as one group.
pub(super) fn gateway_routes<'t>(
    site: &Site<'_>,
    tables: &RouteTables<'t>,
    reads: &mut Reads,
) -> Vec<Vec<Reached<'t>>> {
    let target = Target::new(TargetKind::Gateway, site.waypoint.key.clone());
    let found: Vec<_> = tables
        .http_routes
        .by::<RouteByParent>(reads, &target)
        .collect();
    let mut group = Vec::new();
    for (key, parsed) in found {
        let Some(route) = usable(parsed) else {
            continue;
        };
        if !reaches_by_gateway(route, site.waypoint)
            || !admits(tables.namespaces, reads, site.waypoint, &key.ns)
        {
            continue;
        }
        if let Some(host_rank) = host_rank(&route.hostnames, site.service) {
            group.push(Reached {
                parsed,
                route,
                host_rank,
                by_gateway: true,
            });
        }
    }
    vec![oldest_first(group)]
}

fn usable(parsed: &Arc<Parsed<HttpRoute>>) -> Option<&HttpRoute> {
    parsed.ok().filter(|route| defect(route).is_none())
}

fn oldest_first(mut routes: Vec<Reached<'_>>) -> Vec<Reached<'_>> {
    routes.sort_by_cached_key(|reached| reached.parsed.meta.age_order());
    routes
}

/// Iterator over parents.
pub(crate) type Parents<'r> = Box<dyn Iterator<Item = &'r RouteRef> + 'r>;

/// The parents of a route that name a certain object.
pub(crate) fn own_parents<'r>(route: &'r HttpRoute, target: &'r Target) -> Parents<'r> {
    Box::new(route.parents.iter().filter(move |parent| {
        TargetKind::of(&parent.group, &parent.kind) == Some(target.kind)
            && parent.ns == target.key.ns
            && parent.name == target.key.name
    }))
}

/// Whether a parent reference to a waypoint selects its HBONE listener.
pub(crate) fn gateway_parent(parent: &RouteRef, waypoint: &WaypointRow) -> bool {
    let section = parent.section.as_ref();
    parent.port.is_none_or(|port| port == HBONE_PORT)
        && section.is_none_or(|name| waypoint.listener.as_ref() == Some(name))
}

/// Whether some parent reference of a route selects the HBONE listener of a waypoint.
pub(crate) fn reaches_by_gateway(route: &HttpRoute, waypoint: &WaypointRow) -> bool {
    let target = Target::new(TargetKind::Gateway, waypoint.key.clone());
    waypoint.is_mesh_class
        && own_parents(route, &target).any(|parent| gateway_parent(parent, waypoint))
}

/// Whether the listener of a waypoint admits routes of a namespace.
pub(crate) fn admits(
    namespaces: View<'_, ObjectKey, Parsed<Namespace>>,
    reads: &mut Reads,
    waypoint: &WaypointRow,
    ns: &Str,
) -> bool {
    match &waypoint.allowed {
        AllowedNamespaces::All => true,
        AllowedNamespaces::Same => *ns == waypoint.key.ns,
        AllowedNamespaces::None => false,
        AllowedNamespaces::Selector(selector) => namespaces
            .get(reads, &ObjectKey::cluster(ns.clone()))
            .is_some_and(|row| selector.matches(&row.meta.labels)),
    }
}

/// How well hostnames fit a service: exact, longer wildcard, shorter wildcard, none given;
/// `None` when some are given and none fits.
pub(crate) fn host_rank(hostnames: &[Str], service: &ServiceRow) -> Option<(u8, usize)> {
    if hostnames.is_empty() {
        return Some((0, 0));
    }
    let host = service.key.hostname.as_str();
    let rank = |pattern: &Str| {
        if pattern.eq_ignore_ascii_case(host) {
            return Some((2, pattern.len()));
        }
        let suffix = pattern.strip_prefix('*')?.to_ascii_lowercase();
        (host.len() > suffix.len() && host.to_ascii_lowercase().ends_with(&suffix))
            .then_some((1, pattern.len()))
    };
    hostnames.iter().filter_map(rank).max()
}

/// Sort key: more specific hostnames first.
pub(super) fn by_host(reached: &Reached<'_>) -> Reverse<(u8, usize)> {
    Reverse(reached.host_rank)
}
