//! networking.istio.io DestinationRule. Source: spec/policy-and-traffic.md §7, §9.4.
//!
//! A value that cannot be applied costs the smallest block around it, which is left out and
//! noted. TLS is the exception: a `tls` block that cannot be applied as written is kept as one
//! that refuses connections, for without it they would be opened in plain text.

mod balancer;
mod policy;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Str;
use crate::finding::Severity;
use crate::input::{DestinationRule, Subset, TrafficPolicy};
use crate::object::{Invalid, Labels, Parsed};

use super::clip;
use super::read::{Doc, LIST_ITEMS_COUNT_MAX, invalid, labels};

pub(super) use balancer::{LocalityWire, locality};

/// Longest host name.
const HOST_BYTES_MAX: usize = 253;
/// Longest DNS label, and longest value of a label.
const LABEL_BYTES_MAX: usize = 63;

const FIELDS: &[&str] = &[
    "exportTo",
    "host",
    "labels",
    "matchLabels",
    "name",
    "subsets",
    "trafficPolicy",
    "workloadSelector",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleWire {
    host: Option<String>,
    traffic_policy: Option<Value>,
    subsets: Option<Value>,
    export_to: Option<Value>,
    workload_selector: Option<SelectorWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectorWire {
    match_labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubsetWire {
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    traffic_policy: Option<Value>,
}

/// Reads a DestinationRule. Only a host that cannot be read voids it, or what cannot be read at
/// all and asks for no TLS.
pub(super) fn destination_rule(doc: Doc<'_>) -> Arc<Parsed<DestinationRule>> {
    doc.row(|doc| read(doc).or_else(|what| refusing(doc, &what).ok_or(what)))
}

fn read(doc: &mut Doc<'_>) -> Result<DestinationRule, Invalid> {
    let spec: RuleWire = doc.spec(FIELDS, |_| false)?;
    let host = spec.host.unwrap_or_default();
    if !is_host(&host) {
        return Err(invalid("spec.host", "not a host name"));
    }
    let policy = read_policy(doc, spec.traffic_policy, "spec.trafficPolicy");
    let mut subsets: Vec<Subset> = Vec::new();
    for (i, value) in items(doc, spec.subsets, "spec.subsets")
        .into_iter()
        .enumerate()
    {
        let at = format!("spec.subsets[{i}]");
        if let Some(subset) = subset(doc, value, &at, &subsets) {
            subsets.push(subset);
        }
    }
    let export_to = export_to(doc, spec.export_to);
    let workload_selector = spec
        .workload_selector
        .map(|wire| labels(wire.match_labels.into_iter().flatten()));
    if workload_selector.is_some() && export_to.iter().any(|ns| ns != ".") {
        let reason = "a rule with workloadSelector concerns its own namespace alone";
        refused(doc, invalid("spec.exportTo", reason));
    }
    Ok(DestinationRule {
        host: Str::from(host),
        export_to,
        workload_selector,
        policy,
        subsets,
    })
}

/// What a rule that cannot be read comes to when it asks for TLS: connections to its host are
/// refused, for without the rule they would be opened in plain text.
fn refusing(doc: &mut Doc<'_>, what: &Invalid) -> Option<DestinationRule> {
    let spec = doc.top("spec")?;
    let host = spec.get("host")?.as_str().filter(|host| is_host(host))?;
    if !asks_for_tls(spec) {
        return None;
    }
    let message = arcstr::format!(
        "This rule cannot be read and asks for TLS, so connections to its host are refused rather than opened in plain text: {}",
        what.reason
    );
    doc.note(
        "dr-tls-invalid",
        Severity::Error,
        what.field.clone(),
        message,
        "Correct the field",
    );
    let is_long = |list: &Vec<Value>| list.len() > LIST_ITEMS_COUNT_MAX;
    let namespaces = spec.get("exportTo").cloned();
    let export_to = if namespaces
        .as_ref()
        .and_then(Value::as_array)
        .is_some_and(is_long)
    {
        vec![arcstr::literal!(".")]
    } else {
        export_to(doc, namespaces)
    };
    let mut policy = TrafficPolicy::default();
    policy.base.tls = Some(tls::refusing());
    Some(DestinationRule {
        host: Str::from(host),
        export_to,
        policy: Some(policy),
        ..DestinationRule::default()
    })
}

/// Whether something has a `tls` block of which it cannot be said that it opens no TLS.
fn asks_for_tls(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(asks_for_tls),
        Value::Object(map) => map.iter().any(|(key, value)| {
            if key == "tls" {
                !opens_none(value)
            } else {
                asks_for_tls(value)
            }
        }),
        _ => false,
    }
}

fn opens_none(tls: &Value) -> bool {
    let mode = match tls {
        Value::Null => return true,
        Value::Object(map) => map.get("mode"),
        _ => return false,
    };
    match mode {
        None | Some(Value::Null) => true,
        Some(Value::String(mode)) => matches!(mode.as_str(), "" | "DISABLE" | "ISTIO_MUTUAL"),
        Some(_) => false,
    }
}

/// `trafficPolicy` of the rule or of a subset.
fn read_policy(doc: &mut Doc<'_>, value: Option<Value>, at: &str) -> Option<TrafficPolicy> {
    block(doc, value, at, policy::FIELDS, policy::policy)
}

fn subset(doc: &mut Doc<'_>, value: Value, at: &str, before: &[Subset]) -> Option<Subset> {
    block(doc, Some(value), at, FIELDS, |doc, wire: SubsetWire, at| {
        let name = wire.name.unwrap_or_default();
        let place = format!("{at}.name");
        if !is_label(&name) {
            return Err(invalid(place, "not a DNS label"));
        }
        if before.iter().any(|subset| *subset.name == *name) {
            return Err(invalid(place, "an earlier subset has this name"));
        }
        Ok(Subset {
            labels: subset_labels(wire.labels, at)?,
            policy: read_policy(doc, wire.traffic_policy, &format!("{at}.trafficPolicy")),
            name: Str::from(name),
        })
    })
}

fn subset_labels(wire: Option<BTreeMap<String, String>>, at: &str) -> Result<Labels, Invalid> {
    let wire = wire.unwrap_or_default();
    let bad = |(key, value): &(&String, &String)| key.is_empty() || value.len() > LABEL_BYTES_MAX;
    if let Some((key, _)) = wire.iter().find(bad) {
        let at = clip(&format!("{at}.labels.{key}"));
        return Err(invalid(at, "not a label"));
    }
    Ok(labels(wire))
}

/// Namespaces that see the rule. Entries that cannot be read are left out; when none is left,
/// its own namespace remains, for an empty list would mean everybody.
fn export_to(doc: &mut Doc<'_>, value: Option<Value>) -> Vec<Str> {
    let items = match value {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(items)) if items.is_empty() => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            refused(doc, invalid("spec.exportTo", "not a list of namespaces"));
            return vec![arcstr::literal!(".")];
        }
    };
    let mut out = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let known = |ns: &&str| matches!(*ns, "." | "*") || is_label(ns);
        if let Some(ns) = item.as_str().filter(known) {
            out.push(Str::from(ns));
        } else {
            let at = format!("spec.exportTo[{i}]");
            refused(doc, invalid(at, "neither a namespace nor . nor *"));
        }
    }
    if out.is_empty() {
        out.push(arcstr::literal!("."));
    }
    out
}

