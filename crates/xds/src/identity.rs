//! Whether a peer is who its node says it is.
//!
//! Source: spec/control-plane.md §3.5.

use authn::Caller;
use model::{ObjectKey, Str};
use snapshot::PodFacts;

use crate::client::{Client, ClientKind};

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

/// Why a caller is refused. For the log only; the client learns nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The node states no namespace.
    #[error("the node states no namespace")]
    NoNamespace,
    /// The identity is of another namespace.
    #[error("the node states another namespace than its identity")]
    Namespace,
    /// The identity is of another service account.
    #[error("the node states another service account than its identity")]
    ServiceAccount,
    /// The token is bound to another pod.
    #[error("the node states another pod than its token")]
    Pod,
    /// The account is not one of those that may be ztunnel.
    #[error("the account may not connect as ztunnel")]
    NotZtunnel,
    /// The gateway is in another namespace.
    #[error("the gateway is in another namespace than its proxy")]
    Gateway,
    /// The gateway's pods have other accounts.
    #[error("the account is not that of a pod of the gateway")]
    GatewayAccount,
}

impl IdentityError {
    /// The label of metrics: one of seven words.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoNamespace => "no_namespace",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service_account",
            Self::Pod => "pod",
            Self::NotZtunnel => "not_ztunnel",
            Self::Gateway => "gateway",
            Self::GatewayAccount => "gateway_account",
        }
    }
}

impl IdentityPolicy {
    /// Checks the claims of a node against its authenticated caller and, where they
    /// are known, the pods of the gateway that it claims to be a proxy of. Who reads the whole
    /// mesh must be of its own trust domain: an alias may be shared with another mesh.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn check(
        &self,
        caller: &Caller,
        client: &Client,
        pods: Option<&PodFacts>,
        own_trust_domain: Option<&Str>,
    ) -> Result<(), IdentityError> {
        let identity = &caller.identity;
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
        // The third part of a node id is `pod.namespace`.
        let is_other = |pod: &Str| client.pod != format!("{pod}.{}", identity.ns);
        if caller.pod().is_some_and(|pod| is_other(&pod.name)) {
            return Err(IdentityError::Pod);
        }
        let is_trusted = || {
            own_trust_domain.is_none_or(|own| *own == identity.trust_domain)
                && self
                    .ztunnel_accounts
                    .iter()
                    .any(|(ns, sa)| *ns == identity.ns && *sa == identity.sa)
        };
        if client.kind == ClientKind::Ztunnel && !is_trusted() {
            return Err(IdentityError::NotZtunnel);
        }
        let Some(class) = &client.class else {
            return Ok(());
        };
        if class.gateway.ns != client.ns {
            return Err(IdentityError::Gateway);
        }
        let is_gateway = |pods: &PodFacts| is_account(pods, &class.gateway, &identity.sa);
        if pods.is_some_and(|pods| !is_gateway(pods)) {
            return Err(IdentityError::GatewayAccount);
        }
        Ok(())
    }
}

/// Whether a pod of the gateway has this account, or none of its pods is known.
fn is_account(pods: &PodFacts, gateway: &ObjectKey, sa: &Str) -> bool {
    let mut accounts = pods.gateway_accounts(gateway).peekable();
    accounts.peek().is_none() || accounts.any(|account| account == sa)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use authn::{PodRef, Proof};
    use model::{PodFact, SpiffeId};

    use super::*;
    use crate::session::tests::{envoy, ztunnel};

    fn caller(account: &str, pod: Option<&str>) -> Caller {
        let (ns, sa) = account.split_once('/').unwrap();
        let pod = pod.map(|name| PodRef {
            name: Str::from(name),
            uid: Str::from("u"),
        });
        Caller {
            identity: SpiffeId::new("cluster.local", ns, sa),
            proof: Proof::Token { pod },
        }
    }

    #[test]
    fn a_node_may_claim_only_what_its_identity_says() {
        use IdentityError as E;
        type Change = fn(&mut Client);
        type Case = (
            &'static str,
            Change,
            &'static str,
            Option<&'static str>,
            Result<(), E>,
        );
        fn waypoint(client: &mut Client) {
            *client = envoy("app", "wp");
        }
        fn states(client: &mut Client, sa: &str) {
            *client = envoy("app", "wp");
            client.service_account = Some(Str::from(sa));
        }
        let zt = "istio-system/ztunnel";
        let cases: [Case; 13] = [
            ("trusted ztunnel", |_| {}, zt, None, Ok(())),
            ("its own pod", |_| {}, zt, Some("ztunnel-x"), Ok(())),
            ("another pod", |_| {}, zt, Some("ztunnel-y"), Err(E::Pod)),
            ("part of a name", |_| {}, zt, Some("ztunnel"), Err(E::Pod)),
            (
                "other account as ztunnel",
                |_| {},
                "istio-system/x",
                None,
                Err(E::NotZtunnel),
            ),
            (
                "other namespace",
                |_| {},
                "app/ztunnel",
                None,
                Err(E::Namespace),
            ),
            (
                "no namespace",
                |c| c.ns = Str::new(),
                "app/a",
                None,
                Err(E::NoNamespace),
            ),
            ("waypoint", waypoint, "app/wp", None, Ok(())),
            (
                "waypoint of another namespace",
                waypoint,
                "b/wp",
                None,
                Err(E::Namespace),
            ),
            (
                "waypoint with another account",
                |c| states(c, "wp"),
                "app/other",
                None,
                Err(E::ServiceAccount),
            ),
            (
                "empty account claims nothing",
                |c| states(c, ""),
                "app/wp",
                None,
                Ok(()),
            ),
            (
                "account of no pod of the gateway",
                waypoint,
                "app/other",
                None,
                Err(E::GatewayAccount),
            ),
            (
                "gateway elsewhere",
                |c| {
                    *c = envoy("b", "wp");
                    c.ns = Str::from("app");
                },
                "app/wp",
                None,
                Err(E::Gateway),
            ),
        ];
        let own = Str::from("cluster.local");
        let mut pods = PodFacts::default();
        let fact = |sa| {
            Some(Arc::new(PodFact {
                uid: Str::new(),
                service_account: Str::from(sa),
                node: Str::new(),
                gateway: Some(Str::from("wp")),
            }))
        };
        pods.set(&ObjectKey::new("app", "wp-1"), fact("wp"));
        pods.set(&ObjectKey::new("b", "wp-1"), fact("other"));
        for (case, change, account, pod, expected) in cases {
            let mut client = ztunnel();
            change(&mut client);
            let checked = IdentityPolicy::default().check(
                &caller(account, pod),
                &client,
                Some(&pods),
                Some(&own),
            );
            assert_eq!(checked, expected, "{case}");
        }
        // Nothing is known of the pods of this one.
        let client = envoy("app", "new");
        let checked = IdentityPolicy::default().check(
            &caller("app/any", None),
            &client,
            Some(&pods),
            Some(&own),
        );
        assert_eq!(checked, Ok(()));
    }

    #[test]
    fn ztunnel_of_an_alias_may_not_read_the_mesh() {
        let policy = IdentityPolicy::default();
        let mut alias = caller("istio-system/ztunnel", None);
        alias.identity.trust_domain = Str::from("alias");
        let own = Str::from("cluster.local");
        let check = |caller: &Caller| policy.check(caller, &ztunnel(), None, Some(&own));
        assert_eq!(check(&caller("istio-system/ztunnel", None)), Ok(()));
        assert_eq!(check(&alias), Err(IdentityError::NotZtunnel));
    }
}
