//! A world of a guide with everything that its proxies receive, and ways to look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ambientd::render;
use ambientd::target::Target;
use model::object::Input;
use model::{Finding, Object, ObjectKey, ProxyClass, Severity};
use pipeline::{MeshDefaults, Pipeline};
use serde_json::{Map, Value, json};
use snapshot::ResourceType;
use source::Directory;

pub(crate) fn guides() -> Option<PathBuf> {
    let path = std::env::var_os("AMBIENTD_GUIDES").map(PathBuf::from);
    path.or_else(|| {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/testing/guides");
        beside.is_dir().then_some(beside)
    })
}

/// Folders with an `input.yaml`, sorted; `None` and a line on the output without guides.
pub(crate) fn worlds() -> Option<Vec<PathBuf>> {
    let Some(guides) = guides() else {
        let line =
            "no guides beside this checkout and AMBIENTD_GUIDES is not set: nothing was checked\n";
        assert!(std::env::var_os("CI").is_none(), "{line}");
        // Not `println!`, which the harness would swallow.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    };
    let mut worlds: Vec<PathBuf> = std::fs::read_dir(&guides)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    worlds.retain(|path| path.join("input.yaml").is_file());
    worlds.sort();
    assert!(!worlds.is_empty(), "no worlds in {}", guides.display());
    Some(worlds)
}

/// Advice that the README of the guides permits wherever a claim says that there is no finding.
const ADVICE: [&str; 3] = [
    "authz-bypass-direct-pod",
    "dr-no-ca",
    "pa-strict-off-mesh-clients",
];

/// The folder that begins with `number`.
fn folder(number: &str) -> Option<PathBuf> {
    let begins = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.split('-').next() == Some(number)
    };
    let found = worlds()?.into_iter().find(begins);
    Some(found.unwrap_or_else(|| panic!("no guide {number}")))
}

/// The objects of a world, to be edited.
pub(crate) struct Objects(Vec<Value>);

impl Objects {
    fn position(&self, kind: &str, ns: &str, name: &str) -> usize {
        let is = |object: &Value| {
            let meta = &object["metadata"];
            let in_ns = meta["namespace"].as_str().unwrap_or_default() == ns;
            object["kind"] == kind && in_ns && meta["name"] == name
        };
        let at = self.0.iter().position(is);
        at.unwrap_or_else(|| panic!("no {kind} {ns}/{name}"))
    }

    /// One object; cluster-wide ones have the empty namespace.
    pub(crate) fn object(&mut self, kind: &str, ns: &str, name: &str) -> &mut Value {
        let at = self.position(kind, ns, name);
        &mut self.0[at]
    }

    pub(crate) fn label(&mut self, (kind, ns, name): (&str, &str, &str), key: &str, value: &str) {
        self.object(kind, ns, name)["metadata"]["labels"][key] = json!(value);
    }

    pub(crate) fn unlabel(&mut self, (kind, ns, name): (&str, &str, &str), key: &str) {
        let labels = &mut self.object(kind, ns, name)["metadata"]["labels"];
        labels.as_object_mut().unwrap().remove(key).unwrap();
    }

    /// Lets the node capture every pod that may be captured.
    pub(crate) fn capture(&mut self, ns: &str) {
        let pods = self.0.iter_mut().filter(|one| one["kind"] == "Pod");
        for meta in pods.map(|pod| &mut pod["metadata"]) {
            if meta["namespace"] == ns && meta["labels"]["istio.io/dataplane-mode"] != "none" {
                meta["annotations"]["ambient.istio.io/redirection"] = json!("enabled");
            }
        }
    }

    pub(crate) fn remove(&mut self, kind: &str, ns: &str, name: &str) {
        let at = self.position(kind, ns, name);
        self.0.remove(at);
    }

    pub(crate) fn add(&mut self, object: Value) {
        self.0.push(object);
    }
}

/// A world with everything that its proxies receive.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) ztunnel: Value,
    /// Those of gateways between networks too.
    pub(crate) waypoints: BTreeMap<String, Value>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) status: Value,
}

