//! Classes of Envoy proxies: everything that translation may know of a client.

use std::net::IpAddr;

use crate::Str;
use crate::derived::Locality;
use crate::names::ObjectKey;

/// What an Envoy client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyRole {
    /// A waypoint of class `istio-waypoint`.
    Waypoint,
    /// An ingress gateway of class `istio`.
    Ingress,
    /// A gateway between networks, of class `istio-east-west`.
    EastWest,
}

/// What becomes of `x-forwarded-client-cert`. Source: spec/envoy-config.md §6.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForwardClientCert {
    /// It is taken away.
    Sanitize,
    /// That of clients with a certificate is handed on.
    ForwardOnly,
    /// The same, and their certificate is added.
    AppendForward,
    /// What clients say is taken away, and their certificate is told.
    #[default]
    SanitizeSet,
    /// It is handed on, whoever says it.
    AlwaysForwardOnly,
}

/// What stands before a gateway (`gatewayTopology` of its proxy configuration).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topology {
    /// Proxies before it whose entries in `x-forwarded-for` are believed.
    pub trusted_hops: u32,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
}

/// The object factory for filter-state strings that cross internal listeners.
/// Source: spec/envoy-config.md §0.3, §2.6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StringFactory {
    /// `envoy.hashable_string`, stock Envoy 1.38 and newer.
    #[default]
    EnvoyHashable,
    /// `istio.hashable_string`, Istio's proxy.
    IstioHashable,
    /// `envoy.string`: older stock builds; safe for single-network waypoints only.
    EnvoyPlain,
}

/// Where generated TLS contexts take `default` and `ROOTCA` from.
/// Source: spec/envoy-config.md §7.1, §8.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretSource {
    /// The node-local agent behind the cluster `sds-grpc`.
    #[default]
    SdsGrpc,
    /// Static secrets of the bootstrap (node metadata `AMBIENTD_SECRETS: static`).
    Bootstrap,
}

/// The address families that a proxy has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamilies {
    /// IPv4 only.
    #[default]
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

/// All clients of one class receive the same bytes. Translation sees the class
/// and never the client, so whatever differs between proxies must stand here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyClass {
    /// Role of the proxy.
    pub role: ProxyRole,
    /// Gateway whose instance it is.
    pub gateway: ObjectKey,
    /// Network that the node reports, empty for the default one.
    pub network: Str,
    /// String factory chosen from the extensions that the node reports.
    pub strings: StringFactory,
    /// The node reports Istio's own extensions, so it gets configuration in proxyv2's form.
    pub istio: bool,
    /// Where the proxy runs; endpoints are preferred by it.
    pub locality: Locality,
    /// Source of the workload certificate.
    pub secrets: SecretSource,
    /// Address to bind 15008 on; `None` means the wildcard address
    /// (node metadata `AMBIENTD_BIND: <ip>`, for several waypoints on one host).
    pub bind: Option<IpAddr>,
    /// Families of its addresses, which the wildcard follows.
    pub families: IpFamilies,
    /// What stands before a gateway; always the default at waypoints.
    pub topology: Topology,
    /// It may not bind ports below 1024, so a gateway leaves those out (node metadata
    /// `UNPRIVILEGED_POD: "true"`).
    pub is_unprivileged: bool,
}

impl ProxyClass {
    /// A stock waypoint with default choices.
    pub fn waypoint(gateway: ObjectKey) -> Self {
        Self {
            role: ProxyRole::Waypoint,
            gateway,
            network: Str::new(),
            strings: StringFactory::default(),
            istio: false,
            locality: Locality::default(),
            secrets: SecretSource::default(),
            bind: None,
            families: IpFamilies::default(),
            topology: Topology::default(),
            is_unprivileged: false,
        }
    }

    /// A stock ingress gateway with default choices.
    pub fn ingress(gateway: ObjectKey) -> Self {
        Self {
            role: ProxyRole::Ingress,
            ..Self::waypoint(gateway)
        }
    }

    /// A stock gateway between networks with default choices.
    pub fn east_west(gateway: ObjectKey) -> Self {
        Self {
            role: ProxyRole::EastWest,
            ..Self::waypoint(gateway)
        }
    }
}
