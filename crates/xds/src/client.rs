//! Who is on the other end of a stream.

use std::net::IpAddr;

use model::{ProxyClass, SpiffeId, Str};

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// A node proxy: workload discovery.
    Ztunnel,
    /// An Envoy proxy: waypoint or gateway.
    Envoy,
}

impl ClientKind {
    /// The word of metrics and debug pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ztunnel => "ztunnel",
            Self::Envoy => "envoy",
        }
    }
}

/// What the first request of a stream says about its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What it is.
    pub kind: ClientKind,
    /// Its own address, as the node states it.
    pub ip: IpAddr,
    /// The third part of the node id, `pod.namespace`.
    pub pod: Str,
    /// Namespace, empty when the node does not say.
    pub ns: Str,
    /// Service account, if the node states one.
    pub service_account: Option<Str>,
    /// Kubernetes node, empty when unknown.
    pub node_name: Str,
    /// Cluster id, empty when unknown.
    pub cluster_id: Str,
    /// Version of the proxy, empty when unknown.
    pub version: Str,
    /// Class of an Envoy client; all that translation may know of it.
    pub class: Option<ProxyClass>,
    /// The identity that its connection proved; `None` until one is verified. Secrets are
    /// served by it alone, never by what the node says.
    pub identity: Option<SpiffeId>,
}

/// A node that cannot be understood: the stream is refused with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(pub String);

/// Reads the node of a first request. Implemented outside, where the meaning of
/// the metadata is known.
pub trait NodeReader: Send + Sync {
    /// The client that a node describes.
    ///
    /// # Errors
    /// Any node whose id or metadata is not of the expected form.
    fn read(&self, node: &proto::core::Node) -> Result<Client, NodeError>;
}
