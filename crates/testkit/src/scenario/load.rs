//! Reads a scenario folder; what it does not understand is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use model::derived::Locality;
use model::proxy::IpFamilies;
use model::{ObjectKey, ProxyClass, Str};
use pipeline::MeshDefaults;
use serde_json::{Map, Value};
use snapshot::ResourceType;

use super::{ClientRole, flags};

/// An object that a step deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) kind: String,
    pub(super) ns: String,
    pub(super) name: String,
}

/// A later edit.
#[derive(Clone, Debug)]
pub struct Step {
    pub(super) name: String,
    pub(super) apply: Vec<Value>,
    pub(super) delete: Vec<Deletion>,
}

/// One file under `expect/`.
#[derive(Clone, Debug)]
pub enum Expectation {
    /// `wds.yaml`: every Address resource.
    Addresses(Value),
    /// `authz.yaml`: every Authorization resource.
    Authorizations(Value),
    /// `findings.yaml`: every finding.
    Findings(Value),
    /// `<client>/<type>.yaml`: parts of a client's resources.
    Client {
        /// Client.
        name: String,
        /// Kind of the resources.
        ty: ResourceType,
        /// Resource name → expectation.
        want: Value,
    },
    /// `status.yaml`: every object with a status.
    Statuses(Value),
    /// `pushes.yaml`: what each step sends to whom.
    Pushes(Value),
}

impl Expectation {
    /// The file, for messages.
    pub fn file(&self) -> String {
        match self {
            Self::Addresses(_) => "wds.yaml".to_owned(),
            Self::Authorizations(_) => "authz.yaml".to_owned(),
            Self::Findings(_) => "findings.yaml".to_owned(),
            Self::Client { name, ty, .. } => format!("{name}/{}.yaml", ty.short()),
            Self::Statuses(_) => "status.yaml".to_owned(),
            Self::Pushes(_) => "pushes.yaml".to_owned(),
        }
    }
}

/// A scenario folder.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Settings of the installation.
    pub defaults: MeshDefaults,
    /// Objects of the beginning, one document each.
    pub input: Vec<Value>,
    /// Edits.
    pub steps: Vec<Step>,
    /// Clients by name.
    pub clients: BTreeMap<String, ClientRole>,
    /// Expectations.
    pub expectations: Vec<Expectation>,
}

impl Scenario {
    /// Reads a folder.
    ///
    /// # Errors
    /// Any file that is missing, not YAML, or not one that the form knows.
    pub fn load(dir: &Path) -> Result<Self> {
        let mut scenario = Self {
            defaults: MeshDefaults::default(),
            input: Vec::new(),
            steps: Vec::new(),
            clients: BTreeMap::from([("ztunnel".to_owned(), ClientRole::Ztunnel)]),
            expectations: Vec::new(),
        };
        for path in entries(dir)? {
            match name(&path) {
                "input.yaml" => scenario.input = documents(&path)?,
                "flags.yaml" => scenario.defaults = flags::parse(&one(&path)?)?,
                "clients.yaml" => scenario.clients = clients(&path)?,
                "steps" => {
                    scenario.steps = entries(&path)?
                        .iter()
                        .map(|path| step(path))
                        .collect::<Result<_>>()?;
                }
                "expect" => scenario.expectations = expectations(&path)?,
                other => bail!("{other} is not part of a scenario"),
            }
        }
        ensure!(!scenario.input.is_empty(), "input.yaml is missing or empty");
        ensure!(!scenario.expectations.is_empty(), "expect/ holds nothing");
        let mut roles = scenario.clients.values();
        let mut known = MeshDefaults::default();
        known.features.multi_network = scenario.defaults.features.multi_network;
        ensure!(
            scenario.defaults == known || roles.all(|role| *role == ClientRole::Ztunnel),
            "a scenario with flags.yaml has no waypoint: a live Envoy would be run without the flags"
        );
        Ok(scenario)
    }

