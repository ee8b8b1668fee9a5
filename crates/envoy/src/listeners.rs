//! Stage `listeners`: the listeners of a proxy class: three of a waypoint, of an ingress gateway
//! what [`crate::ingress`] says, and of a gateway between networks what [`crate::east_west`] does. Source: spec/envoy-config.md §2, §6.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use flow::{Output, Reads, View};
use ipnet::IpNet;
use model::proxy::{IpFamilies, StringFactory};
use model::{
    Finding, MeshRow, NamespacedHostname, ObjectKey, ProxyClass, ProxyRole, Str, WaypointRow,
    WorkloadUid,
};

use crate::attachment::inbound_name;
use crate::attachment::mesh_row;
use crate::authz::{self, Layer, Place, PolicyTables};
use crate::east_west::{self, crossings::Crossings};
use crate::index::{AttachmentByWaypoint, DirectByWaypoint, EncodedByWaypoint};
use crate::ingress::{self, IngressTables};
use crate::ir::{
    AttachmentIr, ChainBody, ChainFilter, ChainIr, ClassResource, DirectChains, DirectIr,
    EncodedChain, Inspected, ListenerIr, MainIr, Outbound, PortChains, PortTarget, RangeIr,
    RangeTarget, RouteIr, RouteSource, RoutesIr, TcpIr, TlsIr, WaypointResource,
};

/// Primary: the class of connected proxies.
pub type P = ProxyClass;

/// Name of the listener that terminates HBONE.
pub const CONNECT_TERMINATE: Str = arcstr::literal!("connect_terminate");
/// Name of the internal listener with all chains.
pub const MAIN_INTERNAL: Str = arcstr::literal!("main_internal");
/// Name of the internal listener, and of the cluster, that open HBONE.
pub const CONNECT_ORIGINATE: Str = arcstr::literal!("connect_originate");
/// Name of the cluster of pod-IP traffic.
pub const ENCAP: Str = arcstr::literal!("encap");

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ListenerView<'t> {
    /// Classes of connected proxies.
    pub proxies: View<'t, ProxyClass, ()>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// Waypoints.
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// What policies are made of.
    pub policies: PolicyTables<'t>,
    /// Attached services; index [`AttachmentByWaypoint`].
    pub attachments: View<'t, NamespacedHostname, AttachmentIr>,
    /// Attached workloads; index [`DirectByWaypoint`].
    pub directs: View<'t, WorkloadUid, DirectIr>,
    /// Encoded chains; index [`EncodedByWaypoint`].
    pub encoded: View<'t, WaypointResource, EncodedChain>,
    /// What ingress gateways open.
    pub ingress: IngressTables<'t>,
    /// Services that other networks reach; index [`east_west::index::AllCrossings`].
    pub crossings: Crossings<'t>,
}

/// The listeners of a class whose Gateway exists.
pub fn derive(
    p: &P,
    view: &ListenerView<'_>,
    reads: &mut Reads,
) -> Output<ClassResource, ListenerIr, Finding> {
    if view.proxies.get(reads, p).is_none() {
        return Output::gone();
    }
    match p.role {
        ProxyRole::Waypoint => waypoint(p, view, reads),
        ProxyRole::Ingress => ingress::listeners::derive(p, view, reads),
        ProxyRole::EastWest => east_west::listeners::derive(p, view, reads),
    }
}

fn waypoint(
    p: &P,
    view: &ListenerView<'_>,
    reads: &mut Reads,
) -> Output<ClassResource, ListenerIr, Finding> {
    let Some(waypoint) = view.waypoints.get(reads, &p.gateway) else {
        return Output::none();
    };
    let mesh = &*mesh_row(view.mesh, reads);
    let terminate = ListenerIr::ConnectTerminate {
        bind: bind(p),
        tls: tls(p, mesh),
        strings: p.strings,
        istio: p.istio,
        tells_source: false,
    };
    let attached = authz::attached(&view.policies, reads, mesh, waypoint, None);
    let direct = |name, layer| {
        let filters = attached.filters(mesh, Place::of(layer));
        direct_chain(name, mesh, waypoint.forwards_identity, filters)
    };
    let direct = DirectChains {
        tcp: direct("direct-tcp", Layer::Tcp),
        http: direct("direct-http", Layer::Http),
    };
    let main = main_internal(p, view, reads, mesh, direct);
    let key = |name: Str| ClassResource::new(p.clone(), name);
    Output::from(vec![
        (key(CONNECT_TERMINATE), terminate),
        (key(MAIN_INTERNAL), ListenerIr::Main(Box::new(main))),
        (key(CONNECT_ORIGINATE), ListenerIr::ConnectOriginate),
    ])
}

