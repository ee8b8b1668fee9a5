//! Strategic merge patches, as `kubectl patch` and the API server apply them.
//!
//! Objects are merged field by field and `null` removes a field. Lists are replaced, but
//! those that Kubernetes' types say to merge are merged by the field that tells their
//! elements apart. Directives: `$patch` (`replace`, `delete`), `$retainKeys`,
//! `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`.
//!
//! One difference: what a patch adds where nothing was is merged into nothing, so directives
//! and nulls below it take effect, where Kubernetes leaves some of them in the object and
//! refuses it then. Source: spec/gateway-api.md §2.7.

mod list;
mod schema;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use self::schema::{Field, PLAIN, Schema};
use super::OverlayKind;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// How deep a patch may nest.
const DEPTH_MAX: usize = 64;

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}", path = self.path())]
pub struct PatchError {
    /// Where, innermost first.
    within: Vec<String>,
    problem: String,
}

impl PatchError {
    fn new(problem: impl Into<String>) -> Self {
        Self {
            within: Vec::new(),
            problem: problem.into(),
        }
    }

    fn within(mut self, field: &str) -> Self {
        self.within.push(field.to_owned());
        self
    }

    /// Where the patch is wrong, like `spec.template`; `.` for its top.
    pub fn path(&self) -> String {
        if self.within.is_empty() {
            return ".".to_owned();
        }
        let fields: Vec<&str> = self.within.iter().rev().map(String::as_str).collect();
        fields.join(".")
    }
}

/// Merges a patch into an object of a kind.
///
/// # Errors
/// A patch that is no object, nests too deep, has elements without the field that tells them
/// apart, or a directive that is unknown or of the wrong shape.
pub fn merge(kind: OverlayKind, object: Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(PatchError::new("must be an object"));
    };
    merge_maps(schema_of(kind), object, patch, 0).map(Value::Object)
}

fn schema_of(kind: OverlayKind) -> &'static Schema {
    match kind {
        OverlayKind::Deployment => &schema::DEPLOYMENT,
        OverlayKind::Service => &schema::SERVICE,
        OverlayKind::ServiceAccount => &schema::SERVICE_ACCOUNT,
        OverlayKind::HorizontalPodAutoscaler => &schema::AUTOSCALER,
        OverlayKind::PodDisruptionBudget => &schema::BUDGET,
    }
}

type Fields = Map<String, Value>;

fn check_depth(depth: usize) -> Result<(), PatchError> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    let problem = format!("nests deeper than {DEPTH_MAX} levels");
    Err(PatchError::new(problem))
}

fn merge_maps(
    schema: &Schema,
    mut original: Fields,
    patch: &Fields,
    depth: usize,
) -> Result<Fields, PatchError> {
    check_depth(depth)?;
    match patch.get(PATCH).map(|directive| directive.as_str()) {
        None => {}
        Some(Some("delete")) => return Ok(Fields::new()),
        Some(Some("replace")) => {
            let mut patch = patch.clone();
            patch.remove(PATCH);
            return merge_maps(schema, Fields::new(), &patch, depth + 1);
        }
        Some(_) => {
            return Err(PatchError::new(
                "`$patch` must be \"replace\" or \"delete\"",
            ));
        }
    }
    retain_keys(&mut original, patch)?;
    let mut ordered = Vec::new();
    for (directive, order) in patch {
        let Some(name) = directive.strip_prefix(ELEMENT_ORDER) else {
            continue;
        };
        set_element_order(schema, &mut original, patch, name, order, depth)
            .map_err(|error| error.within(name))?;
        ordered.push(name);
    }
    for (name, value) in patch {
        if let Some(name) = name.strip_prefix(DELETE_PRIMITIVES) {
            list::delete_primitives(&mut original, name, value)
                .map_err(|error| error.within(name))?;
        } else if name != RETAIN_KEYS
            && !name.starts_with(ELEMENT_ORDER)
            && !ordered.contains(&name.as_str())
        {
            merge_field(schema, &mut original, name, value, depth)
                .map_err(|error| error.within(name))?;
        }
    }
    Ok(original)
}

/// `$retainKeys` names the fields that may stay.
fn retain_keys(original: &mut Fields, patch: &Fields) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let names: Option<Vec<&str>> = directive
        .as_array()
        .and_then(|names| names.iter().map(Value::as_str).collect());
    let names = names.ok_or_else(|| PatchError::new("`$retainKeys` must be a list of names"))?;
    let stray = patch.iter().find(|(name, value)| {
        !value.is_null() && !name.starts_with('$') && !names.contains(&name.as_str())
    });
    if let Some((name, _)) = stray {
        return Err(PatchError::new(format!("`$retainKeys` lacks {name:?}")));
    }
    original.retain(|name, _| names.contains(&name.as_str()));
    Ok(())
}

fn set_element_order(
    schema: &Schema,
    original: &mut Fields,
    patch: &Fields,
    name: &str,
    order: &Value,
    depth: usize,
) -> Result<(), PatchError> {
    let as_list = |value: Option<&Value>| match value {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list.clone())),
        Some(_) => Err(PatchError::new("must be a list")),
    };
    let Value::Array(order) = order else {
        return Err(PatchError::new("`$setElementOrder` must be a list"));
    };
    let (before, patched) = (as_list(original.get(name))?, as_list(patch.get(name))?);
    if before.is_none() && patched.is_none() {
        return Ok(());
    }
    let kind = list::Kind::of(schema.field(name));
    kind.check_order(patched.as_deref().unwrap_or_default(), order)?;
    let before = before.unwrap_or_default();
    let merged = match patched {
        Some(patched) => kind.merge(before.clone(), &patched, depth + 1)?,
        None => before.clone(),
    };
    let merged = kind.put_in_order(merged, order, &before)?;
    original.insert(name.to_owned(), Value::Array(merged));
    Ok(())
}

fn merge_field(
    schema: &Schema,
    original: &mut Fields,
    name: &str,
    value: &Value,
    depth: usize,
) -> Result<(), PatchError> {
    if name.starts_with('$') {
        return Err(PatchError::new("is no directive of patches"));
    }
    let field = schema.field(name);
    let merged = match (original.remove(name), value) {
        (_, Value::Null) => return Ok(()),
        (before, Value::Object(patch)) => {
            let (before, schema) = match (before, field) {
                (Some(Value::Object(before)), Some(Field::Map(schema))) => (before, schema),
                (Some(Value::Object(before)), None) => (before, &PLAIN),
                (_, Some(Field::Map(schema))) => (Fields::new(), schema),
                _ => (Fields::new(), &PLAIN),
            };
            Value::Object(merge_maps(schema, before, patch, depth + 1)?)
        }
        (before, Value::Array(patch)) => {
            let before = match before {
                Some(Value::Array(before)) => before,
                _ => Vec::new(),
            };
            Value::Array(list::Kind::of(field).merge(before, patch, depth + 1)?)
        }
        (_, scalar) => scalar.clone(),
    };
    original.insert(name.to_owned(), merged);
    Ok(())
}
