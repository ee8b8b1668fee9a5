//! The status of objects of the Gateway API, made of what is there and of what is ours. Pure.
//!
//! It is written by merge patch at the version that was seen, not by server-side apply:
//! `status.parents` and `status.ancestors` are atomic lists that several controllers share, which
//! an apply would take from the others; a patch sends such a list with the entries of others as
//! they are, and one that was judged by something old is refused. And under the same field manager
//! the annotation of the controller's version is applied to Gateways, of which an apply without it
//! would be a removal.
//!
//! Source: spec/gateway-api.md §3.10, §4.5, §4.7.

use model::input::GatewayStatusAddress;
use model::status::{
    ANCESTOR_CONDITIONS, ANCESTOR_CONTROLLERS, Condition, GATEWAY_API_CONDITIONS, ListenerStatus,
    MANAGER_GATEWAY_API, PARENT_CONDITIONS, ParentRef, StatusRow,
};
use model::{Kind, ObjectRef, Str};
use serde_json::{Map, Value, json};

use super::findings::cut;
use super::plan::says;
use crate::ObservedStatus;

/// Entries that the API takes in `status.parents`.
const PARENTS_MAX: usize = 32;
/// Entries that the API takes in `status.ancestors`.
const ANCESTORS_MAX: usize = 16;
/// Entries that the API takes in `status.addresses`.
const ADDRESSES_MAX: usize = 16;
/// Bytes of a message; the API takes as many characters.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Longest value of an address.
const ADDRESS_BYTES_MAX: usize = 253;

/// One of ours in a list that controllers share.
struct Entry<'a> {
    reference: &'a ParentRef,
    controller: &'static str,
    conditions: &'a [Condition],
}

/// What is ours in such a list, and how it is written.
struct Shared<'a> {
    /// Field of the reference.
    field: &'static str,
    /// Whose entries are ours.
    controllers: &'static [&'static str],
    /// Types of their conditions that are ours.
    owned: &'static [&'static str],
    entries: Vec<Entry<'a>>,
    entries_max: usize,
    /// Namespace of the object, where a reference names none.
    ns: &'a str,
    now: &'a str,
}

/// Fields of the status that differ from what a row says, as they should be: as whole values.
pub(super) fn changes(
    object: &ObjectRef,
    row: &StatusRow,
    seen: &ObservedStatus,
    now: &str,
) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |field: &str, wanted: Value| {
        let is_same = match seen.status.get(field) {
            Some(old) => *old == wanted,
            None => wanted.as_array().is_some_and(Vec::is_empty),
        };
        if !is_same {
            out.insert(field.to_owned(), wanted);
        }
    };
    let list = |field: &str| list(&seen.status, field);
    if row.parents.is_none() && row.ancestors.is_none() {
        let owned = &GATEWAY_API_CONDITIONS;
        let old = list("conditions");
        if !(is_everybodys(object) && row.conditions.iter().all(|one| is_said(old, one))) {
            put(
                "conditions",
                conditions(old, &row.conditions, owned, now).into(),
            );
        }
    }
    for (field, shared) in shared(row, object.key.ns.as_str(), now) {
        put(field, shared.merged(list(field)).into());
    }
    if let Some(wanted) = &row.listeners {
        put("listeners", listeners(list("listeners"), wanted, now));
    }
    if let Some(count) = row.attached_listener_sets {
        put("attachedListenerSets", json!(count));
    }
    let addresses = row.gateway_addresses.iter().flatten();
    let addresses: Vec<Value> = addresses.filter_map(address).take(ADDRESSES_MAX).collect();
    // Nothing to say is no withdrawal: who is bound to a Gateway stays bound.
    if !addresses.is_empty() {
        put("addresses", addresses.into());
    }
    out
}

