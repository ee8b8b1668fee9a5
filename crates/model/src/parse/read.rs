//! Typed reading of a document: paths of errors, unknown fields, limits, small conversions.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::finding::{Finding, ObjectRef, Severity};
use crate::names::Kind;
use crate::object::{Invalid, Labels, Meta, Parsed};
use crate::{Str, shared};

use super::suggest::nearest;
use super::{clip, is_policy};

/// Most items of any one list of an Istio or Gateway API object.
pub const LIST_ITEMS_COUNT_MAX: usize = 1_000;
/// Longest string of an Istio or Gateway API object.
pub const STRING_BYTES_MAX: usize = 64 * 1024;
/// Longest `body.string` and `body.bytes`: those of a direct response have a limit of their own,
/// which costs only its rule.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A document on its way to a row.
pub(super) struct Doc<'a> {
    pub(super) kind: Kind,
    pub(super) meta: Meta,
    map: &'a Map<String, Value>,
    problem: Option<Invalid>,
    notes: Vec<Finding>,
}

impl<'a> Doc<'a> {
    pub(super) fn new(
        kind: Kind,
        meta: Meta,
        map: &'a Map<String, Value>,
        problem: Option<Invalid>,
    ) -> Self {
        Self {
            kind,
            meta,
            map,
            problem,
            notes: Vec::new(),
        }
    }

    /// The row: reads the body, and turns a bad one into a note unless it is a policy.
    pub(super) fn row<T>(
        mut self,
        body: impl FnOnce(&mut Self) -> Result<T, Invalid>,
    ) -> Arc<Parsed<T>> {
        let mut body = match self.problem.take() {
            Some(problem) => Err(problem),
            None => body(&mut self),
        };
        let is_secure = is_policy(self.kind) || self.kind == Kind::BackendTlsPolicy;
        if let (Err(invalid), true) = (&mut body, is_secure) {
            invalid.targets = super::security::targets_of_unreadable(self.map, &self.meta.key.ns);
        }
        // The stage that decides what an invalid policy does tells of it.
        if let (Err(invalid), false) = (&body, is_policy(self.kind)) {
            let (kind, reason) = (self.kind, &invalid.reason);
            // Stages read nothing but metadata of these, which is read as far as it goes.
            let message = if is_read_by_metadata(kind) {
                arcstr::format!("This field of the {kind} cannot be read and is ignored: {reason}")
            } else if kind == Kind::BackendTlsPolicy {
                arcstr::format!(
                    "This {kind} cannot be read, so connections to its targets are refused, save where a DestinationRule has tls for them: {reason}"
                )
            } else {
                arcstr::format!("This {kind} cannot be read, so it has no effect: {reason}")
            };
            let field = invalid.field.clone();
            self.note(
                "invalid-object",
                Severity::Error,
                field,
                message,
                "Correct the field",
            );
        }
        Arc::new(Parsed {
            meta: self.meta,
            body,
            notes: self.notes,
        })
    }

    /// Adds a note about a field.
    pub(super) fn note(
        &mut self,
        code: &'static str,
        severity: Severity,
        field: impl Into<Str>,
        message: impl Into<Str>,
        fix: impl Into<Str>,
    ) {
        let object = ObjectRef::new(self.kind, self.meta.key.clone());
        self.notes
            .push(Finding::new(code, severity, object, message, fix).at(field));
    }

    /// Notes that a field is valid but not applied.
    pub(super) fn not_applied(&mut self, field: impl Into<Str>, effect: &str) {
        self.note(
            "field-not-applied",
            Severity::Warning,
            field,
            arcstr::format!("This version does not apply this field: {effect}"),
            "Remove it, or do not rely on it",
        );
    }

