//! What to write: a row of a manager against the status as it was seen. Pure.

use std::borrow::Cow;

use model::status::{
    Condition, GATEWAY_API_CONDITIONS, MANAGER_ALLOCATION, MANAGER_FINDINGS, MANAGER_GATEWAY_API,
    MANAGER_SERVICE, MANAGER_WAYPOINT_POLICY, MANAGER_WORKLOAD_ENTRY, MANAGER_ZTUNNEL_POLICY,
    StatusRow, TYPE_FINDINGS,
};
use model::{Kind, ObjectRef};
use serde_json::{Map, Value, json};

use super::merge;
use crate::ObservedStatus;

/// How conditions of several managers merge in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// By type: a manager sends its own, and the API server keeps those of others.
    Map,
    /// Not at all, as in the CRDs of Istio: who writes sends the whole list.
    Atomic,
}

// === impl Form ===

impl Form {
    /// What a kind has unless an answer of the API server said otherwise.
    pub(crate) fn of(kind: &str) -> Self {
        match find(kind).map(Kind::group) {
            Some(group) if !group.ends_with("istio.io") => Self::Map,
            _ => Self::Atomic,
        }
    }
}

/// The kind of this name.
pub(crate) fn find(kind: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|known| known.as_str() == kind)
}

/// Types of the conditions that a manager owns, wherever it writes; `None` for managers that
/// this writer does not serve.
fn owned(manager: &str) -> Option<&'static [&'static str]> {
    Some(match manager {
        MANAGER_SERVICE => &[
            "istio.io/WaypointBound",
            "istio.io/WaypointMissing",
            "istio.io/VisibilityApplied",
        ],
        MANAGER_WORKLOAD_ENTRY => &["istio.io/WaypointBound"],
        MANAGER_ZTUNNEL_POLICY => &["ZtunnelAccepted"],
        MANAGER_WAYPOINT_POLICY => &["WaypointAccepted"],
        MANAGER_FINDINGS => &[TYPE_FINDINGS],
        MANAGER_ALLOCATION => &[],
        MANAGER_GATEWAY_API => &GATEWAY_API_CONDITIONS,
        _ => return None,
    })
}

/// Whether this writer writes what a manager says.
pub(crate) fn is_served(manager: &str) -> bool {
    owned(manager).is_some()
}

/// Whether what a manager says is a change of the status as it is, rather than an apply of its
/// own part.
pub(super) fn is_merged(manager: &str) -> bool {
    manager == MANAGER_GATEWAY_API
}

/// Whether a row was made before the generation of its object that is seen.
pub(super) fn is_old(row: &StatusRow, seen: &ObservedStatus) -> bool {
    let parents = row.parents.iter().flatten().map(|one| &one.conditions);
    let ancestors = row.ancestors.iter().flatten().map(|one| &one.conditions);
    let listeners = row.listeners.iter().flatten().map(|one| &one.conditions);
    let nested = parents.chain(ancestors).chain(listeners).flatten();
    let mut all = row.conditions.iter().chain(nested);
    all.any(|one| {
        one.observed_generation
            .is_some_and(|at| at < seen.generation)
    })
}

/// Whether the status as seen differs from what a manager says.
pub(crate) fn differs(
    object: &ObjectRef,
    (manager, row): (&str, &StatusRow),
    seen: &ObservedStatus,
) -> bool {
    if is_merged(manager) {
        return !merge::changes(object, row, seen, "").is_empty();
    }
    conditions_differ(manager, row, seen) || addresses_differ(row, seen)
}

fn conditions_differ(manager: &str, row: &StatusRow, seen: &ObservedStatus) -> bool {
    let row = &told(row, seen);
    let own = owned(manager).unwrap_or_default();
    let listed = conditions(seen);
    let present = listed.iter().filter(|seen| own.contains(&ty(seen))).count();
    let same = |wanted: &Condition| listed.iter().any(|seen| says(seen, wanted));
    present != row.conditions.len() || !row.conditions.iter().all(same)
}

