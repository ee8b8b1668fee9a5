//! What an admission webhook says of an object: refused, or taken with warnings.
//!
//! [`crate::parse`] judges what configures proxies; whatever it cannot apply as written is
//! refused here. Added is what parsing tolerates and Kubernetes should not keep, one module
//! per group of kinds, and kinds that are not parsed at all.
//!
//! Bounded: what is longer than parsing allows is refused before anything else is looked at.
//!
//! Source: spec/policy-and-traffic.md §9.1 to §9.4, spec/control-plane.md §8.9.

mod common;
mod destination_rule;
mod entries;
mod envoy_filter;
mod extensions;
mod gateway;
mod read;
mod security;
mod sidecar;
mod telemetry;
#[cfg(test)]
mod tests;
mod virtual_service;

use serde_json::{Value, json};

use crate::finding::{Finding, Severity};
use crate::labels::ANNOTATION_DRY_RUN;
use crate::object::{Object, Parsed};
use crate::parse::{self, Recognised};

use read::At;

/// Problems, and warnings, of one object.
const COUNT_MAX: usize = 32;

/// Part of an object that is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the field, empty for the whole object.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// What is to be said of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is refused; empty when it is not.
    pub rejected: Vec<Problem>,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// Regular expressions in it (`message` is the expression): who knows what proxies can read
    /// judges them.
    pub expressions: Vec<Problem>,
}

/// Judges an object of the groups of Istio's API; every other kind is refused.
pub fn validate(value: &Value) -> Verdict {
    let mut verdict = Verdict::default();
    let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, group) = (text("kind"), text("apiVersion"));
    let group = group.split_once('/').map_or("", |(group, _)| group);
    let Some(check) = check_of(group, kind) else {
        let message =
            format!("there is no kind {kind:?} of group {group:?} that is validated here");
        verdict.reject("kind", message.chars().take(300).collect::<String>());
        return verdict;
    };
    let Some(map) = value.as_object() else {
        return verdict;
    };
    for key in map.keys() {
        const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
        if !TOP.contains(&key.as_str()) {
            verdict.reject(key, "an object has no such field");
        }
    }
    if let Err(invalid) = parse::limits(map.get("spec").unwrap_or(&Value::Null), "spec") {
        verdict.reject(invalid.field.as_str(), invalid.reason.as_str());
        return verdict.done();
    }
    let object = At::root(value);
    annotations(&mut verdict, kind, &object);
    parsed(&mut verdict, value);
    let empty = json!({});
    let spec = map.get("spec").filter(|spec| !spec.is_null());
    let spec = At::new(spec.unwrap_or(&empty), "spec");
    if spec.is_object() {
        check(&mut verdict, &object, &spec);
    } else {
        verdict.reject("spec", "not an object");
    }
    verdict.done()
}

/// The kinds that are judged.
pub const KINDS: [&str; 15] = [
    "AuthorizationPolicy",
    "DestinationRule",
    "EnvoyFilter",
    "Gateway",
    "PeerAuthentication",
    "ProxyConfig",
    "RequestAuthentication",
    "ServiceEntry",
    "Sidecar",
    "Telemetry",
    "TrafficExtension",
    "VirtualService",
    "WasmPlugin",
    "WorkloadEntry",
    "WorkloadGroup",
];

/// Judges what is not judged by parsing: the object, and its `spec`.
type Check = fn(&mut Verdict, &At<'_>, &At<'_>);

fn check_of(group: &str, kind: &str) -> Option<Check> {
    Some(match (group, kind) {
        ("security.istio.io", "AuthorizationPolicy") => security::authorization_policy,
        ("security.istio.io", "RequestAuthentication" | "PeerAuthentication") => nothing,
        ("networking.istio.io", "VirtualService") => virtual_service::check,
        ("networking.istio.io", "DestinationRule") => destination_rule::check,
        ("networking.istio.io", "ServiceEntry") => entries::service_entry,
        ("networking.istio.io", "WorkloadEntry") => entries::workload_entry,
        ("networking.istio.io", "WorkloadGroup") => entries::workload_group,
        ("networking.istio.io", "Sidecar") => sidecar::check,
        ("networking.istio.io", "Gateway") => gateway::check,
        ("networking.istio.io", "EnvoyFilter") => envoy_filter::check,
        ("networking.istio.io", "ProxyConfig") => extensions::proxy_config,
        ("telemetry.istio.io", "Telemetry") => telemetry::check,
        ("extensions.istio.io", "WasmPlugin") => extensions::wasm_plugin,
        ("extensions.istio.io", "TrafficExtension") => extensions::traffic_extension,
        _ => return None,
    })
}

fn nothing(_: &mut Verdict, _: &At<'_>, _: &At<'_>) {}

// === impl Verdict ===

impl Verdict {
    fn reject(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.rejected.len() < COUNT_MAX {
            let (field, message) = (field.into(), message.into());
            self.rejected.push(Problem { field, message });
        }
    }

    fn warn(&mut self, field: &str, message: &str) {
        if self.warnings.len() < COUNT_MAX {
            self.warnings.push(format!("{field}: {message}"));
        }
    }

