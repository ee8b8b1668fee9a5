//! Objects as they come: JSON, and the little of it that a watcher needs.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use model::ObjectKey;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::ObservedStatus;

use super::nesting;

/// Any JSON value: what is wrong with an object must not end the watch of the others.
#[derive(Clone)]
pub(super) struct RawObject {
    /// Name, namespace and resource version, as far as they are texts.
    meta: ObjectMeta,
    /// Everything.
    pub(super) value: Value,
}

/// Without the content, which may be that of a Secret.
impl fmt::Debug for RawObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RawObject");
        out.field("name", &self.meta.name).finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = nesting::read(deserializer)?;
        let text = |key: &str| {
            let text = value.get("metadata")?.get(key)?.as_str()?;
            Some(text.to_owned())
        };
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, value })
    }
}

impl Resource for RawObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(api: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&api.kind)
    }

    fn group(api: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&api.group)
    }

    fn version(api: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&api.version)
    }

    fn api_version(api: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&api.api_version)
    }

    fn plural(api: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&api.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

// === impl RawObject ===

impl RawObject {
    /// Namespace and name; `None` without a name.
    pub(super) fn key(&self) -> Option<ObjectKey> {
        let name = self.meta.name.as_deref().filter(|name| !name.is_empty())?;
        let ns = self.meta.namespace.as_deref().unwrap_or_default();
        Some(ObjectKey::new(ns, name))
    }

    /// Says what it is, which lists of built-in kinds leave out, and drops the copy of itself that
    /// `kubectl apply` left in it.
    pub(super) fn prepare(&mut self, api_version: &str, kind: &str) {
        let Value::Object(map) = &mut self.value else {
            return;
        };
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
        let annotations = map
            .get_mut("metadata")
            .and_then(|m| m.get_mut("annotations"));
        if let Some(Value::Object(annotations)) = annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }

    /// What it says of its status.
    pub(super) fn status(&self, api_version: &str) -> ObservedStatus {
        let metadata = self.value.get("metadata");
        let text = |key: &str| {
            let text = metadata.and_then(|metadata| metadata.get(key)?.as_str());
            text.unwrap_or_default().to_owned()
        };
        let managers = metadata
            .and_then(|metadata| metadata.get("managedFields")?.as_array())
            .into_iter()
            .flatten()
            .filter(|entry| entry.get("subresource").and_then(Value::as_str) == Some("status"))
            .filter_map(|entry| entry.get("manager")?.as_str())
            .map(str::to_owned);
        ObservedStatus {
            resource_version: text("resourceVersion"),
            generation: metadata
                .and_then(|metadata| metadata.get("generation")?.as_i64())
                .unwrap_or_default(),
            uid: text("uid"),
            api_version: api_version.to_owned(),
            status: self.value.get("status").cloned().unwrap_or_default(),
            managers: managers.collect(),
        }
    }
}
