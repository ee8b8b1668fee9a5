//! Stage `clusters`: the clusters of a service, at its own waypoint and at those whose
//! routes lead to it. Source: spec/envoy-config.md §3.3, §3.6.

use std::collections::{BTreeMap, BTreeSet};

use flow::{Output, Reads, View};
use model::derived::{AppProtocol, NeedsWaypoint, PortRow};
use model::input::{DestinationRule, Resolution, Subset, Transport};
use model::{
    Finding, GatewayRow, Labels, MeshRow, NamespacedHostname, ObjectKey, Parsed, ProxyClass,
    ServiceRow, Str, WorkloadRow, WorkloadUid,
};

use crate::attachment::{
    chains_of, dynamic_host, inbound_name, mesh_row, outbound_name, served_by,
};
use crate::backend_tls::{self, BackendTlsRow};
use crate::east_west::{self, crossings::Crossings};
use crate::index::{
    ChainByDestination, ListenerByDestination, RoutesByDestination, WorkloadByService,
};
use crate::ingress::index::RouteAtByDestination;
use crate::ingress::waypoint;
use crate::ir::{
    ChainIr, ClassResource, ClusterIr, ClusterPolicy, CrossingIr, Direction, Discovery,
    DnsEndpoint, ListenerIr, LocalityPolicy, Outbound, RouteAt, RouteAtIr, RoutesIr, Upstream,
    WaypointResource,
};
use crate::traffic::tls::Backend;
use crate::traffic::{self, Resolved, Seen, TrafficTables};

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
    /// Listeners; index [`ListenerByDestination`].
    pub listeners: View<'t, ClassResource, ListenerIr>,
    /// What routes do at ingress gateways; index [`RouteAtByDestination`].
    pub ingress_routes: View<'t, RouteAt, RouteAtIr>,
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// Policies for TLS of backends; index [`backend_tls::BackendTlsByService`].
    pub backend_tls: View<'t, ObjectKey, BackendTlsRow>,
    /// Rules; index [`crate::index::DestinationRuleByHost`].
    pub destination_rules: View<'t, ObjectKey, Parsed<DestinationRule>>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// Services that other networks reach.
    pub crossings: Crossings<'t>,
    /// Classes of connected proxies; indexes [`crate::index::ClassByGateway`] and
    /// [`crate::east_west::index::ClassByRole`].
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
    let mesh = &*mesh_row(view.mesh, reads);
    let mut rows: BTreeMap<WaypointResource, ClusterIr> = BTreeMap::new();
    let mut add = |waypoint: &ObjectKey, cluster: ClusterIr| {
        let key = WaypointResource::new(waypoint.clone(), cluster.name.clone());
        rows.entry(key).or_insert(cluster);
    };
    for waypoint in served_by(view.proxies, reads, service) {
        let site = Site::new(Direction::InboundVip, waypoint, service, mesh, view, reads);
        for port in &service.ports {
            for cluster in inbound(&site, port, view, reads) {
                add(waypoint, cluster);
            }
        }
    }
    if let Some(crossing) = view.crossings.get(reads, p) {
        for gateway in east_west::connected(view.gateways, view.proxies, reads) {
            let ports = crossing.ports.iter();
            ports.for_each(|port| add(&gateway, across(service, *port, crossing)));
        }
    }
    for (waypoint, number, subset) in callers(p, view, reads) {
        let row = service.ports.iter().find(|port| port.port == number);
        let Some(port) = row.filter(|port| port.transport == Transport::Tcp) else {
            continue;
        };
        let site = Site::new(Direction::Outbound, &waypoint, service, mesh, view, reads);
        if waypoint::applies(view.gateways, reads, &waypoint, service) {
            add(&waypoint, through_waypoint(&site, port));
        } else if let Some(cluster) = outbound(&site, port, &subset, view, reads) {
            add(&waypoint, cluster);
        }
    }
    Output::from(rows.into_iter().collect::<Vec<_>>())
}

/// A service at a waypoint, and the rules for it.
struct Site<'a, 't> {
    seen: Seen<'a>,
    rules: Option<Resolved<'t>>,
}

impl<'a, 't> Site<'a, 't> {
    fn new(
        direction: Direction,
        waypoint: &'a ObjectKey,
        service: &'a ServiceRow,
        mesh: &'a MeshRow,
        view: &ClusterView<'t>,
        reads: &mut Reads,
    ) -> Self {
        let seen = Seen {
            waypoint,
            direction,
            service,
            mesh,
        };
        let tables = TrafficTables {
            destination_rules: view.destination_rules,
        };
        let rules = traffic::resolve(tables, reads, &seen);
        Self { seen, rules }
    }

