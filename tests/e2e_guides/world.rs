//! A world of a guide that runs: its control plane, an Envoy for each waypoint that requests
//! pass, workloads behind HBONE, and a stand-in for the ztunnels.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use model::ObjectKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::ads::ztunnel_node;
use testkit::daemon::Daemon;
use testkit::echo::{Echo, EchoLog};
use testkit::envoy::{AgentRequest, Envoy};
use testkit::hbone::{Authorize, HboneClient, HboneServer, Verdict};
use testkit::wait;
use testkit::ztunnel::{Ztunnel, allows};
use tokio::task::JoinSet;

use super::call::check_all;
use super::claim::{Claim, Edit, Row, Table};
use super::servers::{self, Certificate, Server};
use crate::common::{self, Held};

/// Longest wait for a start or for an edit to be in force.
const LIMIT: Duration = Duration::from_secs(40);
/// What must still be so after an edit is in force.
const STILL: Duration = Duration::from_millis(300);
/// Requests under way at once; a tunnel carries 100 streams.
const AT_ONCE: usize = 80;
/// The pods' addresses as the worlds have them.
const POD_NETS: [&str; 2] = ["10.244.1.", "10.244.2."];
/// Last byte of the address of everything outside of the cluster.
const OUTSIDE: u8 = 200;
/// The port of TLS there; low ones are not for everybody.
const OUTSIDE_PORT: u16 = 10_443;
/// The port of TLS of workloads.
const TLS_PORT: u16 = 8443;
/// Where workloads echo bytes, which no world asks for.
const BYTES_PORT: u16 = 9999;
const TTL_SECONDS: u64 = 24 * 3600;

/// A pod that is no waypoint.
pub(crate) struct Pod {
    pub(crate) ns: String,
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) client: HboneClient,
}

/// All that requests need, while the rest of the world may change.
pub(crate) struct Scene {
    pub(crate) ztunnel: Arc<Ztunnel>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) log: EchoLog,
    pub(crate) tokens: BTreeMap<String, String>,
    pub(crate) authorizer_asked: Arc<AtomicUsize>,
    /// Names by which the server outside was called in TLS.
    pub(crate) names_called: Arc<Mutex<Vec<String>>>,
    pub(crate) certificate: Certificate,
    pub(crate) outside: IpAddr,
    keys: AtomicUsize,
}

impl Scene {
    pub(crate) fn next_key(&self) -> String {
        format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed))
    }
}

/// A running world. Everything stops when it is dropped.
pub(crate) struct World {
    scene: Arc<Scene>,
    envoys: Vec<Envoy>,
    daemon: Daemon,
    objects: Vec<Value>,
    config: PathBuf,
    _keep: Keep,
}

/// What only has to live.
#[allow(dead_code, reason = "it ends when it is dropped")]
struct Keep {
    echoes: Vec<Echo>,
    servers: Vec<Server>,
    hbone: Vec<HboneServer>,
    _dir: TempDir,
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn is_waypoint(pod: &Value) -> bool {
    pod["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"].is_string()
}

fn pods(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|one| one["kind"] == "Pod")
}

fn ip(pod: &Value) -> anyhow::Result<IpAddr> {
    text(pod, "/status/podIP")
        .parse()
        .context("a pod without an address")
}

