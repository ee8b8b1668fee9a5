//! Canonical proto-JSON with every `Any` expanded.
//!
//! Field names are lowerCamelCase, object keys sorted, unset fields left out.
//! An `Any` of a known type shows its fields beside `@type`; one of an unknown
//! type shows its bytes in base64, so that a dump never fails over one extension.

use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, Value as Field};
use serde_json::{Map, Value};

use crate::{Error, canonical, descriptor, type_url};

/// Levels of nesting, counting through every `Any`.
const DEPTH_MAX: usize = 100;

/// Renders an encoded message.
///
/// # Errors
/// [`Error::UnknownType`] for the outermost type, [`Error::Decode`] for bytes that
/// are not that message, [`Error::TooDeep`].
pub fn to_json(type_url: &str, bytes: &[u8]) -> Result<Value, Error> {
    let message = DynamicMessage::decode(descriptor::message(type_url)?, bytes)?;
    render(&message, 0)
}

/// Encodes a message written as proto-JSON, canonically (see [`crate::canonical`]).
///
/// # Errors
/// [`Error::UnknownType`], or [`Error::Json`] when the JSON does not fit, which an
/// unknown field and an `Any` of an unknown type are cases of.
pub fn from_json(type_url: &str, json: Value) -> Result<Vec<u8>, Error> {
    use prost::Message as _;
    let message = DynamicMessage::deserialize(descriptor::message(type_url)?, json)?;
    canonical::canonicalize(type_url, &message.encode_to_vec())
}

fn render(message: &DynamicMessage, depth: usize) -> Result<Value, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep(DEPTH_MAX));
    }
    match message.descriptor().full_name() {
        "google.protobuf.Any" => render_any(message, depth),
        name if has_own_form(name) => Ok(serde_json::to_value(message)?),
        _ => {
            let mut out = Map::new();
            for (field, value) in message.fields() {
                let value = render_field(value, &field.kind(), depth)?;
                out.insert(field.json_name().to_owned(), value);
            }
            Ok(Value::Object(out))
        }
    }
}

/// Well-known types whose JSON is not an object of their fields.
fn has_own_form(name: &str) -> bool {
    let Some(name) = name.strip_prefix("google.protobuf.") else {
        return false;
    };
    matches!(
        name,
        "Duration" | "Timestamp" | "FieldMask" | "Struct" | "Value" | "ListValue" | "Empty"
    ) || name.ends_with("Value")
}

fn render_any(any: &DynamicMessage, depth: usize) -> Result<Value, Error> {
    let url = any.get_field_by_name("type_url");
    let url = url.as_deref().and_then(Field::as_str).unwrap_or_default();
    let payload = any.get_field_by_name("value");
    let payload = payload
        .as_deref()
        .and_then(Field::as_bytes)
        .map(|bytes| &bytes[..]);
    let payload = payload.unwrap_or_default();

    let mut out = Map::new();
    if url.is_empty() && payload.is_empty() {
        return Ok(Value::Object(out));
    }
    out.insert("@type".to_owned(), url.into());
    match descriptor::message(url) {
        Err(_) => {
            out.insert("value".to_owned(), base64(payload)?);
        }
        Ok(inner) => {
            let inner = DynamicMessage::decode(inner, payload)?;
            let name = type_url::message_name(url);
            let nested = name == "google.protobuf.Any" || has_own_form(name);
            match render(&inner, depth + 1)? {
                Value::Object(fields) if !nested => out.extend(fields),
                value => {
                    out.insert("value".to_owned(), value);
                }
            }
        }
    }
    Ok(Value::Object(out))
}

fn render_field(value: &Field, kind: &Kind, depth: usize) -> Result<Value, Error> {
    Ok(match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::I64(value) => value.to_string().into(),
        Field::U64(value) => value.to_string().into(),
        Field::F32(value) => float(f64::from(*value), || value.to_string()),
        Field::F64(value) => float(*value, || value.to_string()),
        Field::String(value) => value.as_str().into(),
        Field::Bytes(value) => base64(value)?,
        Field::EnumNumber(number) => enum_name(*number, kind),
        Field::Message(message) => render(message, depth + 1)?,
        Field::List(items) => items
            .iter()
            .map(|item| render_field(item, kind, depth))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        Field::Map(entries) => {
            let kind = kind
                .as_message()
                .map(|entry| entry.map_entry_value_field().kind());
            let kind = kind.ok_or(Error::Malformed("a map without an entry type"))?;
            let mut out = Map::new();
            for (key, value) in entries {
                out.insert(map_key(key), render_field(value, &kind, depth)?);
            }
            Value::Object(out)
        }
    })
}

/// The name, or the number of a value newer than our descriptors.
fn enum_name(number: i32, kind: &Kind) -> Value {
    match kind {
        Kind::Enum(item) if item.full_name() == "google.protobuf.NullValue" => Value::Null,
        Kind::Enum(item) => item
            .get_value(number)
            .map_or_else(|| number.into(), |value| value.name().into()),
        _ => number.into(),
    }
}

