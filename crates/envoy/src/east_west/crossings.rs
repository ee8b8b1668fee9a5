//! Stage `east_west::crossings`: a service that other networks may reach, as the matcher of
//! gateways between networks sees it. Source: spec/envoy-config.md §1.3, §6.7.

use std::collections::BTreeSet;

use flow::{Output, Reads, View};
use model::defaults::HBONE_PORT;
use model::{Finding, GatewayRow, NamespacedHostname, ObjectKey, ProxyClass, ServiceRow, Str};

use super::{connected, waypoint_behind};
use crate::attachment::{chains_of, inbound_name, networks_of};
use crate::index::ServiceByWaypoint;
use crate::ir::{CrossingIr, Detour};

/// Primary: a service.
pub type P = NamespacedHostname;

/// The table of services that other networks reach; index [`super::index::AllCrossings`].
pub type Crossings<'t> = View<'t, NamespacedHostname, CrossingIr>;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct CrossingView<'t> {
    /// Services; index [`ServiceByWaypoint`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Gateways of ours; index [`gateway::index::GatewayByTarget`].
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// Classes of connected proxies; index [`super::index::ClassByRole`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// A row per service that is global, or whose instances are the waypoint of one that is; none
/// while no gateway between networks is connected.
pub fn derive(
    p: &P,
    view: &CrossingView<'_>,
    reads: &mut Reads,
) -> Output<NamespacedHostname, CrossingIr, Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    if connected(view.gateways, view.proxies, reads).is_empty() {
        return Output::none();
    }
    let behind = waypoint_behind(view.gateways, reads, p);
    let is_needed = behind.is_some_and(|waypoint| {
        let mut bound = view.services.by::<ServiceByWaypoint>(reads, &waypoint.key);
        bound.any(|(_, service)| service.is_global)
    });
    if !service.is_global && !is_needed {
        return Output::none();
    }
    let ports = service.ports.iter();
    let ports = ports.filter(|port| chains_of(service, port).is_some());
    let ports: BTreeSet<u16> = ports
        .map(|port| port.port)
        // Of a waypoint nothing but its tunnels.
        .filter(|port| behind.is_none() || *port == HBONE_PORT)
        .collect();
    if ports.is_empty() {
        return Output::none();
    }
    let row = CrossingIr {
        created_s: service.created_s.unwrap_or(i64::MAX),
        host: service.wire_host(),
        authority: service.first_of_host.then(|| service.key.hostname.clone()),
        vips: networks_of(service),
        ports,
        detour: detour(service, view, reads),
    };
    Output::one(p.clone(), row)
}

/// The way through the waypoint of a service. One that cannot be used leads nowhere: whoever
/// bound the service to it did so for its policies.
fn detour(service: &ServiceRow, view: &CrossingView<'_>, reads: &mut Reads) -> Option<Detour> {
    if service.blocked.is_some() {
        return Some(Detour {
            chain: None,
            for_ingress: true,
        });
    }
    let bound = service.waypoint.as_ref()?;
    Some(Detour {
        chain: chain_of(&bound.key, view, reads),
        for_ingress: service.ingress_use_waypoint,
    })
}

/// The chain that leads to the instances of a waypoint.
fn chain_of(waypoint: &ObjectKey, view: &CrossingView<'_>, reads: &mut Reads) -> Option<Str> {
    let targets = &view.gateways.get(reads, waypoint)?.targets;
    targets.iter().find_map(|host| {
        let is_behind = waypoint_behind(view.gateways, reads, host)?.key == *waypoint;
        let service = view.services.get(reads, host).filter(|_| is_behind)?;
        let port = service.ports.iter().find(|port| port.port == HBONE_PORT)?;
        chains_of(service, port)?;
        Some(inbound_name(HBONE_PORT, "tcp", &service.wire_host()))
    })
}