    /// A field of the object itself, as it is.
    pub(super) fn top(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field)
    }

    /// A part such as `spec`, read without telling of unknown fields; absent = default.
    pub(super) fn part<T: Deserialize<'a> + Default>(&self, part: &str) -> Result<T, Invalid> {
        match self.map.get(part) {
            None | Some(Value::Null) => Ok(T::default()),
            // Only who fails needs to know where.
            Some(value) => T::deserialize(value).or_else(|_| tracked(value, part)),
        }
    }

    /// `status.addresses` and the like: a part of a part, absent = default.
    pub(super) fn inner<T: DeserializeOwned + Default>(
        &self,
        part: &str,
        field: &str,
    ) -> Result<T, Invalid> {
        match self.map.get(part).and_then(|part| part.get(field)) {
            None | Some(Value::Null) => Ok(T::default()),
            Some(value) => typed(value, &format!("{part}.{field}"), |_| ()),
        }
    }

    /// `spec` of an Istio or Gateway API object: limits are checked, unknown fields are
    /// noted (`fields` are the words to suggest) unless `known` claims them. In a policy they
    /// are errors: what is ignored could be the very condition that narrows it.
    pub(super) fn spec<T: DeserializeOwned>(
        &mut self,
        fields: &[&str],
        known: impl FnMut(&str) -> bool,
    ) -> Result<T, Invalid> {
        const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
        let map = self.map;
        for key in map.keys().filter(|key| !TOP.contains(&key.as_str())) {
            self.unknown_field(key, &TOP)?;
        }
        let empty = Value::Object(Map::new());
        let value = map
            .get("spec")
            .filter(|spec| !spec.is_null())
            .unwrap_or(&empty);
        self.fields(value, "spec", fields, known)
    }

    /// Any part, as [`Doc::spec`] reads it.
    pub(super) fn fields<T: DeserializeOwned>(
        &mut self,
        value: &Value,
        prefix: &str,
        fields: &[&str],
        mut known: impl FnMut(&str) -> bool,
    ) -> Result<T, Invalid> {
        limits(value, prefix)?;
        let mut unknown = Vec::new();
        let result = typed(value, prefix, |path| {
            if !known(&path) {
                unknown.push(path);
            }
        });
        for path in &unknown {
            self.unknown_field(path, fields)?;
        }
        result
    }

    fn unknown_field(&mut self, path: &str, fields: &[&str]) -> Result<(), Invalid> {
        let word = path.rsplit('.').next().unwrap_or(path);
        let meant = nearest(word, fields.iter().copied());
        if is_policy(self.kind) {
            let reason = meant.map_or_else(
                || arcstr::literal!("there is no such field, at least not here"),
                |field| arcstr::format!("there is no such field; did you mean {field}?"),
            );
            return Err(invalid(clip(path), reason));
        }
        let fix = meant.map_or_else(
            || arcstr::literal!("Remove it, or check its spelling and place"),
            |field| arcstr::format!("Did you mean {field}?"),
        );
        let message = arcstr::format!("{} has no such field; it is ignored", self.kind);
        self.note("unknown-field", Severity::Warning, clip(path), message, fix);
        Ok(())
    }
}

/// Whether stages read nothing but metadata of a kind.
fn is_read_by_metadata(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Namespace
            | Kind::Node
            | Kind::MutatingWebhookConfiguration
            | Kind::ValidatingWebhookConfiguration
    )
}

/// An invalid field.
pub(super) fn invalid(field: impl Into<Str>, reason: impl Into<Str>) -> Invalid {
    Invalid {
        field: field.into(),
        reason: reason.into(),
        targets: Vec::new(),
    }
}

fn typed<T: DeserializeOwned>(
    value: &Value,
    prefix: &str,
    mut ignored: impl FnMut(String),
) -> Result<T, Invalid> {
    let result: Result<T, serde_json::Error> = serde_ignored::deserialize(value, |path| {
        let mut text = prefix.to_owned();
        ignored_path(&path, &mut text);
        ignored(text);
    });
    result.or_else(|_| tracked(value, prefix))
}

/// Reads what could not be read, to say where that is: to keep an eye on the place takes longer
/// than reading.
fn tracked<'a, T: Deserialize<'a>>(value: &'a Value, prefix: &str) -> Result<T, Invalid> {
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = T::deserialize(deserializer);
    result.map_err(|error: serde_json::Error| Invalid {
        field: clip(&error_path(prefix, &track.path())),
        reason: clip(&error.to_string()),
        targets: Vec::new(),
    })
}