/// The lists of a row that controllers share, by their fields.
fn shared<'a>(row: &'a StatusRow, ns: &'a str, now: &'a str) -> Vec<(&'static str, Shared<'a>)> {
    let mut out = Vec::new();
    if let Some(parents) = &row.parents {
        let entries = parents.iter().map(|one| Entry {
            reference: &one.parent_ref,
            controller: one.controller_name,
            conditions: &one.conditions,
        });
        let shared = Shared {
            field: "parentRef",
            controllers: &[MANAGER_GATEWAY_API],
            owned: &PARENT_CONDITIONS,
            entries: entries.collect(),
            entries_max: PARENTS_MAX,
            ns,
            now,
        };
        out.push(("parents", shared));
    }
    if let Some(ancestors) = &row.ancestors {
        let entries = ancestors.iter().map(|one| Entry {
            reference: &one.ancestor_ref,
            controller: one.controller_name,
            conditions: &one.conditions,
        });
        let shared = Shared {
            field: "ancestorRef",
            controllers: &ANCESTOR_CONTROLLERS,
            owned: &ANCESTOR_CONDITIONS,
            entries: entries.collect(),
            entries_max: ANCESTORS_MAX,
            ns,
            now,
        };
        out.push(("ancestors", shared));
    }
    out
}

/// Whether every control plane writes the status of an object, whatever its revision.
fn is_everybodys(object: &ObjectRef) -> bool {
    object.kind == Kind::GatewayClass.as_str()
}

/// Whether conditions say what is wanted, in whatever words.
fn is_said(old: &[Value], wanted: &Condition) -> bool {
    old.iter().any(|old| {
        let message = Str::from(text(old, "message"));
        says(
            old,
            &Condition {
                message,
                ..wanted.clone()
            },
        )
    })
}

/// What of a status is ours, without the times of conditions.
pub(super) fn own(seen: &ObservedStatus) -> Value {
    let of = |field: &str, controllers: &[&str]| -> Vec<&Value> {
        let entries = list(&seen.status, field).iter();
        entries
            .filter(|entry| controllers.contains(&text(entry, "controllerName")))
            .collect()
    };
    let own = list(&seen.status, "conditions").iter();
    let own = own.filter(|one| GATEWAY_API_CONDITIONS.contains(&text(one, "type")));
    let mut out = json!([
        own.collect::<Vec<_>>(),
        of("parents", &[MANAGER_GATEWAY_API]),
        of("ancestors", &ANCESTOR_CONTROLLERS),
        seen.status.get("listeners"),
        seen.status.get("addresses"),
        seen.status.get("attachedListenerSets"),
    ]);
    without_times(&mut out);
    out
}

fn without_times(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_times),
        Value::Object(fields) => {
            fields.remove("lastTransitionTime");
            fields.values_mut().for_each(without_times);
        }
        _ => {}
    }
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    let list = value.get(field).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Conditions of a list: ours in their places, new ones after them by type, those of types that
/// are not ours as they are, those that are ours and not wanted left out.
fn conditions(old: &[Value], wanted: &[Condition], owned: &[&str], now: &str) -> Vec<Value> {
    let mut left: Vec<&Condition> = wanted.iter().collect();
    left.sort_by(|a, b| a.ty.cmp(&b.ty));
    let mut out = Vec::new();
    for one in old {
        let ty = text(one, "type");
        if let Some(at) = left.iter().position(|wanted| wanted.ty == ty) {
            out.push(condition(left.remove(at), Some(one), now));
        } else if !owned.contains(&ty) && wanted.iter().all(|wanted| wanted.ty != ty) {
            out.push(one.clone());
        }
    }
    out.extend(left.into_iter().map(|wanted| condition(wanted, None, now)));
    out
}

/// A condition as it is written. Its time is when its value changed last.
fn condition(wanted: &Condition, old: Option<&Value>, now: &str) -> Value {
    let mut wanted = wanted.clone();
    if wanted.message.len() > MESSAGE_BYTES_MAX {
        wanted.message = Str::from(cut(wanted.message.to_string(), MESSAGE_BYTES_MAX));
    }
    if let Some(old) = old.filter(|old| says(old, &wanted)) {
        return old.clone();
    }
    let since = old
        .filter(|old| text(old, "status") == wanted.status.as_str())
        .map(|old| text(old, "lastTransitionTime"))
        .filter(|since| !since.is_empty());
    let mut out = serde_json::to_value(&wanted).unwrap_or_default();
    if let Some(fields) = out.as_object_mut() {
        let since = since.unwrap_or(now);
        fields.insert("lastTransitionTime".to_owned(), json!(since));
    }
    out
}

