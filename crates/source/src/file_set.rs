//! The objects of a set of files, without any I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::Str;
use model::finding::{Finding, Severity};
use model::input::Namespace;
use model::names::{Kind, ObjectKey};
use model::object::{Input, Labels, Meta, Object, Parsed};
use model::parse::{Recognised, file_ref, mesh_config, recognise, take_items};
use serde_json::Value;

use crate::yaml::{Format, Unreadable, document, documents};

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
    keys: Vec<Key>,
    findings: Vec<Finding>,
    broken: Option<Finding>,
    bytes_count: usize,
}

/// A file as it was read: what is slow, and can be done for many files at once.
#[derive(Debug)]
pub(crate) struct Content {
    placed: Vec<(Object, String)>,
    findings: Vec<Finding>,
    bytes_count: usize,
}

impl Content {
    /// Reads the documents of a file.
    pub(crate) fn read(path: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        let format = Format::of(path).unwrap_or(Format::Yaml);
        let documents = documents(format, bytes)?;
        let mut content = Self {
            placed: Vec::with_capacity(documents.len()),
            findings: Vec::new(),
            bytes_count: bytes.len(),
        };
        let several = documents.len() > 1;
        for (i, value) in documents.into_iter().enumerate() {
            let place = if several {
                format!("{path}#{}", i + 1)
            } else {
                path.to_owned()
            };
            read_document(value, &place, 0, &mut content);
        }
        Ok(content)
    }
}

/// An object and where it stands.
#[derive(Clone, Debug)]
struct Placed {
    path: Str,
    index: usize,
    object: Object,
    place: String,
}

/// All that is said of one object.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// What was published last.
    published: Option<Object>,
    /// Where it stands, in order: the first counts.
    placed: Vec<Placed>,
}

/// Files by path, and the objects that they amount to.
///
/// Of several objects with the same kind, namespace and name the first counts, in the
/// order of paths and then of documents. A change costs what it concerns, however many
/// files there are.
#[derive(Clone, Debug, Default)]
pub struct FileSet {
    files: BTreeMap<String, File>,
    slots: BTreeMap<Key, Slot>,
    /// How many objects are in each namespace.
    named: BTreeMap<Str, usize>,
    directory_findings: Vec<Finding>,
    bytes_count: usize,
    /// What may differ from what was published.
    touched: BTreeSet<Key>,
    findings_touched: bool,
    /// Files with findings, and objects that stand in several places.
    noted: BTreeSet<String>,
    duplicated: BTreeSet<Key>,
    published_findings: Option<Vec<Finding>>,
}

impl FileSet {
    /// An empty set that has published nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the content of a file; `path` is relative to the source directory. Content
    /// that cannot be read leaves the objects that the file gave before.
    pub fn set(&mut self, path: &str, bytes: &[u8]) {
        self.set_content(path, Content::read(path, bytes));
    }

    /// The same, of a file that was read before.
    pub(crate) fn set_content(&mut self, path: &str, content: Result<Content, Unreadable>) {
        let content = match content {
            Ok(content) => content,
            Err(reason) => return self.set_unreadable(path, &reason.to_string()),
        };
        self.remove(path);
        if !content.findings.is_empty() {
            self.note(path);
        }
        let shared = Str::from(path);
        let mut keys = Vec::with_capacity(content.placed.len());
        for (index, (object, place)) in content.placed.into_iter().enumerate() {
            let key = (object.kind(), object.meta().key.clone());
            keys.push(key.clone());
            self.place(
                key,
                Placed {
                    path: shared.clone(),
                    index,
                    object,
                    place,
                },
            );
        }
        self.bytes_count += content.bytes_count;
        let file = File {
            keys,
            findings: content.findings,
            broken: None,
            bytes_count: content.bytes_count,
        };
        self.files.insert(path.to_owned(), file);
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
        self.note(path);
    }

    fn note(&mut self, path: &str) {
        self.noted.insert(path.to_owned());
        self.findings_touched = true;
    }

    /// Forgets a file and its objects.
    pub fn remove(&mut self, path: &str) {
        let Some(file) = self.files.remove(path) else {
            return;
        };
        self.bytes_count -= file.bytes_count;
        self.findings_touched |= self.noted.remove(path);
        for key in file.keys {
            self.displace(key, path);
        }
    }

    fn place(&mut self, key: Key, placed: Placed) {
        let slot = self.slots.entry(key.clone()).or_default();
        let before = |it: &Placed| (&it.path, it.index) < (&placed.path, placed.index);
        let at = slot.placed.partition_point(before);
        slot.placed.insert(at, placed);
        if slot.placed.len() == 1 {
            self.tally(&key, true);
        } else {
            self.duplicated.insert(key.clone());
            self.findings_touched = true;
        }
        self.touched.insert(key);
    }

