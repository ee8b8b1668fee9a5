//! A real Kubernetes: etcd, API server, controllers and nodes as processes of this
//! machine, in a network namespace of their own.
//!
//! The binary is named by `AMBIENTD_CLUSTER`. Without it, or without root, there is an
//! error, never a skipped test. Several clusters run at once: each takes addresses and
//! names of its own, and leaves nothing behind when its handle is dropped, nor when the
//! test is killed.

mod control;
mod kubectl;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

pub use control::Part;
pub use kubectl::KubectlError;

/// Names the cluster binary.
pub const CLUSTER_VAR: &str = "AMBIENTD_CLUSTER";

/// Names a directory with parts of Kubernetes.
const ASSETS_VAR: &str = "KUBEBUILDER_ASSETS";

const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes; with none there is no `kube-proxy` either, and pods stay pending.
    pub nodes: usize,
    /// The program that containers run, and its first arguments if any, by the name of
    /// their image without registry and tag. `echo` and `client` are there anyway.
    pub images: BTreeMap<String, String>,
    /// Paths of this machine that pods may mount as they are.
    pub host_paths: Vec<PathBuf>,
    /// The slot, which decides all addresses; `None` for the first that is free.
    pub slot: Option<u8>,
    /// A directory as envtest has it, with an etcd and an API server to run; `None` for the
    /// one that `KUBEBUILDER_ASSETS` names, or else for what is built in.
    pub assets: Option<PathBuf>,
}

/// A running cluster; stopped and removed when dropped.
pub struct Cluster {
    child: Child,
    dir: TempDir,
    ready: Ready,
}

/// What the cluster says of itself once it is ready.
struct Ready {
    value: Value,
}

/// The binary.
///
/// # Errors
/// When the variable is unset or names no file.
pub fn binary() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os(CLUSTER_VAR).with_context(|| {
        format!(
            "{CLUSTER_VAR} must name the cluster binary: `cargo xtask cluster build` builds it and \
             prints its path, `cargo xtask test` does so by itself"
        )
    })?;
    let path = PathBuf::from(path);
    ensure!(
        path.is_file(),
        "{CLUSTER_VAR}={} is not a file: `cargo xtask cluster build` builds it",
        path.display()
    );
    Ok(path)
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 2,
            images: BTreeMap::new(),
            host_paths: Vec::new(),
            slot: None,
            assets: None,
        }
    }
}

impl Options {
    /// Only the control plane of Kubernetes: what a test needs that runs no pods.
    pub fn control_plane() -> Self {
        Self {
            nodes: 0,
            ..Self::default()
        }
    }

    fn args(&self) -> Vec<String> {
        let mut args = vec![format!("--nodes={}", self.nodes)];
        if let Some(slot) = self.slot {
            args.push(format!("--id={slot}"));
        }
        let images = self.images.iter();
        args.extend(images.map(|(name, program)| format!("--image={name}={program}")));
        let paths = self.host_paths.iter();
        args.extend(paths.map(|path| format!("--host-path={}", path.display())));
        args
    }
}

// === impl Ready ===

impl Ready {
    fn text(&self, key: &str) -> &str {
        self.value[key]
            .as_str()
            .unwrap_or_else(|| panic!("a ready cluster names its {key}"))
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster and waits until it is ready: the API server answers, the namespace
    /// `default` has its account, and every node is ready.
    ///
    /// # Errors
    /// When that takes more than 90 s or fails; the ends of all logs are in the message.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(move || Self::start_blocking(&options)).await?
    }

