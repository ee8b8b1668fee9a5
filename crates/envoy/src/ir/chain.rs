//! Filter chains of `main_internal`. Source: spec/envoy-config.md §2.4, §2.5;
//! spec/policy-and-traffic.md §0.2.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use model::Str;
use model::input::{CheckedBody, PathNormalization, TunnelSettings};

use super::{Outbound, RoutesIr};

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
    /// Client address behind the proxies that are trusted to name it.
    ForwardedIp(IpNet),
    /// A claim of the verified token, its path without `payload`: the claim itself is one of
    /// these texts.
    Claim(Vec<Str>, Vec<StrMatch>),
    /// The same, or the claim is a list that has one of them.
    ClaimOrItem(Vec<Str>, Vec<StrMatch>),
    /// Dynamic metadata of an Envoy filter: its name, the key, texts, and whether they are items
    /// of a list.
    Metadata(Str, Str, Vec<StrMatch>, bool),
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
    /// Only mark matches for the external authorizer behind it.
    Ask,
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
    /// Rules that are evaluated only (dry run, or CUSTOM).
    pub shadow: Option<BTreeMap<Str, RbacRuleIr>>,
}

/// What only an HTTP authorizer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAuthorizerIr {
    /// `http_service.server_uri.uri`.
    pub uri: Str,
    /// Put before the path.
    pub path_prefix: Str,
    /// Headers of the request that it sees.
    pub request_headers: Vec<StrMatch>,
    /// Headers added to its request.
    pub additional_headers: Vec<(Str, Str)>,
    /// Headers of its answer that go on upstream.
    pub upstream_on_allow: Vec<StrMatch>,
    /// Headers of its answer that the client gets with a denial.
    pub downstream_on_deny: Vec<StrMatch>,
    /// Headers of its answer that the client gets with the response.
    pub downstream_on_allow: Vec<StrMatch>,
}

/// An `ext_authz` filter; it asks only where the RBAC filter before it marked the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtAuthzIr {
    /// Name of the provider: a mark begins with `istio-ext-authz-<provider>-ns[`.
    pub provider: Str,
    /// Cluster of the authorizer.
    pub cluster: Str,
    /// Its host, the authority of gRPC calls.
    pub host: Str,
    /// Limit of a call.
    pub timeout: Duration,
    /// Requests pass when it cannot be asked.
    pub fail_open: bool,
    /// Status when it cannot be asked.
    pub status_on_error: Option<u16>,
    /// Routes are chosen anew after it.
    pub clear_route_cache: bool,
    /// Part of the body that it sees.
    pub body: Option<CheckedBody>,
    /// Speaks HTTP instead of gRPC.
    pub http: Option<HttpAuthorizerIr>,
}

/// A provider of `jwt_authn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProviderIr {
    /// Issuer, empty for any.
    pub issuer: Str,
    /// Audiences, empty for any.
    pub audiences: Vec<Str>,
    /// Key set, inline.
    pub jwks: Str,
    /// Headers and prefixes that are looked at.
    pub from_headers: Vec<(Str, Str)>,
    /// Query parameters.
    pub from_params: Vec<Str>,
    /// Cookies.
    pub from_cookies: Vec<Str>,
    /// The token goes on upstream.
    pub forward: bool,
    /// Header that carries the payload, empty for none.
    pub payload_header: Str,
    /// Headers that carry claims: header and claim.
    pub claim_headers: Vec<(Str, Str)>,
    /// Claims whose text is split at spaces, sorted.
    pub space_delimited: BTreeSet<Str>,
}

/// A `jwt_authn` filter: a token that is there must satisfy a provider, none need be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtIr {
    /// Providers, by issuer; at least one.
    pub providers: Vec<JwtProviderIr>,
}

impl Expr {
    /// Whether the path decides.
    fn judges_paths(&self) -> bool {
        match self {
            Self::AllOf(list) | Self::AnyOf(list) => list.iter().any(Self::judges_paths),
            Self::Not(of) => of.judges_paths(),
            Self::Is(Fact::Path(_) | Fact::PathTemplate(_)) => true,
            Self::Is(Fact::Header(name, ..)) => name == ":path",
            Self::Is(_) => false,
        }
    }
}

impl RbacIr {
    fn judges_paths(&self) -> bool {
        let rules = self.rules.iter().chain(&self.shadow);
        rules.flat_map(BTreeMap::values).any(|rule| {
            let mut all = rule.permissions.iter().chain(&rule.principals);
            all.any(Expr::judges_paths)
        })
    }
}

impl ChainFilter {
    /// Whether the filter lets requests pass or not by their path; an external authorizer is
    /// told it, and may.
    pub fn judges_paths(&self) -> bool {
        match self {
            Self::Rbac(rbac) => rbac.judges_paths(),
            Self::ExtAuthz(_) => true,
            Self::Jwt(_) => false,
        }
    }

    /// What is done to the paths of a chain with certain filters: what mesh config says, else
    /// all that Envoy can do where a policy judges them, so that no spelling slips past it.
    pub fn normalization(filters: &[Self], mesh: Option<PathNormalization>) -> PathNormalization {
        match mesh {
            Some(written) => written,
            None if filters.iter().any(Self::judges_paths) => {
                PathNormalization::DecodeAndMergeSlashes
            }
            None => PathNormalization::default(),
        }
    }
}

/// A filter that policies put into a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFilter {
    /// RBAC.
    Rbac(RbacIr),
    /// External authorization.
    ExtAuthz(Box<ExtAuthzIr>),
    /// Tokens (HTTP chains only).
    Jwt(JwtIr),
}

/// A filter chain of `main_internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainIr {
    /// Name, equal to the name of its cluster on service chains.
    pub name: Str,
    /// Service port, 0 on direct chains.
    pub port: u16,
    /// Filters of policies in order.
    pub filters: Vec<ChainFilter>,
    /// What is spoken.
    pub body: ChainBody,
    /// Publishes the original destination again, for direct chains.
    pub republish_destination: bool,
    /// Destinations that this chain itself needs an `outbound` cluster for.
    pub outbound: BTreeSet<Outbound>,
}

/// Where an HTTP chain has its routes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// Route discovery, by the name of the chain.
    Discovery,
    /// They stand in the chain.
    Inline(Box<RoutesIr>),
}

/// A wildcard host that is resolved per request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DynamicHost {
    /// The wildcard host; the DNS cache is named for it.
    pub host: Str,
    /// Port that is called.
    pub port: u16,
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
        /// What is done to paths before any filter sees them.
        normalization: PathNormalization,
        /// Applications are told the client's identity in `x-forwarded-client-cert`.
        forwards_identity: bool,
        /// Hosts are resolved per request.
        dynamic_host: Option<DynamicHost>,
        /// Routes.
        routes: RouteSource,
    },
    /// Opaque bytes.
    Tcp(TcpIr),
}

/// Where opaque bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpIr {
    /// Clusters by weight; at least one, weights above 0.
    pub clusters: Vec<(Str, u32)>,
    /// Idle time of connections.
    pub idle_timeout: Option<Duration>,
    /// Life of connections.
    pub max_duration: Option<Duration>,
    /// The source address is hashed.
    pub hash_source_ip: bool,
    /// They are tunnelled in HTTP to another proxy.
    pub tunnel: Option<TunnelSettings>,
}

impl TcpIr {
    /// Everything to one cluster.
    pub fn to(cluster: Str) -> Self {
        Self {
            clusters: vec![(cluster, 1)],
            idle_timeout: None,
            max_duration: None,
            hash_source_ip: false,
            tunnel: None,
        }
    }
}
