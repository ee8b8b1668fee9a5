//! Clusters and endpoints. Source: spec/envoy-config.md §3, §4.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use model::derived::Locality;
use model::input::{Http2Keepalive, OutlierDetection, RetryBudget, TcpKeepalive, Warmup};
use model::{Labels, NamespacedHostname, ObjectKey, Str};

use super::{DynamicHost, TlsIr};

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
    /// The host of each request is resolved.
    Dynamic(DynamicHost),
    /// Nobody: what was asked for cannot be done safely.
    Nobody,
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
    /// `inbound-vip` of a gateway between networks: inner tunnels are handed on.
    Crossing,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// The one with fewer requests of two.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// By a hash on a ring of at least this many entries.
    RingHash(u64),
    /// By Maglev, with a table of this size.
    Maglev(Option<u64>),
}

/// TLS inside the tunnel, or instead of it. Source: spec/policy-and-traffic.md §7.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTlsIr {
    /// SNI, empty = the host of the request.
    pub sni: Str,
    /// Accepted names, exact; empty = the SNI, when that is taken from the request too.
    pub subject_alt_names: Vec<Str>,
    /// The server's certificate is not checked.
    pub insecure: bool,
    /// Who vouches for the server.
    pub authority: TlsAuthority,
    /// The client's own certificate.
    pub certificate: Option<TlsCertificate>,
    /// `h2` is offered.
    pub h2: bool,
}

/// Who vouches for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsAuthority {
    /// The roots of the proxy's system.
    System,
    /// A file of the proxy, with its revocation list if there is one.
    File(Str, Option<Str>),
    /// A secret over ADS, by resource name.
    Secret(Str),
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsCertificate {
    /// Files of the proxy: certificate and key.
    Files(Str, Str),
    /// A secret over ADS, by resource name.
    Secret(Str),
}

/// What traffic policies say of a cluster, resolved: nothing of it is left to defaults of Envoy
/// that are not also ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    /// The DestinationRule that it comes from.
    pub rule: Option<ObjectKey>,
    /// Limit of connecting.
    pub connect_timeout: Duration,
    /// Keepalive.
    pub keepalive: Option<TcpKeepalive>,
    /// Connections; `None` = no limit. So for the next three.
    pub max_connections: Option<u32>,
    /// Requests that wait.
    pub max_pending_requests: Option<u32>,
    /// Requests at once.
    pub max_requests: Option<u32>,
    /// Retries at once.
    pub max_retries: Option<u32>,
    /// Retries as a share of requests instead.
    pub retry_budget: Option<RetryBudget>,
    /// Idle time of connections.
    pub idle_timeout: Option<Duration>,
    /// Life of connections.
    pub max_connection_duration: Option<Duration>,
    /// Requests of one connection.
    pub max_requests_per_connection: Option<u32>,
    /// Streams of an HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// Pings of an HTTP/2 connection.
    pub h2_keepalive: Option<Http2Keepalive>,
    /// Choice of the endpoint.
    pub balancing: Balancing,
    /// New endpoints get less at first.
    pub warmup: Option<Warmup>,
    /// Localities have weights.
    pub locality_weighted: bool,
    /// Endpoints that fail are left out for a while.
    pub outlier: Option<OutlierDetection>,
    /// TLS that the waypoint itself opens.
    pub tls: Option<UpstreamTlsIr>,
    /// Version of the PROXY protocol that is spoken first.
    pub proxy_protocol: Option<u8>,
}

impl Default for ClusterPolicy {
    fn default() -> Self {
        Self {
            rule: None,
            connect_timeout: Duration::from_secs(10),
            keepalive: None,
            max_connections: None,
            max_pending_requests: None,
            max_requests: None,
            max_retries: None,
            retry_budget: None,
            idle_timeout: None,
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_concurrent_streams: None,
            h2_keepalive: None,
            balancing: Balancing::default(),
            warmup: None,
            locality_weighted: false,
            outlier: None,
            tls: None,
            proxy_protocol: None,
        }
    }
}

/// How endpoints are told apart by where they are. Source: spec/envoy-config.md §4.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalityPolicy {
    /// Not at all: the assignment is the same for every proxy.
    #[default]
    None,
    /// Nearer ones first: region, zone, subzone. With `failover` entries (`from` and `to`).
    Failover(Vec<(Str, Str)>),
    /// By labels, the first that differs decides.
    Labels(Vec<Str>),
    /// Shares by locality: `from`, and weights of `to`.
    Distribute(Vec<(Str, BTreeMap<Str, u32>)>),
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
    /// Subset of telemetry: `http`, `tcp`, `http/v1`, or empty.
    pub subset: Str,
    /// Labels of the endpoints of this subset; empty for all.
    pub subset_labels: Labels,
    /// Form.
    pub direction: Direction,
    /// Discovery.
    pub discovery: Discovery,
    /// HTTP version.
    pub upstream: Upstream,
    /// Traffic policy.
    pub policy: ClusterPolicy,
    /// Locality policy, for its endpoints.
    pub locality: LocalityPolicy,
}

/// A cluster that depends on the class of the proxy or on nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticClusterIr {
    /// To an internal listener: cluster name, listener name.
    Internal(Str, Str),
    /// `connect_originate`, and how long its tunnels may be idle.
    ConnectOriginate(TlsIr, Duration),
    /// `forward_inner_connect`.
    ForwardInnerConnect,
    /// Nobody stands behind it.
    Nobody(Str),
}

/// Health of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Healthy.
    #[default]
    Healthy,
    /// Not ready.
    Unhealthy,
    /// Leaves; connections that are there stay.
    Draining,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointIr {
    /// Address.
    pub ip: IpAddr,
    /// Further addresses of the same host, tried when the first does not answer; none where
    /// it is tunnelled.
    pub more: Vec<IpAddr>,
    /// Port of the workload.
    pub port: u16,
    /// Reached over HBONE.
    pub tunnel: bool,
    /// The waypoint that leads there; the address is then that of the service.
    pub waypoint: Option<IpAddr>,
    /// Health.
    pub health: Health,
    /// Weight, at least 1.
    pub weight: u32,
    /// `name;namespace;canonicalName;canonicalRevision;clusterId`.
    pub workload: Str,
}

/// Endpoints of one locality and priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointGroup {
    /// Locality.
    pub locality: Locality,
    /// Priority, 0 first; without gaps.
    pub priority: u32,
    /// Weight of the group, where localities have weights.
    pub weight: Option<u32>,
    /// Endpoints.
    pub endpoints: Vec<EndpointIr>,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsIr {
    /// Cluster name.
    pub name: Str,
    /// Form of the cluster, which decides the metadata.
    pub direction: Direction,
    /// Groups, by priority and locality.
    pub groups: Vec<EndpointGroup>,
}
