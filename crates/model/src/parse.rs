//! From JSON values to rows: the only place that knows how objects are written.
//!
//! [`recognise`] takes one document and says what it is. A known object always
//! becomes a row, also when its body is bad; everything else says in a finding
//! why it is no input. Nothing here panics, whatever the document holds.

mod backend_tls_policy;
mod core;
mod destination_rule;
pub(crate) mod duration;
mod gateway;
mod grpc_route;
mod http_route;
mod kinds;
mod l4_route;
mod mesh;
mod meta;
mod networking;
mod read;
mod request_authentication;
mod secret;
mod security;
mod suggest;
#[cfg(test)]
mod tests;
mod virtual_service;
mod webhook;
mod words;

use serde_json::{Map, Value};

use crate::finding::{Finding, ObjectRef, Severity};
use crate::names::{Kind, ObjectKey};
use crate::object::{Invalid, Meta, Object};
use crate::{Str, defaults};

pub use kinds::{not_supported, versions};
pub use mesh::mesh_config;
pub(crate) use read::limits;
pub use read::{LIST_ITEMS_COUNT_MAX, STRING_BYTES_MAX};

use kinds::Class;
use read::Doc;

/// What a document is.
#[derive(Clone, Debug, PartialEq)]
pub enum Recognised {
    /// An object that ambientd reads; its body may still be invalid.
    Object(Object),
    /// A `List` (or `PodList`, …): its items, each a document of its own with the kind and
    /// version of the list filled in where it gives none.
    List(Vec<Value>),
    /// The mesh ConfigMap: its metadata and the text of `data.mesh`. Whoever reads
    /// YAML turns the text into a value and calls [`mesh_config`].
    MeshYaml(Meta, String),
    /// Something that is no input. `None` when that is as it should be, such as a Deployment.
    NotAnInput(Option<Finding>),
}

/// Says what a document is. `origin` names the file (and document) in findings about
/// documents that have no name of their own.
pub fn recognise(value: &Value, origin: &str) -> Recognised {
    match identify(value, origin) {
        Ok(recognised) => recognised,
        Err(finding) => Recognised::NotAnInput(Some(finding)),
    }
}

/// The items of a `List`, as [`recognise`] gives them, without a copy of each.
///
/// # Errors
/// The document itself, when it is none.
pub fn take_items(mut value: Value) -> Result<Vec<Value>, Value> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let (Some(kind), Some(version)) = (text("kind"), text("apiVersion")) else {
        return Err(value);
    };
    let Some(kind) = kind.strip_suffix("List").filter(|_| !version.is_empty()) else {
        return Err(value);
    };
    let (kind, version) = (kind.to_owned(), version.to_owned());
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items
            .into_iter()
            .map(|item| list_item(item, &kind, &version))
            .collect()),
        Some(other) => {
            if let Some(items) = value.get_mut("items") {
                *items = other;
            }
            Err(value)
        }
        None => Err(value),
    }
}

/// The reference of a finding about a file: `origin` is its path relative to the source directory.
pub fn file_ref(origin: &str) -> ObjectRef {
    ObjectRef {
        kind: arcstr::literal!("File"),
        key: ObjectKey::cluster(origin),
    }
}

fn identify(value: &Value, origin: &str) -> Result<Recognised, Finding> {
    let Value::Object(map) = value else {
        return Err(not_an_object(
            origin,
            "",
            format!("This document is {}", article(value)),
        ));
    };
    let Some(kind) = map
        .get("kind")
        .and_then(Value::as_str)
        .filter(|kind| !kind.is_empty())
    else {
        return Err(not_an_object(
            origin,
            "",
            "This document has no kind".into(),
        ));
    };
    let version = map
        .get("apiVersion")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty());
    if kind == "MeshConfig" {
        return Ok(Recognised::Object(mesh::bare(map)));
    }
    let Some(version) = version else {
        return Err(not_an_object(
            origin,
            kind,
            format!("This {} has no apiVersion", clip(kind)),
        ));
    };
    if let (Some(item_kind), Some(Value::Array(items))) =
        (kind.strip_suffix("List"), map.get("items"))
    {
        return Ok(Recognised::List(list_items(items, item_kind, version)));
    }
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    if group.is_empty()
        && kind == "ConfigMap"
        && let Some(mesh) = mesh_yaml(map)
    {
        return Ok(mesh);
    }
    match kinds::classify(group, kind) {
        Class::Input(kind, _) if webhook::is_foreign(kind, map) => Ok(Recognised::NotAnInput(None)),
        Class::Input(kind, versions) if versions.contains(&version) => {
            object(kind, map, origin, None)
        }
        // Dropping it would open what it closes.
        Class::Input(kind, versions) if is_policy(kind) => {
            let problem = Invalid {
                field: arcstr::literal!("apiVersion"),
                reason: arcstr::format!(
                    "there is no version {}; write {}",
                    clip(version),
                    preferred(kind, versions)
                ),
                targets: Vec::new(),
            };
            object(kind, map, origin, Some(problem))
        }
        Class::Input(known, versions) => {
            let reference = loose_ref(kind, map, origin)?;
            Err(unknown_version(reference, known, version, versions))
        }
        Class::NotSupported(severity, effect) => {
            let reference = loose_ref(kind, map, origin)?;
            Err(Finding::new(
                "kind-not-supported",
                severity,
                reference,
                arcstr::format!(
                    "This version does not apply {}: {effect}; it has no effect",
                    clip(kind)
                ),
                "Remove it, or do not rely on it until it is supported",
            ))
        }
        Class::NotAnInput => Ok(Recognised::NotAnInput(None)),
        Class::Unknown { ours } => Err(unknown_kind(
            loose_ref(kind, map, origin)?,
            group,
            kind,
            ours,
        )),
    }
}

