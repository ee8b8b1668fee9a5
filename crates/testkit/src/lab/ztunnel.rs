//! A real ztunnel of one node.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::netns::Netns;
use crate::{http_client, wait};

/// Names the ztunnel binary.
pub const ZTUNNEL_VAR: &str = "ZTUNNEL_BIN";
const READY_PORT: u16 = 15021;
const STATS_PORT: u16 = 15020;
const ADMIN_PORT: u16 = 15000;

/// What a ztunnel is told.
#[derive(Clone, Debug)]
pub struct ZtunnelOptions {
    /// Node.
    pub node: String,
    /// Address of the node.
    pub ip: IpAddr,
    /// Address of the control plane and its CA.
    pub control_plane: SocketAddr,
    /// Root certificates.
    pub root: PathBuf,
    /// File with the token of its service account.
    pub token: PathBuf,
    /// Socket of the node agent.
    pub agent: PathBuf,
    /// Log file.
    pub log: PathBuf,
    /// Its network.
    pub network: String,
    /// Further environment.
    pub env: Vec<(String, String)>,
}

/// What a ztunnel holds for one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCertificate {
    /// Whose.
    pub identity: String,
    /// Serial numbers of the chain; empty while there is no certificate.
    pub serials: Vec<String>,
    /// How many roots came with it.
    pub roots_count: usize,
}

/// A running ztunnel; killed when dropped.
#[derive(Debug)]
pub struct LabZtunnel {
    child: Child,
    netns: Netns,
    options: ZtunnelOptions,
}

// === impl LabZtunnel ===

impl LabZtunnel {
    /// The binary, if the variable names one.
    pub fn binary() -> Option<PathBuf> {
        std::env::var_os(ZTUNNEL_VAR).map(PathBuf::from)
    }

    /// Starts it in the namespace of its node.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(binary: &Path, netns: Netns, options: ZtunnelOptions) -> anyhow::Result<Self> {
        let url = format!("https://{}", options.control_plane);
        let log = std::fs::File::create(&options.log)?;
        let mut command = Command::new(binary);
        command
            .args(["proxy", "ztunnel"])
            .env_clear()
            .env("RUST_LOG", "info,ztunnel::xds=debug")
            .env("PROXY_MODE", "shared")
            .env("INPOD_UDS", &options.agent)
            .env("XDS_ADDRESS", &url)
            .env("CA_ADDRESS", &url)
            .env("XDS_ROOT_CA", &options.root)
            .env("CA_ROOT_CA", &options.root)
            .env("AUTH_TOKEN", &options.token)
            .env("NODE_NAME", &options.node)
            .env("NETWORK", &options.network)
            .env("CLUSTER_ID", "Kubernetes")
            .env("INSTANCE_IP", options.ip.to_string())
            .env("POD_NAME", format!("ztunnel-{}", options.node))
            .env("POD_NAMESPACE", "istio-system")
            .env("IPV6_ENABLED", "false")
            .envs(options.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = netns.spawn(&mut command)?;
        Ok(Self {
            child,
            netns,
            options,
        })
    }

    /// The namespace of its node.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Waits until it has the configuration and its pods.
    ///
    /// # Errors
    /// With the end of its log.
    pub async fn wait_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let addr = SocketAddr::new(self.options.ip, READY_PORT);
        let ready = wait::until("ztunnel to be ready", limit, || async move {
            let answer = http_client::get(addr, "/healthz/ready").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        });
        ready.await.with_context(|| self.log_tail())
    }

    /// What it holds: `/config_dump` of its admin interface.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn config_dump(&self) -> anyhow::Result<Value> {
        let stream = self.netns.run(|| {
            let stream = std::net::TcpStream::connect(("127.0.0.1", ADMIN_PORT))?;
            stream.set_nonblocking(true).map(|()| stream)
        })??;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let request = http_client::request(http::Method::GET, "localhost", "/config_dump")?;
        http_client::send_http1(stream, request).await?.json()
    }

    /// The certificates that it holds or asks for.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn certificates(&self) -> anyhow::Result<Vec<HeldCertificate>> {
        let dump = self.config_dump().await?;
        let list = dump["certificates"].as_array();
        let list_of = |one: &Value, key: &str| one[key].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let held = list.context("no certificates")?.iter().map(|one| {
            let chain = list_of(one, "certChain");
            HeldCertificate {
                identity: text(&one["identity"]),
                serials: chain
                    .iter()
                    .map(|cert| text(&cert["serialNumber"]))
                    .collect(),
                roots_count: list_of(one, "rootCerts").len(),
            }
        });
        Ok(held.collect())
    }

    /// Its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let addr = SocketAddr::new(self.options.ip, STATS_PORT);
        Ok(http_client::get(addr, "/metrics").await?.text())
    }

    /// The whole log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.options.log).unwrap_or_default()
    }

    /// The last lines of the log, for failures.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(40);
        format!("ztunnel's log ends with:\n{}", lines[from..].join("\n"))
    }
}

impl Drop for LabZtunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