    /// An expression for who knows proxies; what no proxy takes is refused here.
    fn expression(&mut self, at: &At<'_>) {
        const CHARS_MAX: usize = 1024;
        let text = at.as_text();
        if text.is_empty() || text.chars().count() > CHARS_MAX {
            let message = format!("a regular expression has from 1 to {CHARS_MAX} characters");
            self.reject(at.path(), message);
        } else {
            self.expressions.push(Problem {
                field: at.path().to_owned(),
                message: text.to_owned(),
            });
        }
    }

    /// One problem a field: parsing and what is added may have found the same.
    fn done(mut self) -> Self {
        let mut seen = std::collections::BTreeSet::new();
        self.rejected.retain(|one| seen.insert(one.field.clone()));
        self
    }
}

/// Source: spec/policy-and-traffic.md §9.1.
fn annotations(verdict: &mut Verdict, kind: &str, object: &At<'_>) {
    let metadata = object.get("metadata");
    let annotations = metadata.map(|metadata| metadata.entries("annotations"));
    for (name, value) in annotations.into_iter().flatten() {
        let field = format!("metadata.annotations[{name}]");
        match name {
            "internal.istio.io/webhook-always-reject" => {
                verdict.reject(field, "objects with this annotation are always refused");
            }
            "internal.istio.io/parents"
            | "internal.istio.io/parent-name"
            | "internal.istio.io/parent-namespace" => {
                verdict.reject(field, "an internal annotation, which nobody may set");
            }
            ANNOTATION_DRY_RUN if kind != "AuthorizationPolicy" => {
                verdict.reject(field, "only an AuthorizationPolicy can be tried out");
            }
            ANNOTATION_DRY_RUN if !is_boolean(value.as_text()) => {
                verdict.reject(field, "neither true nor false");
            }
            _ => {}
        }
    }
}

/// As Go's `ParseBool` reads it.
fn is_boolean(text: &str) -> bool {
    const WORDS: [&str; 12] = [
        "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False",
    ];
    WORDS.contains(&text)
}

/// What parsing says of the object.
fn parsed(verdict: &mut Verdict, value: &Value) {
    let named = with_name(value);
    match parse::recognise(named.as_ref().unwrap_or(value), "request") {
        Recognised::Object(object) => match &object {
            Object::AuthorizationPolicy(row) => row_of(verdict, row),
            Object::RequestAuthentication(row) => row_of(verdict, row),
            Object::PeerAuthentication(row) => row_of(verdict, row),
            Object::VirtualService(row) => row_of(verdict, row),
            Object::DestinationRule(row) => row_of(verdict, row),
            Object::ServiceEntry(row) => row_of(verdict, row),
            Object::WorkloadEntry(row) => row_of(verdict, row),
            _ => {}
        },
        // It is taken, and its author is told that it changes nothing.
        Recognised::NotAnInput(Some(finding)) if finding.severity != Severity::Error => {
            note(verdict, &finding);
        }
        Recognised::NotAnInput(Some(finding)) => {
            verdict.reject(finding.field.as_str(), finding.message.as_str());
        }
        _ => {}
    }
}

/// The object under a name that its `generateName` could become, while it has none.
fn with_name(value: &Value) -> Option<Value> {
    let metadata = value.get("metadata")?;
    let name = metadata.get("name").and_then(Value::as_str);
    if name.is_some_and(|name| !name.is_empty()) {
        return None;
    }
    let prefix = metadata.get("generateName")?.as_str()?;
    let mut named = value.clone();
    let metadata = named.get_mut("metadata")?.as_object_mut()?;
    metadata.insert("name".to_owned(), format!("{prefix}x").into());
    Some(named)
}

fn row_of<T>(verdict: &mut Verdict, row: &Parsed<T>) {
    if let Err(invalid) = &row.body {
        verdict.reject(invalid.field.as_str(), invalid.reason.as_str());
    }
    for finding in &row.notes {
        if finding.code == "invalid-object" {
            continue;
        }
        if !is_refusal(finding) {
            note(verdict, finding);
            continue;
        }
        // Its first clause says what becomes of the value where it was admitted.
        let reason = finding.message.split_once(": ");
        let reason = reason.map_or(finding.message.as_str(), |(_, reason)| reason);
        verdict.reject(finding.field.as_str(), reason);
    }
}

/// Findings about values that cost a part of the object they are in: better not to let them in.
fn is_refusal(finding: &Finding) -> bool {
    const CODES: [&str; 7] = [
        "authz-value-invalid",
        "dr-invalid",
        "dr-tls-invalid",
        "vs-direct-response-size",
        "vs-field-invalid",
        "vs-redirect-code",
        "vs-rule-invalid",
    ];
    // An abort without a status is a warning of the API.
    let abort = finding.field.ends_with(".fault.abort") && finding.code == "vs-field-invalid";
    CODES.contains(&finding.code) && !abort
}

fn note(verdict: &mut Verdict, finding: &Finding) {
    let at = match finding.field.as_str() {
        "" => String::new(),
        field => format!(" at {field}"),
    };
    let Finding {
        code, message, fix, ..
    } = finding;
    let text = format!("{code}{at}: {message} ({fix})");
    if verdict.warnings.len() < COUNT_MAX {
        verdict.warnings.push(text);
    }
}
