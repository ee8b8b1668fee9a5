//! TCPRoutes and TLSRoutes: where connections to a service port go.
//! Source: spec/envoy-config.md §5.9; spec/gateway-api.md §5.6, §6.7.

use std::collections::BTreeSet;

use flow::{Reads, View};
use model::input::{L4Route, L4Rule};
use model::{Kind, ObjectKey, Parsed, ServiceRow, Str};

use super::backend::{Grants, Referrer, UNKNOWN, resolve};
use super::defect::l4_defect;
use super::reach::{namespaces, own_parents};
use super::{At, RouteTables, Site};
use crate::index::{L4RouteByParent, Target};
use crate::ir::{Outbound, TcpIr};
use crate::traffic::{self, TrafficTables};
use crate::virtual_services::{self, TcpRoutes};

/// Where the TCP chain of a service port leads, with what the DestinationRule of the (first)
/// destination says of connections, and the services elsewhere among the destinations.
pub(crate) fn tcp_for_port(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
    cluster: &Str,
) -> (TcpIr, BTreeSet<Outbound>) {
    let mut body = TcpIr::to(cluster.clone());
    let mut outbound = BTreeSet::new();
    let mut first = Some(Outbound {
        service: site.service.key.clone(),
        port,
        subset: Str::new(),
    });
    if let Some(found) = connections(site, tables, reads, port) {
        body.clusters = found.clusters;
        outbound = found.outbound;
        first = found.first;
    }
    if let Some(to) = first {
        settle(&mut body, site.at(), tables, reads, &to);
    }
    (body, outbound)
}

/// What the DestinationRule of the first destination says of connections.
fn settle(
    body: &mut TcpIr,
    at: At<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    to: &Outbound,
) {
    let Some(row) = tables.services.get(reads, &to.service) else {
        return;
    };
    let rules = TrafficTables {
        destination_rules: tables.destination_rules,
    };
    let settings = traffic::tcp_settings(rules, reads, &at.seen(row), (to.port, &to.subset));
    body.idle_timeout = settings.idle_timeout;
    body.max_duration = settings.max_duration;
    body.hash_source_ip = settings.hash_source_ip;
    body.tunnel = settings.tunnel;
}

/// Where a TCPRoute or TLSRoute that a listener takes leads connections; `None` where nothing is
/// left of it. Of its rules the first one counts.
pub(crate) fn by_listener(
    at: At<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    (kind, key): (Kind, &ObjectKey),
) -> Option<(TcpIr, BTreeSet<Outbound>)> {
    let view = match kind {
        Kind::TcpRoute => tables.tcp_routes,
        Kind::TlsRoute => tables.tls_routes,
        _ => return None,
    };
    let route = view.get(reads, key)?.ok()?;
    if l4_defect(&key.ns, route).is_some() {
        return None;
    }
    let referrer = Referrer {
        kind,
        ns: &key.ns,
        domain: &at.mesh.domain,
        grants: Grants::Checked,
    };
    let found = destinations(at, tables, reads, &referrer, route.rules.first()?);
    let mut body = TcpIr::to(UNKNOWN);
    body.clusters = found.clusters;
    if let Some(to) = &found.first {
        settle(&mut body, at, tables, reads, to);
    }
    Some((body, found.outbound))
}

/// Where connections to a service port go; `None` when nothing says so and they go to the
/// service itself. The first TLSRoute counts before the first TCPRoute, and both before
/// VirtualServices.
fn connections(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
) -> Option<TcpRoutes> {
    for (kind, view) in [
        (Kind::TlsRoute, tables.tls_routes),
        (Kind::TcpRoute, tables.tcp_routes),
    ] {
        if let Some((ns, rule)) = first(site, (kind, view), reads, port) {
            let referrer = Referrer {
                kind,
                ns,
                domain: &site.mesh.domain,
                grants: Grants::Ignored,
            };
            return Some(destinations(site.at(), tables, reads, &referrer, rule));
        }
    }
    virtual_services::tcp_routes(site, tables, reads, port)
}

/// The first rule of the first usable route with this service as parent.
fn first<'t>(
    site: &Site<'_>,
    (kind, view): (Kind, View<'t, ObjectKey, Parsed<L4Route>>),
    reads: &mut Reads,
    port: u16,
) -> Option<(&'t Str, &'t L4Rule)> {
    let target = Target::of_service(site.service)?;
    let found: Vec<_> = view.by::<L4RouteByParent>(reads, &target).collect();
    for ns in namespaces(site) {
        let own = found.iter().filter(|(key, _)| key.ns == *ns);
        let usable = own.filter_map(|(key, parsed)| {
            let route = parsed.ok()?;
            let mut parents = own_parents(&route.parents, &target);
            let here = parents.any(|parent| parent.port.is_none_or(|p| p == port));
            let rule = route.rules.first()?;
            let good = here
                && l4_defect(&key.ns, route).is_none()
                && (kind != Kind::TlsRoute || sni_fits(&route.hostnames, site.service));
            good.then_some((parsed.meta.age_order(), (&key.ns, rule)))
        });
        let oldest = usable.min_by(|(a, _), (b, _)| a.cmp(b));
        if let Some((_, found)) = oldest {
            return Some(found);
        }
    }
    None
}

/// Whether the hostnames of a TLSRoute let it count for a service: there are none, or the only
/// one that covers the host of the service is this host itself.
pub(crate) fn sni_fits(hostnames: &[Str], service: &ServiceRow) -> bool {
    let host = &service.key.hostname;
    let mut covering = hostnames
        .iter()
        .filter(|name| super::host_rank(std::slice::from_ref(*name), service).is_some());
    hostnames.is_empty()
        || covering
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(host))
            && covering.next().is_none()
}

fn destinations(
    at: At<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    referrer: &Referrer<'_>,
    rule: &L4Rule,
) -> TcpRoutes {
    let mut clusters = Vec::new();
    let mut outbound = BTreeSet::new();
    let mut first = None;
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        let found = resolve(tables, reads, referrer, &backend.target);
        let name = match found.row(tables.services, reads) {
            None => UNKNOWN,
            Some((row, port)) => {
                let (name, elsewhere) = at.cluster(row, (port, ""));
                outbound.extend(elsewhere);
                first.get_or_insert_with(|| Outbound {
                    service: row.key.clone(),
                    port,
                    subset: Str::new(),
                });
                name
            }
        };
        clusters.push((name, backend.weight));
    }
    if clusters.is_empty() {
        // Connections to a cluster that does not exist are closed.
        clusters.push((UNKNOWN, 1));
    }
    TcpRoutes {
        clusters,
        outbound,
        first,
    }
}
