//! Compares actual JSON with an expectation written by hand.
//!
//! Plain values must be equal and arrays must match element by element. Objects are
//! compared as subsets: a key that the expectation does not name may have any value.
//! Directives (keys beginning with `$`) say more:
//!
//! | expectation | meaning |
//! |---|---|
//! | `key: $absent` | the key must not exist |
//! | `key: $any` | the key must exist |
//! | `{$exact: X}` | equal to X, nothing more |
//! | `{$contains: [A, B]}` | an array with elements that match A and B |
//! | `{$contains: text}` | a string of which `text` is a part |
//! | `{$len: 3}` | an array of three elements |
//! | `{$by: name, x: A, y: B}` | an array with exactly one element whose `name` is x (y), which matches A (B) |
//! | `{$by: name, $only: true, …}` | and no further elements |
//! | `{$names: [x, y]}` | an object with exactly these keys (other keys of the expectation still apply) |
//! | `{$lacks: text}` | `text` occurs nowhere in it |

use serde_json::{Map, Value};

/// Every place where `actual` is not as expected; empty when it is.
pub fn mismatches(expected: &Value, actual: &Value) -> Vec<String> {
    let mut out = Vec::new();
    compare("", expected, Some(actual), &mut out);
    out
}

fn show(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > 300 {
        format!("{}…", text.chars().take(300).collect::<String>())
    } else {
        text
    }
}

fn compare(path: &str, expected: &Value, actual: Option<&Value>, out: &mut Vec<String>) {
    let Some(actual) = actual else {
        if expected != "$absent" {
            out.push(format!("{path}: missing, expected {}", show(expected)));
        }
        return;
    };
    match expected {
        Value::String(word) if word == "$any" => {}
        Value::String(word) if word == "$absent" => {
            out.push(format!("{path}: must be absent, is {}", show(actual)));
        }
        Value::Object(wanted) => compare_object(path, wanted, actual, out),
        Value::Array(wanted) => match actual {
            Value::Array(items) if items.len() == wanted.len() => {
                for (i, (want, item)) in wanted.iter().zip(items).enumerate() {
                    compare(&format!("{path}[{i}]"), want, Some(item), out);
                }
            }
            _ => out.push(format!(
                "{path}: expected {} elements {}, is {}",
                wanted.len(),
                show(expected),
                show(actual)
            )),
        },
        _ if expected == actual => {}
        _ => out.push(format!(
            "{path}: expected {}, is {}",
            show(expected),
            show(actual)
        )),
    }
}

fn compare_object(path: &str, wanted: &Map<String, Value>, actual: &Value, out: &mut Vec<String>) {
    let mut plain = true;
    for (directive, argument) in wanted.iter().filter(|(key, _)| key.starts_with('$')) {
        plain &= matches!(directive.as_str(), "$names" | "$lacks");
        match (directive.as_str(), argument, actual) {
            ("$exact", _, _) if argument == actual => {}
            ("$exact", _, _) => {
                out.push(format!(
                    "{path}: expected exactly {}, is {}",
                    show(argument),
                    show(actual)
                ));
            }
            ("$contains", Value::Array(all), Value::Array(items)) => {
                for want in all {
                    if !items.iter().any(|item| mismatches(want, item).is_empty()) {
                        out.push(format!(
                            "{path}: no element matches {} in {}",
                            show(want),
                            show(actual)
                        ));
                    }
                }
            }
            ("$contains", Value::String(part), Value::String(text)) => {
                if !text.contains(part.as_str()) {
                    out.push(format!("{path}: {part:?} is no part of {text:?}"));
                }
            }
            ("$len", Value::Number(len), Value::Array(items)) => {
                if len.as_u64() != Some(items.len() as u64) {
                    out.push(format!(
                        "{path}: expected {len} elements, is {}",
                        items.len()
                    ));
                }
            }
            ("$by", Value::String(field), Value::Array(items)) => {
                compare_by(path, field, wanted, items, out);
            }
            ("$only", _, _) => {}
            ("$lacks", Value::String(text), _) => {
                if actual.to_string().contains(text.as_str()) {
                    out.push(format!("{path}: must not contain {text:?}"));
                }
            }
            ("$names", Value::Array(names), Value::Object(map)) => {
                let mut want: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
                want.sort_unstable();
                let have: Vec<&str> = map.keys().map(String::as_str).collect();
                if want != have {
                    out.push(format!("{path}: expected the names {want:?}, are {have:?}"));
                }
            }
            _ => out.push(format!(
                "{path}: {directive}: {} does not fit {}",
                show(argument),
                show(actual)
            )),
        }
    }
    if plain {
        compare_keys(path, wanted, actual, out);
    }
}

