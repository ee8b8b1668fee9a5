//! The intermediate representation: what Envoy shall do, in our own ordered types.
//!
//! Every stage of this crate derives these rows; only [`crate::emit`] knows how Envoy
//! spells them. Equal IR means equal bytes, so an equal row stops a push.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use model::derived::Locality;
use model::{NamespacedHostname, ObjectKey, ProxyClass, Str};

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
    /// Addresses with the network that each lives on.
    pub vips: Vec<(Str, IpNet)>,
    /// Chains by port.
    pub ports: BTreeMap<u16, PortChains>,
}

/// A workload as the matcher of a waypoint sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectIr {
    /// The waypoint.
    pub waypoint: ObjectKey,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

// === Conditions ===

/// A typed string condition; never a regular expression made of user text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StrMatch {
    /// Equal.
    Exact(Str),
    /// Starts with.
    Prefix(Str),
    /// Ends with.
    Suffix(Str),
    /// Contains.
    Contains(Str),
    /// Any non-empty value.
    Present,
}

/// One attribute of a request or connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// Path without query.
    Path(StrMatch),
    /// Path by an Envoy URI template (`*` one segment, `**` any number at the end).
    PathTemplate(Str),
    /// A header: name, condition, whether case is ignored.
    Header(Str, StrMatch, bool),
    /// Destination port: of the service, or of the pod on direct chains.
    Port(u16),
    /// Destination address.
    DestinationIp(IpNet),
    /// Server name of TLS.
    Sni(StrMatch),
    /// Peer identity, a SPIFFE URI.
    Identity(StrMatch),
    /// Client address as HBONE carried it.
    SourceIp(IpNet),
}

/// A boolean expression. `AnyOf(vec![])` is false and `AllOf(vec![])` is true.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expr {
    /// Every one holds.
    AllOf(Vec<Expr>),
    /// At least one holds.
    AnyOf(Vec<Expr>),
    /// It does not hold.
    Not(Box<Expr>),
    /// An attribute.
    Is(Fact),
}

impl Expr {
    /// The condition that nothing meets.
    pub fn never() -> Self {
        Self::AnyOf(Vec::new())
    }

    /// The condition that everything meets.
    pub fn always() -> Self {
        Self::AllOf(Vec::new())
    }

    /// The negation.
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }
}

/// Action of an RBAC filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RbacAction {
    /// Note matches.
    Log,
    /// Refuse matches.
    Deny,
    /// Refuse everything else.
    Allow,
}

/// One rule of a policy: some permission and some principal must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RbacRuleIr {
    /// About the destination and the request; one must hold.
    pub permissions: Vec<Expr>,
    /// About the source and the headers; one must hold.
    pub principals: Vec<Expr>,
}

/// An RBAC filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RbacIr {
    /// Action.
    pub action: RbacAction,
    /// Enforced rules by policy key; `None` emits no enforcement at all, while an empty
    /// map of an ALLOW filter refuses everything.
    pub rules: Option<BTreeMap<Str, RbacRuleIr>>,
    /// Rules that are evaluated only (dry run).
    pub shadow: Option<BTreeMap<Str, RbacRuleIr>>,
}

// === Chains ===

/// Path condition of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutePath {
    /// Every path.
    Any,
    /// Equal.
    Exact(Str),
    /// Prefix by segments, without trailing slash.
    Prefix(Str),
    /// RE2, full match: the field is a regular expression by definition.
    Regex(Str),
}

/// Condition on a header or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteValue {
    /// Equal.
    Exact(Str),
    /// RE2, full match.
    Regex(Str),
    /// Present.
    Present,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Forward to clusters by weight; at least one, each weight above 0.
    Forward(Vec<(Str, u32)>),
    /// Answer with a status and no body.
    Respond(u16),
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteIr {
    /// Name that access logs show.
    pub name: Str,
    /// Path.
    pub path: RoutePath,
    /// Headers, the method among them as `:method`.
    pub headers: Vec<(Str, RouteValue)>,
    /// Query parameters.
    pub query: Vec<(Str, RouteValue)>,
    /// Action.
    pub action: RouteAction,
    /// Operation name of traces.
    pub operation: Str,
    /// Made from a Gateway API object, so a missing cluster answers 500 instead of 503.
    pub from_object: Option<ObjectKey>,
}

/// A filter chain of `main_internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainIr {
    /// Name, equal to the name of its cluster on service chains.
    pub name: Str,
    /// Service port, 0 on direct chains.
    pub port: u16,
    /// RBAC filters in order.
    pub authz: Vec<RbacIr>,
    /// What is spoken.
    pub body: ChainBody,
    /// Publishes the original destination again, for direct chains.
    pub republish_destination: bool,
    /// Destinations that this chain routes to through `outbound` clusters.
    pub outbound: BTreeSet<(NamespacedHostname, u16)>,
}

