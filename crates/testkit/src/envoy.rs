//! Runs a real Envoy.
//!
//! The binary is named by `AMBIENTD_ENVOY`. Without it there is an error, never a
//! skipped test: what was not run against Envoy is not known to work.

mod agent;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{http_client, wait};

pub use agent::AgentRequest;

/// Names the Envoy binary.
pub const ENVOY_VAR: &str = "AMBIENTD_ENVOY";
/// How much of the log a failure shows.
const LOG_TAIL_LINES: usize = 40;

/// The Envoy binary.
///
/// # Errors
/// When the variable is unset or names no file.
pub fn binary() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os(ENVOY_VAR).with_context(|| {
        format!("{ENVOY_VAR} must name an Envoy binary; `cargo xtask test` provides one")
    })?;
    let path = PathBuf::from(path);
    ensure!(
        path.is_file(),
        "{ENVOY_VAR}={} is not a file",
        path.display()
    );
    Ok(path)
}

/// Has Envoy check a bootstrap file without running it.
///
/// # Errors
/// With Envoy's own words when it refuses.
pub fn validate(bootstrap: &Path) -> anyhow::Result<()> {
    let output = Command::new(binary()?)
        .args(["--mode", "validate", "--log-level", "warn", "-c"])
        .arg(bootstrap)
        .output()
        .context("running Envoy")?;
    ensure!(
        output.status.success(),
        "Envoy refuses {}:\n{}",
        bootstrap.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A running Envoy; killed when dropped.
pub struct Envoy {
    child: Child,
    admin: SocketAddr,
    /// The agent, when the child is one and Envoy is *its* child.
    agent: Option<agent::AgentParts>,
    _dir: TempDir,
    log: PathBuf,
}

impl Envoy {
    /// Starts Envoy with a bootstrap file and finds its admin address.
    pub async fn start(bootstrap: &Path) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("ambientd-envoy-")?;
        let log = dir.path().join("envoy.log");
        let admin_file = dir.path().join("admin");
        let out = std::fs::File::create(&log)?;
        let child = Command::new(binary()?)
            .arg("-c")
            .arg(bootstrap)
            .arg("--admin-address-path")
            .arg(&admin_file)
            // A base id of its own: several Envoys on one host share no memory.
            .args([
                "--use-dynamic-base-id",
                "--concurrency",
                "2",
                "--log-level",
                "info",
            ])
            .args(["--drain-time-s", "1", "--parent-shutdown-time-s", "2"])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("starting Envoy")?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut envoy = Self {
            child,
            admin: unknown,
            agent: None,
            log,
            _dir: dir,
        };
        let found = wait::until("Envoy's admin address", Duration::from_secs(20), || {
            let look = envoy.alive().and_then(|()| {
                let text = std::fs::read_to_string(&admin_file)?;
                Ok(text.trim().parse()?)
            });
            async move { look }
        })
        .await;
        envoy.admin = found.with_context(|| envoy.log_tail())?;
        Ok(envoy)
    }

    /// The admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The log file; gone with the handle.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The last lines of the log, for failures.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        format!("Envoy's log ends with:\n{}", lines[from..].join("\n"))
    }

    /// An error when the process has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("Envoy ended with {status}"),
        }
    }

    /// Waits until Envoy is live: its first clusters and listeners have come.
    pub async fn wait_ready(&mut self, limit: Duration) -> anyhow::Result<()> {
        let admin = self.admin;
        let ready = wait::until("Envoy's /ready", limit, || {
            let alive = self.alive();
            async move {
                alive?;
                let response = http_client::get(admin, "/ready").await?;
                ensure!(
                    response.status == 200,
                    "/ready says {}",
                    response.text().trim()
                );
                Ok(())
            }
        })
        .await;
        ready.with_context(|| self.log_tail())
    }

    /// A page of the admin interface as text.
    pub async fn page(&self, path: &str) -> anyhow::Result<String> {
        let response = http_client::get(self.admin, path).await?;
        ensure!(
            response.status == 200,
            "{path} says {}: {}",
            response.status,
            response.text()
        );
        Ok(response.text())
    }

    /// A page of the admin interface as JSON.
    pub async fn page_json(&self, path: &str) -> anyhow::Result<Value> {
        serde_json::from_str(&self.page(path).await?).with_context(|| format!("{path} is not JSON"))
    }

    /// `/config_dump` with endpoints.
    pub async fn config_dump(&self) -> anyhow::Result<Value> {
        self.page_json("/config_dump?include_eds").await
    }

    /// `/listeners`.
    pub async fn listeners(&self) -> anyhow::Result<Value> {
        self.page_json("/listeners?format=json").await
    }

    /// Counters and gauges whose name matches a regular expression.
    pub async fn stats(&self, filter: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let text = self.page(&format!("/stats?filter={filter}")).await?;
        Ok(text
            .lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(": ")?;
                Some((name.to_owned(), value.trim().parse().ok()?))
            })
            .collect())
    }

    /// One counter or gauge; 0 when Envoy has none of that name.
    pub async fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let stats = self.stats(&format!("^{name}$")).await?;
        Ok(stats.first().map_or(0, |(_, value)| *value))
    }

    /// Asserts that the control plane is connected and that nothing it sent was refused.
    pub async fn assert_no_nacks(&self) -> anyhow::Result<()> {
        let rejected: Vec<_> = self
            .stats("update_rejected$")
            .await?
            .into_iter()
            .filter(|(_, value)| *value > 0)
            .collect();
        ensure!(
            rejected.is_empty(),
            "Envoy refused updates: {rejected:?}\n{}",
            self.log_tail()
        );
        let connected = self.stat("control_plane.connected_state").await?;
        ensure!(
            connected == 1,
            "Envoy is not connected to the control plane\n{}",
            self.log_tail()
        );
        Ok(())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
