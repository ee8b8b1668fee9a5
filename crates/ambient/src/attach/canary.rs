//! The second waypoint of a service, which takes a share of its traffic.
//!
//! Source: spec/workload-discovery.md §4.1, §4.4.

use flow::Reads;
use model::derived::BoundWaypoint;
use model::{Finding, Labels, Meta, ObjectKey, ObjectRef, Str};

use super::{
    AttachView, Attachment, BindingReason, Reach, Request, Resolver, Subject, Traffic, bound,
    is_none, request,
};
use crate::keys::{
    ANNOTATION_CANARY_WEIGHT, LABEL_USE_WAYPOINT_CANARY, LABEL_USE_WAYPOINT_CANARY_NAMESPACE,
};
use crate::tables::error;

/// The share that both waypoints make up.
pub(super) const WEIGHT_MAX: u32 = 100;

/// A second waypoint and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The waypoint; it has a usable address.
    pub bound: BoundWaypoint,
    /// Percent, 0 to 100.
    pub weight: u32,
}

/// Why the canary takes no traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryReason {
    /// It is the primary.
    SameAsPrimary,
    /// The weight is no integer from 0 to 100.
    InvalidWeight,
    /// The primary has no usable address.
    PrimaryWithoutAddress,
    /// It cannot be bound.
    Unbound(BindingReason),
}

/// A canary that takes no traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryRefused {
    /// The Gateway named.
    pub wanted: ObjectKey,
    /// Why.
    pub reason: CanaryReason,
    /// For people: why, and what traffic does now.
    pub message: Str,
}

// === impl CanaryReason ===

impl CanaryReason {
    /// The word of the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::SameAsPrimary => "CanarySameAsPrimary",
            Self::InvalidWeight => "CanaryInvalidWeight",
            Self::PrimaryWithoutAddress => "WaypointIsNotReady",
            Self::Unbound(reason) => reason.as_str(),
        }
    }
}

/// What labels ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CanaryRequest {
    /// No label.
    Unset,
    /// No canary.
    OptOut,
    /// This Gateway.
    Named(ObjectKey),
}

/// What the labels of an object in this namespace ask for.
pub(crate) fn canary_request(labels: &Labels, ns: &Str) -> CanaryRequest {
    match labels.get(LABEL_USE_WAYPOINT_CANARY) {
        None => CanaryRequest::Unset,
        Some(name) if name.is_empty() || is_none(name) => CanaryRequest::OptOut,
        Some(name) => {
            let ns = labels
                .get(LABEL_USE_WAYPOINT_CANARY_NAMESPACE)
                .unwrap_or(ns);
            CanaryRequest::Named(ObjectKey::new(ns.clone(), name.clone()))
        }
    }
}

/// The weight as written.
pub(crate) fn weight_text(meta: &Meta) -> Option<&Str> {
    meta.annotation(ANNOTATION_CANARY_WEIGHT)
}

/// A canary as requested beside a bound primary.
pub(crate) struct Candidate<'a> {
    pub(crate) primary: &'a BoundWaypoint,
    pub(crate) wanted: &'a ObjectKey,
    pub(crate) weight: Option<&'a Str>,
    pub(crate) ns: &'a Str,
    pub(crate) reach: Reach,
}

// === impl Candidate ===

impl Candidate<'_> {
    /// The canary, or the first thing that is wrong with it.
    pub(crate) fn judge(
        &self,
        resolver: &Resolver<'_>,
        reads: &mut Reads,
    ) -> Result<Canary, CanaryRefused> {
        let refused = |reason, text: String| CanaryRefused {
            wanted: self.wanted.clone(),
            reason,
            message: format!(
                "{text}; the canary is not used and all traffic goes through waypoint {}",
                self.primary.key
            )
            .into(),
        };
        if *self.wanted == self.primary.key {
            let text = format!("Canary waypoint {} is the primary itself", self.wanted);
            return Err(refused(CanaryReason::SameAsPrimary, text));
        }
        let Some(weight) = self.weight() else {
            let text = format!(
                "Canary weight {:?} is no integer from 0 to 100",
                self.weight.map(Str::as_str).unwrap_or_default()
            );
            return Err(refused(CanaryReason::InvalidWeight, text));
        };
        let unbound = |reason: BindingReason| {
            let text = reason.text(self.wanted, self.ns, Traffic::Services);
            refused(CanaryReason::Unbound(reason), format!("Canary: {text}"))
        };
        let row = resolver
            .resolve(reads, self.wanted, self.ns)
            .map_err(unbound)?;
        if !row.serves.services() {
            return Err(unbound(BindingReason::Unserved));
        }
        if self.reach == Reach::Namespace && row.key.ns != *self.ns {
            return Err(unbound(BindingReason::CrossNamespace));
        }
        if row.address.is_none() {
            return Err(unbound(BindingReason::NotReady));
        }
        if self.primary.address.is_none() {
            return Err(CanaryRefused {
                wanted: self.wanted.clone(),
                reason: CanaryReason::PrimaryWithoutAddress,
                message: format!(
                    "Waypoint {} has no usable address; its canary is not used either",
                    self.primary.key
                )
                .into(),
            });
        }
        Ok(Canary {
            bound: bound(&row),
            weight,
        })
    }

    fn weight(&self) -> Option<u32> {
        let Some(text) = self.weight else {
            return Some(0);
        };
        text.parse().ok().filter(|weight| *weight <= WEIGHT_MAX)
    }
}

