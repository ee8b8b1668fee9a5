//! One mesh config over another, and what of networks a ConfigMap has.

use serde_json::{Map, Value};

use super::document;

/// Names of networks that a text of `meshNetworks` has, for a message; empty when there are none.
pub(super) fn networks(text: &str) -> String {
    const NAMED_MAX: usize = 5;
    const CHARS_MAX: usize = 200;
    let Ok(value) = document(text) else {
        return "it cannot be read".to_owned();
    };
    let all = value.get("networks").and_then(Value::as_object);
    let names: Vec<&str> = all
        .into_iter()
        .flat_map(|all| all.keys().map(String::as_str))
        .take(NAMED_MAX)
        .collect();
    let names = names.join(", ");
    let line = names.chars().take(CHARS_MAX);
    line.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Mesh config over a shared one. Source: spec/control-plane.md §5.2.
pub(super) fn merge(under: Value, over: Value) -> Value {
    let (mut merged, over) = match (under, over) {
        (Value::Object(under), Value::Object(over)) => (camel_keys(under), camel_keys(over)),
        (under, Value::Null) => return under,
        // What is no object is told of where it is read.
        (_, over) => return over,
    };
    for (key, value) in over {
        let value = match (key.as_str(), merged.remove(&key)) {
            ("defaultConfig" | "defaultProviders", Some(under)) => fields_over(under, value),
            ("extensionProviders", Some(under)) => named_over(under, value),
            ("trustDomainAliases", Some(under)) => union(under, value),
            (_, _) => value,
        };
        merged.insert(key, value);
    }
    Value::Object(merged)
}

/// Fields by their names in JSON, so that both spellings of one meet.
fn camel_keys(map: Map<String, Value>) -> Map<String, Value> {
    let camel = |key: String| {
        let mut words = key.split('_');
        let mut whole = words.next().unwrap_or_default().to_owned();
        for word in words {
            let mut chars = word.chars();
            whole.extend(chars.next().into_iter().flat_map(char::to_uppercase));
            whole.push_str(chars.as_str());
        }
        whole
    };
    let pairs = map.into_iter();
    pairs.map(|(key, value)| (camel(key), value)).collect()
}

/// Fields over fields, and maps among them once more.
fn fields_over(under: Value, over: Value) -> Value {
    let (Value::Object(under), Value::Object(over)) = (under, over.clone()) else {
        return over;
    };
    let mut merged = camel_keys(under);
    for (key, value) in camel_keys(over) {
        match (merged.get_mut(&key), value) {
            (Some(Value::Object(under)), Value::Object(over)) => under.extend(over),
            (_, value) => {
                merged.insert(key, value);
            }
        }
    }
    Value::Object(merged)
}

/// Lists of what has a name: those of the same name are replaced.
fn named_over(under: Value, over: Value) -> Value {
    let (Value::Array(under), Value::Array(over)) = (under, over.clone()) else {
        return over;
    };
    let is_replaced = |it: &Value| over.iter().any(|new| new.get("name") == it.get("name"));
    let mut merged: Vec<Value> = under.into_iter().filter(|it| !is_replaced(it)).collect();
    merged.extend(over);
    Value::Array(merged)
}

/// Lists of texts as one, sorted.
fn union(under: Value, over: Value) -> Value {
    let (Value::Array(mut all), Value::Array(more)) = (under, over.clone()) else {
        return over;
    };
    all.extend(more);
    all.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    all.dedup();
    Value::Array(all)
}
