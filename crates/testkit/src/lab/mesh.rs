//! A world with its control plane, ztunnels and waypoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    CONTROL_PLANE_IP, Lab, LabWorld, LabZtunnel, NodeAgent, Outcome, ZtunnelOptions, dump,
};
use crate::daemon::{self, Addrs, Daemon};
use crate::{envoy, http_client, wait};

/// How long anything may take to come up or to follow an edit.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
const NODE_ACCOUNT: (&str, &str) = ("istio-system", "ztunnel");
const READY_PORT: u16 = 15021;
const STATUS_PORT: u16 = 15020;
const TRUST_DOMAIN_PREFIX: &str = "spiffe://cluster.local";

const DAY_SECONDS: u64 = 24 * 3600;

/// What a mesh is started with, beside its world.
#[derive(Clone, Debug)]
pub struct MeshOptions {
    /// Further environment of every ztunnel.
    pub ztunnel_env: Vec<(String, String)>,
    /// Life of the certificates of waypoints, seconds.
    pub waypoint_ttl_seconds: u64,
    /// Ztunnels ask for what they need instead of everything.
    pub on_demand: bool,
}

impl Default for MeshOptions {
    fn default() -> Self {
        Self {
            ztunnel_env: Vec::new(),
            waypoint_ttl_seconds: DAY_SECONDS,
            on_demand: false,
        }
    }
}

/// Who a ztunnel beside those of the mesh says it is.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// Its address.
    pub ip: IpAddr,
    /// Node of the ztunnel whose pod it says it is.
    pub pod_of: String,
    /// Node that it says it serves.
    pub node: String,
    /// Its token.
    pub token: String,
}

/// A running mesh; everything ends when it is dropped.
pub struct LabMesh {
    /// Ztunnels by node.
    pub ztunnels: BTreeMap<String, LabZtunnel>,
    /// Node agents by node.
    pub agents: BTreeMap<String, NodeAgent>,
    /// Waypoints by pod.
    pub waypoints: BTreeMap<String, LabWaypoint>,
    /// The control plane.
    pub daemon: Daemon,
    /// Pods, Services, Nodes.
    pub world: LabWorld,
    config: PathBuf,
    state: PathBuf,
    binary: PathBuf,
    options: MeshOptions,
    dir: TempDir,
}

/// The pod that a ztunnel's token is bound to.
fn ztunnel_pod(node: &str, ip: IpAddr) -> String {
    let (ns, account) = NODE_ACCOUNT;
    format!(
        "apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: ztunnel-{node}, namespace: {ns}, uid: uid-ztunnel-{node}, labels: {{app: ztunnel}}}}\n\
         spec: {{serviceAccountName: {account}, nodeName: {node}, containers: [{{name: ztunnel}}]}}\n\
         status: {{phase: Running, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: 'True'}}]}}\n"
    )
}

/// Envoy and its agent in the pod of a waypoint.
pub struct LabWaypoint {
    child: Child,
    ip: IpAddr,
    log: PathBuf,
}

