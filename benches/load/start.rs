//! `start`: from the start of the process until it says that it is ready, of a directory and of a
//! cluster; against reading and parsing the same bytes into slim types.

#[path = "start/slim.rs"]
mod slim;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::Request;
use testkit::cluster::{Cluster, Options as ClusterOptions, Part};
use testkit::load::process;
use testkit::load::table::{Measure, Table};
use testkit::load::world::{Spec, World};
use testkit::{http_client, wait};

use super::Options;

#[path = "../kube/fill.rs"]
#[allow(dead_code, reason = "the other benchmark shows more of it")]
mod fill;

const DIR_PODS: usize = 50_000;
/// Filling a cluster takes longer than all else: 450 requests a second, two for each pod.
const KUBE_PODS: usize = 5_000;
const READY_LIMIT: Duration = Duration::from_secs(600);
const API_LIMIT: Duration = Duration::from_secs(60);
const POLLED_EVERY: Duration = Duration::from_millis(5);
/// Objects of a page, as ambientd asks for them.
const PAGE: usize = 500;

/// What a start took.
struct Need {
    wall: Duration,
    busy: f64,
    memory: process::Memory,
}

/// Runs the scenario for the source that is asked for, or for both.
pub(crate) async fn run(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    match options.source.as_deref() {
        Some("dir") => dir(options, table).await,
        Some("kube") => kube(options, table).await,
        Some(other) => anyhow::bail!("start has the sources dir and kube, not {other}"),
        None => {
            dir(options, table).await?;
            kube(options, table).await
        }
    }
}

/// Of a directory.
async fn dir(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let pods = options
        .pods
        .unwrap_or(if options.quick { 2_000 } else { DIR_PODS });
    let scratch = tempfile::tempdir()?;
    let config = scratch.path().join("config");
    World::generate(Spec::of_pods(pods)).write_dir(&config)?;
    for _ in 0..options.runs {
        let at = config.clone();
        let floor = tokio::task::spawn_blocking(move || floor(|kept| slim::read_dir(&at, kept)));
        let floor = floor.await??;
        let state = tempfile::tempdir()?;
        let need = started(scratch.path(), |command| {
            command
                .arg("--config-dir")
                .arg(&config)
                .arg("--state-dir")
                .arg(state.path());
        })
        .await?;
        add(table, "dir", &need, &floor);
    }
    Ok(())
}

/// Of a cluster.
async fn kube(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let pods = options
        .pods
        .unwrap_or(if options.quick { 1_000 } else { KUBE_PODS });
    let cluster = Cluster::start(ClusterOptions::control_plane()).await?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds");
    cluster.kubectl(&["apply", "--server-side", "-k", &crds.display().to_string()])?;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
    cluster.kubectl(&["create", "namespace", "istio-system"])?;
    // They would take the pods away again: there is nobody on these nodes.
    cluster.kill(&Part::ControllerManager)?;
    cluster.kill(&Part::Scheduler)?;
    let world = fill::World::of(pods);
    println!("filling the cluster: {world}");
    world.write(&cluster).await?;
    cluster.wait_api(API_LIMIT).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..options.runs {
        let (lists, listed) = lists(&cluster).await?;
        let floor = tokio::task::spawn_blocking(move || {
            floor(|kept| {
                let (mut objects, mut bytes) = (0, 0);
                for (kind, list) in &lists {
                    objects += slim::read(kind, list.as_bytes(), kept)?;
                    bytes += list.len();
                }
                Ok((objects, bytes))
            })
        });
        let floor = floor.await??;
        let need = started(cluster.dir(), |command| {
            let kubeconfig = cluster.kubeconfig();
            command
                .args(["--webhook-addr", "", "--kubeconfig"])
                .arg(kubeconfig);
        })
        .await?;
        table.add(
            "kube: the same lists, one after another",
            Measure::Seconds(listed.as_secs_f64()),
        );
        add(table, "kube", &need, &floor);
    }
    Ok(())
}

