//! `cluster`: a real Kubernetes without containers, for tests and for people.
//!
//! The binary holds everything, see `tests/cluster`. Here it is built once per state of
//! its sources, and started and stopped for people; tests start their own.

mod build;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::Value;

use crate::{envoy, steps, wheel, workspace};

pub(crate) use build::{ensure, test};

/// Tells tests and benchmarks which binary is the cluster; without it they fail.
pub(crate) const CLUSTER_VARIABLE: &str = "AMBIENTD_CLUSTER";

/// How long `up` waits; the binary itself gives up before.
const UP_LIMIT: Duration = Duration::from_secs(100);
/// How long `down` waits before it uses force.
const DOWN_LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What to do with the cluster.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Start it, with ambientd as an image that its pods can run
    ///
    /// Where KUBEBUILDER_ASSETS names a directory, as envtest has it, etcd and kube-apiserver are
    /// run from there, and controllers, scheduler and proxy too if they are there; everything else
    /// is built in.
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// What containers of a further image run; may be repeated
        #[arg(long = "image", value_name = "NAME=PROGRAM[,PROGRAM] [ARGS]")]
        images: Vec<String>,
        /// Build ambientd optimised
        #[arg(long)]
        release: bool,
    },
    /// Stop it and remove every trace
    Down,
    /// Say whether it is up, and what runs
    Status,
    /// Build the binary and print its path
    Build,
    /// Fill one with pods that nobody runs, and say what ambientd needs for them
    Measure {
        /// How many
        #[arg(long, default_value_t = 50_000)]
        pods: u32,
        /// Build ambientd optimised
        #[arg(long)]
        release: bool,
    },
}

/// Does it.
///
/// # Errors
/// When something cannot be built, started or stopped.
pub(crate) fn run(action: &Action) -> Result<()> {
    match action {
        Action::Up {
            nodes,
            images,
            release,
        } => up(*nodes, images, *release),
        Action::Down => down(),
        Action::Status => status(),
        Action::Build => ensure().map(|path| println!("{}", path.display())),
        Action::Measure { pods, release } => measure(*pods, *release),
    }
}

/// Runs `benches/kube.rs`.
fn measure(pods: u32, release: bool) -> Result<()> {
    let binary = ensure()?;
    let mut bench = steps::cargo(&["bench", "-p", "ambientd", "--bench", "kube"]);
    if !release {
        bench.args(["--profile", "dev"]);
    }
    bench
        .env(CLUSTER_VARIABLE, binary)
        .args(["--", "--pods", &pods.to_string()]);
    steps::run(&mut bench)
}

/// Where the one cluster of this repository keeps its files.
fn state() -> PathBuf {
    steps::root().join("target").join("cluster")
}

