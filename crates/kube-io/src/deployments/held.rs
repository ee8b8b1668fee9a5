//! Whether an object in the cluster is what applying would make of it, without asking.
//!
//! The API server records per field manager which fields it applied. So an object is as wanted when
//! our record names the fields that we want and no other, and their values are ours. Who edits a
//! field of ours takes it from the record, and a field that we want no longer is in it still.
//! In doubt the answer is no: applying what is there already changes nothing. Pure.

use serde_json::{Map, Value};

use super::FIELD_MANAGER;

/// Whether applying `wanted` would leave `live` as it is.
pub(super) fn holds(wanted: &Value, live: &Value) -> bool {
    let Some(fields) = own_fields(live, wanted.get("apiVersion")) else {
        return false;
    };
    let (Some(wanted), Some(live)) = (wanted.as_object(), live.as_object()) else {
        return false;
    };
    let mut wanted = wanted.clone();
    wanted.remove("apiVersion");
    wanted.remove("kind");
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        for identity in ["name", "namespace", "resourceVersion"] {
            metadata.remove(identity);
        }
    }
    object_holds(fields, &wanted, Some(live))
}

/// The fields that we applied, if that was in this version.
pub(super) fn own_fields<'a>(
    live: &'a Value,
    api_version: Option<&Value>,
) -> Option<&'a Map<String, Value>> {
    let entries = live.pointer("/metadata/managedFields")?.as_array()?;
    let text = |entry: &'a Value, field: &str| entry.get(field).and_then(Value::as_str);
    let mut own = entries.iter().filter(|entry| {
        text(entry, "manager") == Some(FIELD_MANAGER)
            && text(entry, "operation") == Some("Apply")
            && text(entry, "subresource").unwrap_or_default().is_empty()
    });
    let entry = own.next()?;
    if own.next().is_some() || entry.get("apiVersion") != api_version {
        return None;
    }
    entry.get("fieldsV1")?.as_object()
}

fn value_holds(fields: &Value, wanted: &Value, live: Option<&Value>) -> bool {
    let Some(fields) = fields.as_object() else {
        return false;
    };
    let has_parts = fields.keys().any(|key| key != ".");
    match wanted {
        _ if !has_parts && !fields.contains_key(".") => within(wanted, live),
        Value::Object(wanted) => object_holds(fields, wanted, live.and_then(Value::as_object)),
        Value::Array(wanted) => {
            let live = live.and_then(Value::as_array);
            live.is_some_and(|live| list_holds(fields, wanted, live))
        }
        _ => false,
    }
}

fn object_holds(
    fields: &Map<String, Value>,
    wanted: &Map<String, Value>,
    live: Option<&Map<String, Value>>,
) -> bool {
    let recorded = fields.keys().filter(|key| key.starts_with("f:")).count();
    let wanted = wanted.iter().filter(|(_, value)| !value.is_null());
    let mut count = 0;
    for (key, value) in wanted {
        count += 1;
        let Some(fields) = fields.get(&format!("f:{key}")) else {
            return false;
        };
        if !value_holds(fields, value, live.and_then(|live| live.get(key))) {
            return false;
        }
    }
    count == recorded
}

/// A list whose items are known by keys, or by themselves.
fn list_holds(fields: &Map<String, Value>, wanted: &[Value], live: &[Value]) -> bool {
    let items = fields.iter().filter(|(key, _)| *key != ".");
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (name, fields) in items {
        let pair = if let Some(keys) = name.strip_prefix("k:") {
            let Ok(Value::Object(keys)) = serde_json::from_str(keys) else {
                return false;
            };
            let wanted_at = position(wanted, |item| has_keys(item, &keys, Missing::IsDefault));
            let live_at = position(live, |item| has_keys(item, &keys, Missing::Differs));
            wanted_at.zip(live_at).filter(|(of_wanted, of_live)| {
                let item = wanted.get(*of_wanted);
                item.is_some_and(|item| value_holds(fields, item, live.get(*of_live)))
            })
        } else if let Some(text) = name.strip_prefix("v:") {
            let Ok(value) = serde_json::from_str::<Value>(text) else {
                return false;
            };
            let at = |list: &[Value]| position(list, |item| *item == value);
            at(wanted).zip(at(live))
        } else {
            None
        };
        let Some(pair) = pair else {
            return false;
        };
        found.push(pair);
    }
    found.sort_unstable();
    found.dedup_by_key(|(of_wanted, _)| *of_wanted);
    let is_in_order = found.is_sorted_by_key(|(_, of_live)| *of_live);
    found.len() == wanted.len() && is_in_order
}

fn position(list: &[Value], is: impl Fn(&Value) -> bool) -> Option<usize> {
    list.iter().position(is)
}

/// What it means that an item lacks a key.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    /// The API server fills it in.
    IsDefault,
    Differs,
}

fn has_keys(item: &Value, keys: &Map<String, Value>, missing: Missing) -> bool {
    keys.iter().all(|(key, value)| match item.get(key) {
        Some(own) => own == value,
        None => missing == Missing::IsDefault,
    })
}

/// Whether a value that is taken as a whole is there, beside defaults that the API server adds.
fn within(wanted: &Value, live: Option<&Value>) -> bool {
    let Some(live) = live else {
        return is_empty(wanted);
    };
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .all(|(key, value)| within(value, live.get(key))),
        (Value::Array(wanted), Value::Array(live)) => {
            let mut pairs = wanted.iter().zip(live);
            wanted.len() == live.len() && pairs.all(|(wanted, live)| within(wanted, Some(live)))
        }
        (Value::String(wanted), Value::String(live)) => {
            wanted == live || quantity(wanted).is_some_and(|size| quantity(live) == Some(size))
        }
        _ => wanted == live,
    }
}

/// What the API server does not write out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

/// A quantity in thousandths, which the API server writes in a form of its own: `2000m` is `2`.
fn quantity(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(digits.unwrap_or(text.len()));
    let thousandths: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let whole: u128 = whole.parse().ok()?;
    let part: u128 = if part.is_empty() {
        0
    } else {
        part.parse().ok()?
    };
    let all = whole.checked_mul(scale)?.checked_add(part)?;
    let all = all.checked_mul(thousandths)?;
    (all % scale == 0).then_some(all / scale)
}

#[cfg(test)]
mod tests;
