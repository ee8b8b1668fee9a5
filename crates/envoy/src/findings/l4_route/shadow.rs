//! Routes of connections that a listener takes and that carry nothing there, since others come
//! first. Source: spec/gateway-api.md §4.6, §6.7; spec/envoy-config.md §6.5, §6.6.

use std::collections::BTreeSet;

use flow::Reads;
use gateway::index::RouteByListener;
use model::gateway::{RouteParents, Taken};
use model::{Finding, Kind, ObjectKey, ObjectRef, Severity, Str};

use super::RouteFindingView;

pub(super) fn of(
    (kind, key): (Kind, &ObjectKey),
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    let Some(row) = view.route_parents.get(reads, &(kind, key.clone())) else {
        return Vec::new();
    };
    let Some(own) = age((kind, key), view, reads) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for parent in &row.parents {
        for taken in &parent.taken {
            let found = first((kind, own.clone()), taken, view, reads);
            let at = format!("spec.parentRefs[{}]", parent.index);
            out.extend(found.map(|found| finding((kind, key), taken, &found).at(at)));
        }
    }
    out
}

/// What comes before a route at a listener: the other route, and hosts of its own that are left
/// to the route itself.
struct Before {
    route: (Kind, ObjectKey),
    hosts: Vec<Str>,
    left: bool,
}

/// TCPRoutes: the oldest one carries everything, after TLSRoutes for what their hosts leave.
/// TLSRoutes: each host belongs to the oldest one that names it.
fn first(
    (kind, own): (Kind, (i64, ObjectKey)),
    taken: &Taken,
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Option<Before> {
    let id = (taken.owner.clone(), taken.listener.clone());
    let others: Vec<_> = view
        .route_parents
        .by::<RouteByListener>(reads, &id)
        .map(|(route, row)| (route.clone(), hosts_at(row, taken)))
        .filter(|(route, _)| route.0 == kind && route.1 != own.1)
        .collect();
    let mut older: Vec<_> = others
        .into_iter()
        .filter_map(|(route, hosts)| Some((age((route.0, &route.1), view, reads)?, route, hosts)))
        .filter(|(age, ..)| *age < own)
        .collect();
    older.sort();
    if kind == Kind::TcpRoute {
        let (_, route, _) = older.into_iter().next()?;
        return Some(Before {
            route,
            hosts: Vec::new(),
            left: false,
        });
    }
    let mine: BTreeSet<Str> = lower(&taken.hostnames).collect();
    let named: BTreeSet<Str> = older.iter().flat_map(|(.., hosts)| hosts.clone()).collect();
    let hosts: Vec<Str> = mine.intersection(&named).cloned().collect();
    let lost = hosts.first()?;
    let (_, route, _) = older.iter().find(|(.., others)| others.contains(lost))?;
    Some(Before {
        route: route.clone(),
        left: hosts.len() < mine.len(),
        hosts,
    })
}

/// The hosts for which a listener takes a route.
fn hosts_at(row: &RouteParents, taken: &Taken) -> BTreeSet<Str> {
    let all = row.parents.iter().flat_map(|parent| &parent.taken);
    let here = all.filter(|one| one.owner == taken.owner && one.listener == taken.listener);
    here.flat_map(|one| lower(&one.hostnames)).collect()
}

fn lower(hosts: &[Str]) -> impl Iterator<Item = Str> + '_ {
    hosts
        .iter()
        .map(|host| Str::from(host.to_ascii_lowercase()))
}

fn age(
    (kind, key): (Kind, &ObjectKey),
    view: &RouteFindingView<'_>,
    reads: &mut Reads,
) -> Option<(i64, ObjectKey)> {
    let table = match kind {
        Kind::TcpRoute => view.tables.tcp_routes,
        Kind::TlsRoute => view.tables.tls_routes,
        _ => return None,
    };
    Some(table.get(reads, key)?.meta.age_order())
}

fn finding((kind, key): (Kind, &ObjectKey), taken: &Taken, before: &Before) -> Finding {
    let (other, name) = &before.route;
    let listener = format!(
        "{} of {} {}",
        taken.listener, taken.owner.kind, taken.owner.key
    );
    let (what, fix) = if kind == Kind::TcpRoute {
        (
            format!(
                "Listener {listener} leads all connections where {other} {name} says, which is older: this route carries none there"
            ),
            "Attach it to another listener, or add its backends to the other route",
        )
    } else {
        let hosts: Vec<&str> = before.hosts.iter().map(Str::as_str).collect();
        let hosts = hosts.join(", ");
        let rest = if before.left {
            "this route has the rest of its hosts alone"
        } else {
            "this route carries nothing there"
        };
        (
            format!(
                "At listener {listener} connections for {hosts} go where {other} {name} says, which is older: {rest}"
            ),
            "Name each host in one TLSRoute",
        )
    };
    let object = ObjectRef::new(kind, key.clone());
    Finding::new("route-shadowed", Severity::Warning, object, what, fix)
}
