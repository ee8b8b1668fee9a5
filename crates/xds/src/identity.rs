//! Whether a peer is who its node says it is.
//!
//! Source: spec/control-plane.md §3.5.

use std::net::SocketAddr;

use model::{SpiffeId, Str};

use crate::client::{Client, ClientKind};

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// The identity of its certificate; `None` on the plaintext loopback listener.
    pub identity: Option<SpiffeId>,
}

/// Who may claim to be what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPolicy {
    /// Namespace and service account of those that may connect as ztunnel, and so
    /// read the addresses of the whole mesh.
    pub ztunnel_accounts: Vec<(Str, Str)>,
}

impl Default for IdentityPolicy {
    fn default() -> Self {
        Self {
            ztunnel_accounts: vec![(Str::from("istio-system"), Str::from("ztunnel"))],
        }
    }
}

/// Why a peer is refused. For the log only; the client learns nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The node states no namespace.
    #[error("the node states no namespace")]
    NoNamespace,
    /// The certificate is of another namespace.
    #[error("the node states another namespace than the certificate")]
    Namespace,
    /// The certificate is of another service account.
    #[error("the node states another service account than the certificate")]
    ServiceAccount,
    /// The account is not one of those that may be ztunnel.
    #[error("the account may not connect as ztunnel")]
    NotZtunnel,
    /// The gateway is in another namespace.
    #[error("the gateway is in another namespace than its proxy")]
    Gateway,
}

impl IdentityPolicy {
    /// Checks the claims of a node against the certificate of the connection.
    /// Plaintext peers are on this host and pass.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn check(&self, peer: &Peer, client: &Client) -> Result<(), IdentityError> {
        let Some(identity) = &peer.identity else {
            return Ok(());
        };
        if client.ns.is_empty() {
            return Err(IdentityError::NoNamespace);
        }
        if client.ns != identity.ns {
            return Err(IdentityError::Namespace);
        }
        let claimed = client.service_account.as_ref().filter(|sa| !sa.is_empty());
        if claimed.is_some_and(|sa| *sa != identity.sa) {
            return Err(IdentityError::ServiceAccount);
        }
        let is_trusted = || {
            self.ztunnel_accounts
                .iter()
                .any(|(ns, sa)| *ns == identity.ns && *sa == identity.sa)
        };
        if client.kind == ClientKind::Ztunnel && !is_trusted() {
            return Err(IdentityError::NotZtunnel);
        }
        if client
            .class
            .as_ref()
            .is_some_and(|class| class.gateway.ns != client.ns)
        {
            return Err(IdentityError::Gateway);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{envoy, ztunnel};

    #[test]
    fn a_node_may_claim_only_what_its_certificate_says() {
        type Case = (
            &'static str,
            fn(&mut Client),
            &'static str,
            Result<(), IdentityError>,
        );
        let cases: [Case; 9] = [
            ("trusted ztunnel", |_| {}, "istio-system/ztunnel", Ok(())),
            (
                "other account as ztunnel",
                |_| {},
                "istio-system/x",
                Err(IdentityError::NotZtunnel),
            ),
            (
                "other namespace",
                |_| {},
                "app/ztunnel",
                Err(IdentityError::Namespace),
            ),
            (
                "no namespace",
                |c| c.ns = Str::new(),
                "app/a",
                Err(IdentityError::NoNamespace),
            ),
            ("waypoint", |c| *c = envoy("app", "wp"), "app/wp", Ok(())),
            (
                "waypoint of another namespace",
                |c| *c = envoy("app", "wp"),
                "b/wp",
                Err(IdentityError::Namespace),
            ),
            (
                "waypoint with another account",
                |c| {
                    *c = envoy("app", "wp");
                    c.service_account = Some(Str::from("wp"));
                },
                "app/other",
                Err(IdentityError::ServiceAccount),
            ),
            (
                "empty account claims nothing",
                |c| {
                    *c = envoy("app", "wp");
                    c.service_account = Some(Str::new());
                },
                "app/other",
                Ok(()),
            ),
            (
                "gateway elsewhere",
                |c| {
                    *c = envoy("b", "wp");
                    c.ns = Str::from("app");
                },
                "app/wp",
                Err(IdentityError::Gateway),
            ),
        ];
        for (case, change, account, expected) in cases {
            let mut client = ztunnel();
            change(&mut client);
            let (ns, sa) = account.split_once('/').unwrap_or_default();
            let addr = SocketAddr::from(([127, 0, 0, 1], 1));
            let identity = Some(SpiffeId::new("cluster.local", ns, sa));
            let policy = IdentityPolicy::default();
            assert_eq!(
                policy.check(&Peer { addr, identity }, &client),
                expected,
                "{case}"
            );
            assert_eq!(
                policy.check(
                    &Peer {
                        addr,
                        identity: None
                    },
                    &client
                ),
                Ok(()),
                "{case}"
            );
        }
    }
}
