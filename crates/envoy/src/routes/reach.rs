//! Which routes reach which services. Source: spec/gateway-api.md §5.6, §5.9.

use std::cmp::Reverse;
use std::sync::Arc;

use flow::{Reads, View};
use gateway::waypoint_routes::refusal;
use model::input::{HttpRoute, Namespace, RouteRef};
use model::{Kind, MeshRow, ObjectKey, Parsed, ServiceRow, Str, WaypointRow};

use super::backend::{Grants, Referrer};
use super::defect::{defect, mirror_defect};
use super::{RouteTables, Site};
use crate::index::{RouteByParent, Target, TargetKind};

/// A route that reaches a service.
pub(super) struct Reached<'t> {
    /// HTTPRoute or GRPCRoute.
    pub(super) kind: Kind,
    pub(super) parsed: &'t Arc<Parsed<HttpRoute>>,
    pub(super) route: &'t HttpRoute,
    /// How well its hostnames fit; greater is more specific.
    pub(super) host_rank: (u8, usize),
    /// The parent is a Gateway, so grants are checked.
    pub(super) by_gateway: bool,
}

/// HTTPRoutes and GRPCRoutes with a parent.
fn with_parent<'t>(
    tables: &RouteTables<'t>,
    reads: &mut Reads,
    target: &Target,
) -> Vec<(Kind, &'t ObjectKey, &'t Arc<Parsed<HttpRoute>>)> {
    let mut out = Vec::new();
    for (kind, view) in [
        (Kind::HttpRoute, tables.http_routes),
        (Kind::GrpcRoute, tables.grpc_routes),
    ] {
        let found = view.by::<RouteByParent>(reads, target);
        out.extend(found.map(|(key, parsed)| (kind, key, parsed)));
    }
    out
}

/// The namespaces whose routes count for a service, the waypoint's first.
/// Source: spec/gateway-api.md §5.6.
pub(super) fn namespaces<'a>(site: &Site<'a>) -> Vec<&'a Str> {
    let mut out = vec![&site.waypoint.key.ns];
    if site.service.key.ns != site.waypoint.key.ns {
        out.push(&site.service.key.ns);
    }
    out
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
    let found = with_parent(tables, reads, &target);
    let mut groups = Vec::new();
    for ns in namespaces(site) {
        let mut group = Vec::new();
        for (kind, _, parsed) in found.iter().filter(|(_, key, _)| key.ns == *ns) {
            let Some(route) = usable(site.mesh, tables, reads, (*kind, parsed), Grants::Ignored)
            else {
                continue;
            };
            let mut parents = own_parents(&route.parents, &target);
            if parents.any(|parent| parent.port.is_none_or(|p| p == port)) {
                group.push(Reached {
                    kind: *kind,
                    parsed,
                    route,
                    host_rank: (0, 0),
                    by_gateway: false,
                });
            }
        }
        groups.push(oldest_first(group));
    }
    groups
}

/// Usable routes with this waypoint as parent that reach the service, as one group.
pub(super) fn gateway_routes<'t>(
    site: &Site<'_>,
    tables: &RouteTables<'t>,
    reads: &mut Reads,
) -> Vec<Vec<Reached<'t>>> {
    let target = Target::new(TargetKind::Gateway, site.waypoint.key.clone());
    let mut group = Vec::new();
    for (kind, key, parsed) in with_parent(tables, reads, &target) {
        let Some(route) = usable(site.mesh, tables, reads, (kind, parsed), Grants::Checked) else {
            continue;
        };
        let namespaces = tables.namespaces;
        if !attaches(namespaces, reads, site.waypoint, (kind, &key.ns), route) {
            continue;
        }
        if let Some(host_rank) = host_rank(&route.hostnames, site.service) {
            group.push(Reached {
                kind,
                parsed,
                route,
                host_rank,
                by_gateway: true,
            });
        }
    }
    vec![oldest_first(group)]
}

/// The route, unless a hard error leaves nothing of it.
fn usable<'t>(
    mesh: &MeshRow,
    tables: &RouteTables<'t>,
    reads: &mut Reads,
    (kind, parsed): (Kind, &'t Arc<Parsed<HttpRoute>>),
    grants: Grants,
) -> Option<&'t HttpRoute> {
    let ns = &parsed.key().ns;
    let route = parsed.ok().filter(|route| defect(ns, route).is_none())?;
    let referrer = Referrer {
        kind,
        ns,
        domain: &mesh.domain,
        grants,
    };
    mirror_defect(tables, reads, &referrer, route)
        .is_none()
        .then_some(route)
}

/// An HTTPRoute or GRPCRoute that a listener takes, unless nothing is left of it.
pub(super) fn by_listener<'t>(
    mesh: &MeshRow,
    tables: &RouteTables<'t>,
    reads: &mut Reads,
    (kind, key): (Kind, &ObjectKey),
) -> Option<Reached<'t>> {
    let view = match kind {
        Kind::HttpRoute => tables.http_routes,
        Kind::GrpcRoute => tables.grpc_routes,
        _ => return None,
    };
    let parsed = view.get(reads, key)?;
    let route = usable(mesh, tables, reads, (kind, parsed), Grants::Checked)?;
    Some(Reached {
        kind,
        parsed,
        route,
        host_rank: (0, 0),
        by_gateway: true,
    })
}

fn oldest_first(mut routes: Vec<Reached<'_>>) -> Vec<Reached<'_>> {
    routes.sort_by_cached_key(|reached| reached.parsed.meta.age_order());
    routes
}

/// Iterator over parents.
pub(crate) type Parents<'r> = Box<dyn Iterator<Item = &'r RouteRef> + 'r>;

/// The parents of a route that name a certain object.
pub(crate) fn own_parents<'r>(parents: &'r [RouteRef], target: &'r Target) -> Parents<'r> {
    Box::new(parents.iter().filter(move |parent| {
        TargetKind::of(&parent.group, &parent.kind) == Some(target.kind)
            && parent.ns == target.key.ns
            && parent.name == target.key.name
    }))
}

/// Whether a waypoint takes an HTTPRoute or GRPCRoute of a namespace by any of its parents.
pub(crate) fn attaches(
    namespaces: View<'_, ObjectKey, Parsed<Namespace>>,
    reads: &mut Reads,
    waypoint: &WaypointRow,
    (kind, ns): (Kind, &Str),
    route: &HttpRoute,
) -> bool {
    let target = Target::new(TargetKind::Gateway, waypoint.key.clone());
    waypoint.is_mesh_class()
        && own_parents(&route.parents, &target)
            .any(|parent| refusal(namespaces, reads, waypoint, (kind, ns), parent).is_none())
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
