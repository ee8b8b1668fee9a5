//! Findings: what of the written configuration does not do what it says.

use serde::Serialize;

use crate::Str;
use crate::names::{Kind, ObjectKey};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Rejected, or security or traffic differ from what is written.
    Error,
    /// Without effect, or only part of the effect.
    Warning,
    /// Advice.
    Info,
}

/// The object a finding points at. The kind is text since a finding may be about
/// an object of a kind ambientd does not know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Kind as written.
    pub kind: Str,
    /// Namespace and name; for a file that cannot be read the name is its path
    /// relative to the source directory.
    pub key: ObjectKey,
}

impl ObjectRef {
    /// A reference to an object of a known kind.
    pub fn new(kind: Kind, key: ObjectKey) -> Self {
        Self {
            kind: Str::from(kind.as_str()),
            key,
        }
    }
}

/// One statement that something of an object was rejected or ignored, and what to do.
///
/// Ordered by object first, so that a sorted list reads object by object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// What it is about.
    pub object: ObjectRef,
    /// Path of the field, such as `spec.rules[0].to[0].operation.methods`; empty for the whole object.
    pub field: Str,
    /// Stable kebab-case identifier. Source: spec/policy-and-traffic.md §10 and docs/findings.md.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What happens now, in one sentence.
    pub message: Str,
    /// What to change.
    pub fix: Str,
}

impl Finding {
    /// A finding without field; add one with [`Finding::at`].
    pub fn new(
        code: &'static str,
        severity: Severity,
        object: ObjectRef,
        message: impl Into<Str>,
        fix: impl Into<Str>,
    ) -> Self {
        Self {
            object,
            field: Str::new(),
            code,
            severity,
            message: message.into(),
            fix: fix.into(),
        }
    }

    /// The same finding pointing at a field.
    pub fn at(mut self, field: impl Into<Str>) -> Self {
        self.field = field.into();
        self
    }
}

impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Finding", 8)?;
        out.serialize_field("code", self.code)?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("kind", self.object.kind.as_str())?;
        out.serialize_field("namespace", self.object.key.ns.as_str())?;
        out.serialize_field("name", self.object.key.name.as_str())?;
        out.serialize_field("field", self.field.as_str())?;
        out.serialize_field("message", self.message.as_str())?;
        out.serialize_field("fix", self.fix.as_str())?;
        out.end()
    }
}
