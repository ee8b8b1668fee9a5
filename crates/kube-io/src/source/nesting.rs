//! JSON of any depth, of which no more is kept than is safe.
//!
//! The parser refuses a whole list for one value that is nested deeper than 128 levels, but skips
//! such values without ado. So are the records of which field is whose: of a pod as it is in a
//! cluster they are a third, and of them only the managers are read.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Levels of an object that are kept; lists and events add a few.
pub(super) const LEVELS_MAX: usize = 100;

/// Reads an object. What is nested too deeply makes the field of the object that holds it a text
/// that says so, which nothing reads as what it was; what is told of the object (`metadata`,
/// `status`) only misses it.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let is_cut = Cell::new(false);
    deserializer.deserialize_any(Level {
        left: LEVELS_MAX,
        place: Place::Object,
        is_cut: &is_cut,
    })
}

#[derive(Clone, Copy)]
struct Level<'a> {
    left: usize,
    place: Place,
    is_cut: &'a Cell<bool>,
}

/// How far a value is on the way to `metadata.managedFields[].fieldsV1`.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Object,
    Metadata,
    Managed,
    Other,
}

// === impl Level ===

impl Level<'_> {
    fn inner(self, place: Place) -> Self {
        let left = self.left.saturating_sub(1);
        Self {
            left,
            place,
            ..self
        }
    }

    /// Of a field.
    fn field(self, key: &str) -> Self {
        self.inner(match (self.place, key) {
            (Place::Object, "metadata") => Place::Metadata,
            (Place::Metadata, "managedFields") => Place::Managed,
            _ => Place::Other,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.left > 0 {
            return deserializer.deserialize_any(self);
        }
        self.is_cut.set(true);
        deserializer.deserialize_ignored_any(IgnoredAny)?;
        Ok(Value::Null)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner(self.place))? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let is_object = self.left == LEVELS_MAX;
        let mut out = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if self.place == Place::Managed && key == "fieldsV1" {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            self.is_cut.set(self.is_cut.get() && !is_object);
            let mut value = fields.next_value_seed(self.field(&key))?;
            if is_object && self.is_cut.get() && !matches!(key.as_str(), "metadata" | "status") {
                value = format!("nested deeper than {LEVELS_MAX} levels").into();
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use serde_json::json;

    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    fn read_text(text: &str) -> Value {
        read(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn what_is_shallow_is_what_it_was() {
        let text =
            r#"{"a": [1, -2, 3.5, true, null, "é\n", {"b": {}}], "c": 18446744073709551615}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read_text(text), value);
        let text = format!(r#"{{"spec": {}}}"#, nested(LEVELS_MAX - 2));
        assert_eq!(
            read_text(&text),
            serde_json::from_str::<Value>(&text).unwrap()
        );
    }

    #[test]
    fn of_the_records_of_fields_only_the_managers_are_kept() {
        let entry = json!({"manager": "a", "fieldsV1": {"f:spec": {}}});
        let managed = json!({"managedFields": [entry], "fieldsV1": "x"});
        let value = json!({"metadata": managed, "spec": managed, "fieldsV1": {}});
        let mut expected = value.clone();
        expected["metadata"]["managedFields"] = json!([{"manager": "a"}]);
        assert_eq!(read_text(&value.to_string()), expected);
    }

    #[test]
    fn what_is_deep_costs_the_field_that_holds_it() {
        let deep = nested(20_000);
        let text = format!(
            r#"{{"metadata": {{"name": "a", "x": {deep}}}, "spec": {{"x": {deep}}}, "data": {{"y": 1}}}}"#
        );
        let value = read_text(&text);
        assert_eq!(value["metadata"]["name"], "a");
        assert_eq!(value["spec"], "nested deeper than 100 levels");
        assert_eq!(value["data"], json!({"y": 1}));
    }
}
