//! The proxy configuration that a pod is made with: that of the mesh, then ProxyConfig
//! objects from the widest to the narrowest. Source: spec/policy-and-traffic.md §5.5.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use model::Str;
use model::labels::LABEL_GATEWAY_NAME;
use model::object::Labels;

/// What a ProxyConfig object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfigLayer {
    /// `concurrency`: threads of Envoy; 0 for as many as there are cores.
    pub concurrency: Option<u32>,
    /// `environmentVariables`.
    pub environment: BTreeMap<Str, Str>,
    /// `image.imageType`.
    pub image_type: Option<Str>,
}

/// The effective configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyConfig {
    fields: Map<String, Value>,
}

/// Whether the selector of a ProxyConfig is about the pods of a Gateway, of which one label is
/// known before there is any.
pub fn selects(selector: &Labels, gateway: &str) -> bool {
    selector
        .iter()
        .all(|(key, value)| key == LABEL_GATEWAY_NAME && value == gateway)
}

/// Puts what pods say themselves over the mesh's; variables are merged one by one.
pub(super) fn merge(mesh: &mut Map<String, Value>, own: Value) {
    const VARIABLES: &str = "proxyMetadata";
    let Value::Object(own) = own else { return };
    for (name, value) in own {
        match (mesh.get_mut(&name), value) {
            (Some(Value::Object(under)), Value::Object(over)) if name == VARIABLES => {
                under.extend(over);
            }
            (_, Value::Null) => {}
            (_, value) => {
                mesh.insert(name, value);
            }
        }
    }
}

// === impl ProxyConfig ===

impl ProxyConfig {
    /// The mesh's, and layers over it; later ones win. `discovery` is where the control plane
    /// is unless something says otherwise.
    pub(super) fn new(
        mesh: &Map<String, Value>,
        layers: &[ProxyConfigLayer],
        discovery: String,
    ) -> Self {
        let mut fields = mesh.clone();
        fields
            .entry("discoveryAddress")
            .or_insert_with(|| Value::String(discovery));
        for layer in layers {
            if let Some(threads) = layer.concurrency {
                fields.insert("concurrency".to_owned(), json!(threads));
            }
            if let Some(image_type) = &layer.image_type {
                let image = json!({"imageType": image_type.as_str()});
                fields.insert("image".to_owned(), image);
            }
            if layer.environment.is_empty() {
                continue;
            }
            let mut metadata = match fields.remove("proxyMetadata") {
                Some(Value::Object(metadata)) => metadata,
                _ => Map::new(),
            };
            for (name, value) in &layer.environment {
                metadata.insert(name.to_string(), json!(value.as_str()));
            }
            fields.insert("proxyMetadata".to_owned(), Value::Object(metadata));
        }
        Self { fields }
    }

    /// Variables of the container, by name.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        let Some(Value::Object(metadata)) = self.fields.get("proxyMetadata") else {
            return BTreeMap::new();
        };
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        metadata
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    }

    /// A field that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }

    /// `image.imageType`.
    pub(super) fn image_type(&self) -> Option<&str> {
        self.fields.get("image")?.get("imageType")?.as_str()
    }

    /// Names of the fields that are set, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// As `PROXY_CONFIG` holds it.
    pub(super) fn to_json(&self) -> String {
        // A map with text as keys can always be written.
        serde_json::to_string(&self.fields).unwrap_or_else(|_| "{}".to_owned())
    }
}