/// Host names that are called in TLS.
fn tls_names(objects: &[Value]) -> Vec<String> {
    let pods = pods(objects).map(|pod| {
        let app = text(pod, "/metadata/labels/app");
        format!("{}.{app}", text(pod, "/metadata/name"))
    });
    let named = |kind: &'static str| objects.iter().filter(move |one| one["kind"] == kind);
    let hosts = named("ServiceEntry").map(|entry| text(entry, "/spec/hosts/0").to_owned());
    let ruled = named("DestinationRule").map(|rule| text(rule, "/spec/host").to_owned());
    pods.chain(hosts)
        .chain(ruled)
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Puts everything that is outside where the test can serve it.
fn localise(objects: &mut [Value], outside: IpAddr, roots: &Path, jwks: SocketAddr) {
    for object in objects {
        let kind = text(object, "/kind").to_owned();
        let spec = &mut object["spec"];
        match &*kind {
            "ServiceEntry" if spec["resolution"] == "DNS" => {
                let port = text(spec, "/ports/0/name").to_owned();
                let ports = json!({ port: OUTSIDE_PORT });
                spec["endpoints"] = json!([{ "address": outside, "ports": ports }]);
            }
            "DestinationRule" if spec["trafficPolicy"]["tls"]["mode"] == "SIMPLE" => {
                spec["trafficPolicy"]["tls"]["caCertificates"] = json!(roots);
            }
            "RequestAuthentication" => {
                for rule in spec["jwtRules"].as_array_mut().into_iter().flatten() {
                    if rule["jwksUri"].is_string() {
                        rule["jwksUri"] = json!(format!("http://{jwks}/keys"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Who a pod lets in, as its ztunnel would.
fn gatekeeper(ztunnel: &Arc<Ztunnel>) -> Authorize {
    let ztunnel = Arc::clone(ztunnel);
    Arc::new(move |connection| {
        let state = ztunnel.state();
        match state.workload_by_ip(connection.destination.ip()) {
            Some(workload) if allows(&state, workload, connection) => Verdict::Allow,
            _ => Verdict::Deny,
        }
    })
}

fn tokens(guides: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(guides.join("keys/tokens.txt"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(' '));
    Ok(pairs
        .map(|(name, token)| (name.to_owned(), token.trim().to_owned()))
        .collect())
}

impl World {
    /// Starts the world and waits until every Envoy holds what is its.
    pub(crate) async fn start(guides: &Path, folder: &Path, table: &Table) -> anyhow::Result<Self> {
        testkit::envoy::binary()?;
        let dir = TempDir::with_prefix("ambientd-guide-")?;
        let config = dir.path().join("config");
        std::fs::create_dir(&config)?;
        let number: u8 = table.world.parse()?;
        let mut input = std::fs::read_to_string(folder.join("input.yaml"))?;
        for net in POD_NETS {
            input = input.replace(net, &format!("127.73.{number}."));
        }
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&input)?;
        objects.retain(|object| !object.is_null());
        let keys = std::fs::read_to_string(guides.join("keys/jwks.json"))?;
        let (issuer, jwks) = servers::issuer(keys).await?;
        let certificate = Certificate::new(&tls_names(&objects))?;
        let roots = dir.path().join("roots.pem");
        std::fs::write(&roots, &certificate.pem)?;
        let outside = IpAddr::from([127, 73, number, OUTSIDE]);
        localise(&mut objects, outside, &roots, jwks);
        std::fs::write(config.join("input.yaml"), documents(&objects))?;

        let daemon = Daemon::start(&config, &dir.path().join("state")).await?;
        let target = daemon.renewed_xds_as("istio-system", "ztunnel");
        let ztunnel = Arc::new(Ztunnel::start_with(target, ztunnel_node("node-a")));
        ztunnel
            .wait_synced(1, LIMIT)
            .await
            .with_context(|| daemon.log_tail())?;
        let mut scene = Scene {
            ztunnel,
            pods: Vec::new(),
            log: EchoLog::default(),
            tokens: tokens(guides)?,
            authorizer_asked: Arc::default(),
            names_called: Arc::default(),
            certificate,
            outside,
            keys: AtomicUsize::new(0),
        };
        let mut keep = Keep {
            echoes: Vec::new(),
            servers: vec![issuer],
            hbone: Vec::new(),
            _dir: dir,
        };
        if objects.iter().any(|one| one["kind"] == "ServiceEntry") {
            let addr = SocketAddr::new(outside, OUTSIDE_PORT);
            let called = Arc::clone(&scene.names_called);
            keep.servers
                .push(scene.certificate.serve(addr, "outside", called).await?);
        }
        for pod in pods(&objects).filter(|pod| !is_waypoint(pod)) {
            start_pod(pod, &daemon, &mut scene, &mut keep).await?;
        }
        let mut world = Self {
            scene: Arc::new(scene),
            envoys: Vec::new(),
            daemon,
            objects,
            config,
            _keep: keep,
        };
        for name in table.waypoints() {
            let envoy = Box::pin(world.start_envoy(name)).await;
            world
                .envoys
                .push(envoy.with_context(|| world.daemon.log_tail())?);
        }
        Ok(world)
    }

    async fn start_envoy(&self, waypoint: &str) -> anyhow::Result<Envoy> {
        let named = |pod: &&Value| {
            let (ns, name) = (
                text(pod, "/metadata/namespace"),
                text(pod, "/metadata/name"),
            );
            is_waypoint(pod) && (name == waypoint || format!("{ns}/{name}") == waypoint)
        };
        let pod = pods(&self.objects).find(named);
        let pod = pod.with_context(|| format!("no pod of waypoint {waypoint}"))?;
        let request = AgentRequest {
            ns: text(pod, "/metadata/namespace").to_owned(),
            name: text(pod, "/metadata/name").to_owned(),
            service_account: text(pod, "/spec/serviceAccountName").to_owned(),
            ip: ip(pod)?.to_string(),
            sotw: false,
            ttl_seconds: TTL_SECONDS,
        };
        let want = Held::rendered(&self.config, &ObjectKey::new(&*request.ns, &*request.name))?;
        let mut envoy = Envoy::start_with_agent(&self.daemon, &request).await?;
        envoy.wait_ready(LIMIT).await?;
        wait::until("Envoy to hold what was rendered", LIMIT, || async {
            envoy.assert_no_nacks().await?;
            want.ensure_held_by(&Held::dumped(&envoy.config_dump().await?)?)
        })
        .await?;
        Ok(envoy)
    }

    /// All claims, one after the other.
    pub(crate) async fn play(&mut self, table: &Table) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for claim in &table.claims {
            if let Err(error) = Box::pin(self.claim(claim)).await {
                failed.push(format!("claim {}: {error:#}", claim.number()));
            }
        }
        if let Err(error) = self.nothing_refused().await {
            failed.push(format!("{error:#}"));
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    }

    async fn claim(&mut self, claim: &Claim) -> anyhow::Result<()> {
        if claim.edit.is_empty() {
            return self.rows(claim).await;
        }
        let mut objects = self.objects.clone();
        for edit in &claim.edit {
            apply(&mut objects, edit)?;
        }
        self.write(&objects)?;
        if claim.edit.iter().any(|edit| edit.restart) {
            let connection = self.scene.ztunnel.connection();
            self.daemon.restart().await?;
            self.scene
                .ztunnel
                .wait_synced(connection + 1, LIMIT)
                .await?;
            wait::until("Envoys to be connected again", LIMIT, || {
                self.nothing_refused()
            })
            .await?;
        }
        let begun = wait::until("the edit to be in force", LIMIT, || self.rows(claim)).await;
        let held = match begun {
            Ok(()) => {
                tokio::time::sleep(STILL).await;
                self.rows(claim).await.context("it did not stay so")
            }
            Err(error) => Err(error),
        };
        self.write(&self.objects)?;
        held
    }

    /// Replaces the file at once, as editors do.
    fn write(&self, objects: &[Value]) -> anyhow::Result<()> {
        let draft = self.config.with_extension("draft");
        std::fs::write(&draft, documents(objects))?;
        Ok(std::fs::rename(&draft, self.config.join("input.yaml"))?)
    }

    async fn rows(&self, claim: &Claim) -> anyhow::Result<()> {
        for row in &claim.rows {
            for ask in row.ask.all() {
                let tokens = row.token.as_ref().map_or(vec![None], |all| {
                    all.all().iter().map(|name| Some(name.as_str())).collect()
                });
                for token in tokens {
                    let what = format!("{} asks {ask} with token {token:?}", row.caller);
                    self.row(row, ask, token).await.context(what)?;
                }
            }
        }
        Ok(())
    }

    async fn row(&self, row: &Row, ask: &str, token: Option<&str>) -> anyhow::Result<()> {
        let before = self.scene.authorizer_asked.load(Ordering::Relaxed);
        self.scene.names_called.lock().unwrap().clear();
        let (row, ask, token) = (
            Arc::new(row.clone()),
            ask.to_owned(),
            token.map(str::to_owned),
        );
        let mut under_way = JoinSet::new();
        let mut outcomes = Vec::new();
        for _ in 0..row.times {
            let (scene, row) = (Arc::clone(&self.scene), Arc::clone(&row));
            let (ask, token) = (ask.clone(), token.clone());
            under_way.spawn(async move { scene.call(&row, &ask, token.as_deref()).await });
            if under_way.len() >= AT_ONCE {
                outcomes.extend(under_way.join_next().await.transpose()?);
            }
        }
        while let Some(outcome) = under_way.join_next().await {
            outcomes.push(outcome?);
        }
        let outcomes = outcomes.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        for outcome in &outcomes {
            outcome
                .check(&row)
                .with_context(|| format!("{outcome:?}"))?;
        }
        check_all(&row, &outcomes)?;
        if let Some(want) = row.authorizer_asked {
            let asked = self.scene.authorizer_asked.load(Ordering::Relaxed) > before;
            ensure!(asked == want, "authorizer asked: {asked}");
        }
        if let Some(want) = &row.sni {
            let called = self.scene.names_called.lock().unwrap().clone();
            ensure!(called.contains(want), "called by the names {called:?}");
        }
        Ok(())
    }

    /// That every Envoy took everything.
    async fn nothing_refused(&self) -> anyhow::Result<()> {
        for envoy in &self.envoys {
            envoy.assert_no_nacks().await?;
        }
        let rejected = common::rejections(&self.daemon.debug("/metrics").await?);
        ensure!(
            rejected.is_empty(),
            "ambientd counted rejections: {rejected:?}"
        );
        Ok(())
    }
}

async fn start_pod(
    pod: &Value,
    daemon: &Daemon,
    scene: &mut Scene,
    keep: &mut Keep,
) -> anyhow::Result<()> {
    let (ns, name) = (
        text(pod, "/metadata/namespace"),
        text(pod, "/metadata/name"),
    );
    let at = ip(pod)?;
    let identity = daemon.identity(ns, text(pod, "/spec/serviceAccountName"))?;
    let ports = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = ports.flat_map(|one| one["ports"].as_array().into_iter().flatten());
    for port in ports {
        let port = port["containerPort"]
            .as_u64()
            .context("a port without a number")?;
        let addr = SocketAddr::new(at, u16::try_from(port)?);
        if name == "ext-authz" {
            let asked = Arc::clone(&scene.authorizer_asked);
            keep.servers.push(servers::authorizer(addr, asked).await?);
        } else if addr.port() == TLS_PORT {
            let served = scene.certificate.serve(addr, name, Arc::default()).await?;
            keep.servers.push(served);
        } else {
            let bytes = SocketAddr::new(at, BYTES_PORT);
            keep.echoes
                .push(Echo::start(addr, bytes, name, &scene.log).await?);
        }
    }
    // Whether anybody comes this way is for the control plane to say.
    let server = HboneServer::start(at, &identity, gatekeeper(&scene.ztunnel)).await?;
    keep.hbone.push(server);
    scene.pods.push(Pod {
        ns: ns.to_owned(),
        name: name.to_owned(),
        ip: at,
        client: HboneClient::new(Arc::new(identity), Some(at))?,
    });
    Ok(())
}

fn documents(objects: &[Value]) -> String {
    let all: Vec<_> = objects.iter().map(|one| format!("---\n{one}\n")).collect();
    all.concat()
}

fn apply(objects: &mut Vec<Value>, edit: &Edit) -> anyhow::Result<()> {
    if let Some(named) = &edit.object {
        let at = objects.iter().position(|one| {
            let ns = text(one, "/metadata/namespace");
            let slash = if ns.is_empty() { "" } else { "/" };
            let name = text(one, "/metadata/name");
            format!("{} {ns}{slash}{name}", text(one, "/kind")) == *named
        });
        let at = at.with_context(|| format!("no {named}"))?;
        match (&edit.merge, edit.remove) {
            (Some(patch), false) => merge(&mut objects[at], patch),
            (None, true) => drop(objects.remove(at)),
            _ => bail!("{named}: either merge or remove"),
        }
    }
    objects.extend(edit.add.clone());
    if let Some(ns) = &edit.capture {
        for meta in objects
            .iter_mut()
            .filter(|one| one["kind"] == "Pod")
            .map(|pod| &mut pod["metadata"])
        {
            if meta["namespace"] == *ns && meta["labels"]["istio.io/dataplane-mode"] != "none" {
                meta["annotations"]["ambient.istio.io/redirection"] = json!("enabled");
            }
        }
    }
    if edit.reverse {
        objects.reverse();
    }
    Ok(())
}

/// A JSON merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}
