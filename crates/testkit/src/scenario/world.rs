//! The objects of a scenario as virtual files, one document each.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use model::object::Input;
use serde_json::Value;
use source::FileSet;

use super::load::{Deletion, Step};

/// Documents by virtual path, and the source that reads them.
pub(super) struct World {
    documents: BTreeMap<String, Value>,
    files: FileSet,
    next: usize,
}

impl World {
    pub(super) fn new(input: &[Value]) -> Self {
        let mut world = Self {
            documents: BTreeMap::new(),
            files: FileSet::new(),
            next: 0,
        };
        for document in input {
            world.add(document.clone());
        }
        world
    }

    /// The same documents, as a source that has delivered nothing yet.
    pub(super) fn fresh(&self) -> Self {
        let mut world = Self::new(&[]);
        for path in self.documents.keys() {
            world.copy(self, path);
        }
        world
    }

    /// What changed since the last call.
    pub(super) fn changes(&mut self) -> Vec<Input> {
        self.files.changes()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &String> {
        self.documents.keys()
    }

    pub(super) fn documents(&self) -> impl Iterator<Item = &Value> {
        self.documents.values()
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.documents.remove(path);
        self.files.remove(path);
    }

    pub(super) fn copy(&mut self, other: &Self, path: &str) {
        if let Some(document) = other.documents.get(path) {
            self.set(path.to_owned(), document.clone());
        }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<()> {
        for document in &step.apply {
            match self.find(|other| identity(other) == identity(document)) {
                Some(path) => self.set(path, document.clone()),
                None => self.add(document.clone()),
            }
        }
        for deletion in &step.delete {
            match self.find(|document| is_named(document, deletion)) {
                Some(path) => self.remove(&path),
                None => bail!("{}: there is no {deletion:?} to delete", step.name),
            }
        }
        Ok(())
    }

    fn find(&self, wanted: impl Fn(&Value) -> bool) -> Option<String> {
        self.documents
            .iter()
            .find(|(_, document)| wanted(document))
            .map(|(path, _)| path.clone())
    }

    fn add(&mut self, document: Value) {
        self.next += 1;
        self.set(format!("{:04}.json", self.next), document);
    }

    fn set(&mut self, path: String, document: Value) {
        self.files.set(&path, document.to_string().as_bytes());
        self.documents.insert(path, document);
    }
}

/// Kind, namespace and name; documents without a name are all different.
fn identity(document: &Value) -> Option<(String, String, String)> {
    let text = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Some((
        text("/kind")?,
        text("/metadata/namespace").unwrap_or_default(),
        text("/metadata/name")?,
    ))
}

fn is_named(document: &Value, deletion: &Deletion) -> bool {
    identity(document)
        == Some((
            deletion.kind.clone(),
            deletion.ns.clone(),
            deletion.name.clone(),
        ))
}

/// A small deterministic generator: runs must be repeatable.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        // Knuth's constants; the high bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
