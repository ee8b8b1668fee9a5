//! Objects that are read: each becomes a row, or a finding that says why it is none.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kube::core::ApiResource;
use model::finding::{Finding, ObjectRef, Severity};
use model::object::{Input, Object};
use model::parse::{Recognised, recognise};
use model::{Kind, ObjectKey, Str};
use serde_json::Value;

use crate::Observed;
use crate::kinds::{self, Need};

use super::context::Context;
use super::findings::SourceFindings;
use super::raw::RawObject;
use super::watch::Sink;

/// Rows of one kind.
pub(super) struct Rows {
    kind: Kind,
    label: Str,
    observed: Option<Observed>,
    findings: SourceFindings,
    list: List,
    delivered: Delivered,
}

/// A list that is not complete.
#[derive(Default)]
struct List {
    objects: Vec<Object>,
    findings: BTreeMap<ObjectKey, Finding>,
    observed: HashSet<ObjectRef>,
}

/// What was delivered so far.
#[derive(Clone, Copy, PartialEq)]
enum Delivered {
    Nothing,
    /// Since the kind is not served, or refused.
    Empty,
    List,
}

// === impl Rows ===

impl Rows {
    pub(super) fn new(kind: Kind, context: &Arc<Context>) -> Self {
        Self {
            kind,
            label: arcstr::format!("{}/{kind}", kind.group()),
            observed: kinds::has_status(kind).then(|| context.observed.clone()),
            findings: context.findings.clone(),
            list: List::default(),
            delivered: Delivered::Nothing,
        }
    }

    fn key(&self, object: &RawObject) -> Option<ObjectKey> {
        let mut key = object.key()?;
        if !self.kind.is_namespaced() {
            key.ns = Str::new();
        }
        Some(key)
    }

    /// The row; or what is wrong, when that can be told.
    fn read(&self, mut object: RawObject, api: &ApiResource) -> Result<Object, Option<Finding>> {
        object.prepare(&api.api_version, self.kind.as_str());
        match recognise(&object.value, &self.label) {
            Recognised::Object(object) if object.kind() == self.kind => Ok(object),
            // Mesh config has a watch of its own; this is the ConfigMap as any other.
            Recognised::MeshYaml(..) => {
                if let Some(Value::Object(data)) = object.value.get_mut("data") {
                    data.remove("mesh");
                }
                match recognise(&object.value, &self.label) {
                    Recognised::Object(object) => Ok(object),
                    _ => Err(None),
                }
            }
            Recognised::NotAnInput(finding) => Err(finding),
            Recognised::Object(_) | Recognised::List(_) => Err(None),
        }
    }
}

impl Sink for Rows {
    fn begin(&mut self) {
        self.list = List::default();
    }

    fn listed(&mut self, object: RawObject, api: &ApiResource) {
        let Some(key) = self.key(&object) else { return };
        if let Some(observed) = &self.observed {
            let reference = ObjectRef::new(self.kind, key.clone());
            observed.set(reference.clone(), Some(object.status(&api.api_version)));
            self.list.observed.insert(reference);
        }
        match self.read(object, api) {
            Ok(object) => self.list.objects.push(object),
            Err(Some(finding)) => {
                self.list.findings.insert(key, finding);
            }
            Err(None) => {}
        }
    }

    fn complete(&mut self) -> Vec<Input> {
        let list = std::mem::take(&mut self.list);
        if let Some(observed) = &self.observed {
            observed.retain(self.kind.as_str(), |object| list.observed.contains(object));
        }
        self.findings.replace(&self.label, list.findings);
        self.delivered = Delivered::List;
        vec![Input::Resync(self.kind, list.objects)]
    }

    fn applied(&mut self, object: RawObject, api: &ApiResource) -> Option<Input> {
        let key = self.key(&object)?;
        if let Some(observed) = &self.observed {
            let reference = ObjectRef::new(self.kind, key.clone());
            observed.set(reference, Some(object.status(&api.api_version)));
        }
        let (input, finding) = match self.read(object, api) {
            Ok(object) => (Input::Upsert(object), None),
            Err(finding) => (Input::Delete(self.kind, key.clone()), finding),
        };
        self.findings.set(&self.label, Some(key), finding);
        Some(input)
    }

    fn deleted(&mut self, object: &RawObject) -> Option<Input> {
        let key = self.key(object)?;
        if let Some(observed) = &self.observed {
            observed.set(ObjectRef::new(self.kind, key.clone()), None);
        }
        self.findings.set(&self.label, Some(key.clone()), None);
        Some(Input::Delete(self.kind, key))
    }

    fn emptied(&mut self) -> Vec<Input> {
        self.list = List::default();
        if self.delivered == Delivered::Empty {
            return Vec::new();
        }
        self.delivered = Delivered::Empty;
        if let Some(observed) = &self.observed {
            observed.retain(self.kind.as_str(), |_| false);
        }
        self.findings.replace(&self.label, BTreeMap::new());
        vec![Input::Resync(self.kind, Vec::new())]
    }

    fn refused(&mut self) -> Vec<Input> {
        if self.delivered == Delivered::Nothing && kinds::need(self.kind) == Need::Optional {
            return self.emptied();
        }
        Vec::new()
    }

    fn refusal(&self) -> (Severity, &'static str) {
        let effect = match self.delivered {
            Delivered::Nothing => {
                "this replica does not become ready, since it would allow what they refuse"
            }
            Delivered::Empty => "none of them has any effect",
            Delivered::List => "those read before stay in effect, and changes are not seen",
        };
        (Severity::Error, effect)
    }
}
