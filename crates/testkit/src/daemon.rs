//! Runs the real `ambientd` as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use ca::DevCa;
use model::SpiffeId;
use tempfile::TempDir;

use crate::ads::XdsTarget;
use crate::hbone::Identity;
use crate::{http_client, wait};

/// Names the binary under test; else it is looked for beside the running test.
pub const DAEMON_VAR: &str = "AMBIENTD_BIN";
/// The name in the serving certificate that clients check.
pub const SERVER_NAME: &str = "istiod.istio-system.svc";
const TRUST_DOMAIN: &str = "cluster.local";
const READY_LIMIT: Duration = Duration::from_secs(20);
const LOG_TAIL_LINES: usize = 40;

/// Finds the binary: the variable, else `ambientd` in the directory of the running
/// executable or one above it, where Cargo puts it.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(DAEMON_VAR) {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "{DAEMON_VAR}={} is not a file",
            path.display()
        );
        return Ok(path);
    }
    let me = std::env::current_exe()?;
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("ambientd"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no `ambientd` near {}: run `cargo build` first or set {DAEMON_VAR}",
                me.display()
            )
        })
}

/// The addresses of a daemon; kept over a restart.
#[derive(Clone, Copy, Debug)]
pub struct Addrs {
    /// ADS over mTLS.
    pub xds: SocketAddr,
    /// ADS in plain text.
    pub xds_plaintext: SocketAddr,
    /// Debug endpoints and metrics.
    pub debug: SocketAddr,
    /// Readiness.
    pub ready: SocketAddr,
}

impl Addrs {
    fn free() -> anyhow::Result<Self> {
        let port = || anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], wait::free_port()?)));
        Ok(Self {
            xds: port()?,
            xds_plaintext: port()?,
            debug: port()?,
            ready: port()?,
        })
    }
}

/// What the bootstrap of a waypoint or gateway is made of.
#[derive(Clone, Debug)]
pub struct BootstrapRequest {
    /// `waypoint` or `gateway`.
    pub kind: &'static str,
    /// Namespace of the waypoint.
    pub ns: String,
    /// Name of the waypoint.
    pub name: String,
    /// Address of the waypoint's pod: Envoy listens there and nowhere else.
    pub ip: String,
    /// Port of Envoy's admin interface; 0 for any.
    pub admin_port: u16,
    /// State-of-the-world instead of delta.
    pub sotw: bool,
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Option<Child>,
    config_dir: PathBuf,
    state_dir: PathBuf,
    addrs: Addrs,
    /// Flags of the mesh beside those that every daemon has.
    flags: Vec<String>,
    log: PathBuf,
    _scratch: TempDir,
}

// The command line is made in these two functions and nowhere else.

fn serve_args(config_dir: &Path, state_dir: &Path, addrs: &Addrs) -> Vec<String> {
    [
        ("--config-dir", config_dir.display().to_string()),
        ("--state-dir", state_dir.display().to_string()),
        ("--xds-addr", addrs.xds.to_string()),
        ("--xds-plaintext-addr", addrs.xds_plaintext.to_string()),
        ("--debug-addr", addrs.debug.to_string()),
        ("--ready-addr", addrs.ready.to_string()),
        // Issuers of tests are on loopback, and change their keys more often than others.
        ("--jwks-allow", "127.0.0.0/8".to_owned()),
        ("--jwks-refresh", "1s".to_owned()),
    ]
    .into_iter()
    .fold(vec!["serve".to_owned()], |mut args, (flag, value)| {
        args.extend([flag.to_owned(), value]);
        args
    })
}

