//! A small mesh: the control plane, a waypoint, a client, two versions of a workload.
//!
//! Client and workloads have real HBONE and take their decisions from a stand-in
//! ztunnel, which holds what the control plane sent; the waypoint is a real Envoy.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::Method;
use model::SpiffeId;
use proto::workload::WorkloadStatus;
use serde_json::Value;
use tempfile::TempDir;
use testkit::ads::ztunnel_node;
use testkit::app::App;
use testkit::daemon::Daemon;
use testkit::envoy::{self, AgentRequest, Envoy};
use testkit::hbone::{Authorize, HBONE_PORT, HboneClient, HboneServer, Identity, Verdict};
use testkit::http_client::{self, HttpResponse, send_http1};
use testkit::wait;
use testkit::ztunnel::{Route, Ztunnel, allows, route};
use tokio::task::JoinHandle;

/// Longest wait for anything that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(15);
const DAY_SECONDS: u64 = 24 * 3600;
const APP_PORT: u16 = 8080;
const PORT: u16 = 80;
const FILES: [(&str, &str); 6] = [
    ("00-mesh.yaml", include_str!("world/00-mesh.yaml")),
    ("10-services.yaml", include_str!("world/10-services.yaml")),
    ("11-extra.yaml", include_str!("world/11-extra.yaml")),
    ("20-pods.yaml", include_str!("world/20-pods.yaml")),
    ("21-pod-v2.yaml", include_str!("world/21-pod-v2.yaml")),
    ("50-policies.yaml", include_str!("world/50-policies.yaml")),
];
const SPLIT: &str = include_str!("world/40-split.yaml");
const SPLIT_FILE: &str = "40-split.yaml";

/// The addresses of one mesh; every test has its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net(pub(crate) u8);

impl Net {
    /// A pod's address.
    pub(crate) fn pod(self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, 60, self.0, host).into()
    }

    /// A service's address and port.
    pub(crate) fn vip(self, service: &str) -> SocketAddr {
        let host = match service {
            "web" => 10,
            "web-v1" => 11,
            "web-v2" => 12,
            "extra" => 13,
            other => panic!("no service {other}"),
        };
        SocketAddr::new(Ipv4Addr::new(10, 98, self.0, host).into(), PORT)
    }

    /// Where the waypoint accepts tunnels.
    pub(crate) fn waypoint(self) -> SocketAddr {
        SocketAddr::new(self.pod(30), HBONE_PORT)
    }

    fn fill(self, manifest: &str) -> String {
        manifest
            .replace("NET.", &format!("127.60.{}.", self.0))
            .replace("VIP.", &format!("10.98.{}.", self.0))
    }

    /// Writes the manifests, with the split at 80 to 20.
    pub(crate) fn write(self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir)?;
        for (name, manifest) in FILES {
            std::fs::write(dir.join(name), self.fill(manifest))?;
        }
        Ok(std::fs::write(dir.join(SPLIT_FILE), split(80, 20))?)
    }
}

fn split(v1: u32, v2: u32) -> String {
    SPLIT
        .replace("WEIGHT1", &v1.to_string())
        .replace("WEIGHT2", &v2.to_string())
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// A workload of this version answered.
    Served { version: String },
    /// Somebody else answered.
    Answered { status: u16, body: String },
}

impl Called {
    /// Reads an answer.
    fn of(answer: &HttpResponse) -> anyhow::Result<Self> {
        if answer.status != 200 {
            return Ok(Self::Answered {
                status: answer.status.as_u16(),
                body: answer.text(),
            });
        }
        let version = answer.json()?["version"]
            .as_str()
            .context("no version")?
            .to_owned();
        Ok(Self::Served { version })
    }

    /// The version that answered.
    pub(crate) fn version(&self) -> anyhow::Result<&str> {
        match self {
            Self::Served { version } => Ok(version),
            Self::Answered { status, body } => bail!("{status}: {body}"),
        }
    }
}

/// Who a workload's HBONE server was called by, as the certificates say.
type Peers = Arc<Mutex<BTreeSet<String>>>;

/// A workload behind its HBONE server.
pub(crate) struct Workload {
    pub(crate) app: App,
    pub(crate) server: HboneServer,
}

/// The callers of the mesh and the ztunnel that routes for them. Lives on its own, so that
/// calls may go on while the rest of the mesh is changed.
pub(crate) struct Callers {
    pub(crate) net: Net,
    pub(crate) ztunnel: Arc<Ztunnel>,
    pub(crate) client: HboneClient,
    pub(crate) other: HboneClient,
}

impl Callers {
    /// GET as the client.
    pub(crate) async fn get(&self, service: &str, path: &str) -> anyhow::Result<Called> {
        self.call(&self.client, Method::GET, service, path).await
    }

