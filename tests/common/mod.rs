//! What the end-to-end tests share: the mesh they run in and how to look at it.

#![allow(dead_code, unused_imports, reason = "every test uses its part")]

mod held;
mod mesh;
pub(crate) mod raw;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::daemon::Daemon;

pub(crate) use held::{Held, healthy_endpoints};
pub(crate) use mesh::{Called, Callers, Mesh, Net, SOON, Traffic, Workload};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ambientd");

/// A runtime for one test.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Longest run of a command that should end by itself.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Runs a command to its end; one that goes on too long is killed and fails the test.
pub(crate) fn ambientd(args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = read_all(child.stdout.take().unwrap());
    let stderr = read_all(child.stderr.take().unwrap());
    let deadline = Instant::now() + COMMAND_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{args:?} did not end within {COMMAND_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// `ambientd ARGS --config-dir DIR`, which must succeed and print JSON.
pub(crate) fn ambientd_json(args: &[&str], config_dir: &Path) -> anyhow::Result<Value> {
    let mut command = Command::new(BINARY);
    let output = command
        .args(args)
        .arg("--config-dir")
        .arg(config_dir)
        .output()?;
    ensure!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).with_context(|| format!("{args:?} printed no JSON"))
}

/// A debug page as JSON.
pub(crate) async fn debug_json(daemon: &Daemon, path: &str) -> anyhow::Result<Value> {
    serde_json::from_str(&daemon.debug(path).await?).with_context(|| path.to_owned())
}

/// That this many proxies are connected and all of them have accepted all they were sent.
pub(crate) async fn in_sync(daemon: &Daemon, proxies: usize) -> anyhow::Result<()> {
    let page = debug_json(daemon, "/debug/syncz").await?;
    let list = page.as_array().context("syncz is no list")?;
    ensure!(
        list.len() == proxies,
        "{} proxies are connected: {page:#}",
        list.len()
    );
    for proxy in list {
        let types = proxy["resources"].as_object().context("no resources")?;
        ensure!(
            !types.is_empty(),
            "a proxy has asked for nothing: {proxy:#}"
        );
        for (type_url, status) in types {
            ensure!(status["state"] == "SYNCED", "{type_url}: {status}");
        }
    }
    Ok(())
}

/// Series of a metric with their values, such as `{type="cds"}` and 3.
pub(crate) fn series(metrics: &str, name: &str) -> Vec<(String, f64)> {
    metrics
        .lines()
        .filter_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            whole.then_some((labels.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Rejections that the control plane counted.
pub(crate) fn rejections(metrics: &str) -> Vec<(String, f64)> {
    let all = series(metrics, "pilot_total_xds_rejects");
    all.into_iter().filter(|(_, count)| *count > 0.0).collect()
}