/// Kinds that refuse traffic. One that cannot be read counts as refusing, see the stages.
fn is_policy(kind: Kind) -> bool {
    POLICIES.contains(&kind)
}

const POLICIES: [Kind; 3] = [
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
];

/// What becomes of an object without a row.
fn no_row(kind: &str) -> &'static str {
    if POLICIES.iter().any(|policy| policy.as_str() == kind) {
        "is NOT enforced"
    } else {
        "has no effect"
    }
}

fn object(
    kind: Kind,
    map: &Map<String, Value>,
    origin: &str,
    problem: Option<Invalid>,
) -> Result<Recognised, Finding> {
    let (meta, meta_problem) = meta::read(kind, map, origin)?;
    let doc = Doc::new(kind, meta, map, problem.or(meta_problem));
    Ok(Recognised::Object(match kind {
        Kind::Namespace => Object::Namespace(core::namespace(doc)),
        Kind::Node => Object::Node(core::node(doc)),
        Kind::Pod => Object::Pod(core::pod(doc)),
        Kind::Service => Object::Service(core::service(doc)),
        Kind::EndpointSlice => Object::EndpointSlice(core::endpoint_slice(doc)),
        Kind::Gateway => Object::Gateway(gateway::gateway(doc)),
        Kind::GatewayClass => Object::GatewayClass(gateway::gateway_class(doc)),
        Kind::ListenerSet => Object::ListenerSet(gateway::listener_set(doc)),
        Kind::BackendTlsPolicy => {
            Object::BackendTlsPolicy(backend_tls_policy::backend_tls_policy(doc))
        }
        Kind::ReferenceGrant => Object::ReferenceGrant(gateway::reference_grant(doc)),
        Kind::HttpRoute => Object::HttpRoute(http_route::http_route(doc)),
        Kind::GrpcRoute => Object::GrpcRoute(grpc_route::grpc_route(doc)),
        Kind::TcpRoute => Object::TcpRoute(l4_route::tcp_route(doc)),
        Kind::TlsRoute => Object::TlsRoute(l4_route::tls_route(doc)),
        Kind::RequestAuthentication => {
            Object::RequestAuthentication(request_authentication::request_authentication(doc))
        }
        Kind::VirtualService => Object::VirtualService(virtual_service::virtual_service(doc)),
        Kind::DestinationRule => Object::DestinationRule(destination_rule::destination_rule(doc)),
        Kind::AuthorizationPolicy => {
            Object::AuthorizationPolicy(security::authorization_policy(doc))
        }
        Kind::PeerAuthentication => Object::PeerAuthentication(security::peer_authentication(doc)),
        Kind::ServiceEntry => Object::ServiceEntry(networking::service_entry(doc)),
        Kind::WorkloadEntry => Object::WorkloadEntry(networking::workload_entry(doc)),
        Kind::Secret => Object::Secret(secret::secret(doc)),
        Kind::ConfigMap => Object::ConfigMap(secret::config_map(doc)),
        Kind::MutatingWebhookConfiguration => {
            Object::MutatingWebhookConfiguration(webhook::configuration(doc))
        }
        Kind::ValidatingWebhookConfiguration => {
            Object::ValidatingWebhookConfiguration(webhook::configuration(doc))
        }
        Kind::MeshConfig => mesh::bare(map),
    }))
}

