//! Where a backend reference leads. Source: spec/envoy-config.md §5.1, §5.5;
//! spec/gateway-api.md §6.4, §6.5.

use flow::{Reads, View};
use model::input::{BackendRef, RouteRef};
use model::{Kind, NamespacedHostname, ObjectKey, ServiceRow, Str};

use super::RouteTables;
use crate::attachment::{inbound_name, port_chains};
use crate::ir::Outbound;
use crate::reference_grant::is_granted;

/// The cluster that never exists: its share of requests answers 500.
const UNKNOWN: Str = arcstr::literal!("UnknownService");

/// Whether a backend in another namespace needs a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grants {
    /// Gateway parents.
    Checked,
    /// Service parents.
    Ignored,
}

/// What a backend reference is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A service and the port.
    Service(NamespacedHostname, u16),
    /// Nothing of that name, or a kind that is not supported.
    Missing,
    /// A service of another namespace that grants nothing.
    NotPermitted,
}

impl Backend {
    /// The cluster of a waypoint, and the `outbound` destination behind it if it is one.
    pub(super) fn cluster(
        &self,
        services: View<'_, NamespacedHostname, ServiceRow>,
        reads: &mut Reads,
        waypoint: &ObjectKey,
    ) -> (Str, Option<Outbound>) {
        let Self::Service(key, port) = self else {
            return (UNKNOWN, None);
        };
        let Some(service) = services.get(reads, key) else {
            return (UNKNOWN, None);
        };
        let host = &key.hostname;
        if service
            .waypoint
            .as_ref()
            .is_some_and(|bound| bound.key == *waypoint)
        {
            let row = service.ports.iter().find(|row| row.port == *port);
            let chains = row.and_then(port_chains);
            let kind = if chains.is_none_or(|chains| chains.http()) {
                "http"
            } else {
                "tcp"
            };
            return (inbound_name(*port, kind, host), None);
        }
        let outbound = Outbound {
            service: key.clone(),
            port: *port,
            subset: Str::new(),
        };
        (outbound_name(*port, host), Some(outbound))
    }
}

/// Name of a cluster of a service that is not behind the waypoint.
pub(crate) fn outbound_name(port: u16, host: &str) -> Str {
    arcstr::format!("outbound|{port}||{host}")
}

/// Resolves a backend of an HTTPRoute in a namespace.
pub(crate) fn resolve(
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    route_ns: &Str,
    domain: &str,
    backend: &BackendRef,
    grants: Grants,
) -> Backend {
    let target = &backend.target;
    let Some(port) = target.port else {
        return Backend::Missing;
    };
    let key = match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => NamespacedHostname::service(
            &ObjectKey::new(target.ns.clone(), target.name.clone()),
            domain,
        ),
        ("networking.istio.io", "Hostname") => host_key(tables, reads, route_ns, domain, target),
        _ => return Backend::Missing,
    };
    if grants == Grants::Checked
        && key.ns != *route_ns
        && !is_granted(
            tables.reference_grants,
            reads,
            (Kind::HttpRoute, route_ns),
            (
                Kind::Service,
                &ObjectKey::new(target.ns.clone(), target.name.clone()),
            ),
        )
    {
        return Backend::NotPermitted;
    }
    match tables.services.get(reads, &key) {
        Some(_) => Backend::Service(key, port),
        None => Backend::Missing,
    }
}

/// The service of a host name: one of the route's namespace, or a Kubernetes Service by its
/// full name.
fn host_key(
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    route_ns: &Str,
    domain: &str,
    target: &RouteRef,
) -> NamespacedHostname {
    let own = NamespacedHostname::new(route_ns.clone(), target.name.clone());
    if tables.services.get(reads, &own).is_some() {
        return own;
    }
    let tail = format!(".svc.{domain}");
    let short = target
        .name
        .strip_suffix(&tail)
        .and_then(|rest| rest.split_once('.'));
    match short {
        Some((_, ns)) => NamespacedHostname::new(ns, target.name.clone()),
        None => own,
    }
}
