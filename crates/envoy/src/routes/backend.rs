//! Where a backend reference leads. Source: spec/envoy-config.md §5.1, §5.5;
//! spec/gateway-api.md §6.4, §6.5.

use std::sync::Arc;

use flow::{Reads, View};
use model::input::RouteRef;
use model::{Kind, NamespacedHostname, ObjectKey, ServiceRow, Str};

use super::RouteTables;
use crate::attachment::{inbound_name, outbound_name, port_chains, waypoints_of};
use crate::index::ServiceByHostname;
use crate::ir::Outbound;
use crate::traffic::is_visible;
use gateway::reference_grant::is_granted;

/// The cluster that never exists: its share of requests answers 500, of connections is closed.
pub(crate) const UNKNOWN: Str = arcstr::literal!("UnknownService");

/// Whether a backend in another namespace needs a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grants {
    /// Gateway parents.
    Checked,
    /// Service parents.
    Ignored,
}

/// The route that refers to a backend.
#[derive(Clone, Copy)]
pub(crate) struct Referrer<'a> {
    /// Its kind, which grants name.
    pub(crate) kind: Kind,
    /// Its namespace.
    pub(crate) ns: &'a Str,
    /// Domain of the mesh.
    pub(crate) domain: &'a str,
    /// Whether grants are asked for.
    pub(crate) grants: Grants,
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
    /// The service.
    pub(super) fn row<'t>(
        &self,
        services: View<'t, NamespacedHostname, ServiceRow>,
        reads: &mut Reads,
    ) -> Option<(&'t Arc<ServiceRow>, u16)> {
        match self {
            Self::Service(key, port) => Some((services.get(reads, key)?, *port)),
            Self::Missing | Self::NotPermitted => None,
        }
    }
}

/// The cluster of a service port, or of a subset of it (empty for all), at a waypoint, and the
/// `outbound` destination behind it if it is one.
pub(crate) fn cluster(
    service: &ServiceRow,
    (port, subset): (u16, &str),
    waypoint: &ObjectKey,
) -> (Str, Option<Outbound>) {
    let host = &service.wire_host();
    if waypoints_of(service).any(|bound| bound == waypoint) {
        let row = service.ports.iter().find(|row| row.port == port);
        let chains = row.and_then(port_chains);
        let kind = if chains.is_none_or(|chains| chains.http()) {
            "http"
        } else {
            "tcp"
        };
        let name = match subset {
            "" => inbound_name(port, kind, host),
            subset => inbound_name(port, &format!("{kind}/{subset}"), host),
        };
        return (name, None);
    }
    let (name, to) = outbound(service, (port, subset));
    (name, Some(to))
}

/// The `outbound` cluster of a service port, or of a subset of it (empty for all).
pub(super) fn outbound(service: &ServiceRow, (port, subset): (u16, &str)) -> (Str, Outbound) {
    let to = Outbound {
        service: service.key.clone(),
        port,
        subset: Str::from(subset),
    };
    (outbound_name(port, subset, &service.wire_host()), to)
}

/// Whether [`resolve`] knows the kind of a backend or mirror.
pub(crate) fn is_backend(target: &RouteRef) -> bool {
    matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("" | "core", "Service")
            | ("multicluster.x-k8s.io", "ServiceImport")
            | ("networking.istio.io", "Hostname")
    )
}

/// Resolves a backend or mirror of a route.
pub(crate) fn resolve(
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    referrer: &Referrer<'_>,
    target: &RouteRef,
) -> Backend {
    let Some(port) = target.port else {
        return Backend::Missing;
    };
    let object = ObjectKey::new(target.ns.clone(), target.name.clone());
    let (key, grantable) = match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => {
            let key = NamespacedHostname::service(&object, referrer.domain);
            (key, Some(object))
        }
        // Nobody can grant these.
        ("multicluster.x-k8s.io", "ServiceImport") => {
            (NamespacedHostname::service(&object, referrer.domain), None)
        }
        ("networking.istio.io", "Hostname") => {
            let Some(row) = by_host(tables, reads, referrer, &target.name) else {
                return Backend::Missing;
            };
            // A grant is for Services; a ServiceEntry says by exportTo who may use it.
            if row.source.kind != Kind::Service.as_str() {
                return Backend::Service(row.key.clone(), port);
            }
            (row.key.clone(), Some(row.source.key.clone()))
        }
        _ => return Backend::Missing,
    };
    if referrer.grants == Grants::Checked && key.ns != *referrer.ns {
        let granted = grantable.is_some_and(|object| {
            let from = (referrer.kind, referrer.ns);
            let to = (Kind::Service, &object);
            is_granted(tables.reference_grants, reads, from, to)
        });
        if !granted {
            return Backend::NotPermitted;
        }
    }
    match tables.services.get(reads, &key) {
        Some(_) => Backend::Service(key, port),
        None => Backend::Missing,
    }
}

/// The service of a host name that the namespace of the route sees: its own one, the canonical
/// one, any.
fn by_host<'t>(
    tables: &RouteTables<'t>,
    reads: &mut Reads,
    referrer: &Referrer<'_>,
    host: &Str,
) -> Option<&'t Arc<ServiceRow>> {
    let found = tables
        .services
        .by::<ServiceByHostname>(reads, host.as_str());
    let own = |row: &ServiceRow| row.key.ns == *referrer.ns;
    found
        .map(|(_, row)| row)
        .filter(|row| own(row) || is_visible(&row.export_to, &row.key.ns, referrer.ns))
        .min_by_key(|row| (!own(row), !row.canonical))
}
