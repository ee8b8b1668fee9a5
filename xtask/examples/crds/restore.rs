//! What the generator of the types lost, put back.

use serde_json::{Value, json};

use super::GATEWAY_API;

/// Lists that merge by a key, by the name of the field.
const KEYED: &[(&str, &str)] = &[
    ("conditions", "type"),
    ("headers", "name"),
    ("listeners", "name"),
    ("perPort", "port"),
    ("queryParams", "name"),
    ("supportedFeatures", "name"),
];

/// Values of fields that are left out, by the end of the field's path.
fn default_of(path: &str) -> Option<Value> {
    const REFERENCES: &[(&str, &str, &str)] = &[
        ("parentRefs[]", GATEWAY_API, "Gateway"),
        ("parentRef", GATEWAY_API, "Gateway"),
        ("ancestorRef", GATEWAY_API, "Gateway"),
        ("backendRefs[]", "", "Service"),
        ("backendRef", "", "Service"),
        ("certificateRefs[]", "", "Secret"),
        ("clientCertificateRef", "", "Secret"),
    ];
    const VALUES: &[(&str, &str)] = &[
        (".addresses[].type", "IPAddress"),
        (".allowedListeners.namespaces.from", "None"),
        (".allowedRoutes.kinds[].group", GATEWAY_API),
        (".allowedRoutes.namespaces.from", "Same"),
        (".listeners[].tls.mode", "Terminate"),
        (".matches[].headers[].type", "Exact"),
        (".matches[].method.type", "Exact"),
        (".matches[].path.type", "PathPrefix"),
        (".matches[].path.value", "/"),
        (".matches[].queryParams[].type", "Exact"),
        (".supportedKinds[].group", GATEWAY_API),
    ];
    for (reference, group, kind) in REFERENCES {
        if path.ends_with(&format!(".{reference}.group")) {
            return Some(json!(group));
        }
        if path.ends_with(&format!(".{reference}.kind")) {
            return Some(json!(kind));
        }
    }
    if path.ends_with(".backendRefs[].weight") {
        return Some(json!(1));
    }
    if path.ends_with(".requestRedirect.statusCode") {
        return Some(json!(302));
    }
    VALUES
        .iter()
        .find(|(end, _)| path.ends_with(end))
        .map(|(_, value)| json!(value))
}

/// Drops what only people read, and restores merge keys and defaults.
pub(crate) fn restore(schema: &mut Value, path: &str) {
    let Some(node) = schema.as_object_mut() else {
        return;
    };
    for field in ["description", "nullable", "default"] {
        node.remove(field);
    }
    if let Some(value) = default_of(path) {
        node.insert("default".to_owned(), value);
    }
    let field = path.rsplit('.').next().unwrap_or_default();
    if let Some((_, key)) = KEYED.iter().find(|(name, _)| *name == field)
        && node.get("type").is_some_and(|ty| ty == "array")
    {
        node.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        node.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
    }
    // Variants without a value are `null` to the generator.
    if let Some(values) = node.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
    let children = node.get_mut("properties").and_then(Value::as_object_mut);
    for (name, child) in children.into_iter().flatten() {
        restore(child, &format!("{path}.{name}"));
    }
    if let Some(items) = node.get_mut("items") {
        restore(items, &format!("{path}[]"));
    }
    if let Some(values) = node.get_mut("additionalProperties") {
        restore(values, &format!("{path}{{}}"));
    }
}
