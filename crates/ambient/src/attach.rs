//! Which waypoint an object is bound to, and why not.
//!
//! Source: spec/workload-discovery.md §4.3; findings: spec/policy-and-traffic.md §10.3.

use std::sync::Arc;

use flow::{Reads, View};
use model::derived::BoundWaypoint;
use model::input::{AllowedNamespaces, Namespace};
use model::labels::{LABEL_USE_WAYPOINT, LABEL_USE_WAYPOINT_NAMESPACE};
use model::{Finding, Labels, ObjectKey, ObjectRef, Str, WaypointRow};

use crate::namespace_binding::NamespaceBinding;
use crate::tables::{InputView, error};
use crate::waypoint::WaypointTable;

/// What the binding of an object depends on.
#[derive(Clone, Copy)]
pub struct AttachView<'t> {
    /// Waypoints.
    pub waypoints: WaypointTable<'t>,
    /// Namespaces, for the label selectors of listeners.
    pub namespaces: InputView<'t, Namespace>,
    /// What namespaces bind their objects to.
    pub namespace_bindings: View<'t, ObjectKey, NamespaceBinding>,
}

/// The kind of traffic that a binding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// To the addresses of a service.
    Services,
    /// To the addresses of a workload.
    Workloads,
}

/// What labels ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Nothing: ask the namespace.
    Unset,
    /// No waypoint, whatever the namespace says.
    OptOut,
    /// This Gateway and no other.
    Named(ObjectKey),
}

/// What the labels of an object in this namespace ask for.
pub(crate) fn request(labels: &Labels, ns: &Str) -> Request {
    match labels.get(LABEL_USE_WAYPOINT) {
        None => Request::Unset,
        Some(name) if name == "none" || name == "#none" => Request::OptOut,
        Some(name) => {
            let ns = labels.get(LABEL_USE_WAYPOINT_NAMESPACE).unwrap_or(ns);
            Request::Named(ObjectKey::new(ns.clone(), name.clone()))
        }
    }
}

/// Why a reference binds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such Gateway.
    Missing,
    /// No such Gateway, but the name splits into this one.
    Qualified(ObjectKey),
    /// The Gateway has no address yet.
    NotReady,
    /// Its listener does not admit the namespace.
    Denied,
}

/// An object that may be bound.
pub(crate) struct Subject<'a> {
    pub(crate) object: &'a ObjectRef,
    pub(crate) ns: &'a Str,
    pub(crate) labels: &'a Labels,
    pub(crate) traffic: Traffic,
}

// === impl AttachView ===

impl AttachView<'_> {
    /// The waypoint of an object: its own reference, else what its namespace offers.
    ///
    /// Only trouble with the object's own reference is noted; that of a namespace label is
    /// noted once, on the Namespace.
    pub(crate) fn waypoint_of(
        &self,
        reads: &mut Reads,
        subject: &Subject<'_>,
        notes: &mut Vec<Finding>,
    ) -> Option<BoundWaypoint> {
        let wanted = match request(subject.labels, subject.ns) {
            Request::OptOut => return None,
            Request::Unset => return self.inherited(reads, subject),
            Request::Named(wanted) => wanted,
        };
        let waypoint = match self.resolve(reads, &wanted, subject.ns) {
            Ok(waypoint) => waypoint,
            Err(refusal) => {
                notes.push(refusal.finding(subject.object, &wanted, subject.ns));
                return None;
            }
        };
        if !is_served(&waypoint, subject.traffic) {
            notes.push(mismatch(subject.object, &waypoint, subject.traffic));
            return None;
        }
        Some(bound(&waypoint))
    }

    fn inherited(&self, reads: &mut Reads, subject: &Subject<'_>) -> Option<BoundWaypoint> {
        let namespace = ObjectKey::cluster(subject.ns.clone());
        let offer = self
            .namespace_bindings
            .get(reads, &namespace)?
            .waypoint
            .as_ref()?;
        let served = match subject.traffic {
            Traffic::Services => offer.serves.services(),
            Traffic::Workloads => offer.serves.workloads(),
        };
        served.then(|| offer.bound.clone())
    }

    /// The waypoint named, if objects of `ns` may use it now.
    pub(crate) fn resolve(
        &self,
        reads: &mut Reads,
        wanted: &ObjectKey,
        ns: &Str,
    ) -> Result<Arc<WaypointRow>, Refusal> {
        Resolver {
            waypoints: self.waypoints,
            namespaces: self.namespaces,
        }
        .resolve(reads, wanted, ns)
    }
}

