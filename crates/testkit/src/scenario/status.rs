//! `expect/status.yaml`: what belongs into the status of objects.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use model::status::by_object;
use serde_json::{Map, Value};
use snapshot::Snapshot;

use super::matcher;

/// What a condition is compared by, word for word.
const EXACT: [&str; 4] = ["type", "status", "reason", "observedGeneration"];

/// Kinds of objects that are looked at only where the file names one of them: nearly every world
/// has some.
const ON_DEMAND: [&str; 6] = [
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
    "TLSRoute",
    "BackendTLSPolicy",
];

/// Everything that is not as expected: exact on the objects and on type, status and reason of
/// their conditions. A message need only contain what is written, or is judged by directives.
/// Parents, ancestors and listeners are exact sets of their own where they are written.
pub(super) fn mismatches(want: &Value, last: &Snapshot) -> Result<Vec<String>> {
    let mut want = objects(want)?;
    let rows = last.statuses.iter();
    let mut out = Vec::new();
    let kinds: BTreeSet<String> = want.iter().map(|(_, one)| text(one, "kind")).collect();
    for object in by_object(rows.map(|(key, row)| (key, row.as_ref()))) {
        let kind = object.object.kind.as_str();
        if ON_DEMAND.contains(&kind) && !kinds.contains(kind) {
            continue;
        }
        let actual = serde_json::to_value(&object)?;
        let name = name(&actual);
        match want.iter().position(|(wanted, _)| *wanted == name) {
            None => out.push(format!("{name} is not expected: {actual}")),
            Some(at) => {
                let (_, wanted) = want.remove(at);
                compare(&name, &wanted, &actual, &mut out)?;
            }
        }
    }
    out.extend(want.iter().map(|(name, _)| format!("{name} has no status")));
    Ok(out)
}

fn text(object: &Value, key: &str) -> String {
    let text = object.get(key).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn name(object: &Value) -> String {
    let text = |key| text(object, key);
    format!("{} {}/{}", text("kind"), text("namespace"), text("name"))
}

/// The expected objects by name; a key that is not known is an error.
fn objects(want: &Value) -> Result<Vec<(String, Value)>> {
    let want = want.as_array().context("status.yaml must be a list")?;
    let mut out: Vec<(String, Value)> = Vec::new();
    for one in want {
        let keys = [
            "kind",
            "namespace",
            "name",
            "conditions",
            "addresses",
            "listeners",
            "parents",
            "ancestors",
        ];
        known(one, &keys)?;
        let name = name(one);
        ensure!(out.iter().all(|(n, _)| *n != name), "{name} stands twice");
        out.push((name, one.clone()));
    }
    Ok(out)
}

fn known<'v>(value: &'v Value, keys: &[&str]) -> Result<&'v Map<String, Value>> {
    let map = value.as_object().context("must be a mapping")?;
    match map.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => bail!("{key} is not part of status.yaml"),
        None => Ok(map),
    }
}

fn list<'v>(object: &'v Value, key: &str) -> &'v [Value] {
    let all = object.get(key).and_then(Value::as_array);
    all.map(Vec::as_slice).unwrap_or_default()
}

fn compare(name: &str, want: &Value, actual: &Value, out: &mut Vec<String>) -> Result<()> {
    conditions(name, want, actual, out)?;
    for (key, known_keys) in [
        (
            "listeners",
            &["name", "supportedKinds", "attachedRoutes", "conditions"][..],
        ),
        ("parents", &["parentRef", "controllerName", "conditions"]),
        (
            "ancestors",
            &["ancestorRef", "controllerName", "conditions"],
        ),
    ] {
        if want.get(key).is_some() {
            entries(
                &format!("{name}: {key}"),
                (key, known_keys),
                (want, actual),
                out,
            )?;
        }
    }
    let (want, actual) = (want.get("addresses"), actual.get("addresses"));
    if want.is_some() && want != actual {
        out.push(format!("{name}: addresses {actual:?}, expected {want:?}"));
    }
    Ok(())
}

