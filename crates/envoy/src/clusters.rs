//! Stage `clusters`: the clusters of a service, at its own waypoint and at those whose
//! routes lead to it. Source: spec/envoy-config.md §3.3, §3.6.

use std::collections::{BTreeMap, BTreeSet};

use flow::{Output, Reads, View};
use model::derived::{AppProtocol, PortRow};
use model::input::{Resolution, Transport};
use model::{
    Finding, Labels, NamespacedHostname, ObjectKey, ProxyClass, ServiceRow, Str, WorkloadRow,
    WorkloadUid,
};

use crate::attachment::{inbound_name, port_chains, served_by};
use crate::index::{ChainByDestination, RoutesByDestination, WorkloadByService};
use crate::ir::{
    ChainIr, ClusterIr, ClusterPolicy, Direction, Discovery, DnsEndpoint, LocalityPolicy, Outbound,
    RoutesIr, Upstream, WaypointResource,
};
use crate::routes::outbound_name;

use crate::ir::ENDPOINT_WEIGHT_MAX as WEIGHT_MAX;

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ClusterView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Chains; index [`ChainByDestination`].
    pub chains: View<'t, WaypointResource, ChainIr>,
    /// Route configurations; index [`RoutesByDestination`].
    pub route_configs: View<'t, WaypointResource, RoutesIr>,
    /// Classes of connected proxies; index [`crate::index::ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// One row per cluster.
pub fn derive(
    p: &P,
    view: &ClusterView<'_>,
    reads: &mut Reads,
) -> Output<WaypointResource, ClusterIr, Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let mut rows: BTreeMap<WaypointResource, ClusterIr> = BTreeMap::new();
    let mut add = |waypoint: &ObjectKey, cluster: ClusterIr| {
        let key = WaypointResource::new(waypoint.clone(), cluster.name.clone());
        rows.entry(key).or_insert(cluster);
    };
    let host = &p.hostname;
    for waypoint in served_by(view.proxies, reads, service) {
        for port in &service.ports {
            let Some(chains) = port_chains(port) else {
                continue;
            };
            let Some(discovery) = discovery(view, reads, service, port) else {
                continue;
            };
            let inbound = |kind: &'static str, upstream| ClusterIr {
                name: inbound_name(port.port, kind, host),
                subset: Str::from(kind),
                direction: Direction::InboundVip,
                upstream,
                ..cluster(service, port, discovery.clone())
            };
            if chains.http() {
                add(waypoint, inbound("http", upstream(port.protocol)));
            }
            if chains.tcp() {
                add(waypoint, inbound("tcp", upstream(port.protocol)));
            }
        }
    }
    for (waypoint, number) in callers(p, view, reads) {
        let row = service.ports.iter().find(|port| port.port == number);
        let Some(port) = row.filter(|port| port.transport == Transport::Tcp) else {
            continue;
        };
        if let Some(discovery) = discovery(view, reads, service, port) {
            add(&waypoint, cluster(service, port, discovery));
        }
    }
    Output::from(rows.into_iter().collect::<Vec<_>>())
}

/// The waypoints that lead to a service from elsewhere, and to which of its ports.
fn callers(p: &P, view: &ClusterView<'_>, reads: &mut Reads) -> BTreeSet<(ObjectKey, u16)> {
    let mut out = BTreeSet::new();
    let mut add = |key: &WaypointResource, outbound: &BTreeSet<Outbound>| {
        let ports = outbound.iter().filter(|to| to.service == *p);
        out.extend(ports.map(|to| (key.waypoint.clone(), to.port)));
    };
    for (key, routes) in view.route_configs.by::<RoutesByDestination>(reads, p) {
        add(key, &routes.outbound);
    }
    for (key, chain) in view.chains.by::<ChainByDestination>(reads, p) {
        add(key, &chain.outbound);
    }
    out
}

/// The outbound form; the inbound one differs in name, subset and upstream.
fn cluster(service: &ServiceRow, port: &PortRow, discovery: Discovery) -> ClusterIr {
    ClusterIr {
        name: outbound_name(port.port, &service.key.hostname),
        service: service.key.clone(),
        service_name: service.name.clone(),
        port: port.port,
        subset: Str::new(),
        direction: Direction::Outbound,
        discovery,
        upstream: upstream(port.protocol),
        subset_labels: Labels::new(),
        policy: ClusterPolicy::default(),
        locality: LocalityPolicy::default(),
    }
}

fn upstream(protocol: AppProtocol) -> Upstream {
    if protocol.is_http2() {
        Upstream::Http2
    } else if protocol == AppProtocol::Unknown {
        Upstream::Downstream
    } else {
        Upstream::Http1
    }
}

/// How the endpoints are found; `None` leaves the cluster out, because a DNS cluster
/// without any name has nothing to resolve, and hosts resolved per request are not served.
fn discovery(
    view: &ClusterView<'_>,
    reads: &mut Reads,
    service: &ServiceRow,
    port: &PortRow,
) -> Option<Discovery> {
    match service.resolution {
        Resolution::Static => Some(Discovery::Eds),
        Resolution::None => Some(Discovery::OriginalDst),
        Resolution::Dns => {
            let targets = dns(view, reads, service, port);
            (!targets.is_empty()).then_some(Discovery::StrictDns(targets))
        }
        Resolution::DnsRoundRobin => dns(view, reads, service, port)
            .into_iter()
            .next()
            .map(Discovery::LogicalDns),
        Resolution::DynamicDns => None,
    }
}

fn dns(
    view: &ClusterView<'_>,
    reads: &mut Reads,
    service: &ServiceRow,
    port: &PortRow,
) -> Vec<DnsEndpoint> {
    let mut targets = Vec::new();
    for (_, workload) in view.workloads.by::<WorkloadByService>(reads, &service.key) {
        let host = match workload.addresses.first() {
            Some(ip) => Str::from(ip.to_string()),
            None if workload.hostname.is_empty() => continue,
            None => workload.hostname.clone(),
        };
        let maps = workload.services.get(&service.key).into_iter().flatten();
        targets.extend(
            maps.filter(|map| map.service_port == port.port)
                .map(|map| DnsEndpoint {
                    host: host.clone(),
                    port: map.target_port,
                    weight: workload.capacity.clamp(1, WEIGHT_MAX),
                }),
        );
    }
    targets.sort();
    targets.dedup_by(|a, b| a.host == b.host && a.port == b.port);
    targets
}