/// The part of [`AttachView`] that needs no namespace bindings.
#[derive(Clone, Copy)]
pub(crate) struct Resolver<'t> {
    pub(crate) waypoints: WaypointTable<'t>,
    pub(crate) namespaces: InputView<'t, Namespace>,
}

// === impl Resolver ===

impl Resolver<'_> {
    pub(crate) fn resolve(
        &self,
        reads: &mut Reads,
        wanted: &ObjectKey,
        ns: &Str,
    ) -> Result<Arc<WaypointRow>, Refusal> {
        let Some(waypoint) = self.waypoints.get(reads, wanted) else {
            let meant =
                candidates(&wanted.name).find(|key| self.waypoints.get(reads, key).is_some());
            return Err(meant.map_or(Refusal::Missing, Refusal::Qualified));
        };
        if !waypoint.ready {
            return Err(Refusal::NotReady);
        }
        let admitted = match &waypoint.allowed {
            AllowedNamespaces::All => true,
            AllowedNamespaces::Same => waypoint.key.ns == *ns,
            AllowedNamespaces::None => false,
            AllowedNamespaces::Selector(selector) => self
                .namespaces
                .get(reads, &ObjectKey::cluster(ns.clone()))
                .is_some_and(|namespace| selector.matches(&namespace.meta.labels)),
        };
        if admitted {
            Ok(Arc::clone(waypoint))
        } else {
            Err(Refusal::Denied)
        }
    }
}

/// Gateways that somebody who qualifies a name may mean: `ns/name`, `ns.name`, `name.ns`.
fn candidates(text: &str) -> impl Iterator<Item = ObjectKey> {
    let key = |(ns, name): (&str, &str)| ObjectKey::new(ns, name);
    let slashed = text.split_once('/').map(key);
    let first = text.split_once('.').map(key);
    let last = text
        .rsplit_once('.')
        .map(|(name, ns)| ObjectKey::new(ns, name));
    [slashed, first, last].into_iter().flatten()
}

/// The binding to a resolved waypoint.
pub(crate) fn bound(waypoint: &WaypointRow) -> BoundWaypoint {
    BoundWaypoint {
        key: waypoint.key.clone(),
        address: waypoint.address.clone(),
    }
}

fn is_served(waypoint: &WaypointRow, traffic: Traffic) -> bool {
    match traffic {
        Traffic::Services => waypoint.serves.services(),
        Traffic::Workloads => waypoint.serves.workloads(),
    }
}

/// Path of the label that names the waypoint.
pub(crate) const FIELD_USE_WAYPOINT: &str = "metadata.labels[istio.io/use-waypoint]";

/// What happens to traffic of an object whose reference binds nothing.
const DIRECT: &str = "traffic goes directly to the pods, without layer 7 policies and routes";

// === impl Refusal ===

impl Refusal {
    /// The finding on the object that carries the reference.
    pub(crate) fn finding(&self, object: &ObjectRef, wanted: &ObjectKey, ns: &Str) -> Finding {
        let (code, message, fix) = match self {
            Self::Missing => (
                "wp-missing",
                format!("Waypoint {wanted} not found; {DIRECT}"),
                "Create the Gateway or correct the label".to_owned(),
            ),
            Self::Qualified(meant) => (
                "wp-label-qualified",
                format!("The label holds a name only and {wanted} does not exist; {DIRECT}"),
                format!(
                    "Write istio.io/use-waypoint: {} and istio.io/use-waypoint-namespace: {}",
                    meant.name, meant.ns
                ),
            ),
            Self::NotReady => (
                "wp-not-ready",
                format!("Waypoint {wanted} has no address yet; {DIRECT}"),
                "Check the waypoint's deployment".to_owned(),
            ),
            Self::Denied => (
                "wp-attachment-denied",
                format!("Waypoint {wanted} does not accept namespace {ns}; {DIRECT}"),
                "Admit the namespace in allowedRoutes of the waypoint's HBONE listener".to_owned(),
            ),
        };
        error(code, object.clone(), message, fix).at(FIELD_USE_WAYPOINT)
    }
}

fn mismatch(object: &ObjectRef, waypoint: &WaypointRow, traffic: Traffic) -> Finding {
    let serves = match traffic {
        Traffic::Services => "service",
        Traffic::Workloads => "workload",
    };
    error(
        "wp-for-mismatch",
        object.clone(),
        format!(
            "Waypoint {} does not serve {serves} traffic; {DIRECT}",
            waypoint.key
        ),
        format!("Set istio.io/waypoint-for to {serves} or all on the Gateway"),
    )
    .at(FIELD_USE_WAYPOINT)
}
