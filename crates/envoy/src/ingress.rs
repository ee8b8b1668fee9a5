//! Ingress gateways (class `istio`): what they open, and where it leads.
//!
//! Stages in order: [`routes`] (what a route does at a Gateway), [`hosts`] (a virtual host of a
//! listener), [`route_configs`] (a Gateway's route configurations), and, from
//! [`crate::listeners`], the listeners. An edit of one route makes its own entries, its virtual
//! hosts and one assembly of bytes anew, and leaves listeners as they are.
//! Source: spec/envoy-config.md §6; spec/gateway-api.md §6.

pub mod hosts;
pub mod index;
pub(crate) mod listeners;
pub mod route_configs;
pub mod routes;
mod servers;
pub(crate) mod waypoint;

use flow::{Reads, View};
use model::{GatewayController, GatewayRow, ObjectKey, ProxyClass, ProxyRole};

use crate::attachment::is_wanted;
use crate::east_west;

pub use listeners::IngressTables;

/// Table of Gateways.
pub type Gateways<'t> = View<'t, ObjectKey, GatewayRow>;

/// A Gateway of ours that is an ingress gateway.
pub(crate) fn ingress<'t>(
    gateways: Gateways<'t>,
    reads: &mut Reads,
    key: &ObjectKey,
) -> Option<&'t GatewayRow> {
    let row = gateways.get(reads, key)?;
    (row.controller == GatewayController::Ingress).then_some(&**row)
}

/// The same, or a gateway between networks, if any of its proxies is connected.
pub(crate) fn wanted<'t>(
    gateways: Gateways<'t>,
    proxies: View<'_, ProxyClass, ()>,
    reads: &mut Reads,
    key: &ObjectKey,
) -> Option<&'t GatewayRow> {
    // A proxy may be connected as what its Gateway is not.
    if is_wanted(proxies, reads, ProxyRole::Ingress, key)
        && let Some(gateway) = ingress(gateways, reads, key)
    {
        return Some(gateway);
    }
    if is_wanted(proxies, reads, ProxyRole::EastWest, key) {
        return east_west::active(gateways, reads, key);
    }
    None
}
