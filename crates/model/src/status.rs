//! Status that belongs on objects, as data for whoever writes it.
//!
//! Source: spec/workload-discovery.md §6.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::Str;
use crate::finding::ObjectRef;
use crate::names::Kind;

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
}

/// One entry per object with anything to say, in the order of the keys, which must be sorted.
pub fn by_object<'a>(
    statuses: impl IntoIterator<Item = (&'a StatusKey, &'a StatusRow)>,
) -> Vec<ObjectStatus> {
    let mut out: Vec<ObjectStatus> = Vec::new();
    for (key, row) in statuses {
        let addresses = row.addresses.as_deref().unwrap_or_default();
        if row.conditions.is_empty() && addresses.is_empty() {
            continue;
        }
        match out.last_mut() {
            Some(last) if last.object == key.object => {
                last.conditions.extend_from_slice(&row.conditions);
                last.conditions.sort();
                last.addresses.extend_from_slice(addresses);
            }
            _ => {
                let mut conditions = row.conditions.clone();
                conditions.sort();
                out.push(ObjectStatus {
                    object: key.object.clone(),
                    conditions,
                    addresses: addresses.to_vec(),
                });
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

/// `{apiVersion, kind, namespace, name, conditions[, addresses]}`.
impl Serialize for ObjectStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = 5 + usize::from(!self.addresses.is_empty());
        let mut out = serializer.serialize_struct("ObjectStatus", fields)?;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.object.kind);
        let version = kind.map(Kind::api_version).unwrap_or_default();
        out.serialize_field("apiVersion", version.as_str())?;
        out.serialize_field("kind", self.object.kind.as_str())?;
        out.serialize_field("namespace", self.object.key.ns.as_str())?;
        out.serialize_field("name", self.object.key.name.as_str())?;
        out.serialize_field("conditions", &self.conditions)?;
        if !self.addresses.is_empty() {
            let addresses = self.addresses.iter();
            let addresses: Vec<_> = addresses
                .map(|(value, host)| Allocated { value, host })
                .collect();
            out.serialize_field("addresses", &addresses)?;
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
            addresses: None,
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
