//! Cases as they stand in the tables, and the objects that they need.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::expect::Expect;

/// The namespace of the waypoint and, unless a case says otherwise, of its services.
pub(crate) const HOME: &str = "tables";
/// Services of each of these numbers get an address.
const PER_BLOCK: usize = 200;

/// One case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Ports of the Service; one HTTP port 80 unless said.
    #[serde(default)]
    ports: Option<Vec<Value>>,
    /// Metadata of the Service beside its name.
    #[serde(default)]
    service: Map<String, Value>,
    /// The service has a namespace of its own instead of the waypoint's.
    #[serde(default)]
    own_namespace: bool,
    /// Objects: each a short form or a whole object.
    #[serde(default)]
    given: Vec<Map<String, Value>>,
    /// Requests as they are written.
    #[serde(rename = "requests")]
    written: Vec<Value>,
    /// Requests with the names of the case filled in.
    #[serde(skip)]
    pub(crate) requests: Vec<Call>,
    /// Number of the case, which its service is named for.
    #[serde(skip)]
    number: usize,
}

/// One request, or several alike.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    #[serde(rename = "as", default = "client")]
    pub(crate) caller: String,
    #[serde(default = "get")]
    pub(crate) method: String,
    #[serde(default = "root")]
    pub(crate) path: String,
    /// Host header; the name of the service unless said.
    pub(crate) host: Option<String>,
    /// Headers; a list repeats the header.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Value>,
    /// What the workload should do, see `testkit::echo`.
    pub(crate) echo: Option<String>,
    /// Service port; the first one unless said.
    pub(crate) port: Option<u16>,
    /// A shared service instead of the case's own.
    pub(crate) to: Option<String>,
    #[serde(default = "once")]
    pub(crate) times: usize,
    /// All of them at once instead of one after the other.
    #[serde(default)]
    pub(crate) at_once: bool,
    /// Bytes of the body.
    #[serde(default)]
    pub(crate) body: usize,
    #[serde(default)]
    pub(crate) http2: bool,
    /// A gRPC call of `/Service/Method`.
    pub(crate) grpc: Option<String>,
    /// Bytes instead of HTTP.
    #[serde(default)]
    pub(crate) tcp: bool,
    /// Claims of a token, with `$key` and `$expires_in`.
    pub(crate) token: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) expect: Expect,
}

fn client() -> String {
    "client".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

const fn once() -> usize {
    1
}

/// All cases of all tables, in order of file name.
pub(crate) fn load(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let mut files: Vec<_> = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "yaml"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let area = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file)?;
        let cases: Vec<Value> =
            serde_saphyr::from_str(&text).with_context(|| format!("{}", file.display()))?;
        for value in cases {
            let name = value["name"].to_string();
            let mut case: Case = serde_json::from_value(value)
                .with_context(|| format!("{area}.yaml: case {name}"))?;
            case.name = format!("{area}/{}", case.name);
            case.number = all.len();
            for mut call in std::mem::take(&mut case.written) {
                fill(&mut call, &|text| case.fill(text));
                let read = serde_json::from_value(call);
                case.requests.push(read.with_context(|| case.name.clone())?);
            }
            ensure!(!case.requests.is_empty(), "{} asks nothing", case.name);
            all.push(case);
        }
    }
    let mut names: Vec<_> = all.iter().map(|case| &case.name).collect();
    names.sort();
    names.dedup();
    ensure!(names.len() == all.len(), "a name stands twice");
    Ok(all)
}

impl Case {
    /// Name of its Service.
    pub(crate) fn service(&self) -> String {
        format!("c{}", self.number)
    }

    /// Namespace of its Service.
    pub(crate) fn ns(&self) -> String {
        if self.own_namespace {
            format!("t{}", self.number)
        } else {
            HOME.to_owned()
        }
    }

    /// Whether nothing else is in its namespace.
    pub(crate) fn own_namespace(&self) -> bool {
        self.own_namespace
    }

