//! Why a reference binds nothing, and what traffic does then.

use model::derived::{BoundWaypoint, WaypointFor};
use model::{Finding, MeshRow, NamespacedHostname, ObjectKey, ObjectRef, Str, WaypointRow};

use super::{Attachment, FIELD_USE_WAYPOINT, Reach, Subject, Traffic};
use crate::tables::error;

/// Why a reference binds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingReason {
    /// No such Gateway.
    Missing,
    /// No such Gateway, but the name splits into this one.
    Qualified(ObjectKey),
    /// The Gateway has no address yet.
    NotReady,
    /// Its listener does not admit the namespace.
    Denied,
    /// It does not serve this kind of traffic.
    Unserved,
    /// The object is visible in its namespace only and the waypoint is in another.
    CrossNamespace,
}

/// A reference that binds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The Gateway named.
    pub wanted: ObjectKey,
    /// Why.
    pub reason: BindingReason,
    /// For people: why, and what traffic does now.
    pub message: Str,
    fix: Str,
}

/// What becomes of traffic whose waypoint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// It goes to the pods.
    Direct,
    /// It is refused.
    Refuse,
}

// === impl BindingReason ===

impl BindingReason {
    /// Reason of condition `istio.io/WaypointBound`. Source: spec/workload-discovery.md §6.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Missing | Self::Qualified(_) | Self::NotReady => "WaypointIsNotReady",
            Self::Denied => "AttachmentDenied",
            Self::Unserved => "UnsupportedTrafficType",
            Self::CrossNamespace => "CrossNamespaceWaypointForbidden",
        }
    }

    /// Code of the finding.
    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "wp-missing",
            Self::Qualified(_) => "wp-label-qualified",
            Self::NotReady => "wp-not-ready",
            Self::Denied => "wp-attachment-denied",
            Self::Unserved => "wp-for-mismatch",
            Self::CrossNamespace => "wp-cross-namespace",
        }
    }

    /// What is wrong, without what follows from it.
    pub(super) fn text(&self, wanted: &ObjectKey, ns: &Str, traffic: Traffic) -> String {
        match self {
            Self::Missing => format!("Waypoint {wanted} not found"),
            Self::Qualified(_) => {
                format!("The label holds a name only and {wanted} does not exist")
            }
            Self::NotReady => format!("Waypoint {wanted} has no address yet"),
            Self::Denied => format!("Waypoint {wanted} does not accept namespace {ns}"),
            Self::Unserved => {
                format!(
                    "Waypoint {wanted} does not serve {} traffic",
                    traffic.word()
                )
            }
            Self::CrossNamespace => format!(
                "The host is visible in namespace {ns} only, and waypoint {wanted} is in another"
            ),
        }
    }

    fn fix(&self, wanted: &ObjectKey, traffic: Traffic) -> String {
        match self {
            Self::Missing => "Create the Gateway or correct the label".to_owned(),
            Self::Qualified(meant) => format!(
                "Write istio.io/use-waypoint: {} and istio.io/use-waypoint-namespace: {}",
                meant.name, meant.ns
            ),
            Self::NotReady => "Check the waypoint's deployment".to_owned(),
            Self::Denied => {
                "Admit the namespace in allowedRoutes of the waypoint's HBONE listener".to_owned()
            }
            Self::Unserved => format!(
                "Set istio.io/waypoint-for to {} or all on Gateway {wanted}",
                traffic.word()
            ),
            Self::CrossNamespace => {
                "Use a waypoint of the same namespace, or make the entry public".to_owned()
            }
        }
    }
}

// === impl Refused ===

impl Refused {
    pub(super) fn new(
        wanted: ObjectKey,
        reason: BindingReason,
        subject: &Subject<'_>,
        fallback: Fallback,
    ) -> Self {
        Self::of(wanted, reason, subject.ns, subject.traffic, fallback)
    }

