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

mod merge;

use merge::{merge, networks};

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
        Some(path) if path.exists() => {
            if let Some(shared) = &config.shared_mesh_config {
                keeper.tell_unused(shared);
            }
            watch_file(&context, path, keeper).await
        }
        _ => {
            context.health.set(Kind::MeshConfig, KindState::Listing, "");
            let name = config_map_name(&config.revision);
            let shared = config.shared_mesh_config.clone();
            let shared = shared.filter(|shared| *shared != name);
            // Of two names no watch can be, so that it is of all there.
            let only = shared.is_none().then_some(name.as_str());
            let target = Target::mesh(&config.system_namespace, only);
            let sink = MeshConfigMap {
                keeper,
                name: name.clone(),
                shared,
                now: Texts::default(),
                listed: Texts::default(),
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

/// Of a row that is of no ConfigMap.
fn row_meta() -> Meta {
    Meta {
        key: ObjectKey::new(ROOT_NAMESPACE, NAME),
        ..Meta::default()
    }
}

fn from_text(text: Result<String, String>) -> Object {
    from_yaml(row_meta(), text)
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
    /// Says that a shared ConfigMap has no effect.
    fn tell_unused(&self, shared: &str) {
        let object = model::ObjectRef {
            kind: Str::from("Environment"),
            key: ObjectKey::cluster("SHARED_MESH_CONFIG"),
        };
        let finding = Finding::new(
            "env-ignored",
            Severity::Warning,
            object,
            arcstr::format!("ConfigMap {shared} has no effect: mesh config is a mounted file"),
            "Put what it says into the file, or remove the variable",
        );
        let place = Some(ObjectKey::new(ROOT_NAMESPACE, "shared"));
        self.findings
            .set(&Str::from("MeshConfig"), place, Some(finding));
    }

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

/// The ConfigMap, and the one that is shared.
struct MeshConfigMap {
    keeper: Keeper,
    name: String,
    /// Applied underneath (`SHARED_MESH_CONFIG`).
    shared: Option<String>,
    now: Texts,
    listed: Texts,
}

/// What the two ConfigMaps hold; `None` without key `mesh`.
#[derive(Default)]
struct Texts {
    own: Option<(Meta, String)>,
    shared: Option<String>,
    /// Names of networks that the own one has, which have no effect.
    networks: String,
    /// Those of the shared one.
    shared_networks: String,
}

/// Names of the networks that a ConfigMap has.
fn networks_of(object: &RawObject) -> String {
    let text = object.value.pointer("/data/meshNetworks");
    networks(text.and_then(Value::as_str).unwrap_or_default())
}

/// The text of a ConfigMap; `None` without key `mesh`.
fn from_config_map(mut object: RawObject, api: &ApiResource) -> Option<(Meta, String)> {
    object.prepare(&api.api_version, "ConfigMap");
    let metadata = object.value.get_mut("metadata")?;
    let map = metadata.as_object_mut()?;
    map.insert("name".to_owned(), json!(NAME));
    map.insert("namespace".to_owned(), json!(ROOT_NAMESPACE));
    match recognise(&object.value, NAME) {
        Recognised::MeshYaml(meta, yaml) => Some((meta, yaml)),
        _ => None,
    }
}

// === impl Texts ===

impl Texts {
    /// The row; `None` when neither says anything.
    fn object(&self, shared_name: &str) -> Option<Object> {
        match (&self.own, &self.shared) {
            (None, None) => None,
            (Some((meta, text)), None) => Some(from_yaml(meta.clone(), Ok(text.clone()))),
            (own, Some(shared)) => {
                let (meta, text) = own.clone().unwrap_or_else(|| (row_meta(), String::new()));
                let under =
                    document(shared).map_err(|reason| format!("ConfigMap {shared_name}: {reason}"));
                let under = under.and_then(|under| match under {
                    Value::Object(_) | Value::Null => Ok(under),
                    _ => Err(format!("ConfigMap {shared_name}: these are no fields")),
                });
                let merged = under.and_then(|under| Ok(merge(under, document(&text)?)));
                Some(match &merged {
                    Ok(value) => mesh_config(meta, Ok(value)),
                    Err(reason) => mesh_config(meta, Err(reason.clone())),
                })
            }
        }
    }
}

// === impl MeshConfigMap ===

impl MeshConfigMap {
    fn is_own(&self, object: &RawObject) -> bool {
        object.key().is_some_and(|key| *key.name == *self.name)
    }

    fn is_shared(&self, object: &RawObject) -> bool {
        let key = object.key();
        key.is_some_and(|key| self.shared.as_deref() == Some(&*key.name))
    }

    /// Takes an object up into what is listed, or what is now.
    fn put(&self, texts: &mut Texts, object: RawObject, api: &ApiResource) {
        if self.is_own(&object) {
            texts.networks = networks_of(&object);
            texts.own = from_config_map(object, api);
        } else if self.is_shared(&object) {
            texts.shared_networks = networks_of(&object);
            texts.shared = from_config_map(object, api).map(|(_, text)| text);
        }
    }

    fn tell_networks(&self) {
        self.tell_networks_of("meshNetworks", &self.name, &self.now.networks);
        let shared = self.shared.as_deref().unwrap_or_default();
        self.tell_networks_of("sharedMeshNetworks", shared, &self.now.shared_networks);
    }

    fn tell_networks_of(&self, place: &'static str, map: &str, names: &str) {
        let finding = (!names.is_empty()).then(|| {
            let object =
                model::ObjectRef::new(Kind::MeshConfig, ObjectKey::new(ROOT_NAMESPACE, NAME));
            Finding::new(
                "mesh-networks-ignored",
                Severity::Warning,
                object,
                arcstr::format!(
                    "meshNetworks of ConfigMap {map} has no effect ({names}): networks are those of the label topology.istio.io/network, and gateways that are named here are not used"
                ),
                "Label the namespace of the control plane, and what is in another network; empty meshNetworks",
            )
            .at("data.meshNetworks")
        });
        let place = Some(ObjectKey::new(ROOT_NAMESPACE, place));
        let findings = &self.keeper.findings;
        findings.set(&Str::from("MeshConfig"), place, finding);
    }

    fn take(&mut self) -> Vec<Input> {
        self.tell_networks();
        let name = self.shared.as_deref().unwrap_or_default();
        let object = self.now.object(name);
        self.keeper.take(object)
    }
}

impl Sink for MeshConfigMap {
    fn begin(&mut self) {
        self.listed = Texts::default();
    }

    fn listed(&mut self, object: RawObject, api: &ApiResource) {
        let mut texts = std::mem::take(&mut self.listed);
        self.put(&mut texts, object, api);
        self.listed = texts;
    }

    fn complete(&mut self) -> Vec<Input> {
        self.now = std::mem::take(&mut self.listed);
        self.take()
    }

    fn applied(&mut self, object: RawObject, api: &ApiResource) -> Option<Input> {
        let mut texts = std::mem::take(&mut self.now);
        self.put(&mut texts, object, api);
        self.now = texts;
        self.take().pop()
    }

    fn deleted(&mut self, object: &RawObject) -> Option<Input> {
        if self.is_own(object) {
            self.now.own = None;
            self.now.networks.clear();
        } else if self.is_shared(object) {
            self.now.shared = None;
            self.now.shared_networks.clear();
        }
        self.take().pop()
    }

    fn emptied(&mut self) -> Vec<Input> {
        self.now = Texts::default();
        self.take()
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

#[cfg(test)]
mod tests;
