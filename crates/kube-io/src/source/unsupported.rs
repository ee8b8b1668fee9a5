//! Objects that are only reported: each is a finding that says what it does not do.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kube::core::ApiResource;
use model::ObjectKey;
use model::Str;
use model::finding::{Finding, ObjectRef, Severity};
use model::object::Input;
use model::parse::{Recognised, recognise};

use crate::Observed;
use crate::kinds;

use super::context::Context;
use super::findings::SourceFindings;
use super::raw::RawObject;
use super::watch::Sink;

/// Findings on one kind.
pub(super) struct Unsupported {
    kind: &'static str,
    label: Str,
    observed: Option<Observed>,
    findings: SourceFindings,
    list: BTreeMap<ObjectKey, Finding>,
    seen: HashSet<ObjectRef>,
}

// === impl Unsupported ===

impl Unsupported {
    pub(super) fn new(group: &'static str, kind: &'static str, context: &Arc<Context>) -> Self {
        let has_status = kinds::has_status_unsupported(group, kind);
        Self {
            kind,
            label: arcstr::format!("{group}/{kind}"),
            observed: has_status.then(|| context.observed.clone()),
            findings: context.findings.clone(),
            list: BTreeMap::new(),
            seen: HashSet::new(),
        }
    }

    fn read(
        &self,
        mut object: RawObject,
        api: &ApiResource,
    ) -> Option<(ObjectKey, ObjectRef, Option<Finding>)> {
        let key = object.key()?;
        let reference = ObjectRef {
            kind: Str::from(self.kind),
            key: key.clone(),
        };
        if let Some(observed) = &self.observed {
            observed.set(reference.clone(), Some(object.status(&api.api_version)));
        }
        object.prepare(&api.api_version, self.kind);
        let finding = match recognise(&object.value, &self.label) {
            Recognised::NotAnInput(finding) => finding,
            _ => None,
        };
        Some((key, reference, finding))
    }

    fn forget(&self, keep: impl Fn(&ObjectRef) -> bool) {
        if let Some(observed) = &self.observed {
            observed.retain(self.kind, keep);
        }
    }
}

impl Sink for Unsupported {
    fn begin(&mut self) {
        self.list.clear();
        self.seen.clear();
    }

    fn listed(&mut self, object: RawObject, api: &ApiResource) {
        if let Some((key, reference, finding)) = self.read(object, api) {
            self.seen.insert(reference);
            self.list.extend(finding.map(|finding| (key, finding)));
        }
    }

    fn complete(&mut self) -> Vec<Input> {
        let seen = std::mem::take(&mut self.seen);
        self.forget(|object| seen.contains(object));
        let list = std::mem::take(&mut self.list);
        self.findings.replace(&self.label, list);
        Vec::new()
    }

    fn applied(&mut self, object: RawObject, api: &ApiResource) -> Option<Input> {
        let (key, _, finding) = self.read(object, api)?;
        self.findings.set(&self.label, Some(key), finding);
        None
    }

    fn deleted(&mut self, object: &RawObject) -> Option<Input> {
        let key = object.key()?;
        if let Some(observed) = &self.observed {
            let kind = Str::from(self.kind);
            let key = key.clone();
            observed.set(ObjectRef { kind, key }, None);
        }
        self.findings.set(&self.label, Some(key), None);
        None
    }

    fn emptied(&mut self) -> Vec<Input> {
        self.begin();
        self.forget(|_| false);
        self.findings.replace(&self.label, BTreeMap::new());
        Vec::new()
    }

    fn refused(&mut self) -> Vec<Input> {
        Vec::new()
    }

    fn refusal(&self) -> (Severity, &'static str) {
        let effect = "they are not applied, and this is not told of each of them";
        (Severity::Warning, effect)
    }
}
