//! Which waypoint an object is bound to, and why not.
//!
//! A reference that cannot be honoured leaves traffic to go directly to the pods, or has it
//! refused where the installation or the namespace says `fail-closed`.
//!
//! Source: spec/workload-discovery.md §4.3, §4.4; findings: spec/policy-and-traffic.md §10.3.

mod canary;
mod ingress;
mod refusal;

use std::sync::Arc;

use flow::{Reads, View};
use model::derived::{BoundWaypoint, InboundBinding, WeightedWaypoint};
use model::input::{AllowedNamespaces, Namespace, WorkloadEntry};
use model::labels::{LABEL_GATEWAY_NAME, LABEL_USE_WAYPOINT, LABEL_USE_WAYPOINT_NAMESPACE};
use model::{
    Finding, Kind, Labels, Meta, NamespacedHostname, ObjectKey, ObjectRef, Parsed, Str, WaypointRow,
};

use crate::namespace_binding::{NamespaceBinding, NamespaceWaypoint};
use crate::tables::{self, InputView, MeshTable};
use crate::waypoint::WaypointTable;

pub use canary::{Canary, CanaryReason, CanaryRefused};
pub(crate) use canary::{
    CanaryRequest, Candidate as CanaryCandidate, canary_request, weight_text, without_primary,
};
pub(crate) use ingress::{ingress_use_waypoint, ingress_without_waypoint};
pub use refusal::{BindingReason, Refused};
pub(crate) use refusal::{Fallback, addressless, foreign_class};

/// What the binding of an object depends on.
#[derive(Clone, Copy)]
pub struct AttachView<'t> {
    /// The mesh row.
    pub mesh: MeshTable<'t>,
    /// Waypoints.
    pub waypoints: WaypointTable<'t>,
    /// Namespaces, for the label selectors of listeners.
    pub namespaces: InputView<'t, Namespace>,
    /// What namespaces bind their objects to.
    pub namespace_bindings: View<'t, ObjectKey, NamespaceBinding>,
}

/// What came of an object's reference to a waypoint, its own or that of its namespace.
///
/// Without `bound` and `refusal` no waypoint is requested, or the object is none's business:
/// it opted out, or is itself part of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The waypoint; it may lack a usable address, and then has no traffic.
    pub bound: Option<BoundWaypoint>,
    /// Why there is none although one is requested. Never together with `bound`.
    pub refusal: Option<Refused>,
    /// The second waypoint, which takes a share. Only with `bound`.
    pub canary: Option<Canary>,
    /// Why there is none although one is requested. Only with `bound`; all traffic goes through
    /// that then.
    pub canary_refusal: Option<CanaryRefused>,
    /// A destination that does not exist, by which traffic is refused. Only where the waypoint
    /// cannot be used and that is to fail closed.
    pub blocked: Option<NamespacedHostname>,
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
        Some(name) if is_none(name) => Request::OptOut,
        Some(name) => {
            let ns = labels.get(LABEL_USE_WAYPOINT_NAMESPACE).unwrap_or(ns);
            Request::Named(ObjectKey::new(ns.clone(), name.clone()))
        }
    }
}

/// The words that opt out.
fn is_none(name: &str) -> bool {
    name == "none" || name == "#none"
}

/// Who sees the object that is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Everybody.
    Mesh,
    /// Clients of its namespace: a waypoint elsewhere is none of them.
    Namespace,
}

/// An object that may be bound.
pub(crate) struct Subject<'a> {
    pub(crate) object: &'a ObjectRef,
    pub(crate) ns: &'a Str,
    pub(crate) labels: &'a Labels,
    pub(crate) traffic: Traffic,
    pub(crate) reach: Reach,
}

/// How traffic to the addresses of a workload gets in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbound {
    pub(crate) attachment: Attachment,
    pub(crate) application_tunnel: Option<InboundBinding>,
}

// === impl Attachment ===

impl Attachment {
    /// Primary and canary with their shares; empty without a canary.
    pub fn weighted(&self) -> Vec<WeightedWaypoint> {
        let (Some(primary), Some(canary)) = (&self.bound, &self.canary) else {
            return Vec::new();
        };
        vec![
            WeightedWaypoint {
                bound: primary.clone(),
                weight: canary::WEIGHT_MAX.saturating_sub(canary.weight),
            },
            WeightedWaypoint {
                bound: canary.bound.clone(),
                weight: canary.weight,
            },
        ]
    }
}

// === impl AttachView ===