    fn subset(&self, name: &str) -> Option<&'t Subset> {
        self.rules.as_ref()?.subset(name)
    }

    /// A cluster with all that rules say of it. `None` where nothing could stand behind it.
    fn cluster(
        &self,
        port: &PortRow,
        subset: Option<&Subset>,
        named: Named,
        view: &ClusterView<'_>,
        reads: &mut Reads,
    ) -> Option<ClusterIr> {
        let service = self.seen.service;
        let labels = subset.map(|subset| subset.labels.clone());
        let labels = labels.unwrap_or_default();
        let discovery = discovery(view, reads, service, port, &labels)?;
        let mut cluster = ClusterIr {
            name: named.name,
            service: service.key.clone(),
            service_name: service.name.clone(),
            port: port.port,
            subset: named.subset,
            direction: self.seen.direction,
            discovery,
            upstream: upstream(port.protocol),
            subset_labels: labels,
            policy: ClusterPolicy::default(),
            locality: LocalityPolicy::default(),
        };
        let name = subset.map_or("", |subset| subset.name.as_str());
        let rules = self.rules.as_ref();
        let policy = rules.map(|rules| traffic::policy_of(rules, port.port, name));
        let mut policy = policy.unwrap_or_default();
        if policy.base.tls.is_none() {
            policy.backend = self.backend(port, view, reads);
        }
        traffic::cluster::apply(&mut cluster, policy, &self.seen, port, named.http);
        Some(cluster)
    }
}

impl Site<'_, '_> {
    /// What a BackendTLSPolicy says of a port.
    fn backend(
        &self,
        port: &PortRow,
        view: &ClusterView<'_>,
        reads: &mut Reads,
    ) -> Option<Backend> {
        let service = &self.seen.service.key;
        let row = backend_tls::of_port(view.backend_tls, reads, service, &port.name)?;
        let gateway = view.gateways.get(reads, self.seen.waypoint);
        Some(backend_tls::opening(row, gateway.map(|row| &**row)))
    }
}

/// What a cluster is called, and for what it is.
struct Named {
    name: Str,
    subset: Str,
    http: bool,
}

/// The clusters of a port of a service behind the waypoint: one per kind, and of each one per
/// subset.
fn inbound(
    site: &Site<'_, '_>,
    port: &PortRow,
    view: &ClusterView<'_>,
    reads: &mut Reads,
) -> Vec<ClusterIr> {
    let service = site.seen.service;
    let Some(chains) = chains_of(service, port) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    // Hosts that are resolved per request are one to a request: nothing is told apart.
    let rules = site.rules.as_ref();
    let subsets = rules
        .filter(|_| service.resolution != Resolution::DynamicDns)
        .into_iter()
        .flat_map(Resolved::subsets);
    let all: Vec<Option<&Subset>> = [None].into_iter().chain(subsets.map(Some)).collect();
    for (kind, http, wanted) in [("http", true, chains.http()), ("tcp", false, chains.tcp())] {
        if !wanted {
            continue;
        }
        for subset in &all {
            let kind = match subset {
                Some(subset) => arcstr::format!("{kind}/{}", subset.name),
                None => Str::from(kind),
            };
            let named = Named {
                name: inbound_name(port.port, &kind, &service.wire_host()),
                subset: kind,
                http,
            };
            out.extend(site.cluster(port, *subset, named, view, reads));
        }
    }
    out
}

/// The cluster of a port, or of a subset of it, that a route of elsewhere leads to.
fn outbound(
    site: &Site<'_, '_>,
    port: &PortRow,
    subset: &Str,
    view: &ClusterView<'_>,
    reads: &mut Reads,
) -> Option<ClusterIr> {
    let found = site.subset(subset);
    if found.is_none() && !subset.is_empty() {
        return None;
    }
    let named = Named {
        name: outbound_name(port.port, subset, &site.seen.service.wire_host()),
        subset: subset.clone(),
        http: port.protocol.is_http() || port.protocol == AppProtocol::Unknown,
    };
    site.cluster(port, found, named, view, reads)
}

