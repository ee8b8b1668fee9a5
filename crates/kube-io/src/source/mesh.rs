//! Mesh config: key `mesh` of a ConfigMap, or a mounted file. Source: spec/control-plane.md §5.2.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::core::ApiResource;
use model::defaults::ROOT_NAMESPACE;
use model::finding::{Finding, Severity};
use model::object::{Input, Meta, Object};
use model::parse::{Recognised, mesh_config, recognise};
use model::{Kind, ObjectKey, Str};
use serde_json::{Value, json};
use tokio::sync::watch as channel;

use crate::KindState;

use super::SourceError;
use super::catalogue::Catalogue;
use super::context::Context;
use super::findings::SourceFindings;
use super::raw::RawObject;
use super::target::Target;
use super::watch::{Driver, Sink};

/// How often a mounted file is looked at.
const FILE_PERIOD: Duration = Duration::from_secs(2);
/// Largest file that is read, in bytes; a ConfigMap holds no more.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The name that the parser knows, and the row has, whatever the object is called.
const NAME: &str = "istio";

fn config_map_name(revision: &str) -> String {
    match revision {
        "" | "default" => NAME.to_owned(),
        revision => format!("{NAME}-{revision}"),
    }
}

/// Delivers mesh config until it is stopped.
pub(super) async fn run(
    context: Arc<Context>,
    catalogue: channel::Receiver<Catalogue>,
) -> Result<(), SourceError> {
    let keeper = Keeper {
        findings: context.findings.clone(),
        good: None,
        delivered: None,
    };
    let config = &context.config;
    match &config.mesh_config_file {
        Some(path) if path.exists() => watch_file(&context, path, keeper).await,
        _ => {
            context.health.set(Kind::MeshConfig, KindState::Listing, "");
            let name = config_map_name(&config.revision);
            let target = Target::mesh(&config.system_namespace, &name);
            let sink = MeshConfigMap {
                keeper,
                listed: None,
            };
            Driver::new(context, target, sink).run(catalogue).await
        }
    }
}

async fn read(path: &Path) -> Result<String, String> {
    let problem = |error: std::io::Error| format!("{}: {error}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(problem)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{}: {size} bytes are too many", path.display()));
    }
    tokio::fs::read_to_string(path).await.map_err(problem)
}

fn from_text(text: Result<String, String>) -> Object {
    let meta = Meta {
        key: ObjectKey::new(ROOT_NAMESPACE, NAME),
        ..Meta::default()
    };
    from_yaml(meta, text)
}

fn from_yaml(meta: Meta, text: Result<String, String>) -> Object {
    match text.and_then(|text| document(&text)) {
        Ok(value) => mesh_config(meta, Ok(&value)),
        Err(reason) => mesh_config(meta, Err(reason)),
    }
}

/// The one document of a YAML text, null when it is empty.
fn document(text: &str) -> Result<Value, String> {
    const CHARS_MAX: usize = 300;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.to_string();
        let line = line.chars().take(CHARS_MAX);
        line.map(|c| if c.is_control() { ' ' } else { c }).collect()
    })
}

/// Keeps the last config that could be read in force.
struct Keeper {
    findings: SourceFindings,
    good: Option<Object>,
    delivered: Option<Vec<Object>>,
}

// === impl Keeper ===

impl Keeper {
    /// What to deliver now; `None` in place of an object when there is none.
    fn take(&mut self, object: Option<Object>) -> Vec<Input> {
        let invalid = object.as_ref().and_then(Object::invalid);
        let kept = invalid.filter(|_| self.good.is_some()).map(|invalid| {
            let reason = &invalid.reason;
            let object =
                model::ObjectRef::new(Kind::MeshConfig, ObjectKey::new(ROOT_NAMESPACE, NAME));
            Finding::new(
                "mesh-config-kept",
                Severity::Error,
                object,
                arcstr::format!(
                    "Mesh config cannot be read ({reason}); the last one that could stays in force"
                ),
                "Correct the mesh config; after a restart the defaults would be used",
            )
            .at(invalid.field.clone())
        });
        let is_kept = kept.is_some();
        self.findings
            .set(&Str::from("MeshConfig"), Some(ObjectKey::default()), kept);
        if is_kept {
            if self.delivered.is_some() {
                return Vec::new();
            }
        } else {
            self.good = object.clone().filter(|object| object.invalid().is_none());
        }
        let list: Vec<Object> = object.into_iter().collect();
        if self.delivered.as_ref() == Some(&list) {
            return Vec::new();
        }
        self.delivered = Some(list.clone());
        vec![Input::Resync(Kind::MeshConfig, list)]
    }
}

async fn watch_file(context: &Context, path: &Path, mut keeper: Keeper) -> Result<(), SourceError> {
    // Health is that of what the API server is asked for, which this is not.
    let mut last = None;
    loop {
        let text = read(path).await;
        if last.as_ref() != Some(&text) {
            let batch = keeper.take(Some(from_text(text.clone())));
            context.send(batch).await?;
            last = Some(text);
        }
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(FILE_PERIOD) => {}
        }
    }
}

/// The ConfigMap.
struct MeshConfigMap {
    keeper: Keeper,
    listed: Option<Object>,
}

/// The row of a ConfigMap; `None` without key `mesh`.
fn from_config_map(mut object: RawObject, api: &ApiResource) -> Option<Object> {
    object.prepare(&api.api_version, "ConfigMap");
    let metadata = object.value.get_mut("metadata")?;
    let map = metadata.as_object_mut()?;
    map.insert("name".to_owned(), json!(NAME));
    map.insert("namespace".to_owned(), json!(ROOT_NAMESPACE));
    match recognise(&object.value, NAME) {
        Recognised::MeshYaml(meta, yaml) => Some(from_yaml(meta, Ok(yaml))),
        _ => None,
    }
}

impl Sink for MeshConfigMap {
    fn begin(&mut self) {
        self.listed = None;
    }

    fn listed(&mut self, object: RawObject, api: &ApiResource) {
        self.listed = from_config_map(object, api);
    }

    fn complete(&mut self) -> Vec<Input> {
        let listed = self.listed.take();
        self.keeper.take(listed)
    }

    fn applied(&mut self, object: RawObject, api: &ApiResource) -> Option<Input> {
        self.keeper.take(from_config_map(object, api)).pop()
    }

    fn deleted(&mut self, _: &RawObject) -> Option<Input> {
        self.keeper.take(None).pop()
    }

    fn emptied(&mut self) -> Vec<Input> {
        self.keeper.take(None)
    }

    fn refused(&mut self) -> Vec<Input> {
        Vec::new()
    }

    fn refusal(&self) -> (Severity, &'static str) {
        let effect = if self.keeper.delivered.is_some() {
            "the mesh config that was read before stays in force"
        } else {
            "this replica does not become ready, since the trust domain is not known"
        };
        (Severity::Error, effect)
    }
}