/// The process of the cluster of `state`, if it is alive.
pub(crate) fn supervisor(state: &Path) -> Option<u32> {
    let id: u32 = fs::read_to_string(state.join("supervisor"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    // The id may be another process's by now.
    let command_line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let state = state.to_string_lossy();
    String::from_utf8_lossy(&command_line)
        .contains(state.as_ref())
        .then_some(id)
}

fn up(nodes: u8, images: &[String], release: bool) -> Result<()> {
    let state = state();
    if supervisor(&state).is_some() {
        println!("the cluster is up already");
        return explain(&state);
    }
    let images = images
        .iter()
        .map(|image| resolve(image))
        .collect::<Result<Vec<_>>>()?;
    ensure()?;
    let ambientd = build_ambientd(release)?;
    let mut all = vec![format!("ambientd={}", ambientd.display())];
    all.extend(envoy_image());
    all.extend(images);
    start(&state, nodes, &all, Life::Detached)?;
    explain(&state)
}

/// How long a cluster lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until it is stopped.
    Detached,
    /// As long as this process, at most.
    Ours,
}

/// Starts a cluster that keeps its files in `state`, and waits until it is ready. The
/// child of a cluster of ours holds its life.
///
/// # Errors
/// When it cannot be built or does not get ready.
pub(crate) fn start(state: &Path, nodes: u8, images: &[String], life: Life) -> Result<Child> {
    let binary = ensure()?;
    remove_traces(state)?;
    fs::create_dir_all(state).with_context(|| format!("cannot create {}", state.display()))?;
    let log = fs::File::create(state.join("cluster.log"))?;
    let mut command = steps::command(&binary);
    command
        .args(["run", "--state-dir"])
        .arg(state)
        .args(["--nodes", &nodes.to_string()]);
    for image in images {
        command.args(["--image", image]);
    }
    if life == Life::Ours {
        command.arg("--with-stdin").stdin(Stdio::piped());
    } else {
        command.stdin(Stdio::null());
    }
    detach(&mut command);
    let mut child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    fs::write(state.join("supervisor"), child.id().to_string())?;
    let deadline = Instant::now() + UP_LIMIT;
    while !state.join("ready").exists() {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(state.join("cluster.log")).unwrap_or_default();
            let why = ended.map_or_else(|| "is not ready".to_owned(), |status| status.to_string());
            stop(state)?;
            bail!("the cluster did not come up ({why})\n{log}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(child)
}

/// What pods of gateways run, beside ambientd.
fn envoy_image() -> Option<String> {
    match envoy::ensure() {
        Ok(envoy) => Some(format!("envoy={}", envoy.display())),
        Err(error) => {
            println!("no image envoy, so no gateways: {error:#}");
            None
        }
    }
}

/// An image with the paths of its programs as seen from anywhere, for the cluster runs in a
/// directory of its own. Here, so that nobody waits for a build to learn of a wrong path.
fn resolve(image: &str) -> Result<String> {
    let Some((name, command)) = image.split_once('=') else {
        bail!("--image {image} is not NAME=PROGRAM[,PROGRAM] [ARGS]");
    };
    let (programs, args) = command.split_once(' ').unwrap_or((command, ""));
    let mut paths = Vec::new();
    for program in programs.split(',') {
        let path = Path::new(program);
        if !path.is_file() {
            bail!("--image {image}: {program} is not a file");
        }
        paths.push(std::path::absolute(path)?.display().to_string());
    }
    Ok(format!("{name}={} {args}", paths.join(",")))
}

/// A process group of its own: an interrupt at the terminal is not meant for it.
#[cfg(unix)]
fn detach(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0);
}

#[cfg(not(unix))]
fn detach(_command: &mut Command) {}

/// The binary of ambientd, built.
///
/// # Errors
/// When it does not compile.
pub(crate) fn build_ambientd(release: bool) -> Result<PathBuf> {
    println!("building ambientd (minutes when the cache is cold) ...");
    let mut build = steps::cargo(&["build", "-p", "ambientd", "--bin", "ambientd"]);
    let profile = if release { "release" } else { "debug" };
    if release {
        build.arg("--release");
    }
    steps::run(&mut build)?;
    Ok(workspace::target_directory()?
        .join(profile)
        .join("ambientd"))
}

/// What `ready` says of the cluster, and what to do with it.
fn explain(state: &Path) -> Result<()> {
    let ready = state.join("ready");
    let text = fs::read_to_string(&ready)
        .context("it is still starting, or failed to: see `cargo xtask cluster status`")?;
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", ready.display()))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kubeconfig, binary) = (text("kubeconfig"), text("binary"));
    let programs = value.get("programs").and_then(Value::as_object);
    for (part, path) in programs.into_iter().flatten() {
        println!("{part} is {}", path.as_str().unwrap_or_default());
    }
    let elapsed_ms = value.get("elapsedMS").and_then(Value::as_u64);
    if let Some(elapsed_ms) = elapsed_ms {
        println!("the cluster took {elapsed_ms} ms to get ready");
    }
    println!(
        "pods {}, services {}, LoadBalancers {}: all are reached from this machine\n\n\
         kubectl is yours, or the one inside the cluster's binary:\n\n  \
         export KUBECONFIG={kubeconfig}\n  \
         alias kubectl='{binary} kubectl'\n  \
         kubectl get nodes\n\n\
         Next, to put ambientd and a sample into it:\n\n  \
         cargo xtask kind-up --only-kubectl --kubeconfig {kubeconfig} --kubectl '{binary} kubectl'\n  \
         kubectl apply -k manifests/ztunnel    # where `up` was given --image ztunnel=PATH\n  \
         kubectl apply -k manifests/samples/waypoint\n\n\
         Logs are in {}. `cargo xtask cluster down` stops it.",
        text("podCIDR"),
        text("serviceCIDR"),
        text("lbRange"),
        state.join("logs").display(),
    );
    Ok(())
}

/// Stops the cluster of `state`, if it is up, and removes every trace.
///
/// # Errors
/// When something of it stays.
pub(crate) fn stop(state: &Path) -> Result<()> {
    if let Some(id) = supervisor(state) {
        signal(id, "TERM")?;
        let deadline = Instant::now() + DOWN_LIMIT;
        while supervisor(state).is_some() {
            if Instant::now() > deadline {
                signal(id, "KILL")?;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    remove_traces(state)
}

fn down() -> Result<()> {
    let state = state();
    let was_there = state.exists();
    stop(&state)?;
    println!(
        "{}",
        if was_there {
            "the cluster is down"
        } else {
            "no cluster was up"
        }
    );
    Ok(())
}

fn signal(id: u32, signal: &str) -> Result<()> {
    let mut kill = steps::command("kill");
    kill.args([&format!("-{signal}"), &id.to_string()]);
    steps::run_quietly(&mut kill, "stopping the cluster").map(drop)
}

/// Removes what a cluster that was killed could not, and its directory.
fn remove_traces(state: &Path) -> Result<()> {
    if let Ok(slot) = fs::read_to_string(state.join("slot")) {
        let mut clean = steps::command(ensure()?);
        clean.args(["clean", "--if-free", "--id", slot.trim()]);
        steps::run_quietly(&mut clean, "cleaning up after the cluster")?;
    }
    wheel::discard(state)
}

fn status() -> Result<()> {
    let state = state();
    if supervisor(&state).is_none() {
        println!(
            "the cluster is down{}",
            if state.exists() {
                "; `cargo xtask cluster down` removes what it left"
            } else {
                ""
            }
        );
        return Ok(());
    }
    explain(&state)?;
    println!();
    let entries = fs::read_dir(state.join("pids"))?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let id = fs::read_to_string(&path).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        println!("{name} runs as process {}", id.trim());
    }
    Ok(())
}
