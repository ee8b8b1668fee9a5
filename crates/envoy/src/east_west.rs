//! Gateways between networks (class `istio-east-west`): what other networks reach by them.
//!
//! They end the outer of two tunnels and lead what is inside, another tunnel, by the service that
//! the outer one names: to its waypoint, or to its pods. Nothing of HTTP happens there, and no
//! policy or route of a service applies; policies that name the Gateway do.
//!
//! Stages in order: [`crossings`] (services that may be reached), then, each with rows for these
//! gateways among others, [`crate::chains`], [`crate::clusters`], [`crate::endpoints`] and
//! [`crate::listeners`]. Source: spec/envoy-config.md §6.7; spec/gateway-api.md §5.8.

pub mod crossings;
pub mod index;
pub(crate) mod listeners;

use std::collections::BTreeSet;

use flow::{Reads, View};
use model::{
    GatewayController, GatewayRow, NamespacedHostname, ObjectKey, ProxyClass, ProxyRole, Str,
};

use crate::attachment::inbound_name;
use crate::ir::{ChainBody, ChainIr, CrossingIr, TcpIr};
use gateway::index::GatewayByTarget;
use index::ClassByRole;

/// Name of the internal listener, and of the cluster, that hand inner tunnels on.
pub const FORWARD_INNER_CONNECT: Str = arcstr::literal!("forward_inner_connect");

/// A Gateway of ours that is a gateway between networks, and may be.
pub(crate) fn active<'t>(
    gateways: View<'t, ObjectKey, GatewayRow>,
    reads: &mut Reads,
    key: &ObjectKey,
) -> Option<&'t GatewayRow> {
    let row = gateways.get(reads, key)?;
    let is_active = row.controller == GatewayController::EastWest && row.class_defect.is_none();
    is_active.then_some(&**row)
}

/// Those with connected proxies, each once. For views of classes with index [`ClassByRole`].
pub(crate) fn connected(
    gateways: View<'_, ObjectKey, GatewayRow>,
    proxies: View<'_, ProxyClass, ()>,
    reads: &mut Reads,
) -> Vec<ObjectKey> {
    let classes = proxies.by::<ClassByRole>(reads, &ProxyRole::EastWest);
    let keys: BTreeSet<&ObjectKey> = classes.map(|(class, _)| &class.gateway).collect();
    keys.into_iter()
        .filter(|key| active(gateways, reads, key).is_some())
        .cloned()
        .collect()
}

/// The waypoint whose instances are behind a service; none for other services.
/// For views of Gateways with index [`GatewayByTarget`].
pub(crate) fn waypoint_behind<'t>(
    gateways: View<'t, ObjectKey, GatewayRow>,
    reads: &mut Reads,
    service: &NamespacedHostname,
) -> Option<&'t GatewayRow> {
    let mut found = gateways.by::<GatewayByTarget>(reads, service);
    found.find_map(|(_, row)| (row.controller == GatewayController::Waypoint).then_some(&**row))
}

/// Name of the chain and of the cluster of a port.
pub(crate) fn crossing_name(port: u16, crossing: &CrossingIr) -> Str {
    inbound_name(port, "tcp", &crossing.host)
}

/// The chain of a port: what comes in goes on as it is.
pub(crate) fn chain(port: u16, crossing: &CrossingIr) -> ChainIr {
    let name = crossing_name(port, crossing);
    ChainIr {
        port,
        filters: Vec::new(),
        body: ChainBody::Tcp(TcpIr::to(name.clone())),
        name,
        republish_destination: false,
        outbound: BTreeSet::new(),
    }
}
