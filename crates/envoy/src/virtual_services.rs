//! VirtualServices at a waypoint: which ones concern a service, and the routes and TCP
//! destinations that they come down to.
//!
//! Used by the stages that serve routes and chains, and by the one that derives findings, so that
//! what is said about a VirtualService and what is done with it come from the same functions.
//! Source: spec/policy-and-traffic.md §6; spec/envoy-config.md §5.

mod action;
mod conditions;
mod defects;
mod delegate;
mod destination;
mod entry;
mod l4;
mod lookup;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use flow::Reads;
use model::{Kind, ObjectRef, Str};

use crate::ir::{Outbound, RouteIr};
use crate::routes::{RouteTables, Site};

pub(crate) use defects::{bad_matches, rule_defect};
pub(crate) use delegate::rules;
pub(crate) use destination::{find, full_name, port_of};
pub(crate) use entry::{admits, catches_all, entry};
pub(crate) use lookup::{Applied, Refusal, applied, is_of_mesh, refusal};

/// Most routes of one port; a delegate that is named often could else multiply without bound.
const ROUTES_COUNT_MAX: usize = 10_000;

/// Routes and the services elsewhere that they lead to.
pub(crate) type HttpRoutes = (Vec<RouteIr>, BTreeSet<Outbound>);

/// The routes of a service port, in order of evaluation; `None` when no VirtualService yields
/// one, so that requests go to the service itself.
pub(crate) fn http_routes(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
) -> Option<HttpRoutes> {
    let mut routes = Vec::new();
    let mut outbound = BTreeSet::new();
    for applied in applied(site, tables.virtual_services, reads) {
        let (rules, _) = rules(&applied, tables.virtual_services, reads, site.mesh);
        let origin = ObjectRef::new(Kind::VirtualService, applied.key.clone());
        'rules: for rule in &rules {
            for m in rule.matches() {
                if !admits(m, site, port) || routes.len() >= ROUTES_COUNT_MAX {
                    continue;
                }
                let made = entry(site, tables, reads, rule, (m, port), &mut outbound);
                let last = catches_all(&made);
                routes.push(RouteIr {
                    origin: Some(origin.clone()),
                    ..made
                });
                if last {
                    break 'rules;
                }
            }
        }
    }
    (!routes.is_empty()).then_some((routes, outbound))
}

/// Destinations of a TCP chain by weight, and the services elsewhere among them.
pub(crate) struct TcpRoutes {
    /// Clusters with their weights: at least one, weights above 0.
    pub(crate) clusters: Vec<(Str, u32)>,
    /// Services elsewhere.
    pub(crate) outbound: BTreeSet<Outbound>,
    /// The first destination: its DestinationRule decides for the chain.
    pub(crate) first: Option<Outbound>,
}

/// Where connections to a service port go; `None` when no VirtualService says so.
pub(crate) fn tcp_routes(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    port: u16,
) -> Option<TcpRoutes> {
    let applied = applied(site, tables.virtual_services, reads);
    let rule = l4::chosen(site, &applied, port)?;
    Some(l4::routes(site, tables, reads, rule, port))
}