/// A row whose findings say of which generation of their object they are: that which is seen, for
/// they are of no one object alone. Clients that wait for an object to be observed ask it of every
/// condition.
fn told<'r>(row: &'r StatusRow, seen: &ObservedStatus) -> Cow<'r, StatusRow> {
    let is_finding = |condition: &Condition| *condition.ty == *TYPE_FINDINGS;
    if seen.generation == 0 || !row.conditions.iter().any(is_finding) {
        return Cow::Borrowed(row);
    }
    let mut row = row.clone();
    for condition in row.conditions.iter_mut().filter(|one| is_finding(one)) {
        condition.observed_generation = Some(seen.generation);
    }
    Cow::Owned(row)
}

fn addresses_differ(row: &StatusRow, seen: &ObservedStatus) -> bool {
    let Some(wanted) = &row.addresses else {
        return false;
    };
    let seen = seen.status.get("addresses").and_then(Value::as_array);
    let seen = seen.map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value, field: &str| -> Option<String> {
        value.get(field).and_then(Value::as_str).map(str::to_owned)
    };
    let same = |(seen, (value, host)): (&Value, &(model::Str, model::Str))| {
        text(seen, "value").as_deref() == Some(value) && text(seen, "host").as_deref() == Some(host)
    };
    seen.len() != wanted.len() || !seen.iter().zip(wanted).all(same)
}

