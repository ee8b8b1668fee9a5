//! Places in an object. Types are the schema's business: a value of another type reads as
//! absent here.

use serde_json::Value;

/// A value and the path to it.
#[derive(Clone)]
pub(super) struct At<'a> {
    value: &'a Value,
    path: String,
}

// === impl At ===

impl<'a> At<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self::new(value, "")
    }

    pub(super) fn new(value: &'a Value, path: &str) -> Self {
        let path = path.to_owned();
        Self { value, path }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Path of a field of it.
    pub(super) fn field(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// A field; `None` when it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<At<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        let path = self.field(name);
        Some(At { value, path })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Items of a list, nulls included.
    pub(super) fn items(&self, name: &str) -> Vec<At<'a>> {
        let Some(list) = self.value.get(name).and_then(Value::as_array) else {
            return Vec::new();
        };
        let path = self.field(name);
        let at = |(i, value)| At {
            value,
            path: format!("{path}[{i}]"),
        };
        list.iter().enumerate().map(at).collect()
    }

    /// Entries of a map, nulls included.
    pub(super) fn entries(&self, name: &str) -> Vec<(&'a str, At<'a>)> {
        let Some(map) = self.value.get(name).and_then(Value::as_object) else {
            return Vec::new();
        };
        let path = self.field(name);
        let at = |(key, value): (&'a String, &'a Value)| {
            let path = format!("{path}.{key}");
            (key.as_str(), At { value, path })
        };
        map.iter().map(at).collect()
    }

    /// A text; empty when there is none.
    pub(super) fn text(&self, name: &str) -> &'a str {
        let text = self.value.get(name).and_then(Value::as_str);
        text.unwrap_or_default()
    }

    pub(super) fn as_text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.value.get(name).and_then(Value::as_i64)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.value.get(name).and_then(Value::as_f64)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.value.get(name).and_then(Value::as_bool) == Some(true)
    }

    pub(super) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    pub(super) fn is_object(&self) -> bool {
        self.value.is_object()
    }

    /// Whether it is a map or a list without members.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        }
    }
}