/// The addresses of a port: the one that the node names, else the wildcards of its families.
pub(crate) fn bind(class: &ProxyClass) -> Vec<IpAddr> {
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    match (class.bind, class.families) {
        (Some(ip), _) => vec![ip],
        (None, IpFamilies::V4) => vec![v4],
        (None, IpFamilies::V6) => vec![v6],
        (None, IpFamilies::Dual) => vec![v4, v6],
    }
}

/// TLS of HBONE for a class.
pub(crate) fn tls(class: &ProxyClass, mesh: &MeshRow) -> TlsIr {
    let trust_domains = authz::bundle(mesh).into_iter().cloned().collect();
    TlsIr {
        trust_domains,
        secrets: class.secrets,
    }
}

fn main_internal(
    class: &ProxyClass,
    view: &ListenerView<'_>,
    reads: &mut Reads,
    mesh: &MeshRow,
    direct: DirectChains,
) -> MainIr {
    let mut services: Vec<(&NamespacedHostname, &Arc<AttachmentIr>)> = view
        .attachments
        .by::<AttachmentByWaypoint>(reads, &class.gateway)
        .collect();
    services.sort_by_key(|(key, row)| (row.created_s, *key));
    let network = if class.network.is_empty() {
        &mesh.network
    } else {
        &class.network
    };
    let own: Vec<(&AttachmentIr, Own)> = services
        .iter()
        .filter_map(|(_, row)| Some((&***row, own(row, network)?)))
        .collect();
    // Without hashable strings one client could be served by what is another's.
    let is_told_apart = class.strings != StringFactory::EnvoyPlain;
    let named = own.iter().filter(|_| is_told_apart);
    let named = named.filter_map(|(row, own)| Some((row.authority.as_ref()?, &own.ports)));
    let authorities = authorities(named);
    let mut ranges: Vec<RangeIr> = own.into_iter().map(|(_, own)| own.into()).collect();
    let pods: BTreeSet<IpNet> = view
        .directs
        .by::<DirectByWaypoint>(reads, &class.gateway)
        .flat_map(|(_, row)| row.ips.iter().copied().map(IpNet::from))
        .collect();
    let any_workload = !pods.is_empty();
    if any_workload {
        let ranges_of_pods = pods.into_iter().collect();
        ranges.push(RangeIr {
            ranges: ranges_of_pods,
            target: RangeTarget::Workloads,
        });
    }
    let kinds = port_kinds(services.iter().map(|(_, row)| &***row));
    let chains = view.encoded.by::<EncodedByWaypoint>(reads, &class.gateway);
    MainIr {
        authorities,
        ranges,
        http_inspector: http_inspector(&kinds, any_workload),
        tls_inspector: tls_inspector(&kinds),
        chains: chains.filter_map(|(_, row)| form(class, row)).collect(),
        direct: Some(direct),
        istio: class.istio,
    }
}

/// What leads to a service: its addresses here and its ports, neither empty.
struct Own {
    ranges: Vec<IpNet>,
    ports: BTreeMap<u16, PortTarget>,
}

impl From<Own> for RangeIr {
    fn from(Own { ranges, ports }: Own) -> Self {
        Self {
            ranges,
            target: RangeTarget::Service(ports),
        }
    }
}

/// `host:port` of services; the first of a name counts.
pub(crate) fn authorities<'a>(
    services: impl Iterator<Item = (&'a Str, &'a BTreeMap<u16, PortTarget>)>,
) -> BTreeMap<Str, PortTarget> {
    let mut out = BTreeMap::new();
    for (host, ports) in services {
        for (port, target) in ports {
            let name = arcstr::format!("{host}:{port}");
            out.entry(name).or_insert_with(|| target.clone());
        }
    }
    out
}