    /// One request, routed as the ztunnel of the caller would.
    pub(crate) async fn call(
        &self,
        from: &HboneClient,
        method: Method,
        service: &str,
        path: &str,
    ) -> anyhow::Result<Called> {
        let vip = self.net.vip(service);
        let decided = route(&self.ztunnel.state(), vip, self.ztunnel.next_choice())?;
        let hop = match decided {
            Route::Waypoint(hop) | Route::Workload(hop) => hop,
            other => bail!("{service} is routed outside of the mesh: {other:?}"),
        };
        let request = http_client::request(method, service, path)?;
        let authority = hop.authority.to_string();
        let connected = Box::pin(from.connect(hop.server, &authority, Some(&hop.expected)));
        let (stream, _) = connected.await?;
        Called::of(&send_http1(stream, request).await?)
    }

    /// GET as a client whose ztunnel still knows the service: straight to the waypoint.
    pub(crate) async fn get_through_waypoint(
        &self,
        service: &str,
        path: &str,
    ) -> anyhow::Result<Called> {
        let request = http_client::request(Method::GET, service, path)?;
        let authority = self.net.vip(service).to_string();
        let answer = Box::pin(
            self.client
                .request(self.net.waypoint(), &authority, request),
        );
        Called::of(&answer.await?)
    }

    /// How many of `count` requests each version answered, v1 first.
    pub(crate) async fn shares(&self, path: &str, count: u32) -> anyhow::Result<(u32, u32)> {
        let (mut v1, mut v2) = (0, 0);
        for _ in 0..count {
            match self.get("web", path).await?.version()? {
                "v1" => v1 += 1,
                "v2" => v2 += 1,
                other => bail!("nobody is {other:?}"),
            }
        }
        Ok((v1, v2))
    }

    /// Whether the ztunnel was told that a pod is healthy.
    pub(crate) fn is_healthy(&self, pod: &str) -> Option<bool> {
        let state = self.ztunnel.state();
        let workload = state.workloads.values().find(|w| w.name == pod)?;
        Some(workload.status == WorkloadStatus::Healthy as i32)
    }
}

/// Requests that go on until told to stop.
pub(crate) struct Traffic {
    done: Arc<AtomicBool>,
    task: JoinHandle<Vec<anyhow::Result<Called>>>,
}

impl Traffic {
    /// Starts calling, one request after another.
    pub(crate) fn start(callers: &Arc<Callers>, service: &'static str, path: &'static str) -> Self {
        let (callers, done) = (Arc::clone(callers), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&done);
        let task = tokio::spawn(async move {
            let mut answers = Vec::new();
            while !until.load(Ordering::Relaxed) {
                answers.push(callers.get(service, path).await);
            }
            answers
        });
        Self { done, task }
    }

    /// Stops; all requests must have been served by workloads. Returns how many there were.
    pub(crate) async fn stop(self) -> anyhow::Result<usize> {
        self.done.store(true, Ordering::Relaxed);
        let answers = self.task.await?;
        let failed: Vec<_> = answers
            .iter()
            .filter(|answer| !matches!(answer, Ok(Called::Served { .. })))
            .collect();
        let (failures, count) = (failed.len(), answers.len());
        ensure!(
            failed.is_empty(),
            "{failures} of {count} failed: {:?}",
            failed.first()
        );
        Ok(count)
    }
}

/// The running mesh. Everything stops when it is dropped.
pub(crate) struct Mesh {
    pub(crate) callers: Arc<Callers>,
    pub(crate) envoy: Envoy,
    pub(crate) daemon: Daemon,
    peers: Peers,
    pub(crate) workloads: Vec<Workload>,
    dir: TempDir,
}

impl Deref for Mesh {
    type Target = Callers;

    fn deref(&self) -> &Callers {
        &self.callers
    }
}

impl Mesh {
    /// Starts everything and waits until all of it is in sync.
    pub(crate) async fn start(net: u8) -> anyhow::Result<Self> {
        // Boxed: the state of so many handshakes is large.
        Box::pin(Self::launch(Net(net), false, DAY_SECONDS)).await
    }

    /// The same with a waypoint that speaks state-of-the-world ADS.
    pub(crate) async fn start_sotw(net: u8) -> anyhow::Result<Self> {
        Box::pin(Self::launch(Net(net), true, DAY_SECONDS)).await
    }

    /// The same with a waypoint whose certificates live for so many seconds.
    pub(crate) async fn start_with_ttl(net: u8, ttl_seconds: u64) -> anyhow::Result<Self> {
        Box::pin(Self::launch(Net(net), false, ttl_seconds)).await
    }

