//! The objects of a set of files, without any I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Str;
use model::finding::{Finding, Severity};
use model::input::Namespace;
use model::names::{Kind, ObjectKey};
use model::object::{Input, Labels, Meta, Object, Parsed};
use model::parse::{Recognised, file_ref, mesh_config, recognise};
use serde_json::Value;

use crate::yaml::{Format, document, documents};

/// Lists inside lists beyond this are not read.
const LIST_DEPTH_MAX: usize = 8;
/// Name of this source of findings.
const SOURCE: &str = "files";

/// Label that every namespace carries with its own name.
const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

type Key = (Kind, ObjectKey);

/// What one file gave when it was last readable, and what is wrong with it now.
#[derive(Clone, Debug, Default)]
struct File {
    objects: Vec<Placed>,
    findings: Vec<Finding>,
    broken: Option<Finding>,
    bytes_count: usize,
}

/// An object and where it stands.
#[derive(Clone, Debug)]
struct Placed {
    object: Object,
    place: String,
}

/// The whole input as it was published.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    objects: BTreeMap<Key, Object>,
    findings: Vec<Finding>,
}

/// Files by path, and the objects that they amount to.
///
/// Of several objects with the same kind, namespace and name the first counts, in the
/// order of paths and then of documents.
#[derive(Clone, Debug, Default)]
pub struct FileSet {
    files: BTreeMap<String, File>,
    directory_findings: Vec<Finding>,
    bytes_count: usize,
    published: Option<State>,
}

impl FileSet {
    /// An empty set that has published nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the content of a file; `path` is relative to the source directory. Content
    /// that cannot be read leaves the objects that the file gave before.
    pub fn set(&mut self, path: &str, bytes: &[u8]) {
        let format = Format::of(path).unwrap_or(Format::Yaml);
        match documents(format, bytes) {
            Ok(documents) => {
                let mut file = File {
                    bytes_count: bytes.len(),
                    ..File::default()
                };
                let several = documents.len() > 1;
                for (i, value) in documents.iter().enumerate() {
                    let place = if several {
                        format!("{path}#{}", i + 1)
                    } else {
                        path.to_owned()
                    };
                    read_document(value, &place, 0, &mut file);
                }
                self.remove(path);
                self.bytes_count += file.bytes_count;
                self.files.insert(path.to_owned(), file);
            }
            Err(reason) => self.set_unreadable(path, &reason.to_string()),
        }
    }

    /// Notes that a file is there but cannot be read; its last good objects stay.
    pub fn set_unreadable(&mut self, path: &str, reason: &str) {
        let fix = "Repair the file; until then its last good objects stay in effect";
        self.set_broken(path, "file-unreadable", reason, fix);
    }

    /// Notes that a file is beyond a limit; its last good objects stay.
    pub fn set_too_large(&mut self, path: &str, reason: &str) {
        let fix = "Split the file; until then its last good objects stay in effect";
        self.set_broken(path, "file-too-large", reason, fix);
    }

    fn set_broken(&mut self, path: &str, code: &'static str, reason: &str, fix: &str) {
        let message = format!("This file cannot be read: {reason}");
        let finding = Finding::new(code, Severity::Error, file_ref(path), message, fix);
        self.files.entry(path.to_owned()).or_default().broken = Some(finding);
    }

    /// Forgets a file and its objects.
    pub fn remove(&mut self, path: &str) {
        if let Some(file) = self.files.remove(path) {
            self.bytes_count -= file.bytes_count;
        }
    }

    /// Replaces the findings about the directory itself.
    pub fn set_directory_findings(&mut self, findings: Vec<Finding>) {
        self.directory_findings = findings;
    }

    /// Paths of the files, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether a file is in the set.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Number of files.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Whether some file lies below a directory.
    pub fn has_below(&self, directory: &str) -> bool {
        let prefix = format!("{directory}/");
        self.files
            .range(prefix.clone()..)
            .next()
            .is_some_and(|(path, _)| path.starts_with(&prefix))
    }

    /// Sum of the sizes of all files but one, in bytes.
    pub fn bytes_count_without(&self, path: &str) -> usize {
        self.bytes_count - self.files.get(path).map_or(0, |file| file.bytes_count)
    }

    /// What changed since the last call: at first a `Resync` of every kind and the
    /// findings, then deletions, upserts and, when they differ, the findings.
    pub fn changes(&mut self) -> Vec<Input> {
        let state = self.state();
        let batch = match &self.published {
            None => complete(&state),
            Some(old) => difference(old, &state),
        };
        self.published = Some(state);
        batch
    }

