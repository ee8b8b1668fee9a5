//! networking.istio.io DestinationRule. Source: spec/policy-and-traffic.md §7.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Str;
use crate::object::Labels;

/// `tcpKeepalive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// `probes`.
    pub probes: Option<u32>,
    /// `time`.
    pub time: Option<Duration>,
    /// `interval`.
    pub interval: Option<Duration>,
}

/// `http2KeepAlive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// `interval`.
    pub interval: Option<Duration>,
    /// `timeout`.
    pub timeout: Option<Duration>,
}

/// `h2UpgradePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum H2Upgrade {
    /// `DEFAULT`: as the mesh says.
    #[default]
    Default,
    /// `DO_NOT_UPGRADE`.
    Never,
    /// `UPGRADE`.
    Upgrade,
}

/// `connectionPool`. A limit of 0 is unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`.
    pub max_connections: Option<u32>,
    /// `tcp.connectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// `tcp.tcpKeepalive`.
    pub keepalive: Option<TcpKeepalive>,
    /// `tcp.maxConnectionDuration`.
    pub max_connection_duration: Option<Duration>,
    /// `tcp.idleTimeout`.
    pub tcp_idle_timeout: Option<Duration>,
    /// `http.http1MaxPendingRequests`.
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`.
    pub max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries`.
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`.
    pub http_idle_timeout: Option<Duration>,
    /// `http.h2UpgradePolicy`.
    pub h2_upgrade: H2Upgrade,
    /// `http.useClientProtocol`.
    pub use_client_protocol: bool,
    /// `http.maxConcurrentStreams`.
    pub max_concurrent_streams: Option<u32>,
    /// `http.http2KeepAlive`.
    pub h2_keepalive: Option<Http2Keepalive>,
}

/// What a consistent hash is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// `httpHeaderName`.
    Header(Str),
    /// `httpCookie`: name, ttl, path, attributes (name and value).
    Cookie {
        /// Name.
        name: Str,
        /// Life of a cookie that the proxy makes; `None` makes none.
        ttl: Option<Duration>,
        /// Path, empty when unset.
        path: Str,
        /// Further attributes.
        attributes: Vec<(Str, Str)>,
    },
    /// `useSourceIp`.
    SourceIp,
    /// `httpQueryParameterName`.
    QueryParameter(Str),
}

/// `consistentHash`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// The key; `None` when none was given.
    pub key: Option<HashKey>,
    /// `maglev.tableSize`; `Some(None)` is Maglev of default size.
    pub maglev: Option<Option<u64>>,
    /// `ringHash.minimumRingSize` or the deprecated `minimumRingSize`.
    pub ring_size: Option<u64>,
}

/// `simple` and `consistentHash`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancer {
    /// Not given, or `UNSPECIFIED`: least request.
    #[default]
    Unspecified,
    /// `LEAST_REQUEST`, `LEAST_CONN`.
    LeastRequest,
    /// `ROUND_ROBIN`.
    RoundRobin,
    /// `RANDOM`.
    Random,
    /// `PASSTHROUGH`.
    Passthrough,
    /// `consistentHash`.
    Hash(ConsistentHash),
}

/// `warmup`, or `warmupDurationSecs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warmup {
    /// `duration`.
    pub duration: Duration,
    /// `minimumPercent`, default 10.
    pub minimum_percent: f64,
    /// `aggression`, default 1.
    pub aggression: f64,
}

impl Eq for Warmup {}

/// `localityLbSetting`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalityLb {
    /// `enabled`; `None` counts as true.
    pub enabled: Option<bool>,
    /// `distribute`: `from`, and the weights of `to`.
    pub distribute: Vec<(Str, BTreeMap<Str, u32>)>,
    /// `failover`: `from` and `to`, regions.
    pub failover: Vec<(Str, Str)>,
    /// `failoverPriority`: label keys, or `key=value`.
    pub failover_priority: Vec<Str>,
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Policy.
    pub balancer: Balancer,
    /// Slow start.
    pub warmup: Option<Warmup>,
    /// Locality settings.
    pub locality: Option<LocalityLb>,
    /// `zoneAwareLbSetting` is given and enabled.
    pub zone_aware: bool,
}