// === impl CanaryRefused ===

impl CanaryRefused {
    /// The finding on the object that names the canary or its weight.
    pub(crate) fn finding(&self, object: &ObjectRef) -> Finding {
        let (field, fix) = match &self.reason {
            CanaryReason::SameAsPrimary => (FIELD_CANARY, "Name another Gateway".to_owned()),
            CanaryReason::InvalidWeight => (
                FIELD_WEIGHT,
                "Write an integer from 0 to 100 in quotes".to_owned(),
            ),
            CanaryReason::PrimaryWithoutAddress => (
                FIELD_CANARY,
                "Give the primary waypoint an address".to_owned(),
            ),
            CanaryReason::Unbound(_) => (
                FIELD_CANARY,
                format!(
                    "Correct the labels, or let Gateway {} serve this object",
                    self.wanted
                ),
            ),
        };
        error(CODE, object.clone(), self.message.clone(), fix).at(field)
    }
}

const CODE: &str = "wp-canary-invalid";
const FIELD_CANARY: &str = "metadata.labels[istio.io/use-waypoint-canary]";
const FIELD_WEIGHT: &str = "metadata.annotations[istio.io/use-waypoint-canary-weight]";

// === impl AttachView ===

impl AttachView<'_> {
    /// Adds the canary of a service: its own label, else, unless it names its own primary,
    /// that of its namespace.
    pub(super) fn add_canary(
        &self,
        reads: &mut Reads,
        subject: &Subject<'_>,
        meta: &Meta,
        attachment: &mut Attachment,
        notes: &mut Vec<Finding>,
    ) {
        let own_request = request(subject.labels, subject.ns);
        let inherits = own_request == Request::Unset;
        let namespace = ObjectKey::cluster(subject.ns.clone());
        let binding = self
            .namespace_bindings
            .get(reads, &namespace)
            .filter(|_| inherits);
        let own = canary_request(subject.labels, subject.ns);
        let own_weight = weight_text(meta);
        let wanted = match &own {
            CanaryRequest::OptOut => return,
            CanaryRequest::Named(wanted) => wanted,
            CanaryRequest::Unset => {
                let Some(wanted) = binding.and_then(|binding| binding.canary.as_ref()) else {
                    return;
                };
                wanted
            }
        };
        let is_own = own != CanaryRequest::Unset;
        let Some(primary) = &attachment.bound else {
            // A primary that is refused has its own finding.
            if is_own && attachment.refusal.is_none() {
                notes.push(without_primary(subject.object, wanted));
            }
            return;
        };
        let inherited_weight = || binding.and_then(|binding| binding.canary_weight.as_ref());
        let candidate = Candidate {
            primary,
            wanted,
            weight: own_weight.or_else(inherited_weight),
            ns: subject.ns,
            reach: subject.reach,
        };
        match candidate.judge(&self.resolver(), reads) {
            Ok(canary) => attachment.canary = Some(canary),
            Err(refused) => {
                let confined =
                    refused.reason == CanaryReason::Unbound(BindingReason::CrossNamespace);
                if is_own || own_weight.is_some() || confined {
                    notes.push(refused.finding(subject.object));
                }
                attachment.canary_refusal = Some(refused);
            }
        }
    }
}

/// A canary beside nothing.
pub(crate) fn without_primary(object: &ObjectRef, wanted: &ObjectKey) -> Finding {
    error(
        CODE,
        object.clone(),
        format!("Canary waypoint {wanted} is not used: no waypoint is bound that it could relieve"),
        "Name a primary with istio.io/use-waypoint, or remove the label",
    )
    .at(FIELD_CANARY)
}
