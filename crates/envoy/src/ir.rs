//! The intermediate representation: what Envoy shall do, in our own ordered types.
//!
//! Every stage of this crate derives these rows; only [`crate::emit`] knows how Envoy
//! spells them. Equal IR means equal bytes, so an equal row stops a push.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use model::{ObjectKey, ProxyClass, Str};

mod chain;
mod cluster;
mod ingress;
mod route;

pub use chain::*;
pub use cluster::*;
pub use ingress::*;
pub use route::*;

/// Key of a resource that every proxy of one waypoint shares, whatever its class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaypointResource {
    /// The waypoint.
    pub waypoint: ObjectKey,
    /// Resource name.
    pub name: Str,
}

impl WaypointResource {
    /// From its parts.
    pub fn new(waypoint: ObjectKey, name: impl Into<Str>) -> Self {
        Self {
            waypoint,
            name: name.into(),
        }
    }
}

/// Key of a resource whose content depends on the class of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassResource {
    /// The class.
    pub class: ProxyClass,
    /// Resource name.
    pub name: Str,
}

impl ClassResource {
    /// From its parts.
    pub fn new(class: ProxyClass, name: impl Into<Str>) -> Self {
        Self {
            class,
            name: name.into(),
        }
    }
}

// === Attachments ===

/// Which chains a service port has. Source: spec/envoy-config.md §2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortChains {
    /// The HTTP chain.
    Http,
    /// The TCP chain.
    Tcp,
    /// The TCP chain, of a port that carries TLS.
    Tls,
    /// Both: undeclared, decided by sniffing.
    Sniffed,
}

impl PortChains {
    /// An HTTP chain exists.
    pub fn http(self) -> bool {
        matches!(self, Self::Http | Self::Sniffed)
    }

    /// A TCP chain exists.
    pub fn tcp(self) -> bool {
        !matches!(self, Self::Http)
    }
}

/// A service as the matcher of a waypoint sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentIr {
    /// The waypoints that its traffic may pass.
    pub waypoints: Vec<ObjectKey>,
    /// Creation time: older services win an address shared with younger ones.
    pub created_s: i64,
    /// Host, as it stands in chain names.
    pub host: Str,
    /// Host, as tunnels from other networks name it; `None` where another service has the name,
    /// or where there are no other networks.
    pub authority: Option<Str>,
    /// Addresses with the network that each lives on.
    pub vips: Vec<(Str, IpNet)>,
    /// Chains by port.
    pub ports: BTreeMap<u16, PortChains>,
}

/// A service as gateways between networks see it. Source: spec/envoy-config.md §6.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossingIr {
    /// Creation time: older services win an address shared with younger ones.
    pub created_s: i64,
    /// Host, as it stands in chain names.
    pub host: Str,
    /// Host, as tunnels name it; `None` where another service has the name.
    pub authority: Option<Str>,
    /// Addresses with the network that each lives on.
    pub vips: Vec<(Str, IpNet)>,
    /// Ports, at least one.
    pub ports: BTreeSet<u16>,
    /// The way through its waypoint; `None` without one.
    pub detour: Option<Detour>,
}

/// The way through the waypoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// Chain that leads to the waypoint; `None` where it cannot be used, which refuses.
    pub chain: Option<Str>,
    /// Ingress gateways take it too.
    pub for_ingress: bool,
}

/// A workload as the matcher of a waypoint sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectIr {
    /// The waypoint.
    pub waypoint: ObjectKey,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

// === Chains ===

/// A chain as the bytes of an Envoy `FilterChain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChain {
    /// Canonical encoding for stock Envoy.
    pub bytes: Bytes,
    /// The same in proxyv2's form, while a proxy that wants it is connected.
    pub istio: Option<Bytes>,
}

/// The two chains of traffic addressed to pods. Source: spec/envoy-config.md §2.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectChains {
    /// `direct-tcp`.
    pub tcp: ChainIr,
    /// `direct-http`.
    pub http: ChainIr,
}