impl World {
    /// Loads as `render` and `analyze` do, with a proxy of every waypoint connected.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        Self::load_with(path, Vec::new())
    }

    fn load_with(path: &Path, more: Vec<Input>) -> anyhow::Result<Self> {
        Self::load_as(path, more, MeshDefaults::default())
    }

    fn load_as(path: &Path, more: Vec<Input>, defaults: MeshDefaults) -> anyhow::Result<Self> {
        let mut inputs = Directory::load(path)?;
        inputs.extend(more);
        let gateways = waypoint_gateways(&inputs);
        let mut between = east_west_gateways(&inputs);
        between.retain(|_| defaults.features.multi_network);
        let classes = gateways.iter().cloned().map(ProxyClass::waypoint);
        let classes = classes.chain(between.iter().cloned().map(ProxyClass::east_west));
        inputs.extend(classes.map(|class| Input::Interest(class, true)));
        let snapshot = Pipeline::new(defaults).apply(inputs).expect("complete");
        let mut waypoints = BTreeMap::new();
        for gateway in gateways {
            let held = render::render(&snapshot, &Target::Waypoint(gateway.clone()), &[])?;
            waypoints.insert(gateway.to_string(), held);
        }
        for gateway in between {
            let held = render::render(&snapshot, &Target::EastWest(gateway.clone()), &[])?;
            waypoints.insert(gateway.to_string(), held);
        }
        Ok(Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            ztunnel: render::render(&snapshot, &Target::Ztunnel, &[])?,
            waypoints,
            findings: snapshot.findings.to_vec(),
            status: render::status(&snapshot),
        })
    }

    /// The world whose folder begins with `number`.
    pub(crate) fn numbered(number: &str) -> Option<Self> {
        Some(Self::load(&folder(number)?).unwrap())
    }

    /// The same with gateways between networks.
    pub(crate) fn with_networks(number: &str) -> Option<Self> {
        let mut defaults = MeshDefaults::default();
        defaults.features.multi_network = true;
        Some(Self::load_as(&folder(number)?, Vec::new(), defaults).unwrap())
    }

    /// The same, with what does not come from files.
    pub(crate) fn numbered_with(number: &str, more: Vec<Input>) -> Option<Self> {
        Some(Self::load_with(&folder(number)?, more).unwrap())
    }

    /// That world after an edit of its objects.
    pub(crate) fn edited(number: &str, edit: impl FnOnce(&mut Objects)) -> Option<Self> {
        let text = std::fs::read_to_string(folder(number)?.join("input.yaml")).unwrap();
        let mut objects = Objects(serde_saphyr::from_multiple(&text).unwrap());
        objects.0.retain(|object| !object.is_null());
        edit(&mut objects);
        let dir = tempfile::tempdir().unwrap();
        let documents: Vec<_> = objects
            .0
            .iter()
            .map(|one| format!("---\n{one}\n"))
            .collect();
        std::fs::write(dir.path().join("input.yaml"), documents.concat()).unwrap();
        let mut world = Self::load(dir.path()).unwrap();
        world.name = format!("{number}, edited");
        Some(world)
    }

    pub(crate) fn of(held: &Value, ty: ResourceType) -> &Map<String, Value> {
        held[ty.type_url()].as_object().unwrap()
    }

    // --- What a ztunnel holds ---

    /// `ns/name` of pods, `kind/ns/name` of others → workload.
    pub(crate) fn workloads(&self) -> BTreeMap<String, &Value> {
        let all = Self::of(&self.ztunnel, ResourceType::Address).iter();
        all.filter(|(_, address)| address["workload"].is_object())
            .map(|(uid, address)| {
                // Gateways of other networks have names of their own.
                let path = uid.strip_prefix("Kubernetes/").unwrap_or(uid);
                let short = path.strip_prefix("/Pod/").unwrap_or(path);
                (
                    short
                        .strip_prefix("networking.istio.io/")
                        .unwrap_or(short)
                        .to_owned(),
                    &address["workload"],
                )
            })
            .collect()
    }

    /// `ns/hostname` → service, in-cluster hosts shortened to `ns/name`.
    pub(crate) fn services(&self) -> BTreeMap<String, &Value> {
        let all = Self::of(&self.ztunnel, ResourceType::Address).iter();
        all.filter(|(_, address)| address["service"].is_object())
            .map(|(name, address)| {
                let (ns, host) = name.split_once('/').unwrap();
                let short = host
                    .strip_suffix(&format!(".{ns}.svc.cluster.local"))
                    .unwrap_or(host);
                (format!("{ns}/{short}"), &address["service"])
            })
            .collect()
    }

    pub(crate) fn workload(&self, name: &str) -> &Value {
        self.workloads()
            .get(name)
            .unwrap_or_else(|| panic!("{}: no workload {name}", self.name))
    }

    /// Workloads that are sent with HBONE.
    pub(crate) fn tunnelled(&self) -> Vec<String> {
        let all = self.workloads().into_iter();
        all.filter(|(_, workload)| workload["tunnelProtocol"] == "HBONE")
            .map(|(name, _)| name)
            .collect()
    }

    /// Names of those that carry a waypoint → `ns/name` of the waypoint's Service.
    pub(crate) fn bound(all: BTreeMap<String, &Value>) -> BTreeMap<String, String> {
        let with = all
            .into_iter()
            .filter(|(_, one)| !one["waypoint"].is_null());
        with.map(|(name, one)| {
            let waypoint = &one["waypoint"];
            assert_eq!(waypoint["hboneMtlsPort"], 15008, "{name}");
            let (ns, host) = (
                waypoint["hostname"]["namespace"].as_str().unwrap(),
                waypoint["hostname"]["hostname"].as_str().unwrap(),
            );
            let short = host
                .strip_suffix(&format!(".{ns}.svc.cluster.local"))
                .unwrap();
            (name, format!("{ns}/{short}"))
        })
        .collect()
    }

    /// Workload → policies that it lists.
    pub(crate) fn listed(&self) -> BTreeMap<String, Vec<String>> {
        let all = self.workloads().into_iter();
        all.filter_map(|(name, workload)| {
            Some((name, workload["authorizationPolicies"].as_array()?))
        })
        .map(|(name, policies)| {
            (
                name,
                policies
                    .iter()
                    .map(|p| p.as_str().unwrap().to_owned())
                    .collect(),
            )
        })
        .collect()
    }

    pub(crate) fn authorizations(&self) -> Value {
        Value::Object(Self::of(&self.ztunnel, ResourceType::Authorization).clone())
    }

    // --- What a waypoint holds ---

    pub(crate) fn names(&self, waypoint: &str, ty: ResourceType) -> Vec<&str> {
        Self::of(&self.waypoints[waypoint], ty)
            .keys()
            .map(String::as_str)
            .collect()
    }

    pub(crate) fn listener(&self, waypoint: &str, name: &str) -> &Value {
        &Self::of(&self.waypoints[waypoint], ResourceType::Listener)[name]
    }

    /// Filter chains of `main_internal` by name.
    pub(crate) fn chains(&self, waypoint: &str) -> BTreeMap<&str, &Value> {
        let chains = self.listener(waypoint, "main_internal")["filterChains"]
            .as_array()
            .unwrap()
            .iter();
        chains
            .map(|chain| (chain["name"].as_str().unwrap(), chain))
            .collect()
    }

    /// Names of chains that belong to Services.
    pub(crate) fn service_chains(&self, waypoint: &str) -> Vec<&str> {
        self.chains(waypoint)
            .into_keys()
            .filter(|name| name.starts_with("inbound-vip|"))
            .collect()
    }

    /// RBAC filters of a chain: action, permissions and principals of each policy.
    pub(crate) fn rbac(&self, waypoint: &str, chain: &str) -> Vec<Value> {
        let filters = http_filters(self.chains(waypoint)[chain]);
        filters
            .filter(|filter| filter["name"] == "envoy.filters.http.rbac")
            .map(|filter| filter["typedConfig"]["rules"].clone())
            .collect()
    }

    /// Routes of a chain in order: match and where to.
    pub(crate) fn routes(&self, waypoint: &str, chain: &str) -> Vec<(Value, Value)> {
        let hcm = &self.chains(waypoint)[chain]["filters"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()["typedConfig"];
        let name = hcm["rds"]["routeConfigName"].as_str().unwrap();
        let all = Self::of(&self.waypoints[waypoint], ResourceType::Route);
        let hosts = all[name]["virtualHosts"].as_array().unwrap();
        assert_eq!(hosts.len(), 1, "{chain}");
        let routes = hosts[0]["routes"].as_array().unwrap().iter();
        routes
            .map(|route| (route_match(&route["match"]), route_target(route)))
            .collect()
    }

    // --- Findings ---

    /// `code kind ns/name` of errors and warnings, without those about kinds and fields
    /// that this version does not read.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let all = self
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Info);
        all.filter(|finding| !matches!(finding.code, "kind-not-supported" | "field-not-applied"))
            .map(|finding| {
                format!(
                    "{} {} {}",
                    finding.code, finding.object.kind, finding.object.key
                )
            })
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// `code Kind ns/name` of everything that is told, but for advice that may be given anywhere.
    pub(crate) fn told(&self) -> Vec<String> {
        let advice = |finding: &Finding| {
            let code = finding.code;
            finding.severity == Severity::Info
                && (ADVICE.contains(&code) || code.starts_with("wp-canary-"))
        };
        let told = self.findings.iter().filter(|finding| !advice(finding));
        told.map(|finding| {
            let object = &finding.object;
            format!("{} {} {}", finding.code, object.kind, object.key)
        })
        .collect()
    }

    /// Codes of the findings on one object.
    pub(crate) fn codes_of(&self, kind: &str, ns: &str, name: &str) -> BTreeSet<&'static str> {
        let key = ObjectKey::new(ns, name);
        let on = |finding: &&Finding| finding.object.kind == kind && finding.object.key == key;
        self.findings
            .iter()
            .filter(on)
            .map(|finding| finding.code)
            .collect()
    }

    /// That there are these findings: code, `kind ns/name`, field (empty for any).
    pub(crate) fn reports(&self, wanted: &[(&str, &str, &str)]) {
        let has = |(code, object, field): &&(&str, &str, &str)| {
            self.findings.iter().any(|finding| {
                finding.code == *code
                    && format!("{} {}", finding.object.kind, finding.object.key) == *object
                    && (field.is_empty() || finding.field == *field)
            })
        };
        let missing: Vec<_> = wanted.iter().filter(|wanted| !has(wanted)).collect();
        assert!(
            missing.is_empty(),
            "{}: {missing:?} not in {:#?}",
            self.name,
            self.findings
        );
    }

    /// `Kind ns/name` → `status/reason` of all conditions of a type.
    pub(crate) fn conditions(&self, ty: &str) -> BTreeMap<String, String> {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
        let mut out = BTreeMap::new();
        for object in self.status.as_array().unwrap() {
            let (kind, ns, name) = (
                text(object, "kind"),
                text(object, "namespace"),
                text(object, "name"),
            );
            for condition in object["conditions"].as_array().into_iter().flatten() {
                if condition["type"] == ty {
                    let outcome = format!(
                        "{}/{}",
                        text(condition, "status"),
                        text(condition, "reason")
                    );
                    out.insert(format!("{kind} {ns}/{name}"), outcome);
                }
            }
        }
        out
    }

    /// The text of one condition.
    pub(crate) fn message(&self, kind: &str, ns: &str, name: &str, ty: &str) -> &str {
        let objects = self.status.as_array().unwrap().iter();
        objects
            .filter(|one| one["kind"] == kind && one["namespace"] == ns && one["name"] == name)
            .flat_map(|one| one["conditions"].as_array().into_iter().flatten())
            .find(|condition| condition["type"] == ty)
            .and_then(|condition| condition["message"].as_str())
            .unwrap_or_else(|| panic!("{}: {kind} {ns}/{name} has no {ty}", self.name))
    }

    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }
}