fn bootstrap_args(
    request: &BootstrapRequest,
    config_dir: &Path,
    state_dir: &Path,
    xds: SocketAddr,
) -> Vec<String> {
    let mut args = vec!["bootstrap".to_owned(), "--bind-ip".to_owned()];
    for (flag, value) in [
        (
            "--for",
            format!("{}/{}/{}", request.kind, request.ns, request.name),
        ),
        ("--config-dir", config_dir.display().to_string()),
        ("--state-dir", state_dir.display().to_string()),
        ("--xds-addr", xds.to_string()),
        ("--ip", request.ip.clone()),
        ("--admin-port", request.admin_port.to_string()),
        ("--output", "yaml".to_owned()),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    if request.sotw {
        args.push("--sotw".to_owned());
    }
    args
}

fn load_ca(state_dir: &Path) -> anyhow::Result<DevCa> {
    Ok(DevCa::load_or_create(
        state_dir,
        TRUST_DOMAIN,
        SystemTime::now(),
    )?)
}

fn issue(state_dir: &Path, ns: &str, sa: &str) -> anyhow::Result<Identity> {
    Identity::issue(&load_ca(state_dir)?, &SpiffeId::new(TRUST_DOMAIN, ns, sa))
}

impl Daemon {
    /// Starts `ambientd serve` on free loopback ports and waits until it is ready.
    pub async fn start(config_dir: &Path, state_dir: &Path) -> anyhow::Result<Self> {
        Self::start_on(config_dir, state_dir, Addrs::free()?).await
    }

    /// As [`Self::start`], on these addresses.
    pub async fn start_on(
        config_dir: &Path,
        state_dir: &Path,
        addrs: Addrs,
    ) -> anyhow::Result<Self> {
        Self::start_as(config_dir, state_dir, addrs, Vec::new()).await
    }

    /// As [`Self::start`], with flags of the mesh, which `render` and `bootstrap` get too.
    pub async fn start_with(
        config_dir: &Path,
        state_dir: &Path,
        flags: Vec<String>,
    ) -> anyhow::Result<Self> {
        Self::start_as(config_dir, state_dir, Addrs::free()?, flags).await
    }

    async fn start_as(
        config_dir: &Path,
        state_dir: &Path,
        addrs: Addrs,
        flags: Vec<String>,
    ) -> anyhow::Result<Self> {
        let scratch = TempDir::with_prefix("ambientd-log-")?;
        let mut daemon = Self {
            child: None,
            config_dir: config_dir.to_owned(),
            state_dir: state_dir.to_owned(),
            addrs,
            flags,
            log: scratch.path().join("ambientd.log"),
            _scratch: scratch,
        };
        daemon.spawn()?;
        daemon.wait_ready().await?;
        Ok(daemon)
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let binary = binary()?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = Command::new(&binary)
            .args(serve_args(&self.config_dir, &self.state_dir, &self.addrs))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits for `/ready`.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let addr = self.addrs.ready;
        let ready = wait::until("ambientd's /ready", READY_LIMIT, || {
            let alive = self.alive();
            async move {
                alive?;
                let response = http_client::get(addr, "/ready").await?;
                ensure!(response.status == 200, "/ready says {}", response.status);
                Ok(())
            }
        })
        .await;
        ready.with_context(|| self.log_tail())
    }

    /// An error when the process has ended or was stopped.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().context("ambientd is stopped")?;
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ambientd ended with {status}"),
        }
    }

    /// Kills the process at once, as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("ambientd is stopped")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again on the same ports with the same directories.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            self.kill()?;
        }
        self.spawn()?;
        self.wait_ready().await
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its addresses.
    pub fn addrs(&self) -> &Addrs {
        &self.addrs
    }

    /// The last lines of the log, for failures.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        format!("ambientd's log ends with:\n{}", lines[from..].join("\n"))
    }

    /// A debug page as text.
    pub async fn debug(&self, path: &str) -> anyhow::Result<String> {
        let response = http_client::get(self.addrs.debug, path).await?;
        ensure!(
            response.status == 200,
            "{path} says {}: {}",
            response.status,
            response.text()
        );
        Ok(response.text())
    }

    /// The CA under the state directory, which the daemon created.
    pub fn ca(&self) -> anyhow::Result<DevCa> {
        load_ca(&self.state_dir)
    }

    /// The root certificate that clients trust.
    pub fn root_path(&self) -> PathBuf {
        self.state_dir.join("ca").join("root-cert.pem")
    }

    /// Has `ambientd token` issue a token of a service account, or of one of its pods.
    pub fn token(&self, ns: &str, account: &str, pod: Option<&str>) -> anyhow::Result<String> {
        let mut command = Command::new(binary()?);
        command
            .arg("token")
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(["--namespace", ns, "--service-account", account]);
        if let Some(pod) = pod {
            command.args(["--pod", pod, "--config-dir"]);
            command.arg(&self.config_dir);
        }
        let output = command.output().context("running ambientd token")?;
        ensure!(
            output.status.success(),
            "ambientd token failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// `ambientd render --for TARGET` of the same files.
    pub fn render(&self, target: &str) -> anyhow::Result<serde_json::Value> {
        let output = Command::new(binary()?)
            .args(["render", "--for", target, "--config-dir"])
            .arg(&self.config_dir)
            .args(&self.flags)
            .output()
            .context("running ambientd render")?;
        ensure!(
            output.status.success(),
            "ambientd render failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("render printed no JSON")
    }

    /// A certificate of the mesh.
    pub fn identity(&self, ns: &str, sa: &str) -> anyhow::Result<Identity> {
        issue(&self.state_dir, ns, sa)
    }

    /// ADS over mTLS as the given account.
    pub fn xds_as(&self, ns: &str, sa: &str) -> anyhow::Result<XdsTarget> {
        self.renewed_xds_as(ns, sa)()
    }

    /// The same, with a certificate and the roots of the moment each time.
    pub fn renewed_xds_as(
        &self,
        ns: &str,
        sa: &str,
    ) -> impl Fn() -> anyhow::Result<XdsTarget> + Send + Sync + 'static {
        let (state_dir, addr) = (self.state_dir.clone(), self.addrs.xds);
        let (ns, sa) = (ns.to_owned(), sa.to_owned());
        move || {
            Ok(XdsTarget::Tls {
                addr,
                server_name: SERVER_NAME.to_owned(),
                identity: Arc::new(issue(&state_dir, &ns, &sa)?),
            })
        }
    }

    /// The TLS listener, without a certificate: streams need a token.
    pub fn xds_anonymous(&self) -> anyhow::Result<XdsTarget> {
        Ok(XdsTarget::Anonymous {
            addr: self.addrs.xds,
            server_name: SERVER_NAME.to_owned(),
            root_pem: self.ca()?.root_pem().to_owned(),
            token: None,
        })
    }

    /// The directory of the CA and the key of tokens.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The plain text listener, which asks nobody who it is.
    pub fn xds_plaintext(&self) -> XdsTarget {
        XdsTarget::Plain(self.addrs.xds_plaintext)
    }

    /// Has `ambientd bootstrap` write a waypoint's certificates and its bootstrap file.
    pub fn bootstrap(&self, request: &BootstrapRequest, file: &Path) -> anyhow::Result<()> {
        let output = Command::new(binary()?)
            .args(bootstrap_args(
                request,
                &self.config_dir,
                &self.state_dir,
                self.addrs.xds,
            ))
            .args(&self.flags)
            .output()
            .context("running ambientd bootstrap")?;
        ensure!(
            output.status.success(),
            "ambientd bootstrap failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::write(file, &output.stdout).with_context(|| format!("writing {}", file.display()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
