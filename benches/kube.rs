//! What a cluster costs a control plane: time until it is ready, and memory for each pod. Of a
//! real API server; compare the columns of one run with each other.
//!
//! `cargo xtask cluster measure` runs it. In: `--pods N`. Out: a table.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measurement that cannot go on should stop"
)]

#[path = "kube/fill.rs"]
mod fill;
#[path = "kube/measured.rs"]
mod measured;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use testkit::cluster::{Cluster, Options, Part};

use fill::World;
use measured::{Measured, Need};

const PODS: usize = 50_000;
const API_LIMIT: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut pods = PODS;
    let runtime = tokio::runtime::Runtime::new()?;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--pods" => pods = args.next().context("--pods N")?.parse()?,
            measured::SOURCE_FLAG => {
                let kubeconfig: PathBuf = args.next().context("a kubeconfig")?.into();
                return runtime.block_on(measured::source_alone(kubeconfig));
            }
            other => bail!("{other} is not known; --pods N is"),
        }
    }
    runtime.block_on(run(pods))
}

async fn run(pods: usize) -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::control_plane()).await?;
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let crds = manifests.join("crds").display().to_string();
    cluster.kubectl(&["apply", "--server-side", "-k", &crds])?;
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    cluster.kubectl(&established)?;
    cluster.kubectl(&["create", "namespace", "istio-system"])?;
    let empty = Measured::of(&cluster).await?;

    // They would take the pods away again: there is nobody on these nodes.
    cluster.kill(&Part::ControllerManager)?;
    cluster.kill(&Part::Scheduler)?;
    let world = World::of(pods);
    println!("{world}");
    let began = Instant::now();
    world.write(&cluster).await?;
    println!("written in {:.0} s", began.elapsed().as_secs_f64());
    // What the API server still has to do for the writes is not part of what is measured.
    cluster.wait_api(API_LIMIT).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;

    let full = Measured::of(&cluster).await?;
    print(&world, &empty, &full);
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "these are shown, not counted with"
)]
fn print(world: &World, empty: &Measured, full: &Measured) {
    let profile = if cfg!(debug_assertions) {
        "not optimised"
    } else {
        "optimised"
    };
    println!(
        "\n{:<34}{:>12}{:>12}{:>12}{:>12}",
        format!("({profile})"),
        "empty",
        "full",
        "per pod",
        "per object"
    );
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let each = |more: u64, count: usize| format!("{:.2} KiB", more as f64 / count as f64);
    let memory = |what: &str, of: fn(&Need) -> u64, empty: &Need, full: &Need| {
        let more = of(full).saturating_sub(of(empty));
        println!(
            "{what:<34}{:>12}{:>12}{:>12}{:>12}",
            mib(of(empty)),
            mib(of(full)),
            each(more, world.pods()),
            each(more, world.objects()),
        );
    };
    let seconds = |what: &str, empty: Duration, full: Duration| {
        let shown = |it: Duration| format!("{:.2} s", it.as_secs_f64());
        println!("{what:<34}{:>12}{:>12}", shown(empty), shown(full));
    };
    seconds("a bare list of the pods", empty.list, full.list);
    seconds("serve: ready after", empty.serve.ready, full.serve.ready);
    memory(
        "serve: memory",
        |it| it.memory_kib,
        &empty.serve,
        &full.serve,
    );
    memory(
        "serve: memory, at most",
        |it| it.peak_kib,
        &empty.serve,
        &full.serve,
    );
    seconds(
        "source alone: complete after",
        empty.source.ready,
        full.source.ready,
    );
    memory(
        "source alone: memory",
        |it| it.memory_kib,
        &empty.source,
        &full.source,
    );
    memory(
        "source alone: memory, at most",
        |it| it.peak_kib,
        &empty.source,
        &full.source,
    );
}