pub(crate) fn waypoint_gateways(inputs: &[Input]) -> Vec<ObjectKey> {
    gateways_of(inputs, &["istio-waypoint"])
}

fn east_west_gateways(inputs: &[Input]) -> Vec<ObjectKey> {
    gateways_of(inputs, &["istio-east-west", "istio-eastwest"])
}

fn gateways_of(inputs: &[Input], classes: &[&str]) -> Vec<ObjectKey> {
    let objects = inputs.iter().flat_map(|input| match input {
        Input::Resync(_, objects) => objects.as_slice(),
        _ => &[],
    });
    objects
        .filter_map(|object| match object {
            Object::Gateway(row) if classes.contains(&row.ok()?.class.as_str()) => {
                Some(row.meta.key.clone())
            }
            _ => None,
        })
        .collect()
}

pub(crate) fn http_filters(chain: &Value) -> impl Iterator<Item = &Value> {
    let filters = chain["filters"].as_array().unwrap().iter();
    filters.flat_map(|filter| {
        filter["typedConfig"]["httpFilters"]
            .as_array()
            .into_iter()
            .flatten()
    })
}

/// A route match without what every one has.
pub(crate) fn route_match(found: &Value) -> Value {
    let mut found = found.as_object().unwrap().clone();
    found.remove("caseSensitive");
    Value::Object(found)
}

/// A cluster, weights by cluster, or the status of a direct answer.
pub(crate) fn route_target(route: &Value) -> Value {
    let to = &route["route"];
    if let Some(clusters) = to["weightedClusters"]["clusters"].as_array() {
        return clusters
            .iter()
            .map(|one| json!([one["name"], one["weight"]]))
            .collect();
    }
    if to["cluster"].is_string() {
        to["cluster"].clone()
    } else {
        route["directResponse"]["status"].clone()
    }
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

pub(crate) fn vip(port: u16, protocol: &str, ns: &str, name: &str) -> String {
    format!("inbound-vip|{port}|{protocol}|{name}.{ns}.svc.cluster.local")
}
