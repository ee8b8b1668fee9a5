//! Stage `namespace_binding`: Namespace → what its objects inherit.
//!
//! Trouble with a namespace label is noted here, once, and not on each of its objects.

use flow::{Output, Reads};
use model::derived::{BoundWaypoint, Distribution, WaypointFor};
use model::input::Namespace;
use model::labels::{ANNOTATION_TRAFFIC_DISTRIBUTION, LABEL_INGRESS_USE_WAYPOINT};
use model::{Finding, Kind, ObjectKey, ObjectRef, Severity, WaypointRow};

use crate::attach::{self, FIELD_USE_WAYPOINT, Request, Resolver};
use crate::tables::{InputView, error};
use crate::traffic;
use crate::waypoint::WaypointTable;

/// What a namespace gives to its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceBinding {
    /// The waypoint, if one is named and can be used.
    pub waypoint: Option<NamespaceWaypoint>,
    /// `istio.io/ingress-use-waypoint`; `None` when absent, false when unreadable.
    pub ingress_use_waypoint: Option<bool>,
    /// Traffic distribution.
    pub distribution: Option<Distribution>,
}

/// The waypoint of a namespace, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceWaypoint {
    /// The binding.
    pub bound: BoundWaypoint,
    /// Traffic that it serves.
    pub serves: WaypointFor,
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct NamespaceBindingView<'t> {
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
    let mut notes = Vec::new();
    let row = NamespaceBinding {
        waypoint: waypoint(key, view, reads, &mut notes),
        ingress_use_waypoint: meta
            .label(LABEL_INGRESS_USE_WAYPOINT)
            .map(|text| traffic::parse_bool(text)),
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

fn waypoint(
    key: &ObjectKey,
    view: &NamespaceBindingView<'_>,
    reads: &mut Reads,
    notes: &mut Vec<Finding>,
) -> Option<NamespaceWaypoint> {
    let ns = &key.name;
    let labels = &view.namespaces.get(reads, key)?.meta.labels;
    let Request::Named(wanted) = attach::request(labels, ns) else {
        return None;
    };
    let object = ObjectRef::new(Kind::Namespace, key.clone());
    let resolver = Resolver {
        waypoints: view.waypoints,
        namespaces: view.namespaces,
    };
    match resolver.resolve(reads, &wanted, ns) {
        Ok(waypoint) => {
            notes.extend(serving_note(&object, &waypoint));
            Some(NamespaceWaypoint {
                bound: attach::bound(&waypoint),
                serves: waypoint.serves,
            })
        }
        Err(refusal) => {
            notes.push(refusal.finding(&object, &wanted, ns));
            None
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