impl LabWaypoint {
    /// Waits until its probe is content.
    ///
    /// # Errors
    /// With what is missing.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        let addr = SocketAddr::new(self.ip, READY_PORT);
        wait::until("the waypoint to be ready", LIMIT, || async move {
            let answer = http_client::get(addr, "/healthz/ready").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await
    }

    /// How many certificates its agent has obtained.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn certificates_count(&self) -> anyhow::Result<u64> {
        let addr = SocketAddr::new(self.ip, STATUS_PORT);
        let text = http_client::get(addr, "/stats/prometheus").await?.text();
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("ambientd_agent_certificates_total "));
        Ok(count.context("no count of certificates")?.parse()?)
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for LabWaypoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl LabMesh ===

impl LabMesh {
    /// Runs a world: the control plane on its file, a ztunnel on each of its nodes, an Envoy in
    /// each instance of a waypoint; ready for requests. `edit` may change the text of the world.
    ///
    /// # Errors
    /// What did not come up, with the end of its log.
    pub async fn start(
        lab: &Lab,
        ztunnel: &Path,
        file: &Path,
        options: MeshOptions,
        edit: impl FnOnce(String) -> String,
    ) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("ambientd-lab-")?;
        let (config, state) = (dir.path().join("config"), dir.path().join("state"));
        std::fs::create_dir(&config)?;
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let input = config.join("input.yaml");
        std::fs::write(&input, edit(text))?;
        let world = LabWorld::start(lab, &input)?;
        let ztunnels: BTreeMap<String, IpAddr> = (1..)
            .zip(world.nodes.keys())
            .map(|(i, node)| (node.clone(), IpAddr::from([10, 254, 0, i])))
            .collect();
        let pods: Vec<String> = ztunnels
            .iter()
            .map(|(node, ip)| ztunnel_pod(node, *ip))
            .collect();
        std::fs::write(config.join("ztunnel.yaml"), pods.join("---\n"))?;
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addrs = Addrs {
            xds: SocketAddr::from((CONTROL_PLANE_IP, 15012)),
            xds_plaintext: loopback(15010),
            debug: loopback(15014),
            ready: loopback(8080),
        };
        let daemon = Daemon::start_on(&config, &state, addrs).await?;
        let mut mesh = Self {
            ztunnels: BTreeMap::new(),
            agents: BTreeMap::new(),
            waypoints: BTreeMap::new(),
            daemon,
            world,
            config,
            state,
            binary: ztunnel.to_owned(),
            options,
            dir,
        };
        for (node, ip) in ztunnels {
            mesh.start_ztunnel(lab, &node, ip)?;
        }
        let gateways = mesh
            .world
            .pods
            .iter()
            .filter(|(_, (pod, _))| pod.gateway.is_some());
        let gateways: Vec<String> = gateways.map(|(name, _)| name.clone()).collect();
        for pod in gateways {
            mesh.start_waypoint(&pod)?;
        }
        for (node, ztunnel) in &mesh.ztunnels {
            mesh.agents[node]
                .wait_snapshot()
                .with_context(|| ztunnel.log_tail())?;
            ztunnel.wait_ready(LIMIT).await?;
        }
        for (name, waypoint) in &mesh.waypoints {
            let ready = waypoint.wait_ready().await;
            ready.with_context(|| format!("{name}: {}", waypoint.log_tail()))?;
        }
        mesh.wait_in_sync().await?;
        Ok(mesh)
    }

    fn start_ztunnel(&mut self, lab: &Lab, node: &str, ip: IpAddr) -> anyhow::Result<()> {
        let (ns, account) = NODE_ACCOUNT;
        let token = self
            .daemon
            .token(ns, account, Some(&format!("ztunnel-{node}")))?;
        let pods = self.world.captured_on(node)?;
        let agent = NodeAgent::listen(&self.path(node, "sock"), pods)?;
        let ztunnel = self.launch(lab, node, (node, ip), &token, &agent, Vec::new())?;
        self.ztunnels.insert(node.to_owned(), ztunnel);
        self.agents.insert(node.to_owned(), agent);
        Ok(())
    }

