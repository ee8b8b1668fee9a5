//! Stage `ingress::hosts`: a host of a listener → its virtual host, with the entries of all
//! routes that the listener takes for it. Source: spec/gateway-api.md §6.1;
//! spec/envoy-config.md §6.4.

use std::sync::Arc;

use flow::{Output, Reads, View};
use model::gateway::{ListenerProtocol, ListenerRow, RouteParents};
use model::{Finding, GatewayRow, Kind, ObjectKey, ProxyClass, Str};

use super::index::RouteByHost;
use super::{Gateways, wanted};
use crate::emit;
use crate::ir::{HostAt, HostIr, RouteAt, RouteAtIr, RouteBody};

/// Primary: a host of a listener.
pub type P = HostAt;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct HostView<'t> {
    /// What became of the parents of routes; index [`RouteByHost`].
    pub route_parents: View<'t, (Kind, ObjectKey), RouteParents>,
    /// Gateways of ours.
    pub gateways: Gateways<'t>,
    /// What routes do.
    pub routes: View<'t, RouteAt, RouteAtIr>,
    /// Classes of connected proxies; index [`crate::index::ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// The virtual host. One whose routes all contribute nothing has no entry, so that its requests
/// are not answered by what was written for less specific hosts.
pub fn derive(p: &P, view: &HostView<'_>, reads: &mut Reads) -> Output<HostAt, HostIr, Finding> {
    let found: Vec<_> = view.route_parents.by::<RouteByHost>(reads, p).collect();
    let Some((_, first)) = found.first() else {
        return Output::gone();
    };
    let Some(key) = gateway_of(p, first) else {
        return Output::none();
    };
    let Some(gateway) = wanted(view.gateways, view.proxies, reads, key) else {
        return Output::none();
    };
    let Some(listener) = listener_of(p, gateway).filter(|one| one.is_served) else {
        return Output::none();
    };
    let port = Some((listener.port, listener.protocol == ListenerProtocol::Https));
    let mut routes: Vec<&Arc<RouteAtIr>> = Vec::new();
    for (route, _) in found {
        let at = RouteAt {
            gateway: key.clone(),
            route: route.clone(),
            port,
        };
        routes.extend(view.routes.get(reads, &at));
    }
    routes.sort_by(|a, b| a.age.cmp(&b.age));
    let mut entries: Vec<_> = routes
        .iter()
        .flat_map(|route| match &route.body {
            RouteBody::Requests(entries) => entries.as_slice(),
            RouteBody::Connections(_) => &[],
        })
        .collect();
    entries.sort_by_key(|entry| entry.rank);
    let domain = domain(&p.host);
    let bytes = emit::virtual_host(
        format!("{domain}:{}", listener.port),
        &domain,
        entries.into_iter().map(|entry| &entry.bytes),
    );
    Output::one(p.clone(), HostIr { bytes })
}

/// A host as Envoy compares it.
pub(super) fn domain(host: &Str) -> Str {
    Str::from(host.to_ascii_lowercase())
}

/// The Gateway of a listener, as a route that it takes knows it.
fn gateway_of<'r>(p: &P, row: &'r RouteParents) -> Option<&'r ObjectKey> {
    let (owner, name) = &p.listener;
    let parent = row.parents.iter().find(|parent| {
        let mut taken = parent.taken.iter();
        taken.any(|one| one.owner == *owner && one.listener == *name)
    })?;
    Some(&parent.gateway)
}

fn listener_of<'r>(p: &P, gateway: &'r GatewayRow) -> Option<&'r ListenerRow> {
    let (owner, name) = &p.listener;
    let mut listeners = gateway.listeners.iter();
    listeners.find(|one| one.owner == *owner && one.name == *name)
}