impl AttachView<'_> {
    /// What comes of the reference of a Service or ServiceEntry, and its canary.
    ///
    /// Trouble with a namespace label is noted once, on the Namespace.
    pub(crate) fn of_service(
        &self,
        reads: &mut Reads,
        subject: &Subject<'_>,
        meta: &Meta,
        notes: &mut Vec<Finding>,
    ) -> Attachment {
        let mut attachment = self.attach(reads, subject, notes);
        self.add_canary(reads, subject, meta, &mut attachment, notes);
        attachment
    }

    /// What comes of the reference of a WorkloadEntry, for its status.
    pub fn of_workload_entry(
        &self,
        reads: &mut Reads,
        object: &Parsed<WorkloadEntry>,
    ) -> Attachment {
        let Some(entry) = object.ok() else {
            return Attachment::default();
        };
        let meta = &object.meta;
        let mut labels = entry.labels.clone();
        labels.extend(meta.labels.clone());
        let reference = ObjectRef::new(Kind::WorkloadEntry, meta.key.clone());
        self.of_workload(reads, &reference, &labels, &mut Vec::new())
            .attachment
    }

    /// How traffic gets to a Pod, a WorkloadEntry or an endpoint with these labels.
    ///
    /// An instance of a gateway has no waypoint of its own; anything else may have one.
    /// A Gateway counts from the moment it exists, not only once it is ready: otherwise the pods
    /// of a starting waypoint could be sent through another one.
    pub(crate) fn of_workload(
        &self,
        reads: &mut Reads,
        object: &ObjectRef,
        labels: &Labels,
        notes: &mut Vec<Finding>,
    ) -> Inbound {
        let ns = &object.key.ns;
        if let Some(gateway) = labels.get(LABEL_GATEWAY_NAME) {
            let gateway = ObjectKey::new(ns.clone(), gateway.clone());
            if let Some(row) = self.waypoints.get(reads, &gateway) {
                return Inbound {
                    attachment: Attachment::default(),
                    application_tunnel: row.binding,
                };
            }
        }
        let subject = Subject {
            object,
            ns,
            labels,
            traffic: Traffic::Workloads,
            reach: Reach::Mesh,
        };
        Inbound {
            attachment: self.attach(reads, &subject, notes),
            application_tunnel: None,
        }
    }

    fn attach(
        &self,
        reads: &mut Reads,
        subject: &Subject<'_>,
        notes: &mut Vec<Finding>,
    ) -> Attachment {
        match request(subject.labels, subject.ns) {
            Request::OptOut => Attachment::default(),
            Request::Named(wanted) => self.own(reads, subject, wanted, notes),
            Request::Unset => self.inherited(reads, subject, notes),
        }
    }

    fn own(
        &self,
        reads: &mut Reads,
        subject: &Subject<'_>,
        wanted: ObjectKey,
        notes: &mut Vec<Finding>,
    ) -> Attachment {
        let fallback = self.fallback(reads, subject.ns);
        let judged = (self.resolver().resolve(reads, &wanted, subject.ns)).and_then(|row| {
            notes.extend(foreign_class(subject.object, &row));
            subject.fit(bound(&row), row.serves)
        });
        match judged {
            Ok(bound) => {
                if bound.address.is_none() {
                    notes.push(addressless(subject.object, &bound.key, fallback));
                }
                usable(bound, fallback)
            }
            Err(reason) => {
                let refused = Refused::new(wanted, reason, subject, fallback);
                notes.push(refused.finding(subject.object));
                refused.attachment(fallback)
            }
        }
    }

    fn inherited(
        &self,
        reads: &mut Reads,
        subject: &Subject<'_>,
        notes: &mut Vec<Finding>,
    ) -> Attachment {
        let namespace = ObjectKey::cluster(subject.ns.clone());
        let binding = self.namespace_bindings.get(reads, &namespace);
        let Some(offer) = binding.and_then(|binding| binding.waypoint.as_ref()) else {
            return Attachment::default();
        };
        let fallback = self.fallback(reads, subject.ns);
        match offer {
            NamespaceWaypoint::Usable { bound, serves } => {
                let wanted = bound.key.clone();
                match subject.fit(bound.clone(), *serves) {
                    Ok(bound) => usable(bound, fallback),
                    // Nothing was asked of this object, so nothing is missing.
                    Err(BindingReason::Unserved) if subject.traffic == Traffic::Workloads => {
                        Attachment::default()
                    }
                    Err(BindingReason::Unserved) => {
                        let reason = BindingReason::Unserved;
                        Refused::new(wanted, reason, subject, Fallback::Direct)
                            .attachment(Fallback::Direct)
                    }
                    Err(reason) => {
                        let refused = Refused::new(wanted, reason, subject, fallback);
                        notes.push(refused.finding(subject.object));
                        refused.attachment(fallback)
                    }
                }
            }
            NamespaceWaypoint::Unusable {
                wanted,
                reason,
                serves,
            } => {
                let meant = serves.is_none_or(|serves| subject.traffic.is_served(serves));
                let fallback = if meant { fallback } else { Fallback::Direct };
                Refused::new(wanted.clone(), reason.clone(), subject, fallback).attachment(fallback)
            }
        }
    }

    /// What becomes of traffic in a namespace when its waypoint cannot be used.
    pub(crate) fn fallback(&self, reads: &mut Reads, ns: &Str) -> Fallback {
        let namespace = ObjectKey::cluster(ns.clone());
        let binding = self.namespace_bindings.get(reads, &namespace);
        let own = binding.and_then(|binding| binding.fallback);
        own.unwrap_or_else(|| Fallback::of_mesh(&tables::mesh(self.mesh, reads)))
    }

    fn resolver(&self) -> Resolver<'_> {
        Resolver {
            waypoints: self.waypoints,
            namespaces: self.namespaces,
        }
    }
}

/// The attachment to a waypoint that may be used, if it has an address.
fn usable(bound: BoundWaypoint, fallback: Fallback) -> Attachment {
    let blocked = match bound.address {
        Some(_) => None,
        None => fallback.blocked(&bound.key),
    };
    Attachment {
        bound: Some(bound),
        blocked,
        ..Attachment::default()
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
    /// The waypoint named, if objects of `ns` may use it now.
    pub(crate) fn resolve(
        &self,
        reads: &mut Reads,
        wanted: &ObjectKey,
        ns: &Str,
    ) -> Result<Arc<WaypointRow>, BindingReason> {
        let Some(waypoint) = self.waypoints.get(reads, wanted) else {
            let meant =
                candidates(&wanted.name).find(|key| self.waypoints.get(reads, key).is_some());
            return Err(meant.map_or(BindingReason::Missing, BindingReason::Qualified));
        };
        if !waypoint.ready {
            return Err(BindingReason::NotReady);
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
            Err(BindingReason::Denied)
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

/// Path of the label that names the waypoint.
pub(crate) const FIELD_USE_WAYPOINT: &str = "metadata.labels[istio.io/use-waypoint]";