/// The cluster of a service that an ingress gateway reaches through its waypoint. Whom the
/// waypoint chooses and how it speaks to them is its own matter.
fn through_waypoint(site: &Site<'_, '_>, port: &PortRow) -> ClusterIr {
    let service = site.seen.service;
    ClusterIr {
        name: outbound_name(port.port, "", &service.wire_host()),
        service: service.key.clone(),
        service_name: service.name.clone(),
        port: port.port,
        subset: Str::new(),
        direction: Direction::Outbound,
        discovery: Discovery::Eds,
        upstream: upstream(port.protocol),
        subset_labels: Labels::default(),
        policy: ClusterPolicy::default(),
        locality: LocalityPolicy::default(),
    }
}

/// The cluster of a port at a gateway between networks, which leaves everything to who opened
/// the inner tunnel and whom it leads to.
fn across(service: &ServiceRow, port: u16, crossing: &CrossingIr) -> ClusterIr {
    ClusterIr {
        name: east_west::crossing_name(port, crossing),
        service: service.key.clone(),
        service_name: service.name.clone(),
        port,
        subset: arcstr::literal!("tcp"),
        direction: Direction::Crossing,
        discovery: Discovery::Eds,
        upstream: Upstream::Http1,
        subset_labels: Labels::default(),
        policy: ClusterPolicy::default(),
        locality: LocalityPolicy::default(),
    }
}

/// The waypoints that lead to a service from elsewhere, and to which of its ports
/// and subsets.
fn callers(p: &P, view: &ClusterView<'_>, reads: &mut Reads) -> BTreeSet<(ObjectKey, u16, Str)> {
    let mut out = BTreeSet::new();
    let mut add = |key: &WaypointResource, outbound: &BTreeSet<Outbound>| {
        let ports = outbound.iter().filter(|to| to.service == *p);
        out.extend(ports.map(|to| (key.waypoint.clone(), to.port, to.subset.clone())));
    };
    for (key, routes) in view.route_configs.by::<RoutesByDestination>(reads, p) {
        add(key, &routes.outbound);
    }
    for (key, chain) in view.chains.by::<ChainByDestination>(reads, p) {
        add(key, &chain.outbound);
    }
    for (key, listener) in view.listeners.by::<ListenerByDestination>(reads, p) {
        let ports = listener.outbound().filter(|to| to.service == *p);
        out.extend(ports.map(|to| (key.class.gateway.clone(), to.port, to.subset.clone())));
    }
    for (key, route) in view.ingress_routes.by::<RouteAtByDestination>(reads, p) {
        let ports = route.outbound.iter().filter(|to| to.service == *p);
        out.extend(ports.map(|to| (key.gateway.clone(), to.port, to.subset.clone())));
    }
    out
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

/// How the endpoints with these labels are found; `None` leaves the cluster out, because a DNS
/// cluster without any name has nothing to resolve, and only plain HTTP has a host to be
/// resolved per request.
fn discovery(
    view: &ClusterView<'_>,
    reads: &mut Reads,
    service: &ServiceRow,
    port: &PortRow,
    labels: &Labels,
) -> Option<Discovery> {
    match service.resolution {
        Resolution::Static => Some(Discovery::Eds),
        Resolution::None => Some(Discovery::OriginalDst),
        Resolution::Dns => {
            let mut targets = dns(view, reads, service, port, labels);
            let races = service.needs_waypoint == Some(NeedsWaypoint::RacingConnect);
            match targets.pop() {
                None => None,
                // Addresses of one name are raced; several names are told apart.
                Some(only) if races && targets.is_empty() => Some(Discovery::LogicalDns(only)),
                Some(last) => {
                    targets.push(last);
                    Some(Discovery::StrictDns(targets))
                }
            }
        }
        Resolution::DnsRoundRobin => dns(view, reads, service, port, labels)
            .into_iter()
            .next()
            .map(Discovery::LogicalDns),
        Resolution::DynamicDns => dynamic_host(service, port).map(Discovery::Dynamic),
    }
}

fn dns(
    view: &ClusterView<'_>,
    reads: &mut Reads,
    service: &ServiceRow,
    port: &PortRow,
    labels: &Labels,
) -> Vec<DnsEndpoint> {
    let mut targets = Vec::new();
    let covers = |workload: &WorkloadRow| {
        let mut labels = labels.iter();
        labels.all(|(key, value)| workload.labels.get(key) == Some(value))
    };
    for (_, workload) in view.workloads.by::<WorkloadByService>(reads, &service.key) {
        if !covers(workload) {
            continue;
        }
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
