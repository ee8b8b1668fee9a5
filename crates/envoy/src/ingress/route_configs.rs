//! Stage `ingress::route_configs`: a Gateway → its route configurations: one for each port of
//! plain HTTP, one for each listener of HTTPS. Source: spec/envoy-config.md §6.2, §6.4;
//! spec/gateway-api.md §6.1.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use flow::{Output, Reads, View};
use gateway::hostnames;
use model::gateway::{ListenerProtocol, ListenerRow};
use model::{
    Finding, NamespacedHostname, ObjectKey, ProxyClass, ServiceRow, Str, WorkloadRow, WorkloadUid,
};

use super::hosts::domain;
use super::index::HostByListener;
use super::servers::{self, Hosts, Ports, Served};
use super::{Gateways, wanted};
use crate::emit;
use crate::ir::{EncodedRoutes, HostAt, HostIr, WaypointResource};

/// Primary: a Gateway.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct IngressConfigView<'t> {
    /// Gateways of ours.
    pub gateways: Gateways<'t>,
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`crate::index::WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Virtual hosts; index [`HostByListener`].
    pub hosts: View<'t, HostAt, HostIr>,
    /// Classes of connected proxies; index [`crate::index::ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// One row for each configuration.
pub fn derive(
    p: &P,
    view: &IngressConfigView<'_>,
    reads: &mut Reads,
) -> Output<WaypointResource, EncodedRoutes, Finding> {
    let Some(gateway) = wanted(view.gateways, view.proxies, reads, p) else {
        return Output::gone();
    };
    let ports = Ports {
        services: view.services,
        workloads: view.workloads,
    };
    let mut configs: BTreeMap<Str, Vec<Served<'_>>> = BTreeMap::new();
    for served in servers::of(gateway, ports, reads) {
        if is_of_requests(served.listener) {
            let name = servers::config_name(served);
            configs.entry(name).or_default().push(served);
        }
    }
    // One that cannot be served for its defects has its hosts all the same: another must not serve
    // them without what it asks for, such as a certificate of the client.
    let all = Hosts::grouped(&gateway.listeners, |one| {
        (one.is_built && is_of_requests(one)).then(|| group(one))
    });
    let rows = configs.into_iter().map(|(name, servers)| {
        let bytes = config(&name, &servers, &all, view, reads);
        let key = WaypointResource::new(p.clone(), name.clone());
        (key, EncodedRoutes { name, bytes })
    });
    Output::from(rows.collect::<Vec<_>>())
}

fn is_of_requests(listener: &ListenerRow) -> bool {
    matches!(
        listener.protocol,
        ListenerProtocol::Http | ListenerProtocol::Https
    )
}

/// The virtual hosts of some listeners. A host is served by its most specific listener alone,
/// and one that has no route for it answers 404.
fn config(
    name: &Str,
    servers: &[Served<'_>],
    all: &BTreeMap<Group, Hosts>,
    view: &IngressConfigView<'_>,
    reads: &mut Reads,
) -> Bytes {
    let mut hosts: BTreeMap<Str, Bytes> = BTreeMap::new();
    for Served { listener, .. } in servers {
        let id = (listener.owner.clone(), listener.name.clone());
        let alike = all.get(&group(listener));
        for (at, row) in view.hosts.by::<HostByListener>(reads, &id) {
            if !is_domain(&at.host) || alike.is_some_and(|all| !all.give(listener, &at.host)) {
                continue;
            }
            if let Entry::Vacant(entry) = hosts.entry(domain(&at.host)) {
                entry.insert(row.bytes.clone());
            }
        }
    }
    for Served { listener, .. } in servers {
        let alike = all.get(&group(listener));
        let own = listener.hostname.as_deref();
        let within = alike.map_or_else(Vec::new, |all| all.within(own));
        for domain in within.into_iter().filter(|host| is_domain(host)) {
            let empty = || {
                let name = format!("{domain}:{}", listener.port);
                emit::virtual_host(name, &domain, std::iter::empty())
            };
            hosts.entry(domain.clone()).or_insert_with(empty);
        }
    }
    if hosts.is_empty() {
        let port = servers.first().map_or(0, |served| served.listener.port);
        let any = Str::from(hostnames::ANY);
        let nothing = emit::virtual_host(format!("blackhole:{port}"), &any, std::iter::empty());
        hosts.insert(any, nothing);
    }
    emit::route_configuration(name, hosts.values())
}

/// Port of a listener and whether it speaks HTTPS: those alike are told apart by hosts.
type Group = (u16, bool);

fn group(listener: &ListenerRow) -> Group {
    (listener.port, listener.protocol == ListenerProtocol::Https)
}

/// Whether Envoy takes a text for a domain; one that it does not would cost all the others.
fn is_domain(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic())
}