    fn state(&self) -> State {
        let mut findings = self.directory_findings.clone();
        let mut placed: BTreeMap<Key, &Placed> = BTreeMap::new();
        for file in self.files.values() {
            findings.extend(file.broken.clone());
            findings.extend(file.findings.iter().cloned());
            for entry in &file.objects {
                let key = (entry.object.kind(), entry.object.meta().key.clone());
                match placed.entry(key) {
                    std::collections::btree_map::Entry::Vacant(slot) => {
                        slot.insert(entry);
                    }
                    std::collections::btree_map::Entry::Occupied(slot) => {
                        findings.push(duplicate(slot.get(), entry));
                    }
                }
            }
        }
        let mut objects: BTreeMap<Key, Object> = placed
            .into_iter()
            .map(|(key, entry)| (key, entry.object.clone()))
            .collect();
        let named: BTreeSet<Str> = objects
            .keys()
            .filter(|(kind, _)| kind.is_namespaced())
            .map(|(_, key)| key.ns.clone())
            .collect();
        for ns in named {
            let key = (Kind::Namespace, ObjectKey::cluster(ns.clone()));
            objects.entry(key).or_insert_with(|| implicit_namespace(ns));
        }
        findings.sort();
        findings.dedup();
        State { objects, findings }
    }
}

/// Reads one document into a file's objects and findings; lists are flattened.
fn read_document(value: &Value, place: &str, depth: usize, file: &mut File) {
    match recognise(value, place) {
        Recognised::Object(object) => file.objects.push(Placed {
            object,
            place: place.to_owned(),
        }),
        Recognised::List(_) if depth >= LIST_DEPTH_MAX => file.findings.push(Finding::new(
            "not-an-object",
            Severity::Error,
            file_ref(place),
            "This list stands inside too many other lists and has no effect",
            "Write its items as documents of their own",
        )),
        Recognised::List(items) => {
            for (i, item) in items.iter().enumerate() {
                read_document(item, &format!("{place} items[{i}]"), depth + 1, file);
            }
        }
        Recognised::MeshYaml(meta, yaml) => {
            let object = match document(&yaml) {
                Ok(value) => mesh_config(meta, Ok(&value)),
                Err(reason) => mesh_config(meta, Err(reason.to_string())),
            };
            file.objects.push(Placed {
                object,
                place: place.to_owned(),
            });
        }
        Recognised::NotAnInput(finding) => file.findings.extend(finding),
    }
}

fn duplicate(first: &Placed, second: &Placed) -> Finding {
    let object = second.object.object_ref();
    let (first, second) = (&first.place, &second.place);
    Finding::new(
        "duplicate-object",
        Severity::Error,
        object,
        format!("This object is in {first} and again in {second}; the first counts"),
        "Keep one of them",
    )
}

fn implicit_namespace(ns: Str) -> Object {
    let labels = Labels::from([(Str::from(LABEL_NAMESPACE_NAME), ns.clone())]);
    Object::Namespace(Arc::new(Parsed {
        meta: Meta {
            key: ObjectKey::cluster(ns),
            labels,
            ..Meta::default()
        },
        body: Ok(Namespace { implicit: true }),
        notes: Vec::new(),
    }))
}

fn complete(state: &State) -> Vec<Input> {
    let mut kinds: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
    for ((kind, _), object) in &state.objects {
        kinds.entry(*kind).or_default().push(object.clone());
    }
    let resync = |kind| Input::Resync(kind, kinds.remove(&kind).unwrap_or_default());
    let mut batch: Vec<Input> = Kind::ALL.into_iter().map(resync).collect();
    batch.push(Input::SourceFindings(SOURCE, state.findings.clone()));
    batch
}

fn difference(old: &State, new: &State) -> Vec<Input> {
    let gone = old
        .objects
        .keys()
        .filter(|key| !new.objects.contains_key(*key));
    let mut batch: Vec<Input> = gone
        .map(|(kind, key)| Input::Delete(*kind, key.clone()))
        .collect();
    let changed = new
        .objects
        .iter()
        .filter(|(key, object)| old.objects.get(*key) != Some(*object));
    batch.extend(changed.map(|(_, object)| Input::Upsert(object.clone())));
    if old.findings != new.findings {
        batch.push(Input::SourceFindings(SOURCE, new.findings.clone()));
    }
    batch
}

#[cfg(test)]
mod tests;