/// A JSON number in its shortest form, or a word for what JSON cannot write.
fn float(wide: f64, shortest: impl Fn() -> String) -> Value {
    if wide.is_nan() {
        "NaN".into()
    } else if wide.is_infinite() {
        if wide > 0.0 { "Infinity" } else { "-Infinity" }.into()
    } else {
        shortest().parse::<f64>().unwrap_or(wide).into()
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// Base64 as protobuf has it, which is the JSON of a `BytesValue`.
fn base64(bytes: &[u8]) -> Result<Value, Error> {
    let mut wrapper = DynamicMessage::new(descriptor::message("google.protobuf.BytesValue")?);
    let value = Field::Bytes(bytes.to_vec().into());
    wrapper.set_field_by_number(1, value);
    Ok(serde_json::to_value(&wrapper)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use prost::Message;
    use serde_json::json;

    use super::*;
    use crate::{Any, security, workload};

    fn any(url: &str, message: &impl Message) -> Any {
        Any {
            type_url: url.to_owned(),
            value: message.encode_to_vec(),
        }
    }

    #[test]
    fn a_workload_has_camel_case_names_enum_words_and_base64() {
        let port = workload::Port {
            service_port: 80,
            target_port: 8080,
            app_protocol: 1,
        };
        let message = workload::Address {
            r#type: Some(workload::address::Type::Workload(workload::Workload {
                uid: "Kubernetes//Pod/ns/a".to_owned(),
                addresses: vec![vec![10, 0, 0, 1].into()],
                tunnel_protocol: workload::TunnelProtocol::Hbone.into(),
                network_mode: 77,
                capacity: Some(2),
                services: BTreeMap::from([
                    ("ns/b".to_owned(), workload::PortList { ports: vec![port] }),
                    ("ns/a".to_owned(), workload::PortList::default()),
                ]),
                ..workload::Workload::default()
            })),
        };
        assert_eq!(
            to_json(type_url::ADDRESS, &message.encode_to_vec()).unwrap(),
            json!({"workload": {
                "uid": "Kubernetes//Pod/ns/a",
                "addresses": ["CgAAAQ=="],
                "tunnelProtocol": "HBONE",
                "networkMode": 77,
                "capacity": 2,
                "services": {
                    "ns/a": {},
                    "ns/b": {"ports": [
                        {"servicePort": 80, "targetPort": 8080, "appProtocol": "HTTP11"},
                    ]},
                },
            }})
        );
    }

    #[test]
    fn presence_and_scope_of_an_authorization_are_readable() {
        let anyone = security::StringMatch {
            match_type: Some(security::string_match::MatchType::Presence(())),
        };
        let matches = security::Match {
            not_principals: vec![anyone],
            ..Default::default()
        };
        let message = security::Authorization {
            name: "a".to_owned(),
            scope: security::Scope::WorkloadSelector.into(),
            action: security::Action::Deny.into(),
            groups: vec![security::Group {
                rules: vec![security::Rules {
                    matches: vec![matches],
                }],
            }],
            ..Default::default()
        };
        assert_eq!(
            to_json(type_url::AUTHORIZATION, &message.encode_to_vec()).unwrap(),
            json!({
                "name": "a",
                "scope": "WORKLOAD_SELECTOR",
                "action": "DENY",
                "groups": [{"rules": [{"matches": [{"notPrincipals": [{"presence": {}}]}]}]}],
            })
        );
    }

    #[test]
    fn every_any_is_expanded_and_an_unknown_one_keeps_its_bytes() {
        let cases = [
            (Any::default(), json!({})),
            (
                any("type.googleapis.com/nobody.Knows", &"x".to_owned()),
                json!({"@type": "type.googleapis.com/nobody.Knows", "value": "CgF4"}),
            ),
            (
                any(
                    "type.googleapis.com/google.protobuf.StringValue",
                    &"x".to_owned(),
                ),
                json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"}),
            ),
            (
                any(
                    "type.googleapis.com/google.protobuf.Any",
                    &any(type_url::ADDRESS, &()),
                ),
                json!({
                    "@type": "type.googleapis.com/google.protobuf.Any",
                    "value": {"@type": type_url::ADDRESS},
                }),
            ),
        ];
        for (config, expected) in cases {
            let extension = workload::Extension {
                name: "e".to_owned(),
                config: Some(config),
            };
            assert_eq!(
                to_json("istio.workload.Extension", &extension.encode_to_vec()).unwrap(),
                json!({"name": "e", "config": expected})
            );
        }
    }

    #[test]
    fn json_of_an_envoy_listener_round_trips() {
        let listener = json!({
            "name": "main_internal",
            "internalListener": {},
            "filterChains": [{
                "name": "tcp",
                "filters": [{
                    "name": "envoy.filters.network.tcp_proxy",
                    "typedConfig": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "statPrefix": "p",
                        "cluster": "c",
                        "idleTimeout": "3600s",
                        "maxConnectAttempts": 3,
                    },
                }],
            }],
            "filterChainMatcher": {"matcherTree": {
                "input": {"name": "ip", "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationIPInput",
                }},
                "customMatch": {"name": "ip", "typedConfig": {
                    "@type": type_url::IP_MATCHER,
                    "rangeMatchers": [{
                        "ranges": [{"addressPrefix": "10.0.0.1", "prefixLen": 32}],
                        "onMatch": {"action": {"name": "tcp", "typedConfig": {
                            "@type": "type.googleapis.com/google.protobuf.StringValue",
                            "value": "tcp",
                        }}},
                    }],
                }},
            }},
        });
        let bytes = from_json(type_url::LISTENER, listener.clone()).unwrap();
        assert_eq!(to_json(type_url::LISTENER, &bytes).unwrap(), listener);
    }

    #[test]
    fn json_with_an_unknown_field_is_refused() {
        assert!(from_json(type_url::CLUSTER, json!({"nmae": "c"})).is_err());
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let mut any = any(
            "type.googleapis.com/google.protobuf.StringValue",
            &"x".to_owned(),
        );
        for _ in 0..=DEPTH_MAX {
            any = self::any("type.googleapis.com/google.protobuf.Any", &any);
        }
        let json = to_json("google.protobuf.Any", &any.encode_to_vec());
        assert!(matches!(json, Err(Error::TooDeep(_))));
    }
}