    async fn launch(net: Net, sotw: bool, ttl_seconds: u64) -> anyhow::Result<Self> {
        envoy::binary()?;
        let dir = TempDir::with_prefix("ambientd-e2e-")?;
        let config = dir.path().join("config");
        net.write(&config)?;
        let daemon = Daemon::start(&config, &dir.path().join("state")).await?;
        let target = daemon.renewed_xds_as("istio-system", "ztunnel");
        let ztunnel = Arc::new(Ztunnel::start_with(target, ztunnel_node("node-a")));
        ztunnel
            .wait_synced(1, SOON)
            .await
            .with_context(|| daemon.log_tail())?;

        let peers = Peers::default();
        let mut workloads = Vec::new();
        for (host, version) in [(11, "v1"), (12, "v2")] {
            let ip = net.pod(host);
            let addr = SocketAddr::new(ip, APP_PORT);
            let app = App::start(addr, &format!("web-{version}-0"), version).await?;
            let identity = daemon.identity("shop", "web")?;
            let server = HboneServer::start(ip, &identity, gatekeeper(&ztunnel, &peers)).await?;
            workloads.push(Workload { app, server });
        }
        let outbound = |sa: &str, host| {
            HboneClient::new(Arc::new(daemon.identity("shop", sa)?), Some(net.pod(host)))
        };
        let (client, other) = (outbound("client", 1)?, outbound("other", 2)?);
        let callers = Arc::new(Callers {
            net,
            ztunnel,
            client,
            other,
        });

        let request = AgentRequest {
            ns: "shop".to_owned(),
            name: "gate".to_owned(),
            service_account: "gate".to_owned(),
            ip: net.pod(30).to_string(),
            sotw,
            ttl_seconds,
        };
        let mut envoy = Envoy::start_with_agent(&daemon, &request)
            .await
            .with_context(|| daemon.log_tail())?;
        envoy
            .wait_ready(SOON)
            .await
            .with_context(|| daemon.log_tail())?;
        let mesh = Self {
            callers,
            envoy,
            daemon,
            peers,
            workloads,
            dir,
        };
        wait::until("the first request to pass", SOON, || async {
            mesh.get("web", "/split").await?.version().map(drop)
        })
        .await
        .with_context(|| mesh.logs())?;
        Ok(mesh)
    }

    /// What a failure should show.
    pub(crate) fn logs(&self) -> String {
        format!("{}\n{}", self.envoy.log_tail(), self.daemon.log_tail())
    }

    /// A file of the watched directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("config").join(name)
    }

    /// Replaces a file at once, as editors do: written elsewhere, then renamed.
    pub(crate) fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, text)?;
        Ok(std::fs::rename(&draft, self.file(name))?)
    }

    /// Sets the weights of the split.
    pub(crate) fn set_split(&self, v1: u32, v2: u32) -> anyhow::Result<()> {
        self.replace(SPLIT_FILE, &split(v1, v2))
    }

    /// Waits until Envoy has a route with this weight.
    pub(crate) async fn wait_weight(&self, weight: u32) -> anyhow::Result<()> {
        wait::until(&format!("Envoy to know weight {weight}"), SOON, || async {
            let dump = self.envoy.config_dump().await?;
            ensure!(
                weights(&dump).contains(&u64::from(weight)),
                "weights: {:?}",
                weights(&dump)
            );
            Ok(())
        })
        .await
    }

    /// Edits a file: `from` must stand in it once.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let old = std::fs::read_to_string(self.file(name))?;
        ensure!(
            old.matches(from).count() == 1,
            "{name} must say {from:?} once"
        );
        self.replace(name, &old.replace(from, to))
    }

    /// Who has called the workloads so far.
    pub(crate) fn peers(&self) -> BTreeSet<String> {
        self.peers.lock().unwrap().clone()
    }

    /// The client with a certificate that another authority issued to the same identity.
    pub(crate) fn forged_client(&self) -> anyhow::Result<HboneClient> {
        let stranger = TempDir::with_prefix("ambientd-stranger-")?;
        let now = std::time::SystemTime::now();
        let ca = ca::DevCa::load_or_create(stranger.path(), "cluster.local", now)?;
        let id = SpiffeId::new("cluster.local", "shop", "client");
        let issued = ca.issue_workload(&id, Duration::from_secs(3600), now)?;
        // It trusts the mesh, so that it is not the one who refuses.
        let root = self.daemon.ca()?.root_pem().to_owned();
        let identity = Identity::from_pem(&issued.chain_pem, &issued.key_pem, &root)?;
        HboneClient::new(Arc::new(identity), Some(self.net.pod(1)))
    }
}

/// Notes every caller and lets the policies decide that the ztunnel holds.
fn gatekeeper(ztunnel: &Arc<Ztunnel>, peers: &Peers) -> Authorize {
    let (ztunnel, peers) = (Arc::clone(ztunnel), Arc::clone(peers));
    Arc::new(move |connection| {
        peers.lock().unwrap().insert(connection.peer.to_string());
        let state = ztunnel.state();
        match state.workload_by_ip(connection.destination.ip()) {
            Some(workload) if allows(&state, workload, connection) => Verdict::Allow,
            _ => Verdict::Deny,
        }
    })
}

/// Every weight of a weighted cluster in a dump.
fn weights(value: &Value) -> BTreeSet<u64> {
    match value {
        Value::Array(items) => items.iter().flat_map(weights).collect(),
        Value::Object(fields) => {
            let split = fields
                .get("weighted_clusters")
                .and_then(|w| w["clusters"].as_array());
            let own = split
                .into_iter()
                .flatten()
                .filter_map(|c| c["weight"].as_u64());
            own.chain(fields.values().flat_map(weights)).collect()
        }
        _ => BTreeSet::new(),
    }
}