    /// Starts a ztunnel that is no part of the mesh and has no pods, and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_stranger(
        &self,
        lab: &Lab,
        stranger: &Stranger,
    ) -> anyhow::Result<(LabZtunnel, NodeAgent)> {
        let name = format!("stranger-{}", stranger.ip);
        let agent = NodeAgent::listen(&self.path(&name, "sock"), Vec::new())?;
        let env = vec![("NODE_NAME".to_owned(), stranger.node.clone())];
        let place = (stranger.pod_of.as_str(), stranger.ip);
        let ztunnel = self.launch(lab, &name, place, &stranger.token, &agent, env)?;
        Ok((ztunnel, agent))
    }

    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.{suffix}"))
    }

    fn launch(
        &self,
        lab: &Lab,
        name: &str,
        (node, ip): (&str, IpAddr),
        token: &str,
        agent: &NodeAgent,
        more: Vec<(String, String)>,
    ) -> anyhow::Result<LabZtunnel> {
        let token_file = self.path(name, "token");
        std::fs::write(&token_file, token)?;
        let mut env = self.options.ztunnel_env.clone();
        if self.options.on_demand {
            let names = [
                ("XDS_ON_DEMAND", "true"),
                ("ISTIO_META_DNS_CAPTURE", "false"),
            ];
            env.extend(names.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        env.extend(more);
        let options = ZtunnelOptions {
            node: node.to_owned(),
            ip,
            control_plane: self.daemon.addrs().xds,
            root: self.daemon.root_path(),
            token: token_file,
            agent: agent.path().to_owned(),
            log: self.path(name, "log"),
            network: String::new(),
            env,
        };
        LabZtunnel::start(&self.binary, lab.host(ip)?, options)
    }

    /// What a waypoint's pod runs: the agent with a token of the pod, and Envoy as its child.
    fn start_waypoint(&mut self, name: &str) -> anyhow::Result<()> {
        let (pod, netns) = self.world.pod(name)?;
        let gateway = pod.gateway.as_deref().context("a gateway's pod")?;
        let name_of_files = format!("{}-{}", pod.ns, pod.name);
        let token = self.path(&name_of_files, "token");
        let text = self
            .daemon
            .token(&pod.ns, &pod.service_account, Some(&pod.name))?;
        std::fs::write(&token, text)?;
        let log = self.path(&name_of_files, "log");
        let out = std::fs::File::create(&log)?;
        let mut command = Command::new(daemon::binary()?);
        command.arg("agent");
        for (flag, value) in [
            ("--gateway", format!("waypoint/{}/{gateway}", pod.ns)),
            ("--xds-addr", self.daemon.addrs().xds.to_string()),
            ("--root", self.daemon.root_path().display().to_string()),
            ("--token", token.display().to_string()),
            ("--service-account", pod.service_account.clone()),
            ("--pod-name", pod.name.clone()),
            ("--ip", pod.ip.to_string()),
            (
                "--run-dir",
                self.path(&name_of_files, "run").display().to_string(),
            ),
            (
                "--certificate-ttl",
                format!("{}s", self.options.waypoint_ttl_seconds),
            ),
        ] {
            command.arg(flag).arg(value);
        }
        command
            .arg("--")
            .arg(envoy::binary()?)
            .args(["--concurrency", "1", "--log-level", "info"])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = netns.spawn(&mut command)?;
        let ip = pod.ip;
        self.waypoints
            .insert(name.to_owned(), LabWaypoint { child, ip, log });
        Ok(())
    }

    /// Waits until every proxy is connected and has accepted everything.
    ///
    /// # Errors
    /// When one has not.
    pub async fn wait_in_sync(&self) -> anyhow::Result<()> {
        let proxies = self.ztunnels.len() + self.waypoints.len();
        let synced = wait::until("every proxy to be in sync", LIMIT, || async {
            let page: Value = serde_json::from_str(&self.daemon.debug("/debug/syncz").await?)?;
            let list = page.as_array().context("no list")?;
            ensure!(
                list.len() == proxies,
                "{} of {proxies} are connected",
                list.len()
            );
            let states = list
                .iter()
                .filter_map(|proxy| proxy["resources"].as_object())
                .flat_map(|types| types.values().map(|status| &status["state"]));
            let stale = states.filter(|state| *state != "SYNCED").count();
            ensure!(stale == 0, "{stale} subscriptions are behind: {page:#}");
            Ok(())
        });
        synced.await.with_context(|| self.logs())
    }

    /// Waits until every ztunnel holds exactly what `ambientd render` says of the files.
    ///
    /// # Errors
    /// With the differences.
    pub async fn wait_holds_what_is_rendered(&self) -> anyhow::Result<()> {
        let expected = dump::expected(&self.daemon.render("ztunnel")?)?;
        for (node, ztunnel) in &self.ztunnels {
            let what = format!("the ztunnel of {node} to hold what is rendered");
            wait::until(&what, LIMIT, || async {
                let held = dump::held(&ztunnel.config_dump().await?)?;
                let differences = dump::differences(&held, &expected);
                ensure!(differences.is_empty(), "{}", differences.join("\n"));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The ends of all logs, for failures.
    pub fn logs(&self) -> String {
        let ztunnels = self
            .ztunnels
            .iter()
            .map(|(node, ztunnel)| format!("{node}: {}", ztunnel.log_tail()));
        let waypoints = self
            .waypoints
            .iter()
            .map(|(name, waypoint)| format!("{name}: {}", waypoint.log_tail()));
        let all = [self.daemon.log_tail()].into_iter();
        let all: Vec<String> = all.chain(ztunnels).chain(waypoints).collect();
        all.join("\n")
    }

    /// Where the world's files are.
    pub fn config_dir(&self) -> &Path {
        &self.config
    }

    /// The control plane's state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Changes the world's file. What follows from it is on its way, not there yet.
    ///
    /// # Errors
    /// When the edit changes nothing.
    pub fn edit(&self, edit: impl FnOnce(&str) -> String) -> anyhow::Result<()> {
        let file = self.config.join("input.yaml");
        let old = std::fs::read_to_string(&file)?;
        let new = edit(&old);
        ensure!(old != new, "the edit changes nothing");
        std::fs::write(&file, new)?;
        Ok(())
    }

    /// Captures a pod, as the CNI does when its namespace is enrolled.
    ///
    /// # Errors
    /// When its ztunnel does not take it.
    pub fn capture(&self, name: &str) -> anyhow::Result<()> {
        let (pod, netns) = self.world.pod(name)?;
        super::capture(netns)?;
        let agent = self.agents.get(&pod.node).context("no such node")?;
        agent.add(pod.handed_over(netns)?)
    }

    /// Moves a captured pod: the file gets its new address and node, a host appears there with
    /// its sample workloads, and the old one is gone.
    ///
    /// # Errors
    /// When the new place cannot be made or a node agent is not answered.
    pub fn move_pod(
        &mut self,
        lab: &Lab,
        name: &str,
        ip: IpAddr,
        node: &str,
    ) -> anyhow::Result<()> {
        let (old, _) = self.world.pod(name)?;
        let old = old.clone();
        let (from_ip, to_ip) = (old.ip.to_string(), ip.to_string());
        let from_node = format!("nodeName: {}", old.node);
        let to_node = format!("nodeName: {node}");
        let start = format!("  name: {}\n  namespace: {}\n", old.name, old.ns);
        self.agents[&old.node].remove(&old.ns, &old.name)?;
        self.world.move_pod(lab, name, ip, node)?;
        let (pod, netns) = self.world.pod(name)?;
        self.agents[node].add(pod.handed_over(netns)?)?;
        self.edit(|text| {
            let documents = text.split("---\n").map(|document| {
                if document.contains("kind: Pod\n") && document.contains(&start) {
                    let moved = document.replace(&from_ip, &to_ip);
                    moved.replace(&from_node, &to_node)
                } else {
                    document.to_owned()
                }
            });
            documents.collect::<Vec<_>>().join("---\n")
        })
    }

    /// Calls until the answer is as expected: certificates and routes may still be on their way.
    ///
    /// # Errors
    /// When it never is, with the last answer and the logs.
    pub async fn expect(
        &self,
        caller: &str,
        request: &str,
        expected: impl Fn(&Outcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        let what = format!("{caller}: {request}");
        let outcome = wait::until(&what, LIMIT, || async {
            let outcome = self.world.call(caller, request).await?;
            expected(&outcome).with_context(|| format!("{outcome:?}"))?;
            Ok(outcome)
        });
        outcome.await.with_context(|| self.logs())
    }

    /// As [`Self::expect`]: an answer with this status.
    ///
    /// # Errors
    /// When there is none.
    pub async fn expect_status(
        &self,
        caller: &str,
        request: &str,
        status: u16,
    ) -> anyhow::Result<Outcome> {
        let expected = |outcome: &Outcome| {
            ensure!(outcome.status() == status, "expected {status}");
            Ok(())
        };
        self.expect(caller, request, expected).await
    }

    /// As [`Self::expect`]: the connection is closed without an answer, and stays so.
    ///
    /// # Errors
    /// When there is an answer.
    pub async fn expect_reset(&self, caller: &str, request: &str) -> anyhow::Result<()> {
        self.expect_status(caller, request, 0).await?;
        for _ in 0..3 {
            let outcome = self.world.call(caller, request).await?;
            ensure!(outcome.status() == 0, "{caller}: {request}: {outcome:?}");
        }
        Ok(())
    }

    /// The identity of a pod's account as ztunnel logs it.
    pub fn identity(&self, pod: &str) -> anyhow::Result<String> {
        let (pod, _) = self.world.pod(pod)?;
        Ok(format!(
            "{TRUST_DOMAIN_PREFIX}/ns/{}/sa/{}",
            pod.ns, pod.service_account
        ))
    }
}