    /// The refusal of a namespace's own label.
    pub(crate) fn of(
        wanted: ObjectKey,
        reason: BindingReason,
        ns: &Str,
        traffic: Traffic,
        fallback: Fallback,
    ) -> Self {
        let text = reason.text(&wanted, ns, traffic);
        Self {
            message: format!("{text}; {}", fallback.text()).into(),
            fix: reason.fix(&wanted, traffic).into(),
            wanted,
            reason,
        }
    }

    /// The finding on the object that carries the reference.
    pub(crate) fn finding(&self, object: &ObjectRef) -> Finding {
        let (message, fix) = (self.message.clone(), self.fix.clone());
        error(self.reason.code(), object.clone(), message, fix).at(FIELD_USE_WAYPOINT)
    }

    pub(super) fn attachment(self, fallback: Fallback) -> Attachment {
        Attachment {
            blocked: fallback.blocked(&self.wanted),
            refusal: Some(self),
            ..Attachment::default()
        }
    }
}

/// The finding on an object that is bound to a waypoint without usable address.
pub(crate) fn addressless(object: &ObjectRef, key: &ObjectKey, fallback: Fallback) -> Finding {
    error(
        "wp-not-ready",
        object.clone(),
        format!(
            "Waypoint {key} has no usable address in its status; {}",
            fallback.text()
        ),
        "Give the waypoint an address of type Hostname or IPAddress",
    )
    .at(FIELD_USE_WAYPOINT)
}

/// The finding on an object that names a Gateway which is no waypoint, but binds like one.
/// Gateways of others with an HBONE listener may well be waypoints.
pub(crate) fn foreign_class(object: &ObjectRef, waypoint: &WaypointRow) -> Option<Finding> {
    let class = &waypoint.class;
    // Ours that are no waypoints terminate no tunnel for the services of others.
    let is_known = waypoint.controller.is_some();
    if waypoint.is_mesh_class() || (waypoint.listener.is_some() && !is_known) {
        return None;
    }
    let note = error(
        "wp-class-foreign",
        object.clone(),
        format!(
            "Gateway {} has class {class} and is no waypoint, but is used as one: what is bound to it is sent to its port 15008, where nobody takes it",
            waypoint.key
        ),
        "Name a Gateway of class istio-waypoint",
    );
    Some(note.at(FIELD_USE_WAYPOINT))
}

// === impl Fallback ===

impl Fallback {
    /// What the installation says.
    pub(crate) fn of_mesh(mesh: &MeshRow) -> Self {
        if mesh.features.waypoint_missing_denies {
            Self::Refuse
        } else {
            Self::Direct
        }
    }

    /// What happens to traffic of an object whose reference binds nothing.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Direct => {
                "traffic goes directly to the pods, without layer 7 policies and routes"
            }
            Self::Refuse => {
                "traffic is refused (waypoint-missing is fail-closed) until the waypoint can be used"
            }
        }
    }

    /// A service that never exists: `.invalid` is reserved, so ztunnel finds no waypoint and
    /// refuses the connection, as for a waypoint without healthy instance.
    pub(super) fn blocked(self, wanted: &ObjectKey) -> Option<NamespacedHostname> {
        let hostname = || format!("{}.{}.waypoint.invalid", wanted.name, wanted.ns);
        (self == Self::Refuse).then(|| NamespacedHostname::new(wanted.ns.clone(), hostname()))
    }
}

// === impl Traffic ===

impl Traffic {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Services => "service",
            Self::Workloads => "workload",
        }
    }

    pub(super) fn is_served(self, serves: WaypointFor) -> bool {
        match self {
            Self::Services => serves.services(),
            Self::Workloads => serves.workloads(),
        }
    }
}

// === impl Subject ===

impl Subject<'_> {
    /// The waypoint, if it serves such traffic and belongs where the object is seen.
    pub(super) fn fit(
        &self,
        bound: BoundWaypoint,
        serves: WaypointFor,
    ) -> Result<BoundWaypoint, BindingReason> {
        if !self.traffic.is_served(serves) {
            return Err(BindingReason::Unserved);
        }
        if self.reach == Reach::Namespace && bound.key.ns != *self.ns {
            return Err(BindingReason::CrossNamespace);
        }
        Ok(bound)
    }
}