/// `outlierDetection`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `splitExternalLocalOriginErrors`.
    pub split_local_origin: bool,
    /// `consecutiveLocalOriginFailures`.
    pub consecutive_local_origin: Option<u32>,
    /// `consecutiveGatewayErrors`.
    pub consecutive_gateway: Option<u32>,
    /// `consecutive5xxErrors`.
    pub consecutive_5xx: Option<u32>,
    /// `interval`.
    pub interval: Option<Duration>,
    /// `baseEjectionTime`.
    pub base_ejection: Option<Duration>,
    /// `maxEjectionPercent`, 0 is unset.
    pub max_ejection_percent: Option<u32>,
    /// `minHealthPercent`.
    pub min_health_percent: Option<u32>,
    /// `outlierDetectionHttpErrorCodes`.
    pub error_codes: Vec<u16>,
}

/// `tls.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// `DISABLE`.
    #[default]
    Disable,
    /// `SIMPLE`.
    Simple,
    /// `MUTUAL`.
    Mutual,
    /// `ISTIO_MUTUAL`.
    IstioMutual,
    /// What was written cannot be applied: connections are refused.
    Refuse,
}

/// `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Mode.
    pub mode: TlsMode,
    /// `clientCertificate`, empty when unset.
    pub client_certificate: Str,
    /// `privateKey`, a path; empty when unset.
    pub private_key: Str,
    /// `caCertificates`, a path; empty when unset.
    pub ca_certificates: Str,
    /// `caCrl`, a path; empty when unset.
    pub ca_crl: Str,
    /// `credentialName`, empty when unset.
    pub credential_name: Str,
    /// `subjectAltNames`.
    pub subject_alt_names: Vec<Str>,
    /// `sni`, empty when unset.
    pub sni: Str,
    /// `insecureSkipVerify`.
    pub insecure_skip_verify: bool,
}

/// `retryBudget`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// `percent`, default 20.
    pub percent: f64,
    /// `minRetryConcurrency`, default 3.
    pub min_concurrency: u32,
}

impl Eq for RetryBudget {}

/// `tunnel`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelSettings {
    /// `protocol: POST` instead of `CONNECT`.
    pub post: bool,
    /// `targetHost`.
    pub host: Str,
    /// `targetPort`.
    pub port: u16,
}

/// What a `trafficPolicy`, a subset's one, and a port level one have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortPolicy {
    /// `loadBalancer`.
    pub balancer: Option<LoadBalancer>,
    /// `connectionPool`.
    pub pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier: Option<OutlierDetection>,
    /// `tls`.
    pub tls: Option<ClientTls>,
}

/// `trafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// For every port.
    pub base: PortPolicy,
    /// `portLevelSettings`: each replaces everything for its port.
    pub ports: BTreeMap<u16, PortPolicy>,
    /// `tunnel`.
    pub tunnel: Option<TunnelSettings>,
    /// `proxyProtocol.version`: 1 or 2.
    pub proxy_protocol: Option<u8>,
    /// `retryBudget`.
    pub retry_budget: Option<RetryBudget>,
}

/// `subsets[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    /// Name.
    pub name: Str,
    /// Labels of the endpoints; empty selects all.
    pub labels: Labels,
    /// `trafficPolicy`.
    pub policy: Option<TrafficPolicy>,
}

/// networking.istio.io DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationRule {
    /// Host as written.
    pub host: Str,
    /// `exportTo` as written; empty = the mesh default.
    pub export_to: Vec<Str>,
    /// `workloadSelector.matchLabels`.
    pub workload_selector: Option<Labels>,
    /// `trafficPolicy`; `None` when not given.
    pub policy: Option<TrafficPolicy>,
    /// Subsets, names distinct.
    pub subsets: Vec<Subset>,
}
