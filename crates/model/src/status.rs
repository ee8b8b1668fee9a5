//! Status that belongs on objects, as data for whoever writes it.
//!
//! Source: spec/workload-discovery.md §6.

use crate::Str;
use crate::finding::ObjectRef;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusRow {
    /// Conditions by type.
    pub conditions: Vec<Condition>,
    /// Addresses allocated to a ServiceEntry: value and host, in the order of `status.addresses`;
    /// `None` when this writer does not own that field.
    pub addresses: Option<Vec<(Str, Str)>>,
}
