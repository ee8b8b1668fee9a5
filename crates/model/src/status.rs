//! Status that belongs on objects, as data for whoever writes it.
//!
//! Source: spec/workload-discovery.md §6.

mod attachment;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::Str;
use crate::finding::ObjectRef;
use crate::gateway::GatewayController;
use crate::input::GatewayStatusAddress;
use crate::names::Kind;

use attachment::GatewayAddressJson;
pub use attachment::{AncestorStatus, ListenerStatus, ParentRef, ParentStatus};

/// Field manager of the conditions of Services and ServiceEntries.
pub const MANAGER_SERVICE: &str = "istio-ambient-service";
/// Field manager of the conditions of WorkloadEntries.
pub const MANAGER_WORKLOAD_ENTRY: &str = "istio-ambient-workloadentry";
/// Field manager of what ztunnel makes of AuthorizationPolicies.
pub const MANAGER_ZTUNNEL_POLICY: &str = "istio-ambient-ztunnel-policy";
/// Field manager of what waypoints make of AuthorizationPolicies.
pub const MANAGER_WAYPOINT_POLICY: &str = "istio-ambient-waypoint-policy";
/// Field manager of the addresses that ServiceEntries were given. It owns no condition.
pub const MANAGER_ALLOCATION: &str = "istio-ipallocate";
/// Field manager of findings on the objects that they are about.
pub const MANAGER_FINDINGS: &str = "ambientd-findings";
/// The condition that holds them.
pub const TYPE_FINDINGS: &str = "ambientd.io/Findings";
/// Field manager of what Gateways and routes say; it also names the controller of every entry of
/// `status.parents`, whatever the parent. Source: spec/gateway-api.md §0, §4.1.
pub const MANAGER_GATEWAY_API: &str = "istio.io/gateway-controller";

/// Types of the conditions of a Gateway, ListenerSet or GatewayClass that [`MANAGER_GATEWAY_API`]
/// owns: those that a row does not list are to be absent. Conditions of other types, also those of
/// listeners, stay as they are. Source: spec/gateway-api.md §3.10.
pub const GATEWAY_API_CONDITIONS: [&str; 4] = [
    "Accepted",
    "InsecureFrontendValidationMode",
    "Programmed",
    "ResolvedRefs",
];

/// Types of the conditions that an entry of `status.parents` of a route may have of ours: those
/// that it does not list are to be absent. Source: spec/gateway-api.md §4.1.
pub const PARENT_CONDITIONS: [&str; 3] = ["Accepted", "ResolvedRefs", "ResolvedWaypoints"];

/// The same of an entry of `status.ancestors` of a policy. Source: spec/gateway-api.md §4.7.
pub const ANCESTOR_CONDITIONS: [&str; 2] = ["Accepted", "ResolvedRefs"];

/// Controllers that name themselves in entries of `status.ancestors` of ours: for Services and
/// ServiceEntries, and for Gateways. Source: spec/gateway-api.md §4.7.
pub const ANCESTOR_CONTROLLERS: [&str; 2] = [
    GatewayController::Waypoint.name(),
    GatewayController::Ingress.name(),
];

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

impl ConditionStatus {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition; when it last changed is the writer's to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Type.
    pub ty: Str,
    /// Value.
    pub status: ConditionStatus,
    /// One word of the API's list.
    pub reason: Str,
    /// For people.
    pub message: Str,
    /// `metadata.generation` that it speaks of; `None` where the API has none.
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// A condition that holds or does not, of an object of this `metadata.generation`.
    pub fn new(
        ty: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<Str>,
        generation: i64,
    ) -> Self {
        Self {
            ty: Str::from(ty),
            status: if holds {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            },
            reason: Str::from(reason),
            message: message.into(),
            observed_generation: Some(generation).filter(|generation| *generation != 0),
        }
    }
}

/// One writer's part of the status of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusKey {
    /// The object.
    pub object: ObjectRef,
    /// Field manager: each owns its own conditions (spec §6).
    pub manager: &'static str,
}

