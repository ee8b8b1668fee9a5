//! The floor of a start: the same bytes, read into types that hold what a mesh reads of them, by
//! the parser alone.

#![allow(
    dead_code,
    reason = "what is read is what it costs, nobody looks at it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

type Labels = BTreeMap<String, String>;

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    labels: Option<Labels>,
    annotations: Option<Labels>,
    creation_timestamp: Option<String>,
    generate_name: Option<String>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
    controller: Option<bool>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Meta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    service_account_name: Option<String>,
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names)]
struct Port {
    name: Option<String>,
    container_port: Option<u16>,
    port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Ip>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Ip {
    ip: String,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Deserialize)]
struct Service {
    metadata: Meta,
    spec: ServiceSpec,
}

#[derive(Deserialize)]
struct ServiceSpec {
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    selector: Option<Labels>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Slice {
    metadata: Meta,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<String>,
    target_ref: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
}

#[derive(Deserialize)]
struct Other {
    metadata: Meta,
    #[serde(default)]
    spec: Value,
}

/// Reads a list of a kind and keeps it. Returns how many objects it has.
pub(crate) fn read(kind: &str, bytes: &[u8], kept: &mut Kept) -> anyhow::Result<usize> {
    match kind {
        "pod" => list::<Pod>(bytes, kept),
        "service" => list::<Service>(bytes, kept),
        "endpointslice" => list::<Slice>(bytes, kept),
        _ => list::<Other>(bytes, kept),
    }
}

/// All that was read: a start keeps it too.
pub(crate) type Kept = Vec<Box<dyn std::any::Any>>;

fn list<T: DeserializeOwned + 'static>(bytes: &[u8], kept: &mut Kept) -> anyhow::Result<usize> {
    let list: List<T> = serde_json::from_slice(bytes)?;
    let count = list.items.len();
    kept.push(Box::new(list.items));
    Ok(count)
}

/// Reads every file of a directory, whose names say the kind. Returns objects and bytes.
pub(crate) fn read_dir(dir: &Path, kept: &mut Kept) -> anyhow::Result<(usize, usize)> {
    let (mut objects, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (kind, _) = name.split_once('-').with_context(|| name.to_string())?;
        let content = fs::read(&path)?;
        bytes += content.len();
        objects += read(kind, &content, kept).with_context(|| name.to_string())?;
    }
    Ok((objects, bytes))
}