fn ignored_path(path: &serde_ignored::Path<'_>, out: &mut String) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            ignored_path(parent, out);
            let _ = write!(out, "[{index}]");
        }
        Path::Map { parent, key } => {
            ignored_path(parent, out);
            dotted(out, key);
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => {
            ignored_path(parent, out);
        }
    }
}

fn error_path(prefix: &str, path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut out = prefix.to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                let _ = write!(out, "[{index}]");
            }
            Segment::Map { key } => dotted(&mut out, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    out
}

fn dotted(out: &mut String, key: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(key);
}

/// Checks that no list and no string is absurdly long.
pub(crate) fn limits(value: &Value, path: &str) -> Result<(), Invalid> {
    beyond(value, ["", ""]).map_or(Ok(()), |excess| {
        let place = excess.place.into_iter().rev();
        let path = place.fold(path.to_owned(), |mut path, step| {
            match step {
                Step::Key(key) => dotted(&mut path, key),
                Step::Index(index) => {
                    let _ = write!(path, "[{index}]");
                }
            }
            path
        });
        Err(invalid(clip(&path), excess.reason))
    })
}

/// The first part of a value that is beyond a limit.
struct Excess<'a> {
    /// Where, innermost first.
    place: Vec<Step<'a>>,
    reason: Str,
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// `keys` are the last two on the way: a body of a direct response may be longer.
fn beyond<'a>(value: &'a Value, keys: [&'a str; 2]) -> Option<Excess<'a>> {
    let too_long = |reason| {
        let place = Vec::new();
        Some(Excess { place, reason })
    };
    let behind = |step, excess: Option<Excess<'a>>| {
        excess.map(|mut excess| {
            excess.place.push(step);
            excess
        })
    };
    match value {
        Value::String(text) => {
            let max = match keys {
                ["body", "string" | "bytes"] => BODY_BYTES_MAX,
                _ => STRING_BYTES_MAX,
            };
            (text.len() > max)
                .then(|| too_long(arcstr::format!("longer than {max} bytes")))
                .flatten()
        }
        Value::Array(items) if items.len() > LIST_ITEMS_COUNT_MAX => {
            too_long(arcstr::format!("more than {LIST_ITEMS_COUNT_MAX} items"))
        }
        Value::Array(items) => {
            let [_, last] = keys;
            let mut items = items.iter().enumerate();
            items.find_map(|(i, item)| behind(Step::Index(i), beyond(item, [last, "[]"])))
        }
        Value::Object(map) => {
            let [_, last] = keys;
            let mut items = map.iter();
            items.find_map(|(key, item)| behind(Step::Key(key), beyond(item, [last, key])))
        }
        _ => None,
    }
}

/// A list as the API limits it.
pub(super) fn at_most<T>(items: &[T], max: usize, field: &str) -> Result<(), Invalid> {
    if items.len() > max {
        return Err(invalid(field, arcstr::format!("more than {max} items")));
    }
    Ok(())
}

/// A port number, 1 to 65535.
pub(super) fn port(number: impl Into<i64>, field: impl FnOnce() -> String) -> Result<u16, Invalid> {
    let number = number.into();
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(invalid(
            field(),
            arcstr::format!("{number} is not a port (1 to 65535)"),
        )),
    }
}

/// An address in canonical form: an IPv4 address written as IPv6 becomes IPv4.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Labels from strings.
pub(super) fn labels<K: AsRef<str>, V: AsRef<str>>(
    map: impl IntoIterator<Item = (K, V)>,
) -> Labels {
    let texts = (map.into_iter())
        .map(|(key, value)| (shared::text(key.as_ref()), shared::text(value.as_ref())));
    shared::labels(texts.collect())
}

/// Strings as [`Str`].
pub(super) fn strs(items: impl IntoIterator<Item = String>) -> Vec<Str> {
    items.into_iter().map(Str::from).collect()
}