/// Reads one block. One that cannot be applied is left out and noted.
fn block<W: DeserializeOwned, T>(
    doc: &mut Doc<'_>,
    value: Option<Value>,
    at: &str,
    fields: &[&str],
    build: impl FnOnce(&mut Doc<'_>, W, &str) -> Result<T, Invalid>,
) -> Option<T> {
    let value = value.filter(|value| !value.is_null())?;
    let wire = doc.fields::<W>(&value, at, fields, |_| false);
    match wire.and_then(|wire| build(doc, wire, at)) {
        Ok(read) => Some(read),
        Err(reason) => {
            refused(doc, reason);
            None
        }
    }
}

/// The items of a list; what is none has no effect and is noted.
fn items(doc: &mut Doc<'_>, value: Option<Value>, at: &str) -> Vec<Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items,
        Some(_) => {
            refused(doc, invalid(at, "not a list"));
            Vec::new()
        }
    }
}

/// Notes that the block around a field is left out.
fn refused(doc: &mut Doc<'_>, what: Invalid) {
    let message = arcstr::format!(
        "This cannot be applied as written, so the block around it has no effect; the rest of the rule has: {}",
        what.reason
    );
    doc.note(
        "dr-invalid",
        Severity::Error,
        what.field,
        message,
        "Correct the field",
    );
}

/// Hosts become parts of names, whose separators they must not carry. `*` stands first.
fn is_host(host: &str) -> bool {
    let rest = host.strip_prefix('*').unwrap_or(host);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && rest.chars().all(plain)
}

fn is_label(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty()
        && text.len() <= LABEL_BYTES_MAX
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