    /// [`Cluster::start`] for tests without a runtime.
    ///
    /// # Errors
    /// The same.
    pub fn start_blocking(options: &Options) -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a cluster needs root, for its network namespaces"
        );
        let dir = TempDir::with_prefix("ambientd-cluster-")?;
        let log = File::create(dir.path().join("cluster.log"))?;
        let child = Command::new(binary()?)
            .args(["run", "--with-stdin", "--state-dir"])
            .arg(dir.path())
            .args(options.args())
            .envs(options.assets.iter().map(|dir| (ASSETS_VAR, dir)))
            // It ends when this pipe does, which the system sees to if we are killed.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the cluster")?;
        let mut cluster = Self {
            child,
            dir,
            ready: Ready { value: Value::Null },
        };
        cluster.ready.value = cluster.wait_ready()?;
        Ok(cluster)
    }

    fn wait_ready(&mut self) -> anyhow::Result<Value> {
        let deadline = Instant::now() + START_LIMIT;
        let file = self.dir.path().join("ready");
        while !file.exists() {
            if let Some(status) = self.child.try_wait()? {
                // Its last words hold the ends of all logs.
                let log = fs::read_to_string(self.dir.path().join("cluster.log"))?;
                bail!("the cluster ended with {status}:\n{log}");
            }
            ensure!(
                Instant::now() < deadline,
                "the cluster is not ready after {START_LIMIT:?}"
            );
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }

    /// An administrator's kubeconfig, good on this host and in every pod.
    pub fn kubeconfig(&self) -> PathBuf {
        self.ready.text("kubeconfig").into()
    }

    /// A client with an administrator's rights.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        use kube::config::{KubeConfigOptions, Kubeconfig};
        // Whoever was first has chosen the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = Kubeconfig::read_from(self.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Where the cluster keeps its files: `logs/`, `pki/`, `audit.log`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The network namespace of control plane and nodes. Names of pods' namespaces begin
    /// with it.
    pub fn fabric(&self) -> &str {
        self.ready.text("fabric")
    }

    /// The range of pods' addresses, as a CIDR.
    pub fn pod_cidr(&self) -> &str {
        self.ready.text("podCIDR")
    }

    /// The range of services' addresses, as a CIDR.
    pub fn service_cidr(&self) -> &str {
        self.ready.text("serviceCIDR")
    }

    /// The range of LoadBalancers' addresses, as a CIDR.
    pub fn lb_range(&self) -> &str {
        self.ready.text("lbRange")
    }

    /// The host's address as the pods see it.
    pub fn host_ip(&self) -> &str {
        self.ready.text("hostIP")
    }

    /// The parts that are not built in, and what is run for each.
    pub fn programs(&self) -> BTreeMap<String, PathBuf> {
        let all = self.ready.value["programs"].as_object();
        let one = |(part, path): (&String, &Value)| Some((part.clone(), path.as_str()?.into()));
        all.into_iter().flatten().filter_map(one).collect()
    }

    /// When which part was ready, in milliseconds from the start.
    pub fn startup(&self) -> Vec<(String, u64)> {
        let steps = self.ready.value["steps"].as_array();
        let step = |step: &Value| {
            let name = step["name"].as_str()?.to_owned();
            Some((name, step["atMS"].as_u64()?))
        };
        steps.into_iter().flatten().filter_map(step).collect()
    }

    /// Waits until the API server answers well, as after it was started again.
    ///
    /// It answers before it is ready: for a moment after a restart it refuses with 403 what
    /// its roles allow, because it has not read them yet.
    ///
    /// # Errors
    /// When `limit` has passed.
    pub async fn wait_api(&self, limit: Duration) -> anyhow::Result<()> {
        self.wait_for(&["get", "--raw=/readyz"], limit, |_| Ok(()))
            .await
    }

    /// Everything that was asked of the API server so far, oldest first: events of
    /// `audit.k8s.io/v1` at level Metadata.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit(&self) -> anyhow::Result<impl Iterator<Item = Value> + use<>> {
        let text = fs::read_to_string(self.dir.path().join("audit.log"))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let events: Result<Vec<Value>, _> =
            text[..whole].lines().map(serde_json::from_str).collect();
        Ok(events.context("the audit log")?.into_iter())
    }

    /// The end of a part's log.
    pub fn log_tail(&self, part: &Part, lines: usize) -> String {
        let path = self.dir.path().join("logs").join(format!("{part}.log"));
        let text = fs::read_to_string(path).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        if self.child.wait()?.success() {
            return Ok(());
        }
        // Killed, or failed half-way: what it left is known by its slot.
        let slot = match fs::read_to_string(self.dir.path().join("slot")) {
            // It was refused before it took one.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            slot => slot?,
        };
        let cleaned = Command::new(binary()?)
            .args(["clean", "--if-free", "--id", &slot])
            .status()?;
        ensure!(cleaned.success(), "cleaning up ended with {cleaned}");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("stopping the cluster: {error:#}");
        }
    }
}
