//! Which node may ask for which identity.
//!
//! Source: spec/control-plane.md §4.3.

use std::collections::BTreeSet;
use std::str::FromStr;

use authn::{Caller, Proof};
use model::{SpiffeId, Str};

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its uid.
    pub uid: Str,
    /// Its service account.
    pub service_account: Str,
    /// Its node; empty before it is scheduled.
    pub node: Str,
}

/// What the cluster runs where. Pods that have not failed count, running or not:
/// certificates are asked for while a pod starts.
pub trait NodeAuthorizer: Send + Sync {
    /// The pod of a name.
    fn pod(&self, ns: &str, name: &str) -> Option<PodFacts>;

    /// Whether a pod of the account is on the node.
    fn runs(&self, ns: &str, service_account: &str, node: &str) -> bool;
}

/// Accounts that may ask for the identities of their nodes: `ns/sa` each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedAccounts(BTreeSet<(Str, Str)>);

/// An entry of `CA_TRUSTED_NODE_ACCOUNTS` that is not `ns/sa`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form namespace/service-account")]
pub struct BadAccount(String);

impl FromStr for TrustedAccounts {
    type Err = BadAccount;

    /// A comma list; empty trusts nobody.
    fn from_str(text: &str) -> Result<Self, BadAccount> {
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| match entry.split_once('/') {
                Some((ns, sa)) if !ns.is_empty() && !sa.is_empty() && !sa.contains('/') => {
                    Ok((ns.into(), sa.into()))
                }
                _ => Err(BadAccount(entry.chars().take(200).collect())),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TrustedAccounts {
    fn contains(&self, id: &SpiffeId) -> bool {
        self.0.contains(&(id.ns.clone(), id.sa.clone()))
    }
}

/// Why an identity is not handed to a node. For the log; the caller learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeDenied {
    /// No account is trusted, or not this one.
    #[error("the account may not ask for other identities")]
    NotTrusted,
    /// The caller has a certificate or a token without a pod.
    #[error("the caller has no token that names its pod")]
    NoPod,
    /// The identity asked for does not parse.
    #[error("the identity asked for is not a workload identity")]
    NotSpiffe,
    /// The identity is of another trust domain.
    #[error("the identity asked for is of another trust domain")]
    TrustDomain,
    /// The caller's pod is not known (yet).
    #[error("the pod of the caller is not known")]
    UnknownPod,
    /// The caller's token is of an earlier pod of that name.
    #[error("the uid of the caller's pod is not that of its token")]
    Uid,
    /// The caller's pod has another account than its token.
    #[error("the account of the caller's pod is not that of its token")]
    Account,
    /// The caller's pod is on no node.
    #[error("the pod of the caller is on no node")]
    NoNode,
    /// No pod of the identity is on the caller's node.
    #[error("no pod of the identity asked for is on the node of the caller")]
    NotOnNode,
}

impl NodeDenied {
    /// The label of metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotTrusted => "not_trusted",
            Self::NoPod => "no_pod",
            Self::NotSpiffe => "not_spiffe",
            Self::TrustDomain => "trust_domain",
            Self::UnknownPod => "unknown_pod",
            Self::Uid => "pod_uid",
            Self::Account => "pod_account",
            Self::NoNode => "no_node",
            Self::NotOnNode => "not_on_node",
        }
    }
}

/// The identity that `caller` asks for, if its node may have it. Nothing is
/// remembered: a pod that is not known yet is found at the next try.
pub(super) fn authorize(
    caller: &Caller,
    wanted: &str,
    trust_domain: &str,
    trusted: &TrustedAccounts,
    nodes: &dyn NodeAuthorizer,
) -> Result<SpiffeId, NodeDenied> {
    if !trusted.contains(&caller.identity) || caller.identity.trust_domain != trust_domain {
        return Err(NodeDenied::NotTrusted);
    }
    let Proof::Token { pod: Some(pod) } = &caller.proof else {
        return Err(NodeDenied::NoPod);
    };
    let wanted: SpiffeId = wanted.parse().map_err(|_| NodeDenied::NotSpiffe)?;
    if wanted.trust_domain != trust_domain {
        return Err(NodeDenied::TrustDomain);
    }
    let facts = nodes
        .pod(&caller.identity.ns, &pod.name)
        .ok_or(NodeDenied::UnknownPod)?;
    if facts.uid != pod.uid {
        return Err(NodeDenied::Uid);
    }
    if facts.service_account != caller.identity.sa {
        return Err(NodeDenied::Account);
    }
    if facts.node.is_empty() {
        return Err(NodeDenied::NoNode);
    }
    if !nodes.runs(&wanted.ns, &wanted.sa, &facts.node) {
        return Err(NodeDenied::NotOnNode);
    }
    Ok(wanted)
}
