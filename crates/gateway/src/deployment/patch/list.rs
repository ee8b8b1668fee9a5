//! Merging lists.

use serde_json::Value;

use super::schema::{Field, PLAIN, Schema};
use super::{Fields, PATCH, PatchError, check_depth, merge_maps};

/// Elements that a merged list may have: more of them are compared with each other.
const ELEMENTS_MAX: usize = 1000;

/// What a list is to a patch.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Replaced whole.
    Replaced,
    /// Objects, told apart by a field.
    Keyed(&'static str, &'static Schema),
    /// Words, each once.
    Set,
}

impl Kind {
    pub(super) fn of(field: Option<Field>) -> Self {
        match field {
            Some(Field::Keyed { key, element }) => Self::Keyed(key, element),
            Some(Field::Set) => Self::Set,
            _ => Self::Replaced,
        }
    }

    /// Merges a patch into a list. What the patch names comes in its order.
    pub(super) fn merge(
        self,
        original: Vec<Value>,
        patch: &[Value],
        depth: usize,
    ) -> Result<Vec<Value>, PatchError> {
        if !matches!(self, Self::Replaced) && original.len() + patch.len() > ELEMENTS_MAX {
            let problem = format!("has more than {ELEMENTS_MAX} elements");
            return Err(PatchError::new(problem));
        }
        match self {
            Self::Replaced => patch.iter().map(|value| clean(value, depth)).collect(),
            Self::Set => {
                let mut merged: Vec<Value> = Vec::new();
                for value in original.iter().chain(patch) {
                    if value.is_object() || value.is_array() || value.is_null() {
                        return Err(PatchError::new("elements must be words"));
                    }
                    if !merged.contains(value) {
                        merged.push(value.clone());
                    }
                }
                self.put_in_order(merged, patch, &original)
            }
            Self::Keyed(key, element) => {
                let (original, patch) = follow_directives(original, patch, key)?;
                let mut merged = original.clone();
                for value in &patch {
                    let at = key_of(value, key)?;
                    let Some(fields) = value.as_object() else {
                        continue;
                    };
                    let found = merged.iter_mut().find(|known| known.get(key) == Some(at));
                    let before = match &found {
                        Some(Value::Object(before)) => before.clone(),
                        _ => Fields::new(),
                    };
                    let value = merge_maps(element, before, fields, depth + 1)
                        .map(Value::Object)
                        .map_err(|error| error.within(&at.to_string()))?;
                    match found {
                        Some(known) => *known = value,
                        None => merged.push(value),
                    }
                }
                self.put_in_order(merged, &patch, &original)
            }
        }
    }

    /// Elements that are in `listed` come in its order; the others keep theirs of `before`,
    /// and stay before a listed element that they were before.
    pub(super) fn put_in_order(
        self,
        merged: Vec<Value>,
        listed: &[Value],
        before: &[Value],
    ) -> Result<Vec<Value>, PatchError> {
        if merged.len() + listed.len() > 2 * ELEMENTS_MAX {
            let problem = format!("has more than {ELEMENTS_MAX} elements");
            return Err(PatchError::new(problem));
        }
        for value in merged.iter().chain(listed) {
            self.check_element(value)?;
        }
        let place = |list: &[Value], value: &Value| {
            list.iter()
                .position(|known| self.identity(known) == self.identity(value))
        };
        let (mut first, mut rest): (Vec<_>, Vec<_>) = merged
            .into_iter()
            .partition(|value| place(listed, value).is_some());
        first.sort_by_key(|value| place(listed, value));
        rest.sort_by_key(|value| place(before, value));
        let mut all = Vec::with_capacity(first.len() + rest.len());
        let (mut first, mut rest) = (first.into_iter().peekable(), rest.into_iter().peekable());
        while let (Some(listed), Some(other)) = (first.peek(), rest.peek()) {
            let other_is_first = match (place(before, other), place(before, listed)) {
                (Some(other), Some(listed)) => other < listed,
                _ => false,
            };
            all.extend(if other_is_first {
                rest.next()
            } else {
                first.next()
            });
        }
        all.extend(first);
        all.extend(rest);
        Ok(all)
    }

    /// The elements of a patch must come in the order that the patch asks for.
    pub(super) fn check_order(self, patch: &[Value], order: &[Value]) -> Result<(), PatchError> {
        for value in patch.iter().chain(order) {
            self.check_element(value)?;
        }
        let mut order = order.iter();
        let stays = |value: &&Value| value.get(PATCH).is_none();
        for value in patch.iter().filter(stays) {
            if !order.any(|known| self.identity(known) == self.identity(value)) {
                return Err(PatchError::new(
                    "its elements are not in the order of `$setElementOrder`",
                ));
            }
        }
        Ok(())
    }

    /// What tells an element apart.
    fn identity(self, value: &Value) -> Option<&Value> {
        match self {
            Self::Keyed(key, _) => value.get(key),
            Self::Set | Self::Replaced => Some(value),
        }
    }

    fn check_element(self, value: &Value) -> Result<(), PatchError> {
        match self {
            Self::Keyed(..) if value.get(PATCH).is_some_and(|word| word == "replace") => Ok(()),
            Self::Keyed(key, _) => key_of(value, key).map(|_| ()),
            Self::Set | Self::Replaced if value.is_object() || value.is_array() => Err(
                PatchError::new("`$setElementOrder` needs a list that is merged"),
            ),
            Self::Set | Self::Replaced => Ok(()),
        }
    }
}

/// `$deleteFromPrimitiveList/NAME`: words that leave a list.
pub(super) fn delete_primitives(
    original: &mut Fields,
    name: &str,
    words: &Value,
) -> Result<(), PatchError> {
    let Value::Array(words) = words else {
        return Err(PatchError::new("`$deleteFromPrimitiveList` must be a list"));
    };
    if let Some(Value::Array(list)) = original.get_mut(name) {
        list.retain(|value| !words.contains(value));
    }
    Ok(())
}

fn key_of<'v>(value: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    let found = value
        .as_object()
        .and_then(|fields| fields.get(key))
        .filter(|value| !value.is_null());
    found.ok_or_else(|| PatchError::new(format!("an element has no {key:?}")))
}

/// `$patch: delete` takes the element of that name away; `$patch: replace` in any element
/// takes all of them away, so that the other elements of the patch are the list.
fn follow_directives(
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut is_replaced = false;
    for value in patch {
        match value.get(PATCH).map(Value::as_str) {
            None => rest.push(value.clone()),
            Some(Some("replace")) => is_replaced = true,
            Some(Some("delete")) => {
                let at = key_of(value, key)?;
                original.retain(|known| known.get(key) != Some(at));
            }
            Some(_) => {
                return Err(PatchError::new(
                    "`$patch` of an element must be \"replace\" or \"delete\"",
                ));
            }
        }
    }
    if is_replaced {
        original.clear();
    }
    Ok((original, rest))
}

/// A value of a patch where nothing was.
fn clean(value: &Value, depth: usize) -> Result<Value, PatchError> {
    check_depth(depth)?;
    Ok(match value {
        Value::Object(fields) => {
            Value::Object(merge_maps(&PLAIN, Fields::new(), fields, depth + 1)?)
        }
        Value::Array(values) => Value::Array(
            values
                .iter()
                .map(|value| clean(value, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        scalar => scalar.clone(),
    })
}