    /// What of `flags.yaml` a live Envoy's control plane is run with.
    pub fn flags(&self) -> Vec<String> {
        let words: &[&str] = if self.defaults.features.multi_network {
            &["--multi-network", "true"]
        } else {
            &[]
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The final world as one YAML stream (documents are JSON, which YAML includes).
    pub fn final_world(&self) -> Result<String> {
        let mut world = super::World::new(&self.input);
        for step in &self.steps {
            world.step(step)?;
        }
        let documents: Vec<String> = world
            .documents()
            .map(|one| format!("---\n{one}\n"))
            .collect();
        Ok(documents.concat())
    }
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut out = fs::read_dir(dir)
        .with_context(|| dir.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    out.sort();
    Ok(out)
}

fn documents(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| path.display().to_string())?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

fn one(path: &Path) -> Result<Value> {
    let mut all = documents(path)?;
    ensure!(all.len() == 1, "{} must hold one document", path.display());
    Ok(all.remove(0))
}

fn clients(path: &Path) -> Result<BTreeMap<String, ClientRole>> {
    let value = one(path)?;
    let map = value
        .as_object()
        .context("clients.yaml must be a mapping")?;
    map.iter()
        .map(|(name, role)| {
            if let Some(fields) = role.as_object() {
                return Ok((name.clone(), ClientRole::Classed(Box::new(class(fields)?))));
            }
            let text = role
                .as_str()
                .context("a client must be text or a mapping")?;
            let role = match text.split_once('/') {
                None if text == "ztunnel" => ClientRole::Ztunnel,
                Some(("waypoint", key)) => ClientRole::Waypoint(key.parse::<ObjectKey>()?),
                Some(("gateway", key)) => {
                    let class = ProxyClass::ingress(key.parse::<ObjectKey>()?);
                    ClientRole::Classed(Box::new(class))
                }
                Some(("east-west", key)) => {
                    let class = ProxyClass::east_west(key.parse::<ObjectKey>()?);
                    ClientRole::Classed(Box::new(class))
                }
                _ => bail!(
                    "client {text:?} is none of ztunnel, waypoint/NS/NAME, gateway/NS/NAME, east-west/NS/NAME"
                ),
            };
            Ok((name.clone(), role))
        })
        .collect()
}

/// `{waypoint|gateway: NS/NAME, locality: REGION/ZONE/SUBZONE, form: istio, families: V4|V6|Dual}`, all
/// but the first optional.
fn class(fields: &Map<String, Value>) -> Result<ProxyClass> {
    let mut base = None;
    let (mut locality, mut istio, mut families) = Default::default();
    for (key, value) in fields {
        let text = value.as_str().with_context(|| format!("client: {key}"))?;
        match (key.as_str(), text) {
            ("waypoint", key) => base = Some(ProxyClass::waypoint(key.parse()?)),
            ("gateway", key) => base = Some(ProxyClass::ingress(key.parse()?)),
            ("locality", path) => {
                let mut parts = path.split('/').map(Str::from);
                let mut next = || parts.next().unwrap_or_default();
                locality = Locality {
                    region: next(),
                    zone: next(),
                    subzone: next(),
                };
            }
            ("form", "stock") => istio = false,
            ("form", "istio") => istio = true,
            ("families", "V4") => families = IpFamilies::V4,
            ("families", "V6") => families = IpFamilies::V6,
            ("families", "Dual") => families = IpFamilies::Dual,
            _ => bail!("client: {key}: {text}"),
        }
    }
    Ok(ProxyClass {
        locality,
        istio,
        families,
        ..base.context("client: waypoint or gateway")?
    })
}

fn step(path: &Path) -> Result<Step> {
    let mut out = Step {
        name: name(path).trim_end_matches(".yaml").to_owned(),
        apply: Vec::new(),
        delete: Vec::new(),
    };
    for document in documents(path)? {
        match document.get("delete").and_then(Value::as_array) {
            Some(list) if document.get("kind").is_none() => {
                for one in list {
                    let text = |key: &str| {
                        one.get(key)
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .to_owned()
                    };
                    out.delete.push(Deletion {
                        kind: text("kind"),
                        ns: text("namespace"),
                        name: text("name"),
                    });
                }
            }
            _ => out.apply.push(document),
        }
    }
    Ok(out)
}

fn expectations(dir: &Path) -> Result<Vec<Expectation>> {
    let mut out = Vec::new();
    for path in entries(dir)? {
        match name(&path) {
            "wds.yaml" => out.push(Expectation::Addresses(with_addresses(one(&path)?)?)),
            "authz.yaml" => out.push(Expectation::Authorizations(with_addresses(one(&path)?)?)),
            "findings.yaml" => out.push(Expectation::Findings(one(&path)?)),
            "status.yaml" => out.push(Expectation::Statuses(one(&path)?)),
            "pushes.yaml" => out.push(Expectation::Pushes(one(&path)?)),
            client if path.is_dir() => {
                for file in entries(&path)? {
                    let ty = match name(&file) {
                        "cds.yaml" => ResourceType::Cluster,
                        "eds.yaml" => ResourceType::Endpoint,
                        "lds.yaml" => ResourceType::Listener,
                        "rds.yaml" => ResourceType::Route,
                        other => bail!("expect/{client}/{other} is not part of a scenario"),
                    };
                    let want = one(&file)?;
                    out.push(Expectation::Client {
                        name: client.to_owned(),
                        ty,
                        want,
                    });
                }
            }
            other => bail!("expect/{other} is not part of a scenario"),
        }
    }
    Ok(out)
}

/// Replaces `$ip 10.0.0.1` by what proto-JSON makes of the bytes.
fn with_addresses(value: Value) -> Result<Value> {
    Ok(match value {
        Value::String(text) => match text.strip_prefix("$ip ") {
            Some(ip) => Value::String(base64(&octets(ip)?)),
            None => Value::String(text),
        },
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .map(with_addresses)
                .collect::<Result<_>>()?,
        ),
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(k, v)| Ok((k, with_addresses(v)?)))
                .collect::<Result<_>>()?,
        ),
        other => other,
    })
}

fn octets(text: &str) -> Result<Vec<u8>> {
    Ok(
        match text.trim().parse().with_context(|| format!("$ip {text}"))? {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        },
    )
}

/// Standard base64 with padding, through the message that defines it.
fn base64(bytes: &[u8]) -> String {
    let address = proto::workload::NetworkAddress {
        address: bytes.to_vec().into(),
        ..Default::default()
    };
    let encoded = prost::Message::encode_to_vec(&address);
    proto::json::to_json("istio.workload.NetworkAddress", &encoded)
        .ok()
        .and_then(|json| Some(json.get("address")?.as_str()?.to_owned()))
        .unwrap_or_default()
}
