//! Metadata: read leniently, so that a bad object still has as much of it as possible.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::finding::{Finding, ObjectRef, Severity};
use crate::labels::ANNOTATION_REDIRECTION;
use crate::names::{Kind, ObjectKey};
use crate::object::{Invalid, Labels, Meta};
use crate::{Str, shared};

use super::{clip, no_row, not_an_object};

/// Namespace of namespaced objects that name none.
pub(super) const NAMESPACE_DEFAULT: &str = "default";
/// Longest name of an object, in bytes.
const NAME_BYTES_MAX: usize = 253;
/// Longest name of a namespace, in bytes.
const NAMESPACE_BYTES_MAX: usize = 63;

/// Metadata and its first problem. Without a usable name there is no object at all.
///
/// # Errors
/// A finding when the object has no name or one that Kubernetes would refuse: names
/// become parts of wire names and must not carry separators.
pub(super) fn read(
    kind: Kind,
    map: &Map<String, Value>,
    origin: &str,
) -> Result<(Meta, Option<Invalid>), Finding> {
    let metadata = map.get("metadata").and_then(Value::as_object);
    let (metadata, name) = match metadata.map(|metadata| (metadata, text(metadata, "name"))) {
        None | Some((_, Ok(None))) => {
            return Err(not_an_object(
                origin,
                kind.as_str(),
                format!("This {kind} has no metadata.name"),
            ));
        }
        Some((_, Err(shown))) => return Err(not_text(kind, "", &shown, "metadata.name")),
        Some((metadata, Ok(Some(name)))) => (metadata, name),
    };
    let ns = match (kind.is_namespaced(), text(metadata, "namespace")) {
        (false, _) => Str::new(),
        (true, Ok(ns)) => shared::text(ns.unwrap_or(NAMESPACE_DEFAULT)),
        (true, Err(shown)) => return Err(not_text(kind, &shown, name, "metadata.namespace")),
    };
    let mut reader = Reader {
        metadata,
        problem: None,
        is_pod: kind == Kind::Pod,
    };
    let bad_ns = kind.is_namespaced() && !is_namespace_name(&ns);
    if bad_ns || !is_object_name(kind, name) {
        let reference = ObjectRef::new(kind, ObjectKey::new(clip(&ns), clip(name)));
        return Err(invalid_name(
            reference,
            if bad_ns {
                "metadata.namespace"
            } else {
                "metadata.name"
            },
        ));
    }
    let meta = reader.meta(ObjectKey::new(ns, shared::text(name)));
    Ok((meta, reader.problem))
}

/// A name; `None` when absent or empty.
///
/// # Errors
/// What is written instead of a text.
fn text<'a>(metadata: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, String> {
    match metadata.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(other) => Err(other.to_string()),
    }
}

/// A name that YAML reads as something else, such as `n` (no) or `1`: guessing would put
/// the object where it was not meant to be.
fn not_text(kind: Kind, ns: &str, name: &str, field: &'static str) -> Finding {
    let mut finding = invalid_name(
        ObjectRef::new(kind, ObjectKey::new(clip(ns), clip(name))),
        field,
    );
    finding.fix = arcstr::literal!("Put the name in quotes: YAML reads it as a boolean or number");
    finding
}

/// The metadata of an object whose key is fixed, without judging it.
pub(super) fn lenient(key: ObjectKey, map: &Map<String, Value>) -> Meta {
    match map.get("metadata").and_then(Value::as_object) {
        Some(metadata) => Reader {
            metadata,
            problem: None,
            is_pod: false,
        }
        .meta(key),
        None => Meta {
            key,
            ..Meta::default()
        },
    }
}

fn invalid_name(reference: ObjectRef, field: &'static str) -> Finding {
    let message = format!(
        "This is not a name that Kubernetes accepts; the object {}",
        no_row(&reference.kind)
    );
    Finding::new(
        "invalid-name",
        Severity::Error,
        reference,
        message,
        "Use lower-case letters, digits, '-' and, in names of objects, '.'",
    )
    .at(field)
}

fn is_object_name(kind: Kind, name: &str) -> bool {
    if kind == Kind::Namespace {
        return is_namespace_name(name);
    }
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
}

fn is_namespace_name(name: &str) -> bool {
    name.len() <= NAMESPACE_BYTES_MAX && is_label(name)
}

/// A DNS label, without a limit of length.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

struct Reader<'a> {
    metadata: &'a Map<String, Value>,
    problem: Option<Invalid>,
    is_pod: bool,
}

impl Reader<'_> {
    fn meta(&mut self, key: ObjectKey) -> Meta {
        Meta {
            key,
            uid: self.text("uid"),
            labels: self.labels("labels"),
            annotations: self.labels("annotations"),
            created_s: self.time("creationTimestamp"),
            deleting: self
                .metadata
                .get("deletionTimestamp")
                .is_some_and(|value| !value.is_null()),
            generate_name: self.text("generateName"),
            controller: self.controller(),
            generation: self
                .metadata
                .get("generation")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
        }
    }

    fn reject(&mut self, field: impl std::fmt::Display, reason: &str) {
        self.problem.get_or_insert_with(|| Invalid {
            field: arcstr::format!("metadata.{field}"),
            reason: Str::from(reason),
            targets: Vec::new(),
        });
    }

    fn text(&mut self, field: &str) -> Str {
        match self.metadata.get(field) {
            None | Some(Value::Null) => Str::new(),
            Some(Value::String(text)) => shared::text(text),
            Some(_) => {
                self.reject(field, "expected a string");
                Str::new()
            }
        }
    }

    fn labels(&mut self, field: &str) -> Labels {
        let map = match self.metadata.get(field) {
            None | Some(Value::Null) => return Labels::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                self.reject(field, "expected a mapping of strings");
                return Labels::new();
            }
        };
        let mut out = Vec::with_capacity(map.len());
        for (key, value) in map {
            // Others write long ones into each pod, its addresses for example.
            let is_read = !self.is_pod || field == "labels" || key == ANNOTATION_REDIRECTION;
            match value {
                Value::String(_) if !is_read => {}
                Value::String(text) => {
                    out.push((shared::text(key), shared::text(text)));
                }
                _ => self.reject(
                    format_args!("{field}[{}]", clip(key)),
                    "expected a string; quote numbers and booleans",
                ),
            }
        }
        shared::labels(out.into_iter().collect())
    }

    fn time(&mut self, field: &str) -> Option<i64> {
        let text = match self.metadata.get(field) {
            None | Some(Value::Null) => "",
            Some(Value::String(text)) => text.as_str(),
            Some(_) => {
                self.reject(field, "expected a string");
                ""
            }
        };
        if text.is_empty() {
            return None;
        }
        let time = text.parse::<Timestamp>().ok().map(|time| time.as_second());
        if time.is_none() {
            self.reject(field, "expected a time such as 2024-01-31T12:00:00Z");
        }
        time
    }

    fn controller(&mut self) -> Option<(Str, Str)> {
        let owners = self.metadata.get("ownerReferences")?.as_array()?;
        let owner = owners
            .iter()
            .find(|o| o.get("controller").and_then(Value::as_bool) == Some(true))?;
        let text = |key: &str| owner.get(key)?.as_str().map(shared::text);
        Some((text("kind")?, text("name")?))
    }
}