/// What a chain speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainBody {
    /// HTTP.
    Http {
        /// Upstream and downstream are HTTP/2 (also gRPC).
        http2: bool,
        /// gRPC-Web is translated.
        grpc_web: bool,
        /// Routes in order; never empty.
        routes: Vec<RouteIr>,
    },
    /// Opaque bytes to one cluster.
    Tcp {
        /// The cluster.
        cluster: Str,
    },
}

/// A chain as the bytes of an Envoy `FilterChain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedChain {
    /// Canonical encoding.
    pub bytes: Bytes,
}

/// The two chains of traffic addressed to pods. Source: spec/envoy-config.md §2.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectChains {
    /// `direct-tcp`.
    pub tcp: ChainIr,
    /// `direct-http`.
    pub http: ChainIr,
}

// === Clusters and endpoints ===

/// Largest weight of an endpoint: Envoy refuses endpoints whose weights sum beyond 32 bits.
pub const ENDPOINT_WEIGHT_MAX: u32 = 65_535;

/// How a cluster finds its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// EDS over ADS.
    Eds,
    /// The original destination.
    OriginalDst,
    /// DNS, every answer an endpoint.
    StrictDns(Vec<DnsEndpoint>),
    /// DNS, one answer at a time.
    LogicalDns(DnsEndpoint),
}

/// A target of a DNS cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsEndpoint {
    /// Host name or address.
    pub host: Str,
    /// Port.
    pub port: u16,
    /// Weight, at least 1.
    pub weight: u32,
}

/// HTTP version towards the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// HTTP/1.1, or not HTTP at all.
    Http1,
    /// HTTP/2.
    Http2,
    /// As the client.
    Downstream,
}

/// Which of its two forms a service cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `inbound-vip`: of a service behind the waypoint.
    InboundVip,
    /// `outbound`: of a service elsewhere that a route names.
    Outbound,
}

/// A cluster of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterIr {
    /// Name.
    pub name: Str,
    /// The service.
    pub service: NamespacedHostname,
    /// Name of the object behind the service.
    pub service_name: Str,
    /// Service port.
    pub port: u16,
    /// Subset of telemetry: `http`, `tcp`, or empty.
    pub subset: Str,
    /// Form.
    pub direction: Direction,
    /// Discovery.
    pub discovery: Discovery,
    /// HTTP version.
    pub upstream: Upstream,
}

/// A cluster that depends on the class of the proxy or on nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticClusterIr {
    /// To an internal listener: cluster name, listener name.
    Internal(Str, Str),
    /// `connect_originate`.
    ConnectOriginate(TlsIr),
}

/// TLS of HBONE, both sides. Source: spec/envoy-config.md §2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIr {
    /// Accepted trust domains.
    pub trust_domains: Vec<Str>,
    /// Where the certificate comes from.
    pub secrets: model::proxy::SecretSource,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointIr {
    /// Address.
    pub ip: IpAddr,
    /// Port of the workload.
    pub port: u16,
    /// Reached over HBONE.
    pub tunnel: bool,
    /// Healthy.
    pub healthy: bool,
    /// Weight, at least 1.
    pub weight: u32,
    /// `name;namespace;canonicalName;canonicalRevision;clusterId`.
    pub workload: Str,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsIr {
    /// Cluster name.
    pub name: Str,
    /// Form of the cluster, which decides the metadata.
    pub direction: Direction,
    /// By locality.
    pub localities: BTreeMap<Locality, Vec<EndpointIr>>,
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

/// The listener `main_internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainIr {
    /// Range matchers in order of precedence.
    pub ranges: Vec<RangeIr>,
    /// Ports on which HTTP is not sniffed.
    pub http_inspector_off: BTreeSet<u16>,
    /// Ports on which TLS is not sniffed; `None` leaves the inspector out.
    pub tls_inspector_off: Option<BTreeSet<u16>>,
    /// Service chains, sorted by name.
    pub chains: Vec<Bytes>,
    /// Direct chains.
    pub direct: DirectChains,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerIr {
    /// `connect_terminate`.
    ConnectTerminate {
        /// Bind address; `None` is the IPv4 wildcard.
        bind: Option<IpAddr>,
        /// TLS.
        tls: TlsIr,
        /// Factory of shared strings.
        strings: model::proxy::StringFactory,
    },
    /// `main_internal`.
    Main(Box<MainIr>),
    /// `connect_originate`.
    ConnectOriginate,
}
