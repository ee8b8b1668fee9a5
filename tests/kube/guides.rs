//! The worlds of the user guides, as a cluster has them: without what Kubernetes, its nodes or a
//! control plane make by themselves.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

/// Label of everything that is made for a Gateway.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Namespaces that several of the worlds have.
const SHARED: [&str; 2] = ["bookinfo", "shop"];

/// Where the worlds are.
pub(crate) fn guides() -> Option<PathBuf> {
    let path = std::env::var_os("AMBIENTD_GUIDES").map(PathBuf::from);
    path.or_else(|| {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/testing/guides");
        beside.is_dir().then_some(beside)
    })
}

/// Numbers of the worlds with an ingress Gateway, in order.
pub(crate) fn with_ingress(guides: &Path) -> anyhow::Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(guides)? {
        let path = entry?.path();
        let input = std::fs::read_to_string(path.join("input.yaml")).unwrap_or_default();
        let is_ingress = |line: &str| line.trim() == "gatewayClassName: istio";
        if input.lines().any(is_ingress) {
            let name = path.file_name().context("no name")?.to_string_lossy();
            numbers.push(name.split('-').next().unwrap_or_default().to_owned());
        }
    }
    numbers.sort();
    Ok(numbers)
}

/// A world's own namespace in place of one that others have too.
pub(crate) fn own(ns: &str, number: &str) -> String {
    format!("{ns}-{number}")
}

/// The objects of a world, to be applied.
pub(crate) fn objects(guides: &Path, number: &str) -> anyhow::Result<Vec<Value>> {
    let begin = format!("{number}-");
    let folder = std::fs::read_dir(guides)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&begin))
        })
        .with_context(|| format!("no guide {number}"))?;
    let text = std::fs::read_to_string(folder.join("input.yaml"))?;
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let accounts: Vec<String> = objects.iter().filter_map(account_of).collect();
    objects.retain(|object| is_ours(object, &accounts));
    for object in &mut objects {
        prepare(object);
        rename(object, number);
    }
    Ok(objects)
}

/// The account that is made for a Gateway.
fn account_of(gateway: &Value) -> Option<String> {
    let name = gateway["metadata"]["name"].as_str()?;
    match (
        gateway["kind"].as_str()?,
        gateway["spec"]["gatewayClassName"].as_str()?,
    ) {
        ("Gateway", "istio") => Some(format!("{name}-istio")),
        ("Gateway", _) => Some(name.to_owned()),
        _ => None,
    }
}

/// Whether people write it: the rest is made by others.
fn is_ours(object: &Value, accounts: &[String]) -> bool {
    let (kind, meta) = (
        object["kind"].as_str().unwrap_or_default(),
        &object["metadata"],
    );
    let name = meta["name"].as_str().unwrap_or_default();
    match kind {
        // A ConfigMap speaks of providers that are not here.
        "" | "Node" | "EndpointSlice" | "ConfigMap" => false,
        "Namespace" => name != crate::SYSTEM,
        "Service" | "Pod" => meta["labels"][GATEWAY_NAME].is_null(),
        "ServiceAccount" => !accounts.iter().any(|account| account == name) && name != "default",
        _ => true,
    }
}

/// Takes away what the cluster decides, and says what containers are to do.
fn prepare(object: &mut Value) {
    object.as_object_mut().unwrap().remove("status");
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let spec = object["spec"].as_object_mut();
    match (&*kind, spec) {
        ("Service", Some(spec)) => {
            for given in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(given);
            }
        }
        ("Pod", Some(spec)) => {
            spec.remove("nodeName");
            spec.insert("terminationGracePeriodSeconds".to_owned(), json!(1));
            for container in spec["containers"].as_array_mut().into_iter().flatten() {
                run(container);
            }
            // No ztunnel carries their traffic.
            object["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("annotations");
        }
        _ => {}
    }
}

/// An echo that listens where the container says, and as it says.
fn run(container: &mut Value) {
    if container["image"]
        .as_str()
        .is_some_and(|image| image.contains("curl"))
    {
        container["image"] = json!("client");
    }
    let ports = container["ports"].as_array().cloned().unwrap_or_default();
    let of = |wanted: &str| {
        let chosen = ports.iter().filter(|port| {
            let name = port["name"].as_str().unwrap_or_default();
            let kind = if ["tcp", "tls"].contains(&name) {
                name
            } else {
                "http"
            };
            kind == wanted
        });
        let numbers: Vec<String> = chosen
            .map(|port| port["containerPort"].to_string())
            .collect();
        numbers.join(",")
    };
    let mut env = vec![
        json!({"name": "TCP_PORTS", "value": of("tcp")}),
        json!({"name": "TLS_PORTS", "value": of("tls")}),
    ];
    if !of("http").is_empty() {
        env.push(json!({"name": "PORTS", "value": of("http")}));
    }
    container["env"] = json!(env);
}

/// Has worlds that share a namespace live beside each other.
fn rename(object: &mut Value, number: &str) {
    if object["kind"] == "Namespace" {
        let meta = &mut object["metadata"];
        replace(&mut meta["name"], number);
        replace(&mut meta["labels"]["kubernetes.io/metadata.name"], number);
    }
    rename_in(object, number);
}

fn rename_in(value: &mut Value, number: &str) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "namespace" {
                    replace(field, number);
                } else {
                    rename_in(field, number);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_in(item, number)),
        _ => {}
    }
}

fn replace(ns: &mut Value, number: &str) {
    if let Some(name) = ns.as_str().filter(|name| SHARED.contains(name)) {
        *ns = json!(own(name, number));
    }
}