    /// Host name of its Service.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.service(), self.ns())
    }

    /// Address of its Service.
    pub(crate) fn vip(&self) -> String {
        let (block, at) = (self.number / PER_BLOCK, self.number % PER_BLOCK);
        format!("10.97.{}.{}", block + 1, at + 10)
    }

    /// The port that requests go to.
    pub(crate) fn port(&self) -> u16 {
        let ports = self.ports.as_deref().unwrap_or_default();
        let first = ports.first().and_then(|port| port["port"].as_u64());
        first.map_or(80, |port| u16::try_from(port).unwrap())
    }

    /// Text with the names of this case in it.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("$svc", &self.service())
            .replace("$host", &self.host())
            .replace("$ns", &self.ns())
            .replace("$vip", &self.vip())
    }

    /// Everything that it needs, `extra` filled in too.
    pub(crate) fn objects(&self, extra: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let mut all = vec![self.service_object()];
        if self.own_namespace {
            let labels = json!({ "istio.io/dataplane-mode": "ambient" });
            all.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.ns(), "labels": labels } }));
        }
        for (at, given) in self.given.iter().enumerate() {
            let object = self.object(at, given);
            all.push(object.with_context(|| self.name.clone())?);
        }
        for object in &mut all {
            fill(object, &|text| {
                let mut text = self.fill(text);
                for (from, to) in extra {
                    text = text.replace(from, to);
                }
                text
            });
        }
        Ok(all)
    }

    fn service_object(&self) -> Value {
        let plain = vec![json!({ "name": "http", "port": 80 })];
        let mut ports = self.ports.clone().unwrap_or(plain);
        for port in &mut ports {
            let name = port["name"].as_str().unwrap_or_default();
            let bytes = ["tcp", "mongo", "mysql", "redis", "tls", "https"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if port["targetPort"].is_null() {
                port["targetPort"] = json!(if bytes { 9090 } else { 8080 });
            }
        }
        let mut meta = Value::Object(self.service.clone());
        meta["name"] = json!(self.service());
        meta["namespace"] = json!(self.ns());
        if meta["labels"]["istio.io/use-waypoint"].is_null() {
            meta["labels"]["istio.io/use-waypoint"] = json!("gate");
            meta["labels"]["istio.io/use-waypoint-namespace"] = json!(HOME);
        }
        let spec = json!({
            "clusterIP": self.vip(), "clusterIPs": [self.vip()], "ipFamilies": ["IPv4"],
            "selector": { "app": "echo" }, "ports": ports,
        });
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec })
    }

    /// An object in full.
    fn object(&self, at: usize, given: &Map<String, Value>) -> anyhow::Result<Value> {
        if let Some(whole) = given.get("object") {
            return Ok(whole.clone());
        }
        let mut meta =
            json!({ "name": format!("{}-{at}", self.service()), "namespace": self.ns() });
        let mut short = None;
        for (key, value) in given {
            match key.as_str() {
                "name" | "namespace" | "annotations" | "labels" => meta[key] = value.clone(),
                "created" => {
                    meta["creationTimestamp"] = json!(format!("2024-01-01T00:00:{value:0>2}Z"));
                }
                _ => ensure!(short.replace((key, value)).is_none(), "two objects in one"),
            }
        }
        let (key, value) = short.context("an entry without object")?;
        let (version, kind) = match key.as_str() {
            "route" => ("gateway.networking.k8s.io/v1", "HTTPRoute"),
            "grpc_route" => ("gateway.networking.k8s.io/v1", "GRPCRoute"),
            "tcp_route" => ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
            "tls_route" => ("gateway.networking.k8s.io/v1alpha2", "TLSRoute"),
            "grant" => ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
            "vs" => ("networking.istio.io/v1", "VirtualService"),
            "dr" => ("networking.istio.io/v1", "DestinationRule"),
            "entry" => ("networking.istio.io/v1", "ServiceEntry"),
            "authz" => ("security.istio.io/v1", "AuthorizationPolicy"),
            "jwt" => ("security.istio.io/v1", "RequestAuthentication"),
            other => bail!("no short form {other}"),
        };
        let mut spec = value.clone();
        let own = json!({ "group": "", "kind": "Service", "name": "$svc" });
        match key.as_str() {
            "route" | "grpc_route" | "tcp_route" | "tls_route" => {
                wrap(&mut spec, "rules");
                default(&mut spec, "parentRefs", json!([own]));
            }
            "vs" => {
                wrap(&mut spec, "http");
                default(&mut spec, "hosts", json!(["$svc"]));
            }
            "dr" => default(&mut spec, "host", json!("$svc")),
            "authz" | "jwt" => {
                wrap(&mut spec, if key == "jwt" { "jwtRules" } else { "rules" });
                if spec["selector"].is_null() {
                    default(&mut spec, "targetRefs", json!([own]));
                }
            }
            _ => {}
        }
        Ok(json!({ "apiVersion": version, "kind": kind, "metadata": meta, "spec": spec }))
    }
}

/// A list stands for the field that matters most.
fn wrap(spec: &mut Value, field: &str) {
    if spec.is_array() {
        *spec = json!({ field: spec.take() });
    }
}

fn default(spec: &mut Value, field: &str, value: Value) {
    if spec[field].is_null() {
        spec[field] = value;
    }
    // `hosts: []` of a delegate, say: what is written empty is not written at all.
    if spec[field] == json!("none") {
        spec.as_object_mut().unwrap().remove(field);
    }
}

fn fill(value: &mut Value, with: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) if text.contains('$') => *text = with(text),
        Value::Array(list) => list.iter_mut().for_each(|one| fill(one, with)),
        Value::Object(map) => {
            let old = std::mem::take(map);
            for (key, mut one) in old {
                fill(&mut one, with);
                map.insert(if key.contains('$') { with(&key) } else { key }, one);
            }
        }
        _ => {}
    }
}
