//! Listeners of ingress gateways, and what their routes become.
//! Source: spec/envoy-config.md §6.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bytes::Bytes;
use model::gateway::TlsMode;
use model::input::PathNormalization;
use model::proxy::Topology;
use model::{Kind, ObjectKey, ObjectRef, Str};

use super::{ChainFilter, Outbound, TcpIr, TlsIr};
use crate::routes::Precedence;

/// A listener of Gateways: the Gateway or ListenerSet that has it, and its name.
pub type ListenerId = (ObjectRef, Str);

/// Key of what becomes of a route at a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteAt {
    /// The Gateway.
    pub gateway: ObjectKey,
    /// Kind and key of the route.
    pub route: (Kind, ObjectKey),
    /// Port of the listener and whether requests come in HTTPS, for redirects that name neither;
    /// `None` for routes of connections.
    pub port: Option<(u16, bool)>,
}

/// An entry of a route configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryIr {
    /// Smaller ones come first.
    pub rank: Precedence,
    /// Canonical encoding of the route.
    pub bytes: Bytes,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteBody {
    /// It leads requests: entries in the order of rules and matches.
    Requests(Vec<EntryIr>),
    /// It leads connections.
    Connections(TcpIr),
}

/// A route at a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAtIr {
    /// Older routes come first.
    pub age: (i64, ObjectKey),
    /// What it does.
    pub body: RouteBody,
    /// Services that it leads to.
    pub outbound: BTreeSet<Outbound>,
}

/// Key of a host of a listener: what a virtual host is made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAt {
    /// The listener.
    pub listener: ListenerId,
    /// The host as routes and listeners have it in common.
    pub host: Str,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIr {
    /// Canonical encoding.
    pub bytes: Bytes,
}

/// A route configuration, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRoutes {
    /// Name.
    pub name: Str,
    /// Bytes.
    pub bytes: Bytes,
}

/// A listener that a gateway opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayListenerIr {
    /// Name.
    pub name: Str,
    /// Addresses to bind, at least one.
    pub bind: Vec<IpAddr>,
    /// Port of the pod.
    pub port: u16,
    /// What stands before the gateway.
    pub topology: Topology,
    /// Traffic comes in from another network.
    pub is_inbound: bool,
    /// Chains, at least one.
    pub chains: Vec<GatewayChainIr>,
}

/// A chain of such a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayChainIr {
    /// Name.
    pub name: Str,
    /// Server names in lower case, sorted; empty for every one, and without TLS.
    pub server_names: Vec<Str>,
    /// Whether connections begin with TLS, ended here or not.
    pub is_tls: bool,
    /// TLS that is ended here.
    pub tls: Option<ServerTlsIr>,
    /// Filters of policies in order.
    pub filters: Vec<ChainFilter>,
    /// What is spoken.
    pub body: GatewayBody,
    /// Destinations that this chain itself needs an `outbound` cluster for.
    pub outbound: BTreeSet<Outbound>,
}

/// What a chain of a gateway speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayBody {
    /// HTTP, with the routes of this name.
    Http(Str, PathNormalization),
    /// Opaque bytes.
    Tcp(TcpIr),
}

/// TLS that a listener ends. Source: spec/envoy-config.md §6.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsIr {
    /// What it wants of clients.
    pub mode: TlsMode,
    /// Resources with certificates; of the modes of the mesh none.
    pub credentials: Vec<Str>,
    /// Resource with the authorities of clients.
    pub authority: Option<Str>,
    /// Certificates that no authority vouches for are let in.
    pub accepts_untrusted: bool,
    /// Ciphers, empty for the usual ones.
    pub cipher_suites: Vec<Str>,
    /// Certificate and authorities of the mesh.
    pub mesh: TlsIr,
}
