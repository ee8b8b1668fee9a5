//! Stage `authorization`: AuthorizationPolicy, PeerAuthentication or waypoint →
//! [`AuthorizationRow`].
//!
//! Source: spec/workload-discovery.md §5.2 to §5.6; findings: spec/policy-and-traffic.md §10.1,
//! §10.2. What ztunnel cannot evaluate is never dropped silently: an ALLOW rule with it allows
//! nothing, a DENY rule keeps the rest, and a finding says so.

mod behind;
mod evaluate;
mod identity;
mod peer;
mod policy;
mod principal;
mod rule;
pub(crate) mod unsupported;
pub(crate) mod waypoint;

pub use behind::AllowPoliciesByNamespace;
use flow::{Output, Reads};
use model::input::{AuthorizationPolicy, Namespace, PeerAuthentication};
use model::{AuthorizationRow, Finding, Labels, ObjectKey, Str};

use crate::census::{self, CensusTable};
use crate::peer_binding::PeerBindingTable;
use crate::service::ServiceTable;
use crate::tables::{self, InputView, MeshTable};
use crate::waypoint::WaypointTable;

/// What an Authorization comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorizationSource {
    /// The policy shared by all STRICT workloads. Always a primary of this stage.
    Static,
    /// A PeerAuthentication.
    Peer(ObjectKey),
    /// An AuthorizationPolicy.
    Policy(ObjectKey),
    /// A Gateway: the policy that allows it, where the installation wants such policies.
    Waypoint(ObjectKey),
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct AuthorizationView<'t> {
    /// AuthorizationPolicies, with index [`AllowPoliciesByNamespace`].
    pub policies: InputView<'t, AuthorizationPolicy>,
    /// PeerAuthentications.
    pub peers: InputView<'t, PeerAuthentication>,
    /// Their bindings, with index [`crate::peer_binding::PeersBySelector`].
    pub peer_bindings: PeerBindingTable<'t>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
    /// Namespaces: findings need to know which ones exist.
    pub namespaces: InputView<'t, Namespace>,
    /// The census, with indexes [`census::ServedByPlace`] and [`census::AccountsByNamespace`]:
    /// findings need to know whether a policy
    /// selects any workload that ztunnel serves. Read only for what has something to report.
    pub census: CensusTable<'t>,
    /// Services, with index [`crate::service::ServicesBySelector`], for findings on ports.
    pub services: ServiceTable<'t>,
    /// Waypoints.
    pub waypoints: WaypointTable<'t>,
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
        AuthorizationSource::Waypoint(key) => waypoint::derive(key, view, reads),
    }
}

// === impl AuthorizationView ===

impl AuthorizationView<'_> {
    /// Whether any workload that ztunnel serves is selected in this namespace, or in all of them
    /// for the root namespace.
    fn selects_served(&self, reads: &mut Reads, ns: &Str, selector: Option<&Labels>) -> bool {
        let is_root = *ns == tables::mesh(self.mesh, reads).root_namespace;
        let range = Some(ns).filter(|_| !is_root);
        let everything = Labels::new();
        let selector = selector.unwrap_or(&everything);
        let mut served = census::served(self.census, reads, range, selector);
        served.next().is_some()
    }
}
