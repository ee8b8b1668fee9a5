//! Peers and callers.

use std::net::SocketAddr;

use model::{SpiffeId, Str};

/// The other end of a connection, as the transport knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// The identity of its certificate, which the handshake verified.
    pub identity: Option<SpiffeId>,
    /// Whether the connection is TLS.
    pub secure: bool,
}

/// A pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its name; its namespace is that of the account.
    pub name: Str,
    /// Its Kubernetes uid; empty when it has none, which only files can say.
    pub uid: Str,
}

/// What a caller is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A client certificate. It says nothing of a pod, so such a caller never
    /// speaks for others.
    Certificate,
    /// A bearer token, perhaps bound to a pod.
    Token {
        /// The pod.
        pod: Option<PodRef>,
    },
}

/// An authenticated peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Who it is.
    pub identity: SpiffeId,
    /// How that is known.
    pub proof: Proof,
}

impl Caller {
    /// The pod that the caller's token is bound to.
    pub fn pod(&self) -> Option<&PodRef> {
        match &self.proof {
            Proof::Token { pod } => pod.as_ref(),
            Proof::Certificate => None,
        }
    }
}