/// What that writer says. Condition types that it owns and does not list are to be absent.
///
/// An object that a manager may write to has a row even if nothing is to be said, so that old
/// conditions can be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusRow {
    /// Conditions by type.
    pub conditions: Vec<Condition>,
    /// Addresses allocated to a ServiceEntry: value and host, in the order of `status.addresses`;
    /// `None` when this writer does not own that field.
    pub addresses: Option<Vec<(Str, Str)>>,
    /// `status.parents` of a route, in the order in which new entries are written; entries of
    /// this controller that are not listed are to be absent. `None` for other objects.
    pub parents: Option<Vec<ParentStatus>>,
    /// `status.ancestors` of a policy, in the order in which new entries are written; entries of
    /// [`ANCESTOR_CONTROLLERS`] that are not listed are to be absent. `None` for other objects.
    pub ancestors: Option<Vec<AncestorStatus>>,
    /// `status.listeners` of a Gateway or ListenerSet, in the order of its spec; an entry keeps
    /// conditions of types that are not listed.
    pub listeners: Option<Vec<ListenerStatus>>,
    /// `status.attachedListenerSets` of a Gateway whose class takes ListenerSets.
    pub attached_listener_sets: Option<usize>,
    /// `status.addresses` of a Gateway.
    pub gateway_addresses: Option<Vec<GatewayStatusAddress>>,
}

/// What all managers say of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The object.
    pub object: ObjectRef,
    /// Conditions, sorted by type.
    pub conditions: Vec<Condition>,
    /// Addresses of a ServiceEntry: value and host.
    pub addresses: Vec<(Str, Str)>,
    /// Parents of a route.
    pub parents: Option<Vec<ParentStatus>>,
    /// Ancestors of a policy.
    pub ancestors: Option<Vec<AncestorStatus>>,
    /// Listeners of a Gateway or ListenerSet.
    pub listeners: Option<Vec<ListenerStatus>>,
    /// How many ListenerSets add listeners to a Gateway.
    pub attached_listener_sets: Option<usize>,
    /// Addresses of a Gateway.
    pub gateway_addresses: Vec<GatewayStatusAddress>,
}

impl ObjectStatus {
    fn of(object: ObjectRef) -> Self {
        Self {
            object,
            conditions: Vec::new(),
            addresses: Vec::new(),
            parents: None,
            ancestors: None,
            listeners: None,
            attached_listener_sets: None,
            gateway_addresses: Vec::new(),
        }
    }

    fn add(&mut self, row: &StatusRow) {
        self.conditions.extend_from_slice(&row.conditions);
        self.conditions.sort();
        let addresses = row.addresses.iter().flatten().cloned();
        self.addresses.extend(addresses);
        if row.parents.is_some() {
            self.parents.clone_from(&row.parents);
        }
        if row.ancestors.is_some() {
            self.ancestors.clone_from(&row.ancestors);
        }
        if row.listeners.is_some() {
            self.listeners.clone_from(&row.listeners);
        }
        if row.attached_listener_sets.is_some() {
            self.attached_listener_sets = row.attached_listener_sets;
        }
        let addresses = row.gateway_addresses.iter().flatten().cloned();
        self.gateway_addresses.extend(addresses);
    }
}

/// Whether a row says nothing of its object.
fn is_silent(row: &StatusRow) -> bool {
    fn none<T>(list: Option<&Vec<T>>) -> bool {
        list.is_none_or(Vec::is_empty)
    }
    row.conditions.is_empty()
        && none(row.addresses.as_ref())
        && none(row.parents.as_ref())
        && none(row.ancestors.as_ref())
        && none(row.listeners.as_ref())
        && none(row.gateway_addresses.as_ref())
}

/// One entry per object with anything to say, in the order of the keys, which must be sorted.
pub fn by_object<'a>(
    statuses: impl IntoIterator<Item = (&'a StatusKey, &'a StatusRow)>,
) -> Vec<ObjectStatus> {
    let mut out: Vec<ObjectStatus> = Vec::new();
    for (key, row) in statuses.into_iter().filter(|(_, row)| !is_silent(row)) {
        match out.last_mut() {
            Some(last) if last.object == key.object => last.add(row),
            _ => {
                let mut status = ObjectStatus::of(key.object.clone());
                status.add(row);
                out.push(status);
            }
        }
    }
    out
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = 4 + usize::from(self.observed_generation.is_some());
        let mut out = serializer.serialize_struct("Condition", fields)?;
        out.serialize_field("type", self.ty.as_str())?;
        out.serialize_field("status", self.status.as_str())?;
        out.serialize_field("reason", self.reason.as_str())?;
        out.serialize_field("message", self.message.as_str())?;
        if let Some(generation) = self.observed_generation {
            out.serialize_field("observedGeneration", &generation)?;
        }
        out.end()
    }
}