/// The mesh ConfigMap, which is read as mesh config instead.
fn mesh_yaml(map: &Map<String, Value>) -> Option<Recognised> {
    let metadata = map.get("metadata")?;
    let is_mesh = metadata.get("namespace")?.as_str()? == defaults::ROOT_NAMESPACE
        && metadata.get("name")?.as_str()? == mesh::CONFIG_MAP_NAME;
    let yaml = map.get("data")?.get("mesh")?.as_str()?;
    is_mesh.then(|| Recognised::MeshYaml(mesh::config_map_meta(map), yaml.to_owned()))
}

fn list_items(items: &[Value], kind: &str, version: &str) -> Vec<Value> {
    let filled = |item: &Value| list_item(item.clone(), kind, version);
    items.iter().map(filled).collect()
}

/// Items of typed lists, as an API server writes them, carry no kind of their own.
fn list_item(mut item: Value, kind: &str, version: &str) -> Value {
    if let Value::Object(map) = &mut item
        && !kind.is_empty()
        && !map.contains_key("kind")
        && !map.contains_key("apiVersion")
    {
        map.insert("kind".into(), kind.into());
        map.insert("apiVersion".into(), version.into());
    }
    item
}

/// A reference to an object that will not become a row: names are shortened, not judged.
fn loose_ref(kind: &str, map: &Map<String, Value>, origin: &str) -> Result<ObjectRef, Finding> {
    let text = |key: &str| {
        map.get("metadata")?
            .get(key)?
            .as_str()
            .filter(|text| !text.is_empty())
    };
    let Some(name) = text("name") else {
        return Err(not_an_object(
            origin,
            kind,
            format!("This {} has no metadata.name", clip(kind)),
        ));
    };
    let ns = text("namespace").unwrap_or(meta::NAMESPACE_DEFAULT);
    Ok(ObjectRef {
        kind: clip(kind),
        key: ObjectKey::new(clip(ns), clip(name)),
    })
}

/// A document without a part that every object has; `kind` as far as it is known.
fn not_an_object(origin: &str, kind: &str, what: String) -> Finding {
    Finding::new(
        "not-an-object",
        Severity::Error,
        file_ref(origin),
        format!(
            "{what}, so it is not a Kubernetes object and {}",
            no_row(kind)
        ),
        "Give it apiVersion, kind and metadata.name",
    )
}

fn unknown_version(reference: ObjectRef, kind: Kind, version: &str, versions: &[&str]) -> Finding {
    Finding::new(
        "unknown-version",
        Severity::Error,
        reference,
        arcstr::format!(
            "{kind} has no version {}; the object has no effect",
            clip(version)
        ),
        arcstr::format!("Write apiVersion: {}", preferred(kind, versions)),
    )
    .at("apiVersion")
}

/// The apiVersion to write.
fn preferred(kind: Kind, versions: &[&str]) -> Str {
    let (group, known) = (kind.group(), versions.first().copied().unwrap_or("v1"));
    let slash = if group.is_empty() { "" } else { "/" };
    arcstr::format!("{group}{slash}{known}")
}

fn unknown_kind(reference: ObjectRef, group: &str, kind: &str, ours: bool) -> Finding {
    let shown_group = if group.is_empty() {
        arcstr::literal!("the core group")
    } else {
        clip(group)
    };
    if !ours {
        return Finding::new(
            "unknown-kind",
            Severity::Info,
            reference,
            arcstr::format!("{} of {shown_group} is not read by ambientd", clip(kind)),
            "Nothing, unless you expected it to configure the mesh",
        )
        .at("kind");
    }
    let fix = kinds::suggest(group, kind).map_or_else(
        || arcstr::literal!("Check the spelling of kind and apiVersion"),
        |suggestion| arcstr::format!("Did you mean {suggestion}?"),
    );
    Finding::new(
        "unknown-kind",
        Severity::Error,
        reference,
        arcstr::format!(
            "There is no kind {} in {shown_group}; the object has no effect",
            clip(kind)
        ),
        fix,
    )
    .at("kind")
}

fn article(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) | Value::Number(_) | Value::String(_) => "a plain value",
        Value::Array(_) => "a list (use kind: List)",
        Value::Object(_) => "a mapping",
    }
}

/// Text of the user inside a message: one line, bounded.
fn clip(text: &str) -> Str {
    const CHARS_MAX: usize = 253;
    text.chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .into()
}
