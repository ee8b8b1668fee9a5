//! Everything that runs in the demo.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use model::SpiffeId;
use proto::workload::TunnelProtocol;
use tempfile::TempDir;

use super::report::Report;
use crate::ads::ztunnel_node;
use crate::daemon::Daemon;
use crate::envoy::{self, AgentRequest, Envoy};
use crate::http_client::HttpResponse;
use crate::ztunnel::{MeshError, NodeProxy, Pod, Via, Ztunnel};

/// The namespace of the demo.
pub(super) const NS: &str = "bookinfo";
/// The waypoint of the demo.
pub(super) const WAYPOINT: &str = "waypoint";
/// The file with the split, in the manifests.
pub(super) const SPLIT_FILE: &str = "40-split.yaml";
const WAYPOINT_IP: &str = "127.20.1.30";
const NODES: [&str; 2] = ["node-a", "node-b"];
const APP_PORT: u16 = 9080;
const SYNC_LIMIT: Duration = Duration::from_secs(15);
const ENVOY_LIMIT: Duration = Duration::from_secs(30);

/// The running mesh. Everything stops when it is dropped.
pub(super) struct World {
    pub(super) nodes: Vec<NodeProxy>,
    pub(super) envoy: Envoy,
    pub(super) daemon: Daemon,
    dir: TempDir,
}

impl World {
    /// Starts the control plane, the workloads and the waypoint.
    pub(super) async fn start(manifests: &Path, report: &mut Report) -> anyhow::Result<Self> {
        report.heading("Starting the mesh");
        // Before anything is started: what is missing should be said at once.
        envoy::binary()?;
        let dir = TempDir::with_prefix("ambientd-demo-")?;
        let (config, state) = (dir.path().join("config"), dir.path().join("state"));
        copy_yaml(manifests, &config)?;
        report.progress("ambientd, with its development CA");
        let daemon = Daemon::start(&config, &state).await?;

        report.progress("two stand-in ztunnels, subscribed over mTLS");
        let mut nodes = Vec::new();
        for name in NODES {
            let target = daemon.xds_as("istio-system", "ztunnel")?;
            nodes.push(NodeProxy::new(Ztunnel::start(target, ztunnel_node(name))));
        }
        let ca = daemon.ca()?;
        for (node, name) in nodes.iter_mut().zip(NODES) {
            let synced = node.ztunnel().wait_synced(1, SYNC_LIMIT).await;
            synced.with_context(|| daemon.log_tail())?;
            for pod in pods_on(node, name)? {
                node.add(&ca, pod).await?;
            }
        }
        let names: Vec<String> = nodes
            .iter()
            .flat_map(NodeProxy::pods)
            .map(|p| format!("{} ({})", p.name, p.ip))
            .collect();
        report.progress(&format!("workloads: {}", names.join(", ")));

        report.progress("Envoy as waypoint, beside the agent that gets it certificates");
        let request = AgentRequest {
            ns: NS.to_owned(),
            name: WAYPOINT.to_owned(),
            service_account: WAYPOINT.to_owned(),
            ip: WAYPOINT_IP.to_owned(),
            sotw: false,
            ttl_seconds: 24 * 3600,
        };
        let mut envoy = Envoy::start_with_agent(&daemon, &request)
            .await
            .with_context(|| daemon.log_tail())?;
        envoy
            .wait_ready(ENVOY_LIMIT)
            .await
            .with_context(|| daemon.log_tail())?;
        envoy.assert_no_nacks().await?;
        report.progress("ready");
        Ok(Self {
            nodes,
            envoy,
            daemon,
            dir,
        })
    }

    /// The file with the split, in the copy that ambientd watches.
    pub(super) fn split_file(&self) -> PathBuf {
        self.dir.path().join("config").join(SPLIT_FILE)
    }

    /// Replaces a file as a careful editor does: written beside the watched directory,
    /// then renamed over the old one.
    pub(super) fn replace_file(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, path).with_context(|| format!("replacing {}", path.display()))
    }

    /// The address under which a service is called.
    pub(super) fn vip(&self, service: &str) -> anyhow::Result<SocketAddr> {
        let state = self.nodes[0].ztunnel().state();
        let key = format!("{NS}/{service}.{NS}.svc.cluster.local");
        let service = state
            .services
            .get(&key)
            .with_context(|| format!("no service {key}"))?;
        let bytes = service.addresses.first().map(|a| a.address.as_ref());
        let octets = <[u8; 4]>::try_from(bytes.unwrap_or_default());
        Ok(SocketAddr::new(
            octets.with_context(|| format!("{key} has no VIP"))?.into(),
            APP_PORT,
        ))
    }

    /// One request as a pod, wherever it runs.
    pub(super) async fn request(
        &self,
        pod: &str,
        vip: SocketAddr,
        request: Request<Full<Bytes>>,
    ) -> Result<(HttpResponse, Via), MeshError> {
        let node = self.nodes.iter().find(|n| n.pods().any(|p| p.name == pod));
        let node = node
            .with_context(|| format!("no pod {pod} in the mesh"))
            .map_err(MeshError::Transport)?;
        // Boxed: the state of a TLS handshake is large, and callers hold many of these.
        Box::pin(node.request(pod, vip, request)).await
    }
}

/// The pods that a ztunnel would find on its node; the waypoint is no sample workload.
fn pods_on(node: &NodeProxy, node_name: &str) -> anyhow::Result<Vec<Pod>> {
    let waypoint: IpAddr = WAYPOINT_IP.parse()?;
    let state = node.ztunnel().state();
    let mut pods = Vec::new();
    for workload in state.workloads.values().filter(|w| w.node == node_name) {
        let octets: [u8; 4] = workload
            .addresses
            .first()
            .and_then(|a| a.as_ref().try_into().ok())
            .with_context(|| format!("{} has no IPv4 address", workload.uid))?;
        let ip = IpAddr::from(octets);
        if ip == waypoint {
            continue;
        }
        ensure!(
            ip.is_loopback(),
            "{} is at {ip}, which is no loopback address",
            workload.uid
        );
        ensure!(
            workload.tunnel_protocol == TunnelProtocol::Hbone as i32,
            "{} does not speak HBONE",
            workload.uid
        );
        pods.push(Pod {
            name: workload.name.clone(),
            version: workload.canonical_revision.clone(),
            id: SpiffeId::new(
                "cluster.local",
                workload.namespace.as_str(),
                workload.service_account.as_str(),
            ),
            ip,
            port: APP_PORT,
        });
    }
    Ok(pods)
}

fn copy_yaml(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut count = 0;
    let entries = std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let name = path.file_name().context("a file without a name")?;
            std::fs::copy(&path, to.join(name))?;
            count += 1;
        }
    }
    ensure!(count > 0, "no .yaml file in {}", from.display());
    Ok(())
}