/// The listeners in the order of the row, each with the conditions that it had of other types.
fn listeners(old: &[Value], wanted: &[ListenerStatus], now: &str) -> Value {
    let of = |wanted: &ListenerStatus| {
        let old = old.iter().find(|old| text(old, "name") == wanted.name);
        let before = old.map(|old| list(old, "conditions")).unwrap_or_default();
        let mut out = serde_json::to_value(wanted).unwrap_or_default();
        if let Some(fields) = out.as_object_mut() {
            let conditions = conditions(before, &wanted.conditions, &[], now);
            fields.insert("conditions".to_owned(), conditions.into());
        }
        out
    };
    wanted.iter().map(of).collect()
}

/// An address as it is written, if the API takes it: of gateways that somebody else runs it may
/// be any text.
fn address(address: &GatewayStatusAddress) -> Option<Value> {
    match address {
        GatewayStatusAddress::Ip(ip) => Some(json!({"type": "IPAddress", "value": ip})),
        GatewayStatusAddress::Hostname(name) => {
            let is_name = is_hostname(name) && name.len() <= ADDRESS_BYTES_MAX;
            is_name.then(|| json!({"type": "Hostname", "value": name.as_str()}))
        }
    }
}

fn is_hostname(name: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let mut labels = name.strip_prefix("*.").unwrap_or(name).split('.');
    labels.all(|label| {
        let ends_well = !label.starts_with('-') && !label.ends_with('-');
        !label.is_empty() && ends_well && label.bytes().all(is_inner)
    })
}

// === impl Shared ===

impl Shared<'_> {
    /// The list as it should be: entries of others where they are, ours in their places, new ones
    /// of ours at the end, and of those no more than fit.
    fn merged(&self, old: &[Value]) -> Vec<Value> {
        let mut left: Vec<&Entry<'_>> = self.entries.iter().collect();
        let mut out = Vec::new();
        for one in old {
            let controller = text(one, "controllerName");
            if !self.controllers.contains(&controller) {
                out.push(one.clone());
                continue;
            }
            let Some(reference) = one.get(self.field) else {
                continue;
            };
            let identity = read(reference).identity(self.ns);
            let is_it = |entry: &&Entry<'_>| {
                entry.controller == controller && entry.reference.identity(self.ns) == identity
            };
            if let Some(at) = left.iter().position(is_it) {
                out.push(self.entry(left.remove(at), Some(one)));
            }
        }
        let room = self.entries_max.saturating_sub(out.len());
        let new = left.into_iter().take(room);
        out.extend(new.map(|entry| self.entry(entry, None)));
        out
    }

    fn entry(&self, entry: &Entry<'_>, old: Option<&Value>) -> Value {
        let before = old.map(|old| list(old, "conditions")).unwrap_or_default();
        let conditions = conditions(before, entry.conditions, self.owned, self.now);
        // The API server adds group and kind where none are written.
        let same = old.and_then(|old| old.get(self.field));
        let same = same.filter(|old| defaulted(&read(old)) == defaulted(entry.reference));
        let reference = match same {
            Some(old) => old.clone(),
            None => serde_json::to_value(entry.reference).unwrap_or_default(),
        };
        json!({
            (self.field): reference,
            "controllerName": entry.controller,
            "conditions": conditions,
        })
    }
}

/// A reference as it stands in a status.
fn read(value: &Value) -> ParentRef {
    let text = |field: &str| value.get(field).and_then(Value::as_str).map(Str::from);
    let port = value.get("port").and_then(Value::as_u64);
    ParentRef {
        group: text("group"),
        kind: text("kind"),
        namespace: text("namespace"),
        name: text("name").unwrap_or_default(),
        section_name: text("sectionName"),
        port: port.and_then(|port| u16::try_from(port).ok()),
    }
}

/// The reference with what the API server adds to it.
fn defaulted(reference: &ParentRef) -> ParentRef {
    let or =
        |text: &Option<Str>, usual: &str| Some(text.clone().unwrap_or_else(|| Str::from(usual)));
    ParentRef {
        group: or(&reference.group, "gateway.networking.k8s.io"),
        kind: or(&reference.kind, "Gateway"),
        ..reference.clone()
    }
}