fn add(table: &mut Table, source: &str, need: &Need, floor: &Floor) {
    let wall = need.wall.as_secs_f64();
    let ratio = wall / floor.wall.as_secs_f64();
    for (what, measure) in [
        ("objects", Measure::Count(floor.objects as f64)),
        ("bytes", Measure::Bytes(floor.bytes as f64)),
        ("start to ready", Measure::Seconds(wall)),
        ("CPU until ready", Measure::Seconds(need.busy)),
        ("RSS, peak", Measure::Bytes(need.memory.peak as f64)),
        ("floor: read and parsed, CPU", Measure::Seconds(floor.busy)),
        (
            "CPU against the floor",
            Measure::Ratio(need.busy / floor.busy),
        ),
        ("start to ready against the floor", Measure::Ratio(ratio)),
    ] {
        table.add(format!("{source}: {what}"), measure);
    }
}

/// Starts it with these arguments and waits until it is ready.
async fn started(dir: &Path, with: impl FnOnce(&mut Command)) -> anyhow::Result<Need> {
    let ready = wait::free_port()?;
    let log = dir.join("ambientd.log");
    let file = std::fs::File::create(&log)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambientd"));
    command.arg("serve");
    with(&mut command);
    for flag in ["--xds-addr", "--debug-addr"] {
        command.args([flag, &format!("127.0.0.1:{}", wait::free_port()?)]);
    }
    command
        .args(["--ready-addr", &format!("127.0.0.1:{ready}")])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let began = Instant::now();
    let mut process = Process(command.spawn()?);
    loop {
        let answer = http_client::get(([127, 0, 0, 1], ready).into(), "/ready").await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            break;
        }
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(process.0.try_wait()?.is_none(), "it ended: {}", told());
        ensure!(began.elapsed() < READY_LIMIT, "it is not ready: {}", told());
        tokio::time::sleep(POLLED_EVERY).await;
    }
    let wall = began.elapsed();
    Ok(Need {
        wall,
        busy: process::cpu_seconds(process.0.id())?,
        memory: process::memory(process.0.id())?,
    })
}

/// Ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Floor {
    objects: usize,
    bytes: usize,
    wall: Duration,
    busy: f64,
}

fn floor(
    read: impl Fn(&mut slim::Kept) -> anyhow::Result<(usize, usize)>,
) -> anyhow::Result<Floor> {
    let own = std::process::id();
    let mut kept = slim::Kept::new();
    let (began, busy) = (Instant::now(), process::cpu_seconds(own)?);
    let (objects, bytes) = read(&mut kept)?;
    Ok(Floor {
        objects,
        bytes,
        wall: began.elapsed(),
        busy: process::cpu_seconds(own)? - busy,
    })
}

/// The lists of what a cluster was filled with, page by page, and how long they took.
async fn lists(cluster: &Cluster) -> anyhow::Result<(Vec<(&'static str, String)>, Duration)> {
    const PATHS: [(&str, &str); 5] = [
        ("namespace", "/api/v1/namespaces"),
        ("node", "/api/v1/nodes"),
        ("service", "/api/v1/services"),
        ("endpointslice", "/apis/discovery.k8s.io/v1/endpointslices"),
        ("pod", "/api/v1/pods"),
    ];
    let client = cluster.client().await?;
    let mut out = Vec::new();
    let began = Instant::now();
    for (kind, path) in PATHS {
        let mut next = String::new();
        loop {
            let uri = format!("{path}?limit={PAGE}&continue={next}");
            let text = client
                .request_text(Request::get(&uri).body(Vec::new())?)
                .await?;
            next = continuation(&text).with_context(|| uri)?;
            out.push((kind, text));
            if next.is_empty() {
                break;
            }
        }
    }
    Ok((out, began.elapsed()))
}

/// Where the next page begins; the text is not parsed for it.
fn continuation(list: &str) -> anyhow::Result<String> {
    let head = list.get(..list.len().min(2_000)).unwrap_or(list);
    let rest = head.split_once("\"continue\":\"").map(|(_, rest)| rest);
    let token = rest
        .map(|rest| rest.split_once('"').context("no end"))
        .transpose()?;
    Ok(token.map_or_else(String::new, |(token, _)| token.replace('=', "%3D")))
}
