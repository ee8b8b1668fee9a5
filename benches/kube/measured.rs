//! What ambientd needs for what a cluster holds, and what its source alone does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::Request;
use kube_io::client::{self, ClientOptions};
use kube_io::source::{self, SourceConfig};
use kube_io::{Health, Observed, kinds};
use model::object::{Input, Object};
use model::{Kind, ObjectKey};
use testkit::cluster::Cluster;
use testkit::{http_client, wait};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Has this program be the source alone; a kubeconfig follows.
pub(crate) const SOURCE_FLAG: &str = "--source-alone";

const READY_LIMIT: Duration = Duration::from_secs(600);
/// What comes after it is ready: statuses are compared, memory is given back.
const SETTLE: Duration = Duration::from_secs(5);

/// Of one state of a cluster.
pub(crate) struct Measured {
    /// What anybody waits who lists its pods.
    pub(crate) list: Duration,
    pub(crate) serve: Need,
    pub(crate) source: Need,
}

/// Of one process.
pub(crate) struct Need {
    /// From its start.
    pub(crate) ready: Duration,
    /// Private memory once it has settled.
    pub(crate) memory_kib: u64,
    /// The most that it ever had, its program included.
    pub(crate) peak_kib: u64,
}

/// Ends with its handle.
struct Process(Child);

// === impl Process ===

impl Process {
    fn field_kib(&self, name: &str) -> anyhow::Result<u64> {
        field_kib(&format!("/proc/{}/status", self.0.id()), name)
    }

    fn need(&self, ready: Duration) -> anyhow::Result<Need> {
        Ok(Need {
            ready,
            memory_kib: self.field_kib("RssAnon:")?,
            peak_kib: self.field_kib("VmHWM:")?,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn field_kib(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.with_context(|| format!("no {name}"))?.parse()?)
}

// === impl Measured ===

impl Measured {
    /// Starts one after the other, and ends them.
    pub(crate) async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            list: list(cluster).await?,
            serve: serve(cluster).await?,
            source: source(cluster).await?,
        })
    }
}

/// Lists all pods page by page, as the source does, and keeps nothing.
async fn list(cluster: &Cluster) -> anyhow::Result<Duration> {
    let client = cluster.client().await?;
    let page_size = SourceConfig::new(client.clone()).page_size;
    let began = Instant::now();
    let mut next = String::new();
    loop {
        let path = format!("/api/v1/pods?limit={page_size}&continue={next}");
        let page = client.request_text(Request::get(path).body(Vec::new())?);
        // A token is base64 for URLs, and only the list as a whole has one.
        let page = page.await?;
        let token = page.split_once("\"continue\":\"").map(|(_, rest)| rest);
        match token.and_then(|rest| rest.split('"').next()) {
            Some(token) if !token.is_empty() => token.clone_into(&mut next),
            _ => return Ok(began.elapsed()),
        }
    }
}

async fn serve(cluster: &Cluster) -> anyhow::Result<Need> {
    let port = || anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], wait::free_port()?)));
    let ready = port()?;
    let log = cluster.dir().join("ambientd.log");
    let file = std::fs::File::create(&log)?;
    let began = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_ambientd"))
        .args(["serve", "--webhook-addr", "", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .args(["--xds-addr", &port()?.to_string()])
        .args(["--debug-addr", &port()?.to_string()])
        .args(["--ready-addr", &ready.to_string()])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    let mut process = Process(child);
    let is_ready = wait::until("ambientd to be ready", READY_LIMIT, || {
        let ended = process.0.try_wait();
        async move {
            // Waiting on goes for nothing, but the reason is in its log.
            ensure!(ended?.is_none(), "it ended");
            let answer = http_client::get(ready, "/ready").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        }
    });
    is_ready
        .await
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    let after = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    process.need(after)
}

/// In a process of its own, whose memory is nobody else's.
async fn source(cluster: &Cluster) -> anyhow::Result<Need> {
    let complete = cluster.dir().join("source-complete");
    let began = Instant::now();
    let child = Command::new(std::env::current_exe()?)
        .arg(SOURCE_FLAG)
        .arg(cluster.kubeconfig())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&complete)?)
        .spawn()?;
    let process = Process(child);
    wait::until("the source to be complete", READY_LIMIT, || {
        let said = std::fs::read_to_string(&complete);
        async move {
            ensure!(said?.contains("complete"), "it is not");
            Ok(())
        }
    })
    .await?;
    let after = began.elapsed();
    tokio::time::sleep(SETTLE).await;
    process.need(after)
}

/// Reads a cluster and keeps the rows, nothing else; says so when all are there, and stays.
pub(crate) async fn source_alone(kubeconfig: PathBuf) -> anyhow::Result<()> {
    let options = ClientOptions {
        kubeconfig: Some(kubeconfig),
        ..ClientOptions::default()
    };
    let config = SourceConfig::new(client::connect(&options).await?);
    let (sender, mut inputs) = mpsc::channel(16);
    let (observed, health) = (Observed::default(), Health::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(source::run(config, sender, observed, health, stop));
    let mut awaited: BTreeSet<Kind> = kinds::watched().collect();
    let mut rows: BTreeMap<(Kind, ObjectKey), Object> = BTreeMap::new();
    while let Some(batch) = inputs.recv().await {
        for input in batch {
            match input {
                Input::Resync(kind, objects) => {
                    let keyed = objects
                        .into_iter()
                        .map(|it| ((kind, it.meta().key.clone()), it));
                    rows.extend(keyed);
                    if awaited.remove(&kind) && awaited.is_empty() {
                        println!("complete: {} objects", rows.len());
                    }
                }
                Input::Upsert(object) => {
                    rows.insert((object.kind(), object.meta().key.clone()), object);
                }
                Input::Delete(kind, key) => {
                    rows.remove(&(kind, key));
                }
                _ => {}
            }
        }
    }
    Ok(running.await??)
}
