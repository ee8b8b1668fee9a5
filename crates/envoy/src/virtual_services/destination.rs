//! Where a destination leads. Source: spec/envoy-config.md §5.1.

use std::sync::Arc;

use flow::{Reads, View};
use model::input::{Destination, HashKey};
use model::{NamespacedHostname, ServiceRow, Str};

use crate::index::ServiceByHostname;
use crate::ir::Outbound;
use crate::routes::{RouteTables, Site, UNKNOWN, cluster};
use crate::traffic::{self, Seen, TrafficTables, is_visible};

/// A destination as Envoy is told of it.
pub(super) struct Sent {
    /// Cluster; it need not exist, and then answers 503.
    pub(super) cluster: Str,
    /// What it is, when there is such a service.
    pub(super) service: Option<Outbound>,
    /// The service is behind another waypoint or none.
    pub(super) elsewhere: bool,
    /// Full host.
    pub(super) host: Str,
    /// Port.
    pub(super) port: u16,
    /// Keys of consistent hashing.
    pub(super) hash: Vec<HashKey>,
}

/// A host in full: a short one is of the namespace of the object that names it.
pub(crate) fn full_name(host: &str, ns: &str, domain: &str) -> Str {
    if host.contains('.') || host.contains(':') || host.starts_with('*') {
        Str::from(host)
    } else {
        arcstr::format!("{host}.{ns}.svc.{domain}")
    }
}

/// The service of a full host that the waypoint sees: the one addressed, that of the namespace
/// which names it, the canonical one, any.
pub(crate) fn find<'t>(
    site: &Site<'_>,
    services: View<'t, NamespacedHostname, ServiceRow>,
    reads: &mut Reads,
    ns: &str,
    host: &str,
) -> Option<&'t Arc<ServiceRow>> {
    let found = services.by::<ServiceByHostname>(reads, host);
    let sees = |row: &ServiceRow| is_visible(&row.export_to, &row.key.ns, &site.waypoint.key.ns);
    let rank = |row: &ServiceRow| {
        let addressed = row.key == site.service.key;
        (!addressed, row.key.ns != ns, !row.canonical)
    };
    found
        .map(|(_, row)| row)
        .filter(|row| row.key == site.service.key || sees(row))
        .min_by_key(|row| rank(row))
}

/// The port of a destination: the one written, the only one of its service, that of the listener.
pub(crate) fn port_of(to: &Destination, service: Option<&ServiceRow>, listener: u16) -> u16 {
    let only = || match service.map(|row| row.ports.as_slice()) {
        Some([only]) => Some(only.port),
        _ => None,
    };
    to.port.or_else(only).unwrap_or(listener)
}

/// Resolves a destination of an object in a namespace.
pub(super) fn resolve(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    (ns, to): (&str, &Destination),
    listener: u16,
) -> Sent {
    let host = full_name(&to.host, ns, &site.mesh.domain);
    let found = find(site, tables.services, reads, ns, &host).map(Arc::as_ref);
    let port = port_of(to, found, listener);
    let owner = &site.waypoint.key;
    // What the waypoint does not see may be behind it all the same, with policies of its own
    // that this would pass by.
    let (cluster, elsewhere) = found.map_or((UNKNOWN, true), |row| {
        let (cluster, outbound) = cluster(row, (port, &to.subset), owner);
        (cluster, outbound.is_some())
    });
    let hash = found.map_or_else(Vec::new, |row| {
        let rules = TrafficTables {
            destination_rules: tables.destination_rules,
        };
        let seen = Seen::from(owner, row, site.mesh);
        traffic::hash_of(rules, reads, &seen, (port, &to.subset), false)
    });
    Sent {
        cluster,
        service: found.map(|row| Outbound {
            service: row.key.clone(),
            port,
            subset: to.subset.clone(),
        }),
        elsewhere,
        host,
        port,
        hash,
    }
}