    /// Takes away what a file says of an object, however often it does.
    fn displace(&mut self, key: Key, path: &str) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        let before = slot.placed.len();
        slot.placed.retain(|it| it.path != path);
        let after = slot.placed.len();
        if before > 1 {
            self.findings_touched = true;
            if after <= 1 {
                self.duplicated.remove(&key);
            }
        }
        if before > 0 && after == 0 {
            self.tally(&key, false);
        }
        self.touched.insert(key);
    }

    /// Notes that an object came or went: a namespace is there while something names it.
    fn tally(&mut self, (kind, key): &Key, came: bool) {
        if !kind.is_namespaced() {
            return;
        }
        let count = self.named.entry(key.ns.clone()).or_default();
        let before = *count;
        *count = if came {
            before + 1
        } else {
            before.saturating_sub(1)
        };
        let after = *count;
        if after == 0 {
            self.named.remove(&key.ns);
        }
        if (before == 0) != (after == 0) {
            let namespace = ObjectKey::cluster(key.ns.clone());
            self.touched.insert((Kind::Namespace, namespace));
        }
    }

    /// What counts of an object now.
    fn current(&self, key: &Key) -> Option<Object> {
        let written = self.slots.get(key).and_then(|slot| slot.placed.first());
        match written {
            Some(placed) => Some(placed.object.clone()),
            None => (key.0 == Kind::Namespace && self.named.contains_key(&key.1.name))
                .then(|| implicit_namespace(key.1.name.clone())),
        }
    }

    /// Replaces the findings about the directory itself.
    pub fn set_directory_findings(&mut self, findings: Vec<Finding>) {
        self.findings_touched |= self.directory_findings != findings;
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
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        for key in std::mem::take(&mut self.touched) {
            let now = self.current(&key);
            let slot = self.slots.entry(key.clone()).or_default();
            if slot.published != now {
                match &now {
                    Some(object) => changed.push(object.clone()),
                    None => gone.push(Input::Delete(key.0, key.1.clone())),
                }
                slot.published = now;
            }
            if slot.published.is_none() && slot.placed.is_empty() {
                self.slots.remove(&key);
            }
        }
        let is_first = self.published_findings.is_none();
        let mut batch = if is_first {
            complete(changed)
        } else {
            gone.extend(changed.into_iter().map(Input::Upsert));
            gone
        };
        if std::mem::take(&mut self.findings_touched) || is_first {
            let findings = self.findings();
            if self.published_findings.as_ref() != Some(&findings) {
                batch.push(Input::SourceFindings(SOURCE, findings.clone()));
                self.published_findings = Some(findings);
            }
        }
        batch
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.directory_findings.clone();
        for file in self.noted.iter().filter_map(|path| self.files.get(path)) {
            findings.extend(file.broken.clone());
            findings.extend(file.findings.iter().cloned());
        }
        for slot in self.duplicated.iter().filter_map(|key| self.slots.get(key)) {
            if let [first, rest @ ..] = slot.placed.as_slice() {
                findings.extend(rest.iter().map(|other| duplicate(first, other)));
            }
        }
        findings.sort();
        findings.dedup();
        findings
    }
}

/// Reads one document into a file's objects and findings; lists are flattened.
fn read_document(value: Value, place: &str, depth: usize, content: &mut Content) {
    let value = match take_items(value) {
        Ok(_) if depth >= LIST_DEPTH_MAX => {
            content.findings.push(Finding::new(
                "not-an-object",
                Severity::Error,
                file_ref(place),
                "This list stands inside too many other lists and has no effect",
                "Write its items as documents of their own",
            ));
            return;
        }
        Ok(items) => {
            for (i, item) in items.into_iter().enumerate() {
                read_document(item, &format!("{place} items[{i}]"), depth + 1, content);
            }
            return;
        }
        Err(value) => value,
    };
    match recognise(&value, place) {
        Recognised::Object(object) => content.placed.push((object, place.to_owned())),
        Recognised::MeshYaml(meta, yaml) => {
            let object = match document(&yaml) {
                Ok(value) => mesh_config(meta, Ok(&value)),
                Err(reason) => mesh_config(meta, Err(reason.to_string())),
            };
            content.placed.push((object, place.to_owned()));
        }
        Recognised::NotAnInput(finding) => content.findings.extend(finding),
        // It was taken apart above.
        Recognised::List(_) => {}
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

fn complete(objects: Vec<Object>) -> Vec<Input> {
    let mut kinds: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
    for object in objects {
        kinds.entry(object.kind()).or_default().push(object);
    }
    let resync = |kind| Input::Resync(kind, kinds.remove(&kind).unwrap_or_default());
    Kind::ALL.into_iter().map(resync).collect()
}

#[cfg(test)]
mod tests;