/// One of `status.addresses`.
#[derive(Serialize)]
struct Allocated<'a> {
    value: &'a str,
    host: &'a str,
}

/// `{apiVersion, kind, namespace, name[, conditions][, addresses][, listeners][, attachedListenerSets]
/// [, parents][, ancestors]}`; what has parents or ancestors has no conditions of its own.
impl Serialize for ObjectStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let addressed = !self.addresses.is_empty() || !self.gateway_addresses.is_empty();
        let has_own = self.parents.is_none() && self.ancestors.is_none();
        let lists = [
            has_own,
            addressed,
            self.listeners.is_some(),
            self.attached_listener_sets.is_some(),
            self.parents.is_some(),
            self.ancestors.is_some(),
        ];
        let fields = 4 + lists.into_iter().filter(|is| *is).count();
        let mut out = serializer.serialize_struct("ObjectStatus", fields)?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.object.kind);
        let version = kind.map(Kind::api_version).unwrap_or_default();
        out.serialize_field("apiVersion", version.as_str())?;
        out.serialize_field("kind", self.object.kind.as_str())?;
        out.serialize_field("namespace", self.object.key.ns.as_str())?;
        out.serialize_field("name", self.object.key.name.as_str())?;
        if has_own {
            out.serialize_field("conditions", &self.conditions)?;
        }
        if !self.addresses.is_empty() {
            let addresses = self.addresses.iter();
            let addresses: Vec<_> = addresses
                .map(|(value, host)| Allocated { value, host })
                .collect();
            out.serialize_field("addresses", &addresses)?;
        } else if addressed {
            let addresses = self.gateway_addresses.iter();
            let addresses: Vec<_> = addresses.map(GatewayAddressJson::of).collect();
            out.serialize_field("addresses", &addresses)?;
        }
        if let Some(listeners) = &self.listeners {
            out.serialize_field("listeners", listeners)?;
        }
        if let Some(count) = self.attached_listener_sets {
            out.serialize_field("attachedListenerSets", &count)?;
        }
        if let Some(parents) = &self.parents {
            out.serialize_field("parents", parents)?;
        }
        if let Some(ancestors) = &self.ancestors {
            out.serialize_field("ancestors", ancestors)?;
        }
        out.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use serde_json::json;

    use super::*;
    use crate::names::ObjectKey;

    fn key(kind: Kind, name: &str, manager: &'static str) -> StatusKey {
        StatusKey {
            object: ObjectRef::new(kind, ObjectKey::new("shop", name)),
            manager,
        }
    }

    fn row(types: &[&str]) -> StatusRow {
        let condition = |ty: &&str| Condition {
            ty: Str::from(*ty),
            status: ConditionStatus::True,
            reason: Str::from("Good"),
            message: Str::from("All is well"),
            observed_generation: (*ty == "A").then_some(3),
        };
        StatusRow {
            conditions: types.iter().map(condition).collect(),
            ..StatusRow::default()
        }
    }

    #[test]
    fn managers_of_one_object_share_an_entry_and_silent_objects_have_none() {
        let entry = Kind::ServiceEntry;
        let allocated = StatusRow {
            addresses: Some(vec![(Str::from("240.240.0.1"), Str::from("a.example"))]),
            ..StatusRow::default()
        };
        let statuses = [
            (key(entry, "a", MANAGER_SERVICE), row(&["B", "A"])),
            (key(entry, "a", MANAGER_ALLOCATION), allocated),
            (key(entry, "b", MANAGER_SERVICE), row(&[])),
            (key(Kind::Service, "c", MANAGER_SERVICE), row(&["B"])),
        ];
        let all = by_object(statuses.iter().map(|(key, row)| (key, row)));
        let condition = |ty: &str| json!({"type": ty, "status": "True", "reason": "Good", "message": "All is well"});
        let mut first = condition("A");
        first["observedGeneration"] = json!(3);
        assert_eq!(
            serde_json::to_value(&all).unwrap(),
            json!([
                {
                    "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
                    "namespace": "shop", "name": "a",
                    "conditions": [first, condition("B")],
                    "addresses": [{"value": "240.240.0.1", "host": "a.example"}],
                },
                {
                    "apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "c",
                    "conditions": [condition("B")],
                },
            ])
        );
    }
}