fn compare_keys(path: &str, wanted: &Map<String, Value>, actual: &Value, out: &mut Vec<String>) {
    let Value::Object(map) = actual else {
        if wanted.keys().any(|key| !key.starts_with('$')) || wanted.is_empty() {
            out.push(format!("{path}: expected an object, is {}", show(actual)));
        }
        return;
    };
    for (key, want) in wanted.iter().filter(|(key, _)| !key.starts_with('$')) {
        compare(&format!("{path}.{key}"), want, map.get(key), out);
    }
}

fn compare_by(
    path: &str,
    field: &str,
    wanted: &Map<String, Value>,
    items: &[Value],
    out: &mut Vec<String>,
) {
    let keys: Vec<&String> = wanted.keys().filter(|key| !key.starts_with('$')).collect();
    for key in &keys {
        let found: Vec<&Value> = items
            .iter()
            .filter(|item| item.get(field).and_then(Value::as_str) == Some(key.as_str()))
            .collect();
        let place = format!("{path}[{field}={key}]");
        match found.as_slice() {
            [item] => compare(&place, &wanted[key.as_str()], Some(item), out),
            [] => compare(&place, &wanted[key.as_str()], None, out),
            several => out.push(format!("{place}: occurs {} times", several.len())),
        }
    }
    if wanted.get("$only") == Some(&Value::Bool(true)) {
        for item in items {
            let name = item.get(field).and_then(Value::as_str).unwrap_or_default();
            if !keys.iter().any(|key| key.as_str() == name) {
                out.push(format!("{path}: unexpected element {field}={name:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::mismatches;

    #[test]
    fn objects_are_subsets_and_everything_else_is_equal() {
        let actual = json!({"a": 1, "b": [{"name": "x", "v": 1}, {"name": "y", "v": 2}], "c": "t"});
        for good in [
            json!({}),
            json!({"a": 1}),
            json!({"b": {"$by": "name", "y": {"v": 2}}}),
            json!({"b": {"$by": "name", "$only": true, "x": "$any", "y": {}}}),
            json!({"b": {"$contains": [{"v": 1}]}}),
            json!({"c": {"$contains": "t"}}),
            json!({"b": {"$len": 2}}),
            json!({"d": "$absent"}),
            json!({"$names": ["a", "b", "c"], "a": 1}),
            json!({"b": [{"v": 1}, {"v": 2}]}),
            json!({"$lacks": "zzz"}),
        ] {
            assert_eq!(mismatches(&good, &actual), Vec::<String>::new(), "{good}");
        }
        for bad in [
            json!({"a": 2}),
            json!({"d": 1}),
            json!({"a": "$absent"}),
            json!({"b": {"$by": "name", "$only": true, "x": {}}}),
            json!({"b": {"$by": "name", "z": {}}}),
            json!({"b": {"$contains": [{"v": 3}]}}),
            json!({"c": {"$contains": "x"}}),
            json!({"b": {"$contains": "x"}}),
            json!({"b": {"$len": 3}}),
            json!({"$names": ["a"]}),
            json!({"b": [{"v": 1}]}),
            json!({"a": {}}),
            json!({"$lacks": "name"}),
            json!({"b": {"$exact": [{"name": "x"}]}}),
            json!({"b": {"$typo": 1}}),
        ] {
            assert_ne!(mismatches(&bad, &actual), Vec::<String>::new(), "{bad}");
        }
    }
}