/// Listeners, parents or ancestors: the same ones in the same order, each with what is written of it.
fn entries(
    at: &str,
    (key, known_keys): (&str, &[&str]),
    (want, actual): (&Value, &Value),
    out: &mut Vec<String>,
) -> Result<()> {
    let (want, actual) = (list(want, key), list(actual, key));
    if want.len() != actual.len() {
        let (want, actual) = (want.len(), actual.len());
        out.push(format!("{at}: {actual} entries, expected {want}"));
    }
    for (i, (want, actual)) in want.iter().zip(actual).enumerate() {
        let at = format!("{at}[{i}]");
        for (key, value) in known(want, known_keys)? {
            let found = actual.get(key);
            // Kinds are written without their group, which is always the same.
            let found = match key.as_str() {
                "conditions" => continue,
                "supportedKinds" => {
                    let kinds = list(actual, key).iter();
                    Some(kinds.map(|kind| text(kind, "kind")).collect())
                }
                _ => found.cloned(),
            };
            if found.as_ref() != Some(value) {
                out.push(format!("{at}.{key} is {found:?}, expected {value}"));
            }
        }
        conditions(&at, want, actual, out)?;
    }
    Ok(())
}

fn conditions(name: &str, want: &Value, actual: &Value, out: &mut Vec<String>) -> Result<()> {
    let mut left: Vec<&Value> = list(actual, "conditions").iter().collect();
    for wanted in list(want, "conditions") {
        let keys = ["type", "status", "reason", "message", "observedGeneration"];
        let wanted = known(wanted, &keys)?;
        for key in ["type", "status", "reason"] {
            ensure!(wanted.contains_key(key), "{name}: a condition lacks {key}");
        }
        match left.iter().position(|one| is_met(wanted, one)) {
            Some(at) => {
                left.remove(at);
            }
            None => out.push(format!(
                "{name}: no condition {}",
                Value::Object(wanted.clone())
            )),
        }
    }
    out.extend(left.iter().map(|one| format!("{name}: unexpected {one}")));
    Ok(())
}

fn is_met(wanted: &Map<String, Value>, actual: &Value) -> bool {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let exact = EXACT
        .iter()
        .filter(|key| wanted.contains_key(**key))
        .all(|key| wanted.get(*key) == actual.get(*key));
    let message = actual.get("message").unwrap_or(&Value::Null);
    let told = match wanted.get("message") {
        Some(directives @ Value::Object(_)) => matcher::mismatches(directives, message).is_empty(),
        part => text(Some(message)).contains(&text(part)),
    };
    exact && told
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use model::status::{Condition, ConditionStatus, MANAGER_SERVICE, StatusKey, StatusRow};
    use model::{Kind, ObjectKey, ObjectRef, Str};
    use serde_json::json;

    use super::*;

    fn world() -> Snapshot {
        let key = StatusKey {
            object: ObjectRef::new(Kind::Service, ObjectKey::new("shop", "web")),
            manager: MANAGER_SERVICE,
        };
        let row = StatusRow {
            conditions: vec![Condition {
                ty: Str::from("T"),
                status: ConditionStatus::False,
                reason: Str::from("R"),
                message: Str::from("all of it"),
                observed_generation: Some(2),
            }],
            ..StatusRow::default()
        };
        Snapshot {
            statuses: [(key, Arc::new(row))].into_iter().collect(),
            ..Snapshot::default()
        }
    }

    fn web(condition: &Value) -> Value {
        json!([{"kind": "Service", "namespace": "shop", "name": "web", "conditions": [condition]}])
    }

    #[test]
    fn objects_and_conditions_are_exact_and_messages_are_parts() {
        for good in [
            json!({"type": "T", "status": "False", "reason": "R"}),
            json!({"type": "T", "status": "False", "reason": "R", "message": "of"}),
            json!({"type": "T", "status": "False", "reason": "R", "observedGeneration": 2}),
            json!({"type": "T", "status": "False", "reason": "R", "message": {"$lacks": "none"}}),
        ] {
            let wrong = mismatches(&web(&good), &world()).unwrap();
            assert_eq!(wrong, Vec::<String>::new(), "{good}");
        }
        for bad in [
            json!([]),
            json!([{"kind": "Service", "namespace": "shop", "name": "web", "conditions": []}]),
            web(&json!({"type": "T", "status": "True", "reason": "R"})),
            web(&json!({"type": "T", "status": "False", "reason": "R", "message": "none"})),
            web(&json!({"type": "T", "status": "False", "reason": "R", "observedGeneration": 1})),
            web(
                &json!({"type": "T", "status": "False", "reason": "R", "message": {"$lacks": "of"}}),
            ),
        ] {
            let wrong = mismatches(&bad, &world()).unwrap();
            assert_ne!(wrong, Vec::<String>::new(), "{bad}");
        }
    }

    #[test]
    fn what_status_yaml_does_not_know_is_an_error() {
        for bad in [
            json!({}),
            web(&json!({"type": "T", "status": "False", "reason": "R", "mesage": "of"})),
            web(&json!({"type": "T", "status": "False"})),
        ] {
            assert!(mismatches(&bad, &world()).is_err(), "{bad}");
        }
    }
}