/// What leads to a service; `None` when it has no address here or no port.
fn own(row: &AttachmentIr, network: &Str) -> Option<Own> {
    let here = |on: &Str| on.is_empty() || on == network;
    let ranges: BTreeSet<IpNet> = row
        .vips
        .iter()
        .filter(|(on, _)| here(on))
        .map(|(_, net)| *net)
        .collect();
    let target = |port: u16, chains: PortChains| {
        let http = inbound_name(port, "http", &row.host);
        let tcp = inbound_name(port, "tcp", &row.host);
        match chains {
            PortChains::Http => PortTarget::Chain(http),
            PortChains::Tcp | PortChains::Tls => PortTarget::Chain(tcp),
            PortChains::Sniffed => PortTarget::Sniffed { http, tcp },
        }
    };
    let ports: BTreeMap<u16, PortTarget> = row
        .ports
        .iter()
        .map(|(port, chains)| (*port, target(*port, *chains)))
        .collect();
    (!ranges.is_empty() && !ports.is_empty()).then(|| Own {
        ranges: ranges.into_iter().collect(),
        ports,
    })
}

/// Every kind that some service gives a port.
fn port_kinds<'a>(
    services: impl Iterator<Item = &'a AttachmentIr>,
) -> BTreeMap<u16, BTreeSet<PortChains>> {
    let mut kinds: BTreeMap<u16, BTreeSet<PortChains>> = BTreeMap::new();
    for row in services {
        for (port, chains) in &row.ports {
            kinds.entry(*port).or_default().insert(*chains);
        }
    }
    kinds
}

/// A chain in the form of a class.
fn form(class: &ProxyClass, row: &EncodedChain) -> Option<Bytes> {
    if class.istio {
        row.istio.clone()
    } else {
        Some(row.bytes.clone())
    }
}

/// HTTP is sniffed on ports that are neither HTTP for every service nor TCP for every service.
/// With any workload attached every port may be anything; with nothing attached nobody connects,
/// so that a change costs nothing.
fn http_inspector(kinds: &BTreeMap<u16, BTreeSet<PortChains>>, any_workload: bool) -> Inspected {
    if any_workload || kinds.is_empty() {
        return Inspected::Everywhere;
    }
    let certain = |kinds: &BTreeSet<PortChains>| {
        kinds.iter().all(|kind| *kind == PortChains::Http)
            || kinds
                .iter()
                .all(|kind| matches!(kind, PortChains::Tcp | PortChains::Tls))
    };
    let ports = kinds.iter().filter(|(_, kinds)| !certain(kinds));
    Inspected::Ports(ports.map(|(port, _)| *port).collect())
}

/// TLS is sniffed on ports that carry it for some service.
fn tls_inspector(kinds: &BTreeMap<u16, BTreeSet<PortChains>>) -> BTreeSet<u16> {
    let ports = kinds
        .iter()
        .filter(|(_, kinds)| kinds.contains(&PortChains::Tls));
    ports.map(|(port, _)| *port).collect()
}

/// A chain of traffic addressed to pods: only policies of the whole waypoint apply.
fn direct_chain(
    name: &'static str,
    mesh: &MeshRow,
    forwards_identity: bool,
    (filters, outbound): (Vec<ChainFilter>, BTreeSet<Outbound>),
) -> ChainIr {
    let body = if name == "direct-http" {
        let default = arcstr::literal!("default");
        let route = RouteIr::everything(default, ENCAP, arcstr::literal!("encap:0/*"));
        ChainBody::Http {
            http2: false,
            grpc_web: false,
            normalization: ChainFilter::normalization(&filters, mesh.traffic.path_normalization),
            forwards_identity,
            dynamic_host: None,
            routes: RouteSource::Inline(Box::new(RoutesIr {
                name: Str::from(name),
                port: 0,
                domain: arcstr::literal!("*"),
                routes: vec![route],
                outbound: BTreeSet::new(),
            })),
        }
    } else {
        ChainBody::Tcp(TcpIr::to(ENCAP))
    };
    ChainIr {
        name: Str::from(name),
        port: 0,
        filters,
        body,
        republish_destination: true,
        outbound,
    }
}