/// The conditions of a status, as they are.
fn conditions(seen: &ObservedStatus) -> &[Value] {
    let list = seen.status.get("conditions").and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn ty(condition: &Value) -> &str {
    condition
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// What of a status is a manager's to say, without the times of conditions.
pub(super) fn own(manager: &str, seen: &ObservedStatus) -> Value {
    if is_merged(manager) {
        return merge::own(seen);
    }
    let own = owned(manager).unwrap_or_default();
    let listed = conditions(seen).iter();
    let listed = listed.filter(|condition| own.contains(&ty(condition)));
    let listed = listed.cloned().map(|mut condition| {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastTransitionTime");
        }
        condition
    });
    let conditions: Vec<Value> = listed.collect();
    match manager {
        MANAGER_ALLOCATION => json!([conditions, seen.status.get("addresses")]),
        _ => Value::Array(conditions),
    }
}

/// Whether a condition as seen says what is wanted; when it came to be does not matter.
pub(super) fn says(seen: &Value, wanted: &Condition) -> bool {
    let is = |field: &str, text: &str| {
        let seen = seen.get(field).and_then(Value::as_str);
        seen.unwrap_or_default() == text
    };
    is("type", &wanted.ty)
        && is("status", wanted.status.as_str())
        && is("reason", &wanted.reason)
        && is("message", &wanted.message)
        && generation(seen) == wanted.observed_generation.unwrap_or(0)
}

/// `observedGeneration`, which the CRDs of Istio let be text.
fn generation(condition: &Value) -> i64 {
    match condition.get("observedGeneration") {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        _ => 0,
    }
}

/// A condition as it is written; one that says the same as before keeps its time.
/// Source: spec/workload-discovery.md §6 (`lastTransitionTime` is the time of the write).
fn written(wanted: &Condition, seen: &[Value], now: &str) -> Value {
    if let Some(same) = seen.iter().find(|seen| says(seen, wanted)) {
        return same.clone();
    }
    let mut condition = serde_json::to_value(wanted).unwrap_or_default();
    if let Some(fields) = condition.as_object_mut() {
        fields.insert("lastTransitionTime".to_owned(), json!(now));
    }
    condition
}

/// What a manager sends, naming the version that it was judged by.
pub(crate) fn body(
    object: &ObjectRef,
    (manager, row): (&str, &StatusRow),
    seen: &ObservedStatus,
    form: Form,
    now: &str,
) -> Value {
    let row = &*told(row, seen);
    if is_merged(manager) {
        return request(object, seen, merge::changes(object, row, seen, now));
    }
    let own = owned(manager).unwrap_or_default();
    let mut status = Map::new();
    if !own.is_empty() {
        let listed = conditions(seen);
        let mut list: Vec<Value> = Vec::new();
        let mut left: Vec<&Condition> = row.conditions.iter().collect();
        for old in listed {
            match left.iter().position(|wanted| *wanted.ty == *ty(old)) {
                // In its place, where the whole list is sent.
                Some(at) => list.push(written(left.remove(at), listed, now)),
                None if form == Form::Atomic && !own.contains(&ty(old)) => list.push(old.clone()),
                None => {}
            }
        }
        list.extend(left.into_iter().map(|wanted| written(wanted, listed, now)));
        // An empty list of an atomic field must be said: else the API server removes nothing
        // that another manager sent last.
        if form == Form::Atomic || !list.is_empty() {
            status.insert("conditions".to_owned(), Value::Array(list));
        }
    }
    if let Some(addresses) = &row.addresses {
        let list = addresses.iter();
        let list =
            list.map(|(value, host)| json!({"value": value.as_str(), "host": host.as_str()}));
        status.insert("addresses".to_owned(), list.collect());
    }
    request(object, seen, status)
}

/// A status of an object at the version that was seen.
fn request(object: &ObjectRef, seen: &ObservedStatus, status: Map<String, Value>) -> Value {
    let mut metadata = json!({
        "name": object.key.name.as_str(),
        "resourceVersion": seen.resource_version,
    });
    if let Some(fields) = metadata.as_object_mut() {
        if !object.key.ns.is_empty() {
            fields.insert("namespace".to_owned(), json!(object.key.ns.as_str()));
        }
        if !seen.uid.is_empty() {
            fields.insert("uid".to_owned(), json!(seen.uid));
        }
    }
    json!({
        "apiVersion": seen.api_version,
        "kind": object.kind.as_str(),
        "metadata": metadata,
        "status": status,
    })
}

/// Whether anything would come of applying: where conditions merge by type, one that another
/// manager wrote is not ours to remove.
pub(crate) fn is_due(
    object: &ObjectRef,
    (manager, row): (&str, &StatusRow),
    seen: &ObservedStatus,
    form: Form,
) -> bool {
    if !differs(object, (manager, row), seen) {
        return false;
    }
    let is_applied = form == Form::Map && !is_merged(manager);
    let is_removal = is_applied && row.conditions.is_empty() && row.addresses.is_none();
    !is_removal || seen.managers.iter().any(|owner| owner == manager)
}

/// An object as the API server answered it, and how its conditions merge if that shows.
pub(crate) fn answered(answer: &Value, manager: &str) -> (ObservedStatus, Option<Form>) {
    let metadata = answer.get("metadata");
    let text = |field: &str| {
        let value = metadata.and_then(|metadata| metadata.get(field));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let fields = metadata.and_then(|metadata| metadata.get("managedFields"));
    let fields = fields.and_then(Value::as_array).map(Vec::as_slice);
    let entries = fields.unwrap_or_default().iter();
    let of_status: Vec<&Value> = entries
        .filter(|entry| entry.get("subresource").and_then(Value::as_str) == Some("status"))
        .collect();
    let name = |entry: &&Value| {
        entry
            .get("manager")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let own = of_status.iter().filter(|entry| {
        name(entry).as_deref() == Some(manager)
            && entry.get("operation").and_then(Value::as_str) == Some("Apply")
    });
    let mut lists = own.filter_map(|entry| {
        let status = entry.get("fieldsV1")?.get("f:status")?;
        status.get("f:conditions")?.as_object()
    });
    let form = lists.next().map(|list| {
        if list.keys().any(|key| key.starts_with("k:")) {
            Form::Map
        } else {
            Form::Atomic
        }
    });
    let generation = metadata.and_then(|metadata| metadata.get("generation"));
    let seen = ObservedStatus {
        resource_version: text("resourceVersion"),
        generation: generation.and_then(Value::as_i64).unwrap_or(0),
        uid: text("uid"),
        api_version: answer
            .get("apiVersion")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        status: answer.get("status").cloned().unwrap_or_default(),
        managers: of_status.iter().filter_map(name).collect(),
    };
    (seen, form)
}
