//! Stage `namespace_binding`: Namespace → what its objects inherit.
//!
//! Trouble with a namespace label is noted here, once, and not on each of its objects.

use flow::{Output, Reads};
use model::derived::{BoundWaypoint, Distribution, WaypointFor};
use model::input::Namespace;
use model::labels::ANNOTATION_TRAFFIC_DISTRIBUTION;
use model::{Finding, Kind, Meta, ObjectKey, ObjectRef, Severity, Str, WaypointRow};

use crate::attach::{
    self, BindingReason, CanaryCandidate, CanaryRequest, FIELD_USE_WAYPOINT, Fallback, Reach,
    Refused, Request, Resolver, Traffic,
};
use crate::keys;
use crate::tables::{self, InputView, MeshTable, error};
use crate::traffic;
use crate::waypoint::WaypointTable;

/// What a namespace gives to its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceBinding {
    /// The waypoint, if one is named.
    pub waypoint: Option<NamespaceWaypoint>,
    /// The second waypoint, if one is named.
    pub canary: Option<ObjectKey>,
    /// The share of the second waypoint, as written.
    pub canary_weight: Option<Str>,
    /// What becomes of traffic whose waypoint cannot be used, if the namespace says so.
    pub(crate) fallback: Option<Fallback>,
    /// `istio.io/ingress-use-waypoint`; `None` when absent, false when unreadable.
    pub ingress_use_waypoint: Option<bool>,
    /// Traffic distribution.
    pub distribution: Option<Distribution>,
}

/// The waypoint that a namespace names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceWaypoint {
    /// Its objects may use it.
    Usable {
        /// The binding.
        bound: BoundWaypoint,
        /// Traffic that it serves.
        serves: WaypointFor,
    },
    /// Its objects may not.
    Unusable {
        /// The Gateway.
        wanted: ObjectKey,
        /// Why.
        reason: BindingReason,
        /// Traffic that it would serve, if the Gateway exists.
        serves: Option<WaypointFor>,
    },
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct NamespaceBindingView<'t> {
    /// The mesh row.
    pub mesh: MeshTable<'t>,
    /// Namespaces.
    pub namespaces: InputView<'t, Namespace>,
    /// Waypoints.
    pub waypoints: WaypointTable<'t>,
}

/// What a namespace gives to its objects; no row when it gives nothing.
pub fn derive(
    key: &ObjectKey,
    view: &NamespaceBindingView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, NamespaceBinding, Finding> {
    let Some(namespace) = view.namespaces.get(reads, key) else {
        return Output::gone();
    };
    let meta = &namespace.meta;
    let object = ObjectRef::new(Kind::Namespace, key.clone());
    let mut notes = Vec::new();
    let fallback = fallback(meta, &object, &mut notes);
    let in_force = fallback.unwrap_or_else(|| Fallback::of_mesh(&tables::mesh(view.mesh, reads)));
    let labels = Labelled {
        ns: &key.name,
        meta,
        object: &object,
    };
    let waypoint = labels.waypoint(view, reads, in_force, &mut notes);
    let canary = match attach::canary_request(&meta.labels, &key.name) {
        CanaryRequest::Named(wanted) => Some(wanted),
        CanaryRequest::Unset | CanaryRequest::OptOut => None,
    };
    if let Some(wanted) = &canary {
        labels.judge_canary(view, reads, waypoint.as_ref(), wanted, &mut notes);
    }
    let row = NamespaceBinding {
        waypoint,
        canary,
        canary_weight: attach::weight_text(meta).cloned(),
        fallback,
        ingress_use_waypoint: attach::ingress_use_waypoint(meta, &object, &mut notes),
        distribution: meta
            .annotation(ANNOTATION_TRAFFIC_DISTRIBUTION)
            .and_then(|word| traffic::annotated_distribution(word)),
    };
    let output = if row == NamespaceBinding::default() {
        Output::none()
    } else {
        Output::one(key.clone(), row)
    };
    output.with_notes(notes)
}

/// What the namespace says of waypoints that cannot be used; a word that is not known refuses.
fn fallback(meta: &Meta, object: &ObjectRef, notes: &mut Vec<Finding>) -> Option<Fallback> {
    let word = meta.label(keys::LABEL_WAYPOINT_MISSING)?;
    match word.as_str() {
        "bypass" => Some(Fallback::Direct),
        "fail-closed" => Some(Fallback::Refuse),
        _ => {
            notes.push(
                error(
                    "wp-missing-mode-invalid",
                    object.clone(),
                    format!("{word:?} is neither fail-closed nor bypass; fail-closed is in force: traffic whose waypoint cannot be used is refused"),
                    "Write fail-closed or bypass",
                )
                .at(FIELD_WAYPOINT_MISSING),
            );
            Some(Fallback::Refuse)
        }
    }
}

const FIELD_WAYPOINT_MISSING: &str = "metadata.labels[ambientd.io/waypoint-missing]";

/// A Namespace.
struct Labelled<'a> {
    ns: &'a Str,
    meta: &'a Meta,
    object: &'a ObjectRef,
}

