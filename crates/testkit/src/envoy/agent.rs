//! Envoy beside its agent, as in a pod: a token, the roots, nothing else.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::{Envoy, binary};
use crate::daemon::{self, Daemon};
use crate::{http_client, wait};

/// What a waypoint or gateway with an agent is started with.
#[derive(Clone, Debug)]
pub struct AgentRequest {
    /// Namespace of the waypoint.
    pub ns: String,
    /// Name of the waypoint.
    pub name: String,
    /// Service account.
    pub service_account: String,
    /// Address of its pod: everything listens there and nowhere else.
    pub ip: String,
    /// State-of-the-world instead of delta.
    pub sotw: bool,
    /// Life of its certificates, seconds.
    pub ttl_seconds: u64,
}

/// Where an agent is asked, and its directory.
pub(super) struct AgentParts {
    health: SocketAddr,
    status: SocketAddr,
    dir: TempDir,
}

impl Envoy {
    /// Starts `ambientd agent` for a waypoint, and waits for its Envoy's admin interface.
    pub async fn start_with_agent(daemon: &Daemon, request: &AgentRequest) -> anyhow::Result<Self> {
        let envoy = Self::start_agent(daemon, request)?;
        envoy.with_token(daemon, request).await
    }

    /// The same for an ingress gateway.
    pub async fn start_gateway(daemon: &Daemon, request: &AgentRequest) -> anyhow::Result<Self> {
        let envoy = Self::start_agent_of("gateway", daemon, request)?;
        envoy.with_token(daemon, request).await
    }

    /// The same for a gateway between networks.
    pub async fn start_east_west(daemon: &Daemon, request: &AgentRequest) -> anyhow::Result<Self> {
        let envoy = Self::start_agent_of("east-west", daemon, request)?;
        envoy.with_token(daemon, request).await
    }

    async fn with_token(mut self, daemon: &Daemon, request: &AgentRequest) -> anyhow::Result<Self> {
        let envoy = &mut self;
        let token = daemon.token(&request.ns, &request.service_account, None)?;
        std::fs::write(envoy.token_path()?, token)?;
        let admin_file = envoy.agent()?.dir.path().join("run/admin-address");
        let found = wait::until("Envoy's admin address", Duration::from_secs(20), || {
            let look = envoy.alive().and_then(|()| {
                let text = std::fs::read_to_string(&admin_file)?;
                Ok(text.trim().parse()?)
            });
            async move { look }
        })
        .await;
        envoy.admin = found.with_context(|| envoy.log_tail())?;
        Ok(self)
    }

    /// Starts `ambientd agent` without a token; Envoy is not started before it has one.
    pub fn start_agent(daemon: &Daemon, request: &AgentRequest) -> anyhow::Result<Self> {
        Self::start_agent_of("waypoint", daemon, request)
    }

    fn start_agent_of(kind: &str, daemon: &Daemon, request: &AgentRequest) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("ambientd-agent-")?;
        let log = dir.path().join("agent.log");
        let out = std::fs::File::create(&log)?;
        let ip = request.ip.parse()?;
        let health = SocketAddr::new(ip, wait::free_port()?);
        let status = SocketAddr::new(ip, wait::free_port()?);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut command = Command::new(daemon::binary()?);
        command.args([
            "agent",
            "--bind-ip",
            "--admin-port",
            "0",
            "--stats-port",
            "0",
        ]);
        for (flag, value) in [
            (
                "--gateway",
                format!("{kind}/{}/{}", request.ns, request.name),
            ),
            ("--xds-addr", daemon.addrs().xds.to_string()),
            ("--root", daemon.ca()?.root_path().display().to_string()),
            ("--token", path("token")),
            ("--service-account", request.service_account.clone()),
            ("--pod-name", format!("{}-0", request.name)),
            ("--ip", request.ip.clone()),
            ("--run-dir", path("run")),
            ("--status-port", status.port().to_string()),
            ("--health-port", health.port().to_string()),
            ("--certificate-ttl", format!("{}s", request.ttl_seconds)),
            ("--termination-drain", "2s".to_owned()),
        ] {
            command.arg(flag).arg(value);
        }
        if request.sotw {
            command.arg("--sotw");
        }
        let child = command
            .arg("--")
            .arg(binary()?)
            .args(["--concurrency", "2", "--log-level", "info"])
            // What Envoy drains it closes soon, so that tests see it.
            .args(["--drain-time-s", "2", "--parent-shutdown-time-s", "4"])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("starting the agent")?;
        Ok(Self {
            child,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            agent: Some(AgentParts {
                health,
                status,
                dir,
            }),
            _dir: TempDir::new()?,
        })
    }

    fn agent(&self) -> anyhow::Result<&AgentParts> {
        self.agent.as_ref().context("this Envoy has no agent")
    }

    fn token_path(&self) -> anyhow::Result<std::path::PathBuf> {
        Ok(self.agent()?.dir.path().join("token"))
    }

    /// What the probe port says: nothing when ready, else what is missing.
    pub async fn probe(&self) -> anyhow::Result<Result<(), String>> {
        let answer = http_client::get(self.agent()?.health, "/healthz/ready").await?;
        match answer.status.as_u16() {
            200 => Ok(Ok(())),
            503 => Ok(Err(answer.text().trim().to_owned())),
            other => anyhow::bail!("the probe says {other}"),
        }
    }

    /// The merged metrics.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let answer = http_client::get(self.agent()?.status, "/stats/prometheus").await?;
        ensure!(answer.status == 200, "metrics say {}", answer.status);
        Ok(answer.text())
    }

    /// Asks the agent to end, as Kubernetes does.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status()?;
        ensure!(status.success(), "kill -TERM {id}: {status}");
        Ok(())
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.try_wait()?.context("it still runs")
    }

    /// The process id of Envoy itself, a child of the agent.
    pub fn envoy_id(&self) -> anyhow::Result<u32> {
        let id = self.id();
        let children = std::fs::read_dir(format!("/proc/{id}/task"))?
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
            .collect::<String>();
        let child = children.split_whitespace().next();
        Ok(child.context("the agent has no child")?.parse()?)
    }
}
