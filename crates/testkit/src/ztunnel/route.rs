//! Where a ztunnel sends a connection. Source: spec/workload-discovery.md §1.8.

use std::net::{IpAddr, SocketAddr};

use model::SpiffeId;
use proto::workload::gateway_address::Destination;
use proto::workload::load_balancing::HealthPolicy;
use proto::workload::{GatewayAddress, Service, TunnelProtocol, Workload, WorkloadStatus};

use super::MeshState;
use super::state::ip;

/// One hop over HBONE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The HBONE server to dial.
    pub server: SocketAddr,
    /// The authority of CONNECT.
    pub authority: SocketAddr,
    /// Who must answer.
    pub expected: SpiffeId,
    /// Name of the workload behind the server.
    pub name: String,
}

/// What to do with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To a waypoint, with the destination as it was dialled.
    Waypoint(Hop),
    /// To the destination's own ztunnel.
    Workload(Hop),
    /// In plain text to a workload outside the mesh.
    Plain(SocketAddr),
    /// The destination is unknown: as if there were no mesh.
    Passthrough(SocketAddr),
}

/// Why a connection cannot be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The service has no such port.
    NoPort,
    /// The service has no endpoint that could be used.
    NoEndpoint,
    /// A waypoint is named that cannot be found or has no endpoint; never bypassed.
    NoWaypoint,
}

impl std::fmt::Display for RouteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoPort => "the service has no such port",
            Self::NoEndpoint => "the service has no usable endpoint",
            Self::NoWaypoint => "the waypoint cannot be resolved",
        })
    }
}

impl std::error::Error for RouteError {}

/// Decides on a connection to `destination`. `choice` picks among equal endpoints; every
/// number is as good as any other.
///
/// # Errors
/// [`RouteError`] where a ztunnel would reset the connection.
pub fn route(
    state: &MeshState,
    destination: SocketAddr,
    choice: usize,
) -> Result<Route, RouteError> {
    if let Some(service) = state.service_by_vip(destination.ip()) {
        let waypoint = weighted_waypoint(service, choice).or(service.waypoint.as_ref());
        if let Some(waypoint) = waypoint {
            return to_waypoint(state, waypoint, destination, choice).map(Route::Waypoint);
        }
        let (workload, port) = endpoint(state, service, destination.port(), choice)?;
        return to_workload(workload, port).ok_or(RouteError::NoEndpoint);
    }
    let Some(workload) = state.workload_by_ip(destination.ip()) else {
        return Ok(Route::Passthrough(destination));
    };
    if let Some(waypoint) = &workload.waypoint {
        return to_waypoint(state, waypoint, destination, choice).map(Route::Waypoint);
    }
    to_workload(workload, destination.port()).ok_or(RouteError::NoEndpoint)
}

/// One of the waypoints that share a service, by weight; none when nobody has any weight.
fn weighted_waypoint(service: &Service, choice: usize) -> Option<&GatewayAddress> {
    let shares = &service.weighted_waypoints;
    let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    // Multiples of the golden ratio: any run of choices is spread evenly.
    let spread = (choice as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut at = (spread * total) >> 32;
    let chosen = shares.iter().find(|share| {
        let weight = u64::from(share.weight);
        let is_here = at < weight;
        at = at.saturating_sub(weight);
        is_here
    });
    chosen?.destination.as_ref()
}

fn to_waypoint(
    state: &MeshState,
    gateway: &GatewayAddress,
    destination: SocketAddr,
    choice: usize,
) -> Result<Hop, RouteError> {
    let port = gateway.hbone_mtls_port;
    let listens = u16::try_from(port).map_err(|_| RouteError::NoWaypoint)?;
    let by_service = |service: &Service| {
        endpoint(state, service, listens, choice)
            .ok()
            .map(|(workload, port)| (workload.clone(), port))
    };
    let found = match &gateway.destination {
        Some(Destination::Hostname(name)) => {
            let key = format!("{}/{}", name.namespace, name.hostname);
            match state.services.get(&key) {
                Some(service) => by_service(service),
                None => state
                    .workloads
                    .values()
                    .find(|w| w.hostname == name.hostname && w.namespace == name.namespace)
                    .map(|w| (w.clone(), listens)),
            }
        }
        Some(Destination::Address(addr)) => {
            let addr = ip(&addr.address).ok_or(RouteError::NoWaypoint)?;
            match state.service_by_vip(addr) {
                Some(service) => by_service(service),
                None => state.workload_by_ip(addr).map(|w| (w.clone(), listens)),
            }
        }
        None => None,
    };
    let (workload, port) = found.ok_or(RouteError::NoWaypoint)?;
    let addr = first_ip(&workload).ok_or(RouteError::NoWaypoint)?;
    Ok(Hop {
        server: SocketAddr::new(addr, port),
        authority: destination,
        expected: identity(&workload),
        name: workload.name,
    })
}

/// One endpoint of a service's port, with its target port.
fn endpoint<'a>(
    state: &'a MeshState,
    service: &Service,
    port: u16,
    choice: usize,
) -> Result<(&'a Workload, u16), RouteError> {
    let listed = service
        .ports
        .iter()
        .find(|p| p.service_port == u32::from(port));
    let listed = listed.ok_or(RouteError::NoPort)?;
    let key = format!("{}/{}", service.namespace, service.hostname);
    let unhealthy_too = service
        .load_balancing
        .as_ref()
        .is_some_and(|lb| lb.health_policy == HealthPolicy::AllowAll as i32);
    let usable: Vec<(&Workload, u16)> = state
        .workloads
        .values()
        .filter(|w| unhealthy_too || w.status == WorkloadStatus::Healthy as i32)
        .filter_map(|w| {
            let ports = &w.services.get(&key)?.ports;
            let own = ports.iter().find(|p| p.service_port == u32::from(port));
            let tunnel = w
                .application_tunnel
                .as_ref()
                .filter(|t| t.port > 0)
                .map(|_| u32::from(port));
            let target = own
                .map(|p| p.target_port)
                .or((listed.target_port > 0).then_some(listed.target_port))
                .or(tunnel)?;
            Some((w, u16::try_from(target).ok()?))
        })
        .collect();
    if usable.is_empty() {
        return Err(RouteError::NoEndpoint);
    }
    Ok(usable[choice % usable.len()])
}

fn to_workload(workload: &Workload, port: u16) -> Option<Route> {
    let authority = SocketAddr::new(first_ip(workload)?, port);
    if workload.tunnel_protocol != TunnelProtocol::Hbone as i32 {
        return Some(Route::Plain(authority));
    }
    Some(Route::Workload(Hop {
        server: SocketAddr::new(authority.ip(), crate::hbone::HBONE_PORT),
        authority,
        expected: identity(workload),
        name: workload.name.clone(),
    }))
}

fn first_ip(workload: &Workload) -> Option<IpAddr> {
    workload.addresses.first().and_then(|a| ip(a))
}

/// The identity of a workload, with ztunnel's defaults for what is left out.
pub(super) fn identity(workload: &Workload) -> SpiffeId {
    let or = |value: &str, default: &str| {
        if value.is_empty() {
            default.to_owned()
        } else {
            value.to_owned()
        }
    };
    SpiffeId::new(
        or(&workload.trust_domain, "cluster.local"),
        workload.namespace.as_str(),
        or(&workload.service_account, "default"),
    )
}

#[cfg(test)]
mod tests;
