//! Documents of issuers: key sets and discovery.

use std::collections::BTreeMap;

use model::Str;
use serde_json::{Map, Value};

/// Members of a key that only its owner may know.
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// A key set in canonical form: `{"keys": [..]}`, keys by `kid`, members by name, private
/// members left out. Two documents with the same keys give the same text.
///
/// # Errors
/// Why the document is no key set, as a clause.
pub(crate) fn canonical(body: &[u8]) -> Result<Str, &'static str> {
    let document: Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON")?;
    let keys = document
        .get("keys")
        .and_then(Value::as_array)
        .ok_or("the answer is not a JSON object with a list of keys")?;
    if keys.is_empty() {
        return Err("the key set is empty");
    }
    let mut sorted = Vec::with_capacity(keys.len());
    for key in keys {
        let members = key.as_object().ok_or("a key is not a JSON object")?;
        let kid = members.get("kid").and_then(Value::as_str);
        sorted.push((kid.unwrap_or_default(), public(members)));
    }
    sorted.sort();
    sorted.dedup();
    let texts: Vec<String> = sorted.into_iter().map(|(_, text)| text).collect();
    Ok(arcstr::format!(r#"{{"keys":[{}]}}"#, texts.join(",")))
}

/// The public part of a key, members sorted. A symmetric key has no other part than its own.
fn public(members: &Map<String, Value>) -> String {
    let kept = members
        .iter()
        .filter(|(name, _)| !PRIVATE.contains(&name.as_str()));
    let sorted: BTreeMap<&str, String> = kept
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    object(&sorted)
}

/// A value with members sorted at every depth.
fn text(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let sorted: BTreeMap<&str, String> = map
                .iter()
                .map(|(name, value)| (name.as_str(), text(value)))
                .collect();
            object(&sorted)
        }
        plain => plain.to_string(),
    }
}

fn object(members: &BTreeMap<&str, String>) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{value}", Value::from(*name)))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// Where a discovery document says that the keys are.
///
/// # Errors
/// Why it does not, as a clause.
pub(crate) fn jwks_uri(body: &[u8]) -> Result<String, &'static str> {
    let document: Value =
        serde_json::from_slice(body).map_err(|_| "the discovery document is not JSON")?;
    document
        .get("jwks_uri")
        .and_then(Value::as_str)
        .filter(|uri| !uri.is_empty())
        .map(str::to_owned)
        .ok_or("the discovery document has no jwks_uri")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_sets_of_the_same_keys_have_one_form_without_secrets() {
        let a = br#"{"x": 1, "keys": [{"kty": "RSA", "kid": "b", "d": "secret"}, {"kid": "a", "x5c": [{"z": 1, "y": 2}]}]}"#;
        let b =
            br#"{"keys": [{"x5c": [{"y": 2, "z": 1}], "kid": "a"}, {"kid": "b", "kty": "RSA"}]}"#;
        let expected = r#"{"keys":[{"kid":"a","x5c":[{"y":2,"z":1}]},{"kid":"b","kty":"RSA"}]}"#;
        assert_eq!(canonical(a).as_deref(), Ok(expected));
        assert_eq!(canonical(b).as_deref(), Ok(expected));
    }

    #[test]
    fn what_is_no_key_set_says_why() {
        for bad in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"keys": {}}"#,
            r#"{"keys": []}"#,
            r#"{"keys": ["a"]}"#,
            &"[".repeat(100_000),
        ] {
            assert!(canonical(bad.as_bytes()).is_err(), "{bad:.20}");
        }
        assert_eq!(
            jwks_uri(br#"{"jwks_uri": "https://a"}"#).as_deref(),
            Ok("https://a")
        );
        for bad in ["", "[]", r#"{"jwks_uri": ""}"#, r#"{"jwks_uri": 1}"#] {
            assert!(jwks_uri(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
