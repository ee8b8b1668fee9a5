//! The worked examples of the user guides, as one proxy after the other would see them.
//!
//! The worlds live beside the checkout, or where `AMBIENTD_GUIDES` says; a checkout alone
//! does not have them, and then nothing is checked. Expectations are written from the claims
//! that go with each world; a test names the claims that it covers. Claims about requests, about
//! the status of Gateways and routes, and all that rest on kinds this version does not read, are
//! not covered here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

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

fn guides() -> Option<PathBuf> {
    let path = std::env::var_os("AMBIENTD_GUIDES").map(PathBuf::from);
    path.or_else(|| {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/testing/guides");
        beside.is_dir().then_some(beside)
    })
}

/// Folders with an `input.yaml`, sorted; `None` and a line on the output without guides.
fn worlds() -> Option<Vec<PathBuf>> {
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

/// A world with everything that its proxies receive.
struct World {
    name: String,
    ztunnel: Value,
    waypoints: BTreeMap<String, Value>,
    findings: Vec<Finding>,
    status: Value,
}

impl World {
    /// Loads as `render` and `analyze` do, with a proxy of every waypoint connected.
    fn load(path: &Path) -> anyhow::Result<Self> {
        let mut inputs = Directory::load(path)?;
        let gateways = waypoint_gateways(&inputs);
        let classes = gateways.iter().cloned().map(ProxyClass::waypoint);
        inputs.extend(classes.map(|class| Input::Interest(class, true)));
        let snapshot = Pipeline::new(MeshDefaults::default())
            .apply(inputs)
            .expect("complete");
        let mut waypoints = BTreeMap::new();
        for gateway in gateways {
            let held = render::render(&snapshot, &Target::Waypoint(gateway.clone()), &[])?;
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
    fn numbered(number: &str) -> Option<Self> {
        let worlds = worlds()?;
        let path = worlds.iter().find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .split('-')
                .next()
                == Some(number)
        });
        Some(Self::load(path.unwrap_or_else(|| panic!("no guide {number}"))).unwrap())
    }

    fn of(held: &Value, ty: ResourceType) -> &Map<String, Value> {
        held[ty.type_url()].as_object().unwrap()
    }

    // --- What a ztunnel holds ---

    /// `ns/name` of pods, `kind/ns/name` of others → workload.
    fn workloads(&self) -> BTreeMap<String, &Value> {
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
    fn services(&self) -> BTreeMap<String, &Value> {
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

    fn workload(&self, name: &str) -> &Value {
        self.workloads()
            .get(name)
            .unwrap_or_else(|| panic!("{}: no workload {name}", self.name))
    }

    /// Workloads that are sent with HBONE.
    fn tunnelled(&self) -> Vec<String> {
        let all = self.workloads().into_iter();
        all.filter(|(_, workload)| workload["tunnelProtocol"] == "HBONE")
            .map(|(name, _)| name)
            .collect()
    }

    /// Names of those that carry a waypoint → `ns/name` of the waypoint's Service.
    fn bound(all: BTreeMap<String, &Value>) -> BTreeMap<String, String> {
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
    fn listed(&self) -> BTreeMap<String, Vec<String>> {
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

    fn authorizations(&self) -> Value {
        Value::Object(Self::of(&self.ztunnel, ResourceType::Authorization).clone())
    }

    // --- What a waypoint holds ---

    fn names(&self, waypoint: &str, ty: ResourceType) -> Vec<&str> {
        Self::of(&self.waypoints[waypoint], ty)
            .keys()
            .map(String::as_str)
            .collect()
    }

    fn listener(&self, waypoint: &str, name: &str) -> &Value {
        &Self::of(&self.waypoints[waypoint], ResourceType::Listener)[name]
    }

    /// Filter chains of `main_internal` by name.
    fn chains(&self, waypoint: &str) -> BTreeMap<&str, &Value> {
        let chains = self.listener(waypoint, "main_internal")["filterChains"]
            .as_array()
            .unwrap()
            .iter();
        chains
            .map(|chain| (chain["name"].as_str().unwrap(), chain))
            .collect()
    }

    /// Names of chains that belong to Services.
    fn service_chains(&self, waypoint: &str) -> Vec<&str> {
        self.chains(waypoint)
            .into_keys()
            .filter(|name| name.starts_with("inbound-vip|"))
            .collect()
    }

    /// RBAC filters of a chain: action, permissions and principals of each policy.
    fn rbac(&self, waypoint: &str, chain: &str) -> Vec<Value> {
        let filters = http_filters(self.chains(waypoint)[chain]);
        filters
            .filter(|filter| filter["name"] == "envoy.filters.http.rbac")
            .map(|filter| filter["typedConfig"]["rules"].clone())
            .collect()
    }

    /// Routes of a chain in order: match and where to.
    fn routes(&self, waypoint: &str, chain: &str) -> Vec<(Value, Value)> {
        let hcm = &self.chains(waypoint)[chain]["filters"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()["typedConfig"];
        let hosts = hcm["routeConfig"]["virtualHosts"].as_array().unwrap();
        assert_eq!(hosts.len(), 1, "{chain}");
        let routes = hosts[0]["routes"].as_array().unwrap().iter();
        routes
            .map(|route| (route_match(&route["match"]), route_target(route)))
            .collect()
    }

    // --- Findings ---

    /// `code kind ns/name` of errors and warnings, without those about kinds and fields
    /// that this version does not read.
    fn complaints(&self) -> Vec<String> {
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

    /// That there are these findings: code, `kind ns/name`, field (empty for any).
    fn reports(&self, wanted: &[(&str, &str, &str)]) {
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
    fn conditions(&self, ty: &str) -> BTreeMap<String, String> {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
        let mut out = BTreeMap::new();
        for object in self.status.as_array().unwrap() {
            let (kind, ns, name) = (
                text(object, "kind"),
                text(object, "namespace"),
                text(object, "name"),
            );
            for condition in object["conditions"].as_array().unwrap() {
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
    fn message(&self, kind: &str, ns: &str, name: &str, ty: &str) -> &str {
        let objects = self.status.as_array().unwrap().iter();
        objects
            .filter(|one| one["kind"] == kind && one["namespace"] == ns && one["name"] == name)
            .flat_map(|one| one["conditions"].as_array().unwrap())
            .find(|condition| condition["type"] == ty)
            .and_then(|condition| condition["message"].as_str())
            .unwrap_or_else(|| panic!("{}: {kind} {ns}/{name} has no {ty}", self.name))
    }

    fn has_code(&self, code: &str) -> bool {
        self.findings.iter().any(|finding| finding.code == code)
    }
}

fn waypoint_gateways(inputs: &[Input]) -> Vec<ObjectKey> {
    let objects = inputs.iter().flat_map(|input| match input {
        Input::Resync(_, objects) => objects.as_slice(),
        _ => &[],
    });
    objects
        .filter_map(|object| match object {
            Object::Gateway(row) if row.ok()?.class == "istio-waypoint" => {
                Some(row.meta.key.clone())
            }
            _ => None,
        })
        .collect()
}

fn http_filters(chain: &Value) -> impl Iterator<Item = &Value> {
    let filters = chain["filters"].as_array().unwrap().iter();
    filters.flat_map(|filter| {
        filter["typedConfig"]["httpFilters"]
            .as_array()
            .into_iter()
            .flatten()
    })
}

/// A route match without what every one has.
fn route_match(found: &Value) -> Value {
    let mut found = found.as_object().unwrap().clone();
    found.remove("caseSensitive");
    Value::Object(found)
}

/// A cluster, weights by cluster, or the status of a direct answer.
fn route_target(route: &Value) -> Value {
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

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn vip(port: u16, protocol: &str, ns: &str, name: &str) -> String {
    format!("inbound-vip|{port}|{protocol}|{name}.{ns}.svc.cluster.local")
}

// === Every world ===

/// Strings below any `key`, at any depth.
fn values_of<'v>(value: &'v Value, key: &str, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|value| values_of(value, key, out));
        }
        Value::Array(items) => items.iter().for_each(|item| values_of(item, key, out)),
        _ => {}
    }
}

/// What is wrong with what a waypoint receives, given the hosts that have an address.
fn defects(held: &Value, addressed: &BTreeSet<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let clusters = World::of(held, ResourceType::Cluster);
    let endpoints = World::of(held, ResourceType::Endpoint);
    let eds: BTreeSet<&str> = clusters
        .values()
        .filter(|cluster| cluster["type"] == "EDS")
        .map(|cluster| {
            cluster["edsClusterConfig"]["serviceName"]
                .as_str()
                .or(cluster["name"].as_str())
                .unwrap()
        })
        .collect();
    let assigned: BTreeSet<&str> = endpoints.keys().map(String::as_str).collect();
    if eds != assigned {
        wrong.push(format!("EDS clusters {eds:?} but assignments {assigned:?}"));
    }
    let listeners = World::of(held, ResourceType::Listener);
    let main = &listeners["main_internal"];
    for listener in listeners.values() {
        let mut named = Vec::new();
        values_of(listener, "cluster", &mut named);
        let mut weighted = Vec::new();
        weighted_clusters(listener, &mut weighted);
        for name in named.into_iter().chain(weighted) {
            if name != "UnknownService" && !clusters.contains_key(name) {
                wrong.push(format!(
                    "{} leads to cluster {name}, which is missing",
                    listener["name"]
                ));
            }
        }
    }
    let chains = main["filterChains"].as_array().into_iter().flatten();
    let chains: BTreeSet<&str> = chains.filter_map(|chain| chain["name"].as_str()).collect();
    let mut actions = Vec::new();
    values_of(&main["filterChainMatcher"], "value", &mut actions);
    let actions: BTreeSet<&str> = actions.into_iter().collect();
    wrong.extend(
        actions
            .difference(&chains)
            .map(|name| format!("the matcher names chain {name}, which is missing")),
    );
    // Direct chains are always there; a Service without an address has nothing to match on.
    let unreached = chains.difference(&actions).filter(|name| {
        name.rsplit('|')
            .next()
            .is_some_and(|host| addressed.contains(host))
    });
    wrong.extend(unreached.map(|name| format!("nothing leads to chain {name}")));
    let mut types = Vec::new();
    for ty in [ResourceType::Cluster, ResourceType::Listener] {
        for resource in World::of(held, ty).values() {
            values_of(resource, "@type", &mut types);
        }
    }
    let ours = types.iter().filter(|ty| ty.contains("/istio."));
    wrong.extend(ours.map(|ty| format!("{ty} is no type of stock Envoy")));
    wrong
}

fn weighted_clusters<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            let clusters = map
                .get("weightedClusters")
                .and_then(|w| w["clusters"].as_array());
            out.extend(
                clusters
                    .into_iter()
                    .flatten()
                    .filter_map(|one| one["name"].as_str()),
            );
            map.values().for_each(|value| weighted_clusters(value, out));
        }
        Value::Array(items) => items.iter().for_each(|item| weighted_clusters(item, out)),
        _ => {}
    }
}

#[test]
fn every_proxy_of_every_world_gets_configuration_that_holds_together() {
    let Some(worlds) = worlds() else { return };
    let mut wrong = Vec::new();
    let mut waypoints_count = 0;
    for path in &worlds {
        let world = match World::load(path) {
            Ok(world) => world,
            Err(error) => {
                wrong.push(format!("{}: {error:#}", path.display()));
                continue;
            }
        };
        if world.workloads().is_empty() || world.services().is_empty() {
            wrong.push(format!("{}: ztunnel gets nothing", world.name));
        }
        let services = world.services();
        let addressed = services
            .values()
            .filter(|service| !service["addresses"].is_null());
        let addressed = addressed
            .filter_map(|service| service["hostname"].as_str())
            .collect();
        for (gateway, held) in &world.waypoints {
            waypoints_count += 1;
            let defects = defects(held, &addressed).into_iter();
            wrong.extend(defects.map(|defect| format!("{} {gateway}: {defect}", world.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        waypoints_count >= worlds.len() / 2,
        "only {waypoints_count} waypoints"
    );
}

/// Claims "finding: none", and what "none" must leave of worlds that rest on nothing unread.
#[test]
fn correct_worlds_have_no_complaint() {
    for number in ["01", "02", "03", "04", "05", "09", "12", "20", "29", "38"] {
        let Some(world) = World::numbered(number) else {
            return;
        };
        assert_eq!(world.complaints(), [""; 0], "{}", world.name);
    }
}

// === Capture and binding ===

#[test]
fn guide_01_enrolment_claims_1_to_4() {
    let Some(world) = World::numbered("01") else {
        return;
    };
    assert_eq!(
        world.tunnelled(),
        strings(&["shop/orders-v1", "shop/orders-v2", "shop/probe", "shop/web"])
    );
    let plain = ["legacy/catalog", "legacy/old-client", "shop/late-joiner"];
    for name in plain {
        assert!(world.workload(name).is_object());
    }
    assert_eq!(World::bound(world.services()), pairs(&[]));
    assert_eq!(World::bound(world.workloads()), pairs(&[]));
    assert_eq!(
        world.services()["shop/orders"]["ports"],
        json!([{ "servicePort": 80, "targetPort": 8080, "appProtocol": "HTTP11" }])
    );
    for (name, account) in [
        ("shop/orders-v1", "orders"),
        ("shop/orders-v2", "orders"),
        ("shop/web", "web"),
    ] {
        let workload = world.workload(name);
        assert_eq!(
            (&workload["serviceAccount"], &workload["trustDomain"]),
            (&json!(account), &Value::Null)
        );
        let member = &workload["services"]["shop/orders.shop.svc.cluster.local"];
        assert_eq!(member.is_object(), account == "orders", "{name}");
    }
}

#[test]
fn guide_02_opting_out_claims_1_to_3() {
    let Some(world) = World::numbered("02") else {
        return;
    };
    let tunnelled = world.tunnelled();
    assert!(!tunnelled.contains(&"shop/raw-job".to_owned()));
    for name in [
        "shop/orders-v1",
        "shop/orders-v2",
        "shop/web",
        "shop/probe",
        "tools/metrics",
    ] {
        assert!(tunnelled.contains(&name.to_owned()), "{name}");
    }
    let ports =
        &world.workload("shop/raw-job")["services"]["shop/raw-job.shop.svc.cluster.local"]["ports"];
    assert_eq!(ports[0]["servicePort"], 7000);
}

#[test]
fn guide_03_namespace_waypoint_claims_1_to_4() {
    let Some(world) = World::numbered("03") else {
        return;
    };
    let services = [
        "productpage",
        "ratings",
        "reviews-v1",
        "reviews-v2",
        "reviews",
    ];
    let waypoint = "bookinfo/bookinfo-waypoint";
    let want = services.map(|name| (format!("bookinfo/{name}"), waypoint.to_owned()));
    assert_eq!(World::bound(world.services()), want.into_iter().collect());
    assert_eq!(World::bound(world.workloads()), pairs(&[]));
    assert!(!world.tunnelled().contains(&waypoint.to_owned()));
    assert_eq!(
        world.names(waypoint, ResourceType::Listener),
        ["connect_originate", "connect_terminate", "main_internal"]
    );
    let chains = services.map(|name| vip(9080, "http", "bookinfo", name));
    assert_eq!(world.service_chains(waypoint), chains);
    let clusters = world.names(waypoint, ResourceType::Cluster);
    assert!(chains.iter().all(|name| clusters.contains(&name.as_str())));
    assert!(
        !clusters.iter().any(|name| name.starts_with("outbound|")),
        "{clusters:?}"
    );
}

#[test]
fn guide_04_service_waypoint_claims_1_and_2() {
    let Some(world) = World::numbered("04") else {
        return;
    };
    let waypoint = "bookinfo/reviews-waypoint";
    assert_eq!(
        World::bound(world.services()),
        pairs(&[("bookinfo/reviews", waypoint)])
    );
    assert_eq!(
        world.service_chains(waypoint),
        [vip(9080, "http", "bookinfo", "reviews")]
    );
}

#[test]
fn guide_05_precedence_claims_1_to_3_and_6() {
    let Some(world) = World::numbered("05") else {
        return;
    };
    let all = "bookinfo/bookinfo-waypoint";
    let services = [
        ("bookinfo/productpage", all),
        ("bookinfo/ratings", all),
        ("bookinfo/reviews", "bookinfo/reviews-waypoint"),
        ("tenant/api", "shared/shared-waypoint"),
    ];
    assert_eq!(World::bound(world.services()), pairs(&services));
    let pods = [
        ("bookinfo/client", all),
        ("bookinfo/details", all),
        ("bookinfo/productpage", all),
        ("bookinfo/ratings", "bookinfo/pods-waypoint"),
        ("bookinfo/reviews", all),
    ];
    assert_eq!(World::bound(world.workloads()), pairs(&pods));
}

#[test]
fn guide_06_label_values_claims_1_to_4_and_6() {
    let Some(world) = World::numbered("06") else {
        return;
    };
    let services = [
        ("demo/named", "demo/waypoint"),
        ("demo/two-labels", "infra/edge"),
    ];
    assert_eq!(World::bound(world.services()), pairs(&services));
    let field = "metadata.labels[istio.io/use-waypoint]";
    world.reports(&[
        ("wp-label-qualified", "Service demo/dotted", field),
        ("wp-label-qualified", "Service demo/slashed", field),
    ]);
    assert_eq!(
        world.complaints(),
        [
            "wp-label-qualified Service demo/dotted",
            "wp-label-qualified Service demo/slashed"
        ]
    );
    assert!(!world.has_code("wp-missing"));
}

#[test]
fn guide_07_broken_bindings_claims_1_to_7() {
    let Some(world) = World::numbered("07") else {
        return;
    };
    world.reports(&[
        ("wp-missing", "Service bookinfo/reviews", ""),
        ("wp-not-ready", "Gateway bookinfo/starting-waypoint", ""),
        ("wp-not-ready", "Service bookinfo/details", ""),
        ("wp-for-mismatch", "Service bookinfo/ratings", ""),
        ("wp-for-mismatch", "Service bookinfo/productpage", ""),
        ("wp-for-mismatch", "Pod bookinfo/details", ""),
        ("wp-unused", "Gateway bookinfo/reviews-waypoint", ""),
        ("wp-unused", "Gateway bookinfo/pods-waypoint", ""),
        ("wp-unused", "Gateway bookinfo/idle-waypoint", ""),
        ("wp-unused", "Gateway bookinfo/private-waypoint", ""),
    ]);
    let denied = world
        .findings
        .iter()
        .filter(|finding| finding.code == "wp-attachment-denied");
    let denied: Vec<_> = denied
        .map(|finding| finding.object.key.to_string())
        .collect();
    assert!(
        denied == ["guest"] || denied == ["guest/cart"],
        "{denied:?}"
    );
    assert_eq!(World::bound(world.services()), pairs(&[]));
    assert_eq!(World::bound(world.workloads()), pairs(&[]));
}

#[test]
fn guide_19_ingress_use_waypoint_claim_5() {
    let Some(world) = World::numbered("19") else {
        return;
    };
    assert_eq!(
        world.services()["bookinfo/ratings"]["ingressUseWaypoint"],
        true
    );
    assert_eq!(
        world.services()["bookinfo/reviews"]["ingressUseWaypoint"],
        Value::Null
    );
}

#[test]
fn guide_27_external_services_claim_1_and_policies_of_2_and_6() {
    let Some(world) = World::numbered("27") else {
        return;
    };
    let services = world.services();
    let hosts = [
        "bookinfo/api.external.example.com",
        "bookinfo/partner.external.example.com",
        "unbound/loose.external.example.com",
    ];
    assert!(
        hosts.iter().all(|host| services.contains_key(*host)),
        "{services:?}"
    );
    let bound = World::bound(services);
    let waypoints: Vec<_> = hosts
        .iter()
        .map(|host| bound.get(*host).map(String::as_str))
        .collect();
    assert_eq!(
        waypoints,
        [
            Some("bookinfo/egress-waypoint"),
            Some("bookinfo/egress-waypoint"),
            None
        ]
    );
    let partner = world.rbac(
        "bookinfo/egress-waypoint",
        "inbound-vip|80|http|partner.external.example.com",
    );
    assert_eq!(partner.len(), 1);
    assert!(
        partner[0]["policies"]
            .to_string()
            .contains(r#"{"exact":"GET"}"#),
        "{partner:?}"
    );
    world.reports(&[(
        "authz-se-by-hostname",
        "AuthorizationPolicy bookinfo/by-hostname",
        "",
    )]);
}

#[test]
fn guide_33_machines_claims_1_2_and_6() {
    let Some(world) = World::numbered("33") else {
        return;
    };
    let vm = world.workload("WorkloadEntry/billing/legacy-billing-vm");
    assert_eq!(vm["addresses"], json!(["ChQeKA=="]), "10.20.30.40");
    assert_eq!(vm["serviceAccount"], "billing-sa");
    assert_eq!(
        (&vm["tunnelProtocol"], &vm["status"]),
        (&Value::Null, &Value::Null),
        "NONE, HEALTHY"
    );
    assert_eq!(
        (&vm["canonicalName"], &vm["canonicalRevision"]),
        (&json!("billing"), &json!("v1"))
    );
    let target = |workload: &Value, name: &str| {
        workload["services"][format!("billing/{name}.billing.svc.cluster.local")]["ports"][0]
            .clone()
    };
    assert_eq!(
        target(vm, "billing"),
        json!({ "servicePort": 80, "targetPort": 8080 })
    );
    assert_eq!(
        target(world.workload("billing/billing-pod"), "billing"),
        json!({ "servicePort": 80, "targetPort": 9090 })
    );
    assert_eq!(target(vm, "billing-named"), Value::Null);
    let meshed = world.workload("WorkloadEntry/billing/meshed-vm");
    assert_eq!(
        (&meshed["tunnelProtocol"], &meshed["nativeTunnel"]),
        (&json!("HBONE"), &json!(true))
    );
    assert_eq!(target(meshed, "reports")["targetPort"], 8080);
}

#[test]
fn guide_38_workload_waypoint_claims_1_2_7_and_9() {
    let Some(world) = World::numbered("38") else {
        return;
    };
    let pods = [
        ("payments/fraud-score-0", "payments/pods-wp"),
        ("payments/fraud-score-1", "payments/pods-wp"),
    ];
    assert_eq!(World::bound(world.workloads()), pairs(&pods));
    let services = world.services();
    for name in ["payments/fraud-score", "payments/fraud-audit"] {
        assert_eq!(
            (&services[name]["addresses"], &services[name]["waypoint"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert_eq!(
        World::bound(services).get("payments/fraud-score-vip"),
        Some(&"payments/waypoint".to_owned())
    );
    world.reports(&[("wp-headless", "Service payments/fraud-headless-bound", "")]);
    assert!(!world.has_code("wp-for-mismatch"));
    assert_eq!(world.service_chains("payments/pods-wp"), [""; 0]);
    let chains: Vec<_> = world.chains("payments/pods-wp").into_keys().collect();
    assert_eq!(chains, ["direct-http", "direct-tcp"]);
    let matcher =
        world.listener("payments/pods-wp", "main_internal")["filterChainMatcher"].to_string();
    let uncaptured = world.workload("payments/fraud-audit-0");
    assert!(uncaptured.is_object() && matcher.contains("direct-http"));
}

#[test]
fn guide_39_home_cluster_claims_1_and_5() {
    let Some(world) = World::numbered("39") else {
        return;
    };
    let tunnelled = world.tunnelled();
    for ns in ["example-api", "example-worker", "example-admin"] {
        assert!(
            tunnelled
                .iter()
                .any(|name| name.starts_with(&format!("{ns}/"))),
            "{ns}"
        );
    }
    let bound = World::bound(world.services());
    assert_eq!(
        bound,
        pairs(&[(
            "example-api/example-api",
            "example-api/example-api-waypoint"
        )])
    );
    assert!(
        world
            .services()
            .contains_key("example-api/api.vendor.example")
    );
}

#[test]
fn guide_40_not_enrolled_claims_2_and_3() {
    let Some(world) = World::numbered("40") else {
        return;
    };
    world.reports(&[
        ("wp-namespace-not-ambient", "Service bookinfo/reviews", ""),
        ("wp-server-not-ambient", "Service bookinfo/reviews", ""),
    ]);
    assert_eq!(world.tunnelled(), [""; 0]);
    assert_eq!(
        World::bound(world.services()),
        pairs(&[("bookinfo/reviews", "bookinfo/reviews-waypoint")])
    );
    let strict = "istio-system/istio_converted_static_strict".to_owned();
    let listed = world.listed();
    for name in ["bookinfo/productpage", "bookinfo/reviews-v1"] {
        assert!(
            listed
                .get(name)
                .is_some_and(|policies| policies.contains(&strict)),
            "{name}: {listed:?}"
        );
    }
}

// === Policies ===

fn strict() -> Value {
    json!({
        "name": "istio_converted_static_strict",
        "namespace": "istio-system",
        "scope": "WORKLOAD_SELECTOR",
        "action": "DENY",
        "groups": [{ "rules": [{ "matches": [{ "notPrincipals": [{ "presence": {} }] }] }] }],
    })
}

#[test]
fn guide_08_peer_authentication_claims_7_8_and_10() {
    let Some(world) = World::numbered("08") else {
        return;
    };
    let converted = "converted_peer_authentication_ratings-health-open";
    let without = |port: u16| json!({ "matches": [{ "notDestinationPorts": [port] }] });
    let want = json!({
        "istio-system/istio_converted_static_strict": strict(),
        format!("bookinfo/{converted}"): {
            "name": converted,
            "namespace": "bookinfo",
            "scope": "WORKLOAD_SELECTOR",
            "action": "DENY",
            "groups": [{ "rules": [
                { "matches": [{ "notPrincipals": [{ "presence": {} }] }] },
                without(81),
                without(8081),
            ] }],
        },
    });
    assert_eq!(world.authorizations(), want);
    let listed = world.listed();
    let of = |name: &str| listed.get(name).map(Vec::as_slice).unwrap_or_default();
    for name in ["bookinfo/reviews", "inherit/web"] {
        assert_eq!(
            of(name),
            ["istio-system/istio_converted_static_strict"],
            "{name}"
        );
    }
    assert_eq!(of("bookinfo/ratings"), [format!("bookinfo/{converted}")]);
    for name in ["open/web", "disabled/web"] {
        assert_eq!(of(name), [""; 0], "{name}");
    }
    world.reports(&[
        (
            "pa-disable-ambient",
            "PeerAuthentication disabled/default",
            "",
        ),
        (
            "pa-root-selector",
            "PeerAuthentication istio-system/wrong-place",
            "",
        ),
    ]);
}

#[test]
fn guide_09_zero_trust_claim_1() {
    let Some(world) = World::numbered("09") else {
        return;
    };
    let want = json!({
        "istio-system/istio_converted_static_strict": strict(),
        "shop/deny-all": { "name": "deny-all", "namespace": "shop", "scope": "NAMESPACE" },
        "shop/orders-allow-web": {
            "name": "orders-allow-web",
            "namespace": "shop",
            "scope": "WORKLOAD_SELECTOR",
            "groups": [{ "rules": [{ "matches": [{ "principals": [{ "exact": "cluster.local/ns/shop/sa/web" }] }] }] }],
        },
    });
    assert_eq!(
        world.authorizations(),
        want,
        "scope GLOBAL and action ALLOW are the defaults"
    );
    for (name, policies) in world.listed() {
        let allow = policies.contains(&"shop/orders-allow-web".to_owned());
        assert_eq!(allow, name.starts_with("shop/orders-v"), "{name}");
        assert!(
            policies.contains(&"istio-system/istio_converted_static_strict".to_owned()),
            "{name}"
        );
    }
    assert_eq!(world.listed().len(), world.workloads().len());
}

#[test]
fn guide_10_deny_all_meets_a_waypoint_claim_7() {
    let Some(world) = World::numbered("10") else {
        return;
    };
    let rules = world.rbac("shop/waypoint", &vip(80, "http", "shop", "stock"));
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0]["action"], Value::Null, "ALLOW is the default");
    let policies = rules[0]["policies"].as_object().unwrap();
    assert_eq!(policies.len(), 1);
    let policy = policies.values().next().unwrap();
    assert!(
        policy["principals"]
            .to_string()
            .contains("spiffe://cluster.local/ns/shop/sa/web"),
        "{policy}"
    );
    assert_eq!(
        world.rbac("shop/waypoint", &vip(80, "http", "shop", "orders")),
        [Value::Null; 0]
    );
}

#[test]
fn guide_11_principals_claims_5_6_8_9_and_10() {
    let Some(world) = World::numbered("11") else {
        return;
    };
    let shapes = [
        "ratings-scheme",
        "ratings-service-name",
        "ratings-short",
        "ratings-star-inside",
    ];
    let allow = strings(&["bookinfo/reviews-allow-productpage"]);
    let want = [
        (
            "bookinfo/ratings".to_owned(),
            shapes.map(|name| format!("bookinfo/{name}")).to_vec(),
        ),
        ("bookinfo/reviews-v1".to_owned(), allow.clone()),
        ("bookinfo/reviews-v2".to_owned(), allow),
    ];
    assert_eq!(world.listed(), want.into_iter().collect());
    world.reports(&[
        (
            "authz-principal-shape",
            "AuthorizationPolicy bookinfo/ratings-short",
            "",
        ),
        (
            "authz-principal-scheme",
            "AuthorizationPolicy bookinfo/ratings-scheme",
            "",
        ),
        (
            "authz-principal-wildcard-middle",
            "AuthorizationPolicy bookinfo/ratings-star-inside",
            "",
        ),
    ]);
    assert!(
        !world
            .findings
            .iter()
            .any(|finding| finding.object.key.name == "reviews-allow-productpage")
    );
}

#[test]
fn guide_12_policy_on_the_waypoint_claims_7_8_and_10() {
    let Some(world) = World::numbered("12") else {
        return;
    };
    let waypoint = "bookinfo/reviews-waypoint";
    let any = |key: &str, one: Value| json!({ key: { "rules": [one] } });
    let permission = json!({ "andRules": { "rules": [
        any("orRules", json!({ "header": { "name": ":method", "stringMatch": { "exact": "GET" } } })),
        any("orRules", json!({ "urlPath": { "path": { "prefix": "/reviews/" } } })),
    ] } });
    for name in ["ratings", "reviews"] {
        let chain = vip(9080, "http", "bookinfo", name);
        let rules = world.rbac(waypoint, &chain);
        assert_eq!(rules.len(), 1, "{chain}");
        assert_eq!(rules[0]["action"], Value::Null, "ALLOW is the default");
        let policies = rules[0]["policies"].as_object().unwrap();
        let permissions: Vec<_> = policies
            .values()
            .map(|policy| &policy["permissions"])
            .collect();
        assert_eq!(permissions, [&json!([permission])], "{chain}");
    }
    let terminate = world.listener(waypoint, "connect_terminate").to_string();
    assert!(!terminate.contains("rbac"), "{terminate}");
    assert_eq!(world.authorizations(), json!({}));
    assert_eq!(world.listed(), BTreeMap::new());
    world.reports(&[(
        "authz-bypass-direct-pod",
        "AuthorizationPolicy bookinfo/reviews-read-only",
        "",
    )]);
}

#[test]
fn guide_13_policy_on_a_service_claims_6_8_and_9() {
    let Some(world) = World::numbered("13") else {
        return;
    };
    let mut enforced = BTreeMap::new();
    for waypoint in world.waypoints.keys() {
        for chain in world.service_chains(waypoint) {
            for rules in world.rbac(waypoint, chain) {
                let policies = rules["policies"].as_object().map_or(0, Map::len);
                enforced.insert(chain.to_owned(), (rules["action"].clone(), policies));
            }
        }
    }
    let viewer = vip(9080, "http", "default", "productpage");
    let orders = vip(80, "http", "shop", "orders");
    assert_eq!(enforced.keys().collect::<Vec<_>>(), [&orders, &viewer]);
    assert_eq!(enforced[&orders], (Value::Null, 1));
    assert_eq!(
        enforced[&viewer].0,
        Value::Null,
        "an ALLOW that matches nothing"
    );
    world.reports(&[
        ("authz-target-missing", "AuthorizationPolicy shop/typo", ""),
        (
            "authz-target-other-namespace",
            "AuthorizationPolicy shop/elsewhere",
            "",
        ),
        (
            "authz-service-without-waypoint",
            "AuthorizationPolicy other/no-waypoint",
            "",
        ),
    ]);
}

#[test]
fn guide_14_l7_by_selector_claims_1_2_4_6_and_9() {
    let Some(world) = World::numbered("14") else {
        return;
    };
    let all = world.authorizations();
    let rules = |name: &str| all[format!("bookinfo/{name}")]["groups"].clone();
    assert_eq!(
        all["bookinfo/ratings-get-only"]["action"],
        Value::Null,
        "ALLOW is the default"
    );
    assert_eq!(
        rules("ratings-get-only"),
        Value::Null,
        "the rule is dropped whole: nobody is allowed"
    );
    assert_eq!(
        rules("productpage-no-admin-port"),
        json!([{ "rules": [{ "matches": [{ "destinationPorts": [9080] }] }] }])
    );
    let of = |name: &str| format!("AuthorizationPolicy bookinfo/{name}");
    world.reports(&[
        (
            "authz-l7-ztunnel-allow",
            &of("ratings-get-only"),
            "spec.rules[0].to[0].operation.methods",
        ),
        ("authz-l7-ztunnel-deny-noop", &of("details-no-delete"), ""),
        (
            "authz-l7-ztunnel-deny-wide",
            &of("productpage-no-admin-port"),
            "spec.rules[0].to[0].operation.paths",
        ),
        ("authz-no-ref-waypoint", &of("on-the-waypoint-pods"), ""),
    ]);
    for held in world.waypoints.values() {
        assert!(!held.to_string().contains("jwt_authn"));
    }
}

/// Claim 6 is what holds as long as no provider can be asked.
#[test]
fn guide_15_order_claims_2_and_6() {
    let Some(world) = World::numbered("15") else {
        return;
    };
    let rules = world.rbac("shop/waypoint", &vip(80, "http", "shop", "orders"));
    let steps: Vec<_> = rules
        .iter()
        .map(|rules| (rules["action"].as_str(), rules["policies"].to_string()))
        .collect();
    let wanted = [
        (Some("DENY"), "policy[orders-ext]", r#"{"prefix":"/api/"}"#),
        (
            Some("DENY"),
            "policy[orders-deny-admin]",
            r#"{"prefix":"/admin"}"#,
        ),
        (
            None,
            "policy[orders-allow]",
            r#"{"prefix":"spiffe://cluster.local/ns/shop/sa/"}"#,
        ),
    ];
    assert_eq!(steps.len(), wanted.len(), "{steps:#?}");
    for ((action, policies), (want, name, condition)) in steps.iter().zip(wanted) {
        assert_eq!(*action, want, "{policies}");
        assert!(
            policies.contains(name) && policies.contains(condition),
            "{policies}"
        );
    }
    world.reports(&[(
        "authz-custom-provider",
        "AuthorizationPolicy shop/orders-ext",
        "",
    )]);
}

/// Without verified tokens the rule that asks for one admits nobody.
#[test]
fn guide_17_required_tokens_claims_1_and_3_without_a_token() {
    let Some(world) = World::numbered("17") else {
        return;
    };
    for name in ["orders", "stock"] {
        let rules = world.rbac("shop/waypoint", &vip(80, "http", "shop", name));
        assert_eq!(rules, [json!({})], "{name}: an ALLOW that matches nothing");
        let policy = format!("AuthorizationPolicy shop/{name}-require-jwt");
        world.reports(&[("authz-jwt-not-supported", &policy, "")]);
    }
    world.reports(&[(
        "kind-not-supported",
        "RequestAuthentication shop/orders-jwt",
        "",
    )]);
}

// === Routes ===

#[test]
fn guide_20_canary_claims_2_to_7() {
    let Some(world) = World::numbered("20") else {
        return;
    };
    let waypoint = "bookinfo/reviews-waypoint";
    let outbound = |name: &str| format!("outbound|9080||{name}.bookinfo.svc.cluster.local");
    let [details, ratings, reviews] =
        ["details", "ratings", "reviews"].map(|name| vip(9080, "http", "bookinfo", name));
    let prefix = |prefix: &str| json!({ "pathSeparatedPrefix": prefix });
    let split = (
        prefix("/reviews"),
        json!([[outbound("reviews-v1"), 80], [outbound("reviews-v2"), 20]]),
    );
    let default = |chain: &str| (json!({ "prefix": "/" }), json!(chain));
    assert_eq!(
        world.service_chains(waypoint),
        [&details, &ratings, &reviews],
        "reviews-v1 is not bound"
    );
    assert_eq!(
        world.routes(waypoint, &reviews),
        [split.clone(), default(&reviews)]
    );
    assert_eq!(world.routes(waypoint, &ratings), [split, default(&ratings)]);
    let of_details = (
        prefix("/details"),
        json!([[details, 1], [outbound("details-v2"), 4]]),
    );
    assert_eq!(
        world.routes(waypoint, &details),
        [of_details],
        "no default: the Service is the parent"
    );
    assert!(!world.has_code("route-parent-waypoint"));
}

#[test]
fn guide_21_bypassed_canary_claims_2_4_and_7() {
    let Some(world) = World::numbered("21") else {
        return;
    };
    world.reports(&[
        ("wp-server-not-ambient", "Service half/cart", ""),
        ("wp-unused", "Gateway bookinfo/reviews-waypoint", ""),
        (
            "route-service-no-waypoint",
            "HTTPRoute bookinfo/ratings-header",
            "",
        ),
        (
            "route-hostnames-service-parent",
            "HTTPRoute bookinfo/ratings-header",
            "spec.hostnames",
        ),
    ]);
    let idle = world.findings.iter().filter(|finding| {
        finding.object.key.name == "reviews-split"
            || (finding.code == "wp-unused" && finding.message.contains("reviews-split"))
    });
    assert!(idle.count() > 0, "nothing says that reviews-split is idle");
    assert_eq!(world.service_chains("bookinfo/reviews-waypoint"), [""; 0]);
}

#[test]
fn guide_22_grpc_claim_6_and_the_policy_of_claim_4() {
    let Some(world) = World::numbered("22") else {
        return;
    };
    assert_eq!(
        world.services()["bookinfo/reviews"]["ports"][0]["appProtocol"],
        "GRPC"
    );
    let chains = world.service_chains("bookinfo/reviews-waypoint");
    let denied = chains
        .iter()
        .flat_map(|chain| world.rbac("bookinfo/reviews-waypoint", chain));
    let denied: Vec<_> = denied
        .map(|rules| (rules["action"].clone(), rules["policies"].to_string()))
        .collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0].0, "DENY");
    assert!(
        denied[0]
            .1
            .contains(r#"{"prefix":"/reviews.v1.ReviewsService/Delete"}"#),
        "{}",
        denied[0].1
    );
}

#[test]
fn guide_25_grants_claims_5_to_7() {
    let Some(world) = World::numbered("25") else {
        return;
    };
    let reviews = vip(9080, "http", "bookinfo", "reviews");
    let prefix = |prefix: &str| json!({ "pathSeparatedPrefix": prefix });
    let routes = world.routes("bookinfo/reviews-waypoint", &reviews);
    let to = |found: Value| {
        routes
            .iter()
            .find(|route| route.0 == found)
            .map(|route| &route.1)
    };
    assert_eq!(
        to(prefix("/granted")),
        Some(&json!("outbound|80||api.granted.svc.cluster.local"))
    );
    let refused = to(prefix("/closed")).unwrap();
    assert!(
        *refused == json!("UnknownService") || *refused == json!(500),
        "{refused}"
    );
    assert_eq!(
        routes.last(),
        Some(&(json!({ "prefix": "/" }), json!(reviews)))
    );
    world.reports(&[
        (
            "route-backend-no-grant",
            "HTTPRoute bookinfo/east-west-traffic",
            "spec.rules[0].backendRefs[0]",
        ),
        (
            "route-backend-no-grant",
            "HTTPRoute bookinfo/half",
            "spec.rules[0].backendRefs[1]",
        ),
        (
            "route-backend-no-grant",
            "HTTPRoute bookinfo/to-closed",
            "spec.rules[0].backendRefs[0]",
        ),
    ]);
}

#[test]
fn guide_29_subsets_do_not_concern_ztunnel_claim_6() {
    let Some(world) = World::numbered("29") else {
        return;
    };
    let services: Vec<_> = world.services().into_keys().collect();
    assert!(services.contains(&"shop/orders".to_owned()), "{services:?}");
    assert_eq!(
        world.workload("shop/orders-v2")["services"]["shop/orders.shop.svc.cluster.local"]["ports"]
            [0]["targetPort"],
        8080
    );
    world.reports(&[("kind-not-supported", "VirtualService shop/orders", "")]);
}

const BOUND: &str = "istio.io/WaypointBound";
const BY_ZTUNNEL: &str = "ZtunnelAccepted";
const BY_WAYPOINT: &str = "WaypointAccepted";

/// Each of the objects with the same outcome.
fn all(outcome: &str, objects: &[&str]) -> BTreeMap<String, String> {
    let objects = objects.iter();
    objects
        .map(|name| ((*name).to_owned(), outcome.to_owned()))
        .collect()
}

#[test]
fn guide_03_status_claim_8_of_the_services() {
    let Some(world) = World::numbered("03") else {
        return;
    };
    let services = [
        "Service bookinfo/productpage",
        "Service bookinfo/ratings",
        "Service bookinfo/reviews",
        "Service bookinfo/reviews-v1",
        "Service bookinfo/reviews-v2",
    ];
    let want = all("True/WaypointAccepted", &services);
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_04_status_claim_6() {
    let Some(world) = World::numbered("04") else {
        return;
    };
    let want = all("True/WaypointAccepted", &["Service bookinfo/reviews"]);
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_05_status_claim_7() {
    let Some(world) = World::numbered("05") else {
        return;
    };
    let services = [
        "Service bookinfo/productpage",
        "Service bookinfo/reviews",
        "Service bookinfo/ratings",
        "Service tenant/api",
    ];
    let want = all("True/WaypointAccepted", &services);
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_06_status_claim_5() {
    let Some(world) = World::numbered("06") else {
        return;
    };
    let mut want = all(
        "False/WaypointIsNotReady",
        &["Service demo/slashed", "Service demo/dotted"],
    );
    let bound = ["Service demo/named", "Service demo/two-labels"];
    want.extend(all("True/WaypointAccepted", &bound));
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_09_status_claim_8() {
    let Some(world) = World::numbered("09") else {
        return;
    };
    let policies = [
        "AuthorizationPolicy shop/deny-all",
        "AuthorizationPolicy shop/orders-allow-web",
    ];
    let want = all("True/Accepted", &policies);
    assert_eq!(world.conditions(BY_ZTUNNEL), want);
}

#[test]
fn guide_10_status_claim_8() {
    let Some(world) = World::numbered("10") else {
        return;
    };
    let want = all("True/Accepted", &["AuthorizationPolicy shop/stock-l7"]);
    assert_eq!(world.conditions(BY_WAYPOINT), want);
}

#[test]
fn guide_12_status_claim_9() {
    let Some(world) = World::numbered("12") else {
        return;
    };
    let (kind, name) = ("AuthorizationPolicy", "reviews-read-only");
    let policy = format!("{kind} bookinfo/{name}");
    let want = all("True/Accepted", &[&policy]);
    assert_eq!(world.conditions(BY_WAYPOINT), want);
    assert_eq!(world.conditions(BY_ZTUNNEL), BTreeMap::new());
    let message = world.message(kind, "bookinfo", name, BY_WAYPOINT);
    assert!(message.contains("bookinfo/reviews-waypoint"), "{message}");
}

#[test]
fn guide_13_status_claim_7() {
    let Some(world) = World::numbered("13") else {
        return;
    };
    let mut want = all(
        "True/Accepted",
        &[
            "AuthorizationPolicy shop/orders-l7",
            "AuthorizationPolicy default/productpage-viewer",
        ],
    );
    let lost = [
        "AuthorizationPolicy shop/typo",
        "AuthorizationPolicy shop/elsewhere",
    ];
    want.extend(all("False/TargetNotFound", &lost));
    let bare = ["AuthorizationPolicy other/no-waypoint"];
    want.extend(all("False/AncestorNotBound", &bare));
    assert_eq!(world.conditions(BY_WAYPOINT), want);
}

#[test]
fn guide_14_status_claim_10() {
    let Some(world) = World::numbered("14") else {
        return;
    };
    let conditions = world.conditions(BY_ZTUNNEL);
    for (name, field) in [
        ("ratings-get-only", "methods"),
        ("details-no-delete", "methods"),
        ("productpage-no-admin-port", "paths"),
    ] {
        let outcome = &conditions[&format!("AuthorizationPolicy bookinfo/{name}")];
        assert_eq!(outcome, "True/UnsupportedValue", "{name}");
        let message = world.message("AuthorizationPolicy", "bookinfo", name, BY_ZTUNNEL);
        assert!(message.contains(field), "{name}: {message}");
    }
}

#[test]
fn guide_19_status_claim_7() {
    let Some(world) = World::numbered("19") else {
        return;
    };
    let message = |name| world.message("Service", "bookinfo", name, BOUND);
    let said = "Traffic of ingress gateways goes through waypoint bookinfo/reviews-waypoint";
    assert!(message("ratings").contains(said));
    assert!(!message("reviews").contains("ingress"));
}

#[test]
fn guide_40_status_claim_5_without_the_gateway() {
    let Some(world) = World::numbered("40") else {
        return;
    };
    let service = "Service bookinfo/reviews";
    assert_eq!(
        world.conditions(BOUND),
        all("True/WaypointAccepted", &[service])
    );
    let policy = "AuthorizationPolicy bookinfo/reviews-read-only";
    assert_eq!(
        world.conditions(BY_WAYPOINT),
        all("True/Accepted", &[policy])
    );
}