impl DirectChains {
    /// What they need `outbound` clusters for.
    pub fn outbound(&self) -> impl Iterator<Item = &Outbound> {
        self.tcp.outbound.iter().chain(&self.http.outbound)
    }
}

// === TLS ===

/// TLS of HBONE, both sides. Source: spec/envoy-config.md §2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIr {
    /// Accepted trust domains.
    pub trust_domains: Vec<Str>,
    /// Where the certificate comes from.
    pub secrets: model::proxy::SecretSource,
}

// === Listeners ===

/// Where the matcher sends a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortTarget {
    /// To a chain.
    Chain(Str),
    /// By sniffing.
    Sniffed {
        /// Chain of HTTP.
        http: Str,
        /// Chain of everything else.
        tcp: Str,
    },
    /// By what opened the outer tunnel, as it says; `None` refuses.
    BySource {
        /// Chain for waypoints: policies are applied already.
        of_waypoints: Str,
        /// Chain for ingress gateways.
        of_gateways: Option<Str>,
        /// Chain for everybody else.
        of_others: Option<Str>,
    },
}

/// One range matcher of the address trie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeIr {
    /// Addresses, never empty.
    pub ranges: Vec<IpNet>,
    /// What lies behind them.
    pub target: RangeTarget,
}

/// What lies behind an address range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeTarget {
    /// A service: chains by port, never empty.
    Service(BTreeMap<u16, PortTarget>),
    /// Workloads: the direct chains.
    Workloads,
}

/// Where an inspector looks at what clients send first. It is stated by the ports that need it
/// and not by those that do not: a service on a port of its own then leaves the listener's
/// filters as they are, and Envoy replaces one filter chain instead of the whole listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// On every port.
    Everywhere,
    /// On these ports only.
    Ports(BTreeSet<u16>),
}

/// The listener `main_internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainIr {
    /// By what tunnels name, `host:port`: looked at before addresses, which networks may share.
    pub authorities: BTreeMap<Str, PortTarget>,
    /// Range matchers in order of precedence.
    pub ranges: Vec<RangeIr>,
    /// Where HTTP is sniffed.
    pub http_inspector: Inspected,
    /// Ports on which TLS is sniffed; without any the inspector is left out.
    pub tls_inspector: BTreeSet<u16>,
    /// Service chains, sorted by name.
    pub chains: Vec<Bytes>,
    /// Direct chains; none at gateways between networks.
    pub direct: Option<DirectChains>,
    /// In proxyv2's form.
    pub istio: bool,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerIr {
    /// `connect_terminate`.
    ConnectTerminate {
        /// Addresses to bind, at least one.
        bind: Vec<IpAddr>,
        /// TLS.
        tls: TlsIr,
        /// Factory of shared strings.
        strings: model::proxy::StringFactory,
        /// In proxyv2's form.
        istio: bool,
        /// What opened the tunnel counts.
        tells_source: bool,
    },
    /// `main_internal`.
    Main(Box<MainIr>),
    /// `connect_originate`.
    ConnectOriginate,
    /// `forward_inner_connect`.
    ForwardInnerConnect,
    /// A port of an ingress gateway.
    Gateway(Box<GatewayListenerIr>),
}

impl ListenerIr {
    /// What its own chains need `outbound` clusters for.
    pub fn outbound(&self) -> Box<dyn Iterator<Item = &Outbound> + '_> {
        match self {
            Self::Main(main) => Box::new(main.direct.iter().flat_map(DirectChains::outbound)),
            Self::Gateway(ir) => Box::new(ir.chains.iter().flat_map(|chain| &chain.outbound)),
            Self::ConnectTerminate { .. } | Self::ConnectOriginate | Self::ForwardInnerConnect => {
                Box::new(std::iter::empty())
            }
        }
    }
}