// === impl Labelled ===

impl Labelled<'_> {
    fn waypoint(
        &self,
        view: &NamespaceBindingView<'_>,
        reads: &mut Reads,
        fallback: Fallback,
        notes: &mut Vec<Finding>,
    ) -> Option<NamespaceWaypoint> {
        let Request::Named(wanted) = attach::request(&self.meta.labels, self.ns) else {
            return None;
        };
        match view.resolver().resolve(reads, &wanted, self.ns) {
            Ok(waypoint) => {
                notes.extend(serving_note(self.object, &waypoint));
                notes.extend(attach::foreign_class(self.object, &waypoint));
                if waypoint.address.is_none() && waypoint.serves != WaypointFor::None {
                    notes.push(attach::addressless(self.object, &wanted, fallback));
                }
                Some(NamespaceWaypoint::Usable {
                    bound: attach::bound(&waypoint),
                    serves: waypoint.serves,
                })
            }
            Err(reason) => {
                let serves = view.waypoints.get(reads, &wanted).map(|row| row.serves);
                let traffic = Traffic::Services;
                let refused =
                    Refused::of(wanted.clone(), reason.clone(), self.ns, traffic, fallback);
                notes.push(refused.finding(self.object));
                Some(NamespaceWaypoint::Unusable {
                    wanted,
                    reason,
                    serves,
                })
            }
        }
    }

    /// Notes what is wrong with the canary that Services inherit together with the primary.
    fn judge_canary(
        &self,
        view: &NamespaceBindingView<'_>,
        reads: &mut Reads,
        waypoint: Option<&NamespaceWaypoint>,
        wanted: &ObjectKey,
        notes: &mut Vec<Finding>,
    ) {
        let primary = match waypoint {
            // The primary has its own finding.
            Some(NamespaceWaypoint::Unusable { .. }) => return,
            Some(NamespaceWaypoint::Usable { bound, serves }) if serves.services() => bound,
            _ => return notes.push(attach::without_primary(self.object, wanted)),
        };
        let candidate = CanaryCandidate {
            primary,
            wanted,
            weight: attach::weight_text(self.meta),
            ns: self.ns,
            reach: Reach::Mesh,
        };
        if let Err(refused) = candidate.judge(&view.resolver(), reads) {
            notes.push(refused.finding(self.object));
        }
    }
}

// === impl NamespaceBindingView ===

impl NamespaceBindingView<'_> {
    fn resolver(&self) -> Resolver<'_> {
        Resolver {
            waypoints: self.waypoints,
            namespaces: self.namespaces,
        }
    }
}

fn serving_note(object: &ObjectRef, waypoint: &WaypointRow) -> Option<Finding> {
    let note = match waypoint.serves {
        WaypointFor::Service | WaypointFor::All => return None,
        WaypointFor::None => error(
            "wp-for-mismatch",
            object.clone(),
            format!(
                "Waypoint {} serves neither service nor workload traffic; nothing of this namespace uses it",
                waypoint.key
            ),
            "Set istio.io/waypoint-for to service, workload or all on the Gateway",
        ),
        WaypointFor::Workload => Finding::new(
            "wp-for-mismatch",
            Severity::Info,
            object.clone(),
            format!(
                "Waypoint {} serves workload traffic only; Services of this namespace are not bound to it",
                waypoint.key
            ),
            "Set istio.io/waypoint-for to all on the Gateway if Services shall use it",
        ),
    };
    Some(note.at(FIELD_USE_WAYPOINT))
}
