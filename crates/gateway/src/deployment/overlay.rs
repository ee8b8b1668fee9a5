//! What users change of the deployment of a class or of one Gateway: ConfigMaps with a patch
//! for each kind of object. Source: spec/gateway-api.md §2.7.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use model::object::Parsed;
use model::secret::ConfigMap;
use model::{Kind, ObjectKey, ObjectRef};

use super::{RenderError, patch};

/// Bytes that one patch may have. A ConfigMap holds 1 MiB at most.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Characters of what a parser says that are passed on.
const PROBLEM_CHARS_MAX: usize = 300;

/// An object that overlays change, by its key in the ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OverlayKind {
    /// `deployment`.
    Deployment,
    /// `service`.
    Service,
    /// `serviceAccount`.
    ServiceAccount,
    /// `horizontalPodAutoscaler`; it exists only where an overlay has this key.
    HorizontalPodAutoscaler,
    /// `podDisruptionBudget`; it exists only where an overlay has this key.
    PodDisruptionBudget,
}

// === impl OverlayKind ===

impl OverlayKind {
    /// All, in the order in which the objects are applied.
    pub const ALL: [Self; 5] = [
        Self::ServiceAccount,
        Self::Deployment,
        Self::Service,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
    ];

    /// Its key in ConfigMaps.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Service => "service",
            Self::ServiceAccount => "serviceAccount",
            Self::HorizontalPodAutoscaler => "horizontalPodAutoscaler",
            Self::PodDisruptionBudget => "podDisruptionBudget",
        }
    }

    /// `apiVersion` of the object.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Deployment => "apps/v1",
            Self::Service | Self::ServiceAccount => "v1",
            Self::HorizontalPodAutoscaler => "autoscaling/v2",
            Self::PodDisruptionBudget => "policy/v1",
        }
    }

    /// `kind` of the object.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }
}

/// The patches of one ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    source: ObjectKey,
    patches: BTreeMap<OverlayKind, Value>,
}

// === impl Overlay ===

impl Overlay {
    /// The patches of a ConfigMap.
    ///
    /// # Errors
    /// A ConfigMap that cannot be read, has a key that is no object's, or a value that is too
    /// large, no YAML or no object.
    pub fn of(map: &Parsed<ConfigMap>) -> Result<Self, RenderError> {
        let source = map.key();
        let fail = |field: String, problem: String| {
            let object = ObjectRef::new(Kind::ConfigMap, source.clone());
            RenderError::of(object, field, problem)
        };
        let body = map
            .body
            .as_ref()
            .map_err(|error| fail(error.field.to_string(), error.reason.to_string()))?;
        let unknown = |key: &str| {
            let known = OverlayKind::ALL.map(OverlayKind::key).join(", ");
            fail(format!("data[{key}]"), format!("is none of {known}"))
        };
        if let Some(key) = &body.other_key {
            return Err(unknown(key));
        }
        let mut patches = BTreeMap::new();
        for (key, text) in &body.overlays {
            let kind = OverlayKind::ALL.into_iter().find(|kind| kind.key() == *key);
            let kind = kind.ok_or_else(|| unknown(key))?;
            let patch =
                parse_text(text).map_err(|problem| fail(format!("data[{key}]"), problem))?;
            patches.insert(kind, patch);
        }
        Ok(Self {
            source: source.clone(),
            patches,
        })
    }

    /// Of the ConfigMaps with defaults for a class, the one that counts: the oldest.
    pub fn oldest<'m>(
        maps: impl IntoIterator<Item = &'m Arc<Parsed<ConfigMap>>>,
    ) -> Option<&'m Arc<Parsed<ConfigMap>>> {
        maps.into_iter().min_by_key(|map| map.meta.age_order())
    }

    /// Whether it has a patch for a kind of object.
    pub(super) fn has(&self, kind: OverlayKind) -> bool {
        self.patches.contains_key(&kind)
    }

    /// Applies its patch for a kind of object, if any.
    pub(super) fn apply(&self, kind: OverlayKind, object: Value) -> Result<Value, RenderError> {
        let Some(patch) = self.patches.get(&kind) else {
            return Ok(object);
        };
        let fail = |at: &str, problem: String| {
            let source = ObjectRef::new(Kind::ConfigMap, self.source.clone());
            RenderError::of(source, format!("data[{}]{at}", kind.key()), problem)
        };
        let before = Protected::of(&object);
        let merged =
            patch::merge(kind, object, patch).map_err(|error| fail("", error.to_string()))?;
        match before.changed(&merged) {
            None => Ok(merged),
            Some(field) => Err(fail(
                &format!(".{field}"),
                "must not be changed: the controller depends on it".to_owned(),
            )),
        }
    }
}

pub(super) fn parse_text(text: &str) -> Result<Value, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("is larger than {TEXT_BYTES_MAX} bytes"));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 100_000,
            max_events: 400_000,
            max_recorded_anchor_events: 10_000,
            max_depth: 64,
        },
        // As Kubernetes reads YAML: `0644` is 420.
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options(text, options) {
        Ok(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("is no object".to_owned()),
        Err(error) => {
            let words = error.to_string().replace(['\n', '\r'], " ");
            Err(words.chars().take(PROBLEM_CHARS_MAX).collect())
        }
    }
}

/// What an overlay may not change.
struct Protected {
    fields: Vec<(&'static str, Option<Value>)>,
}

const PROTECTED: [(&str, &str); 14] = [
    ("apiVersion", "/apiVersion"),
    ("kind", "/kind"),
    ("metadata.name", "/metadata/name"),
    ("metadata.generateName", "/metadata/generateName"),
    ("metadata.namespace", "/metadata/namespace"),
    ("metadata.uid", "/metadata/uid"),
    ("metadata.resourceVersion", "/metadata/resourceVersion"),
    ("metadata.generation", "/metadata/generation"),
    ("metadata.creationTimestamp", "/metadata/creationTimestamp"),
    ("metadata.deletionTimestamp", "/metadata/deletionTimestamp"),
    (
        "metadata.deletionGracePeriodSeconds",
        "/metadata/deletionGracePeriodSeconds",
    ),
    ("metadata.ownerReferences", "/metadata/ownerReferences"),
    ("metadata.finalizers", "/metadata/finalizers"),
    ("metadata.managedFields", "/metadata/managedFields"),
];

// === impl Protected ===

impl Protected {
    fn of(object: &Value) -> Self {
        let fields = PROTECTED
            .into_iter()
            .map(|(name, at)| (name, object.pointer(at).cloned()))
            .collect();
        Self { fields }
    }

    /// The first field that is another now.
    fn changed(&self, object: &Value) -> Option<&'static str> {
        let now = Self::of(object);
        self.fields
            .iter()
            .zip(&now.fields)
            .find_map(|((name, before), (_, after))| (before != after).then_some(*name))
    }
}
