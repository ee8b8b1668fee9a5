//! Stage `authorization`: AuthorizationPolicy or PeerAuthentication → [`AuthorizationRow`].
//!
//! Source: spec/workload-discovery.md §5.2 to §5.4; findings: spec/policy-and-traffic.md §10.1,
//! §10.2. What ztunnel cannot evaluate is never dropped silently: an ALLOW rule with it allows
//! nothing, a DENY rule keeps the rest, and a finding says so.

mod peer;
mod policy;
mod rule;

use flow::{Output, Reads};
use model::input::{AuthorizationPolicy, PeerAuthentication, Pod};
use model::{AuthorizationRow, Finding, Labels, ObjectKey, Str};

use crate::peer_binding::PeerBindingTable;
use crate::selector;
use crate::tables::{self, InputView, MeshTable, PodsByNamespace};
use crate::tunnel;

/// What an Authorization comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorizationSource {
    /// The policy shared by all STRICT workloads. Always a primary of this stage.
    Static,
    /// A PeerAuthentication.
    Peer(ObjectKey),
    /// An AuthorizationPolicy.
    Policy(ObjectKey),
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct AuthorizationView<'t> {
    /// AuthorizationPolicies.
    pub policies: InputView<'t, AuthorizationPolicy>,
    /// PeerAuthentications.
    pub peers: InputView<'t, PeerAuthentication>,
    /// Their bindings, with index [`crate::peer_binding::PeersBySelector`].
    pub peer_bindings: PeerBindingTable<'t>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
    /// Pods, with index [`PodsByNamespace`]: findings need to know whether a policy selects any
    /// that ztunnel serves. Read only for policies that have something to report.
    pub pods: InputView<'t, Pod>,
}

/// The Authorization of a source.
pub fn derive(
    source: &AuthorizationSource,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, AuthorizationRow, Finding> {
    match source {
        AuthorizationSource::Static => peer::static_strict(view, reads),
        AuthorizationSource::Peer(key) => peer::derive(key, view, reads),
        AuthorizationSource::Policy(key) => policy::derive(key, view, reads),
    }
}

// === impl AuthorizationView ===

impl AuthorizationView<'_> {
    /// Whether any pod that ztunnel serves is selected in this namespace, or in all of them for
    /// the root namespace.
    fn selects_ambient_pod(&self, reads: &mut Reads, ns: &Str, selector: Option<&Labels>) -> bool {
        let selected = |pod: &model::Parsed<Pod>| {
            let meta = &pod.meta;
            pod.ok().is_some_and(|body| !body.terminal)
                && tunnel::tunnel(&meta.labels, &meta.annotations).hbone
                && selector.is_none_or(|selector| selector::selects(selector, &meta.labels))
        };
        if *ns == tables::mesh(self.mesh, reads).root_namespace {
            self.pods.scan(reads).any(|(_, pod)| selected(pod))
        } else {
            self.pods
                .by::<PodsByNamespace>(reads, ns)
                .any(|(_, pod)| selected(pod))
        }
    }
}
