//! `memory`: what a whole mesh takes at rest, without clients.
//!
//! The source `memory` is the control plane alone, `dir` the program as it is installed, with a
//! directory of the same objects as an API server writes them.

use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::load::process::{self, Memory};
use testkit::load::table::{Measure, Table};
use testkit::load::world::{Spec, World};
use testkit::{http_client, wait};

use super::Options;
use super::memory_server::{Server, spec};

/// 10,000 services and 1,000 policies.
const PODS: usize = 100_000;
const QUICK_PODS: usize = 5_000;
const READY_LIMIT: Duration = Duration::from_secs(600);
/// After a start, what was needed for it is given back.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// Runs the scenario for the source that is asked for, or for both.
pub(crate) async fn run(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let pods = options.size(options.pods, PODS, QUICK_PODS);
    let spec = spec(pods);
    table.note(format!(
        "{pods} pods, {} services, {} policies, {} namespaces, {} nodes",
        spec.services, spec.policies, spec.namespaces, spec.nodes
    ));
    table.note("per pod: the difference to an empty mesh; goal: at most 3072 B in all");
    for _ in 0..options.runs {
        match options.source.as_deref() {
            Some("memory") => memory(pods, table).await?,
            Some("dir") => dir(pods, table).await?,
            Some(other) => anyhow::bail!("memory has the sources memory and dir, not {other}"),
            None => {
                memory(pods, table).await?;
                dir(pods, table).await?;
            }
        }
    }
    Ok(())
}

async fn memory(pods: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut at = Vec::new();
    for pods in [1, pods] {
        let state = tempfile::tempdir()?;
        let server = Server::start(state.path(), pods, "warn").await?;
        tokio::time::sleep(SETTLED_AFTER).await;
        at.push(process::memory(server.id())?);
    }
    add("memory", &at, pods, table)
}

async fn dir(pods: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut at = Vec::new();
    for pods in [1, pods] {
        at.push(of_dir(pods).await?);
    }
    add("dir", &at, pods, table)
}

/// What the program takes for a directory.
async fn of_dir(pods: usize) -> anyhow::Result<Memory> {
    let scratch = tempfile::tempdir()?;
    let config = scratch.path().join("config");
    World::generate(Spec::of_pods(pods)).write_dir(&config)?;
    let port = || {
        anyhow::Ok(std::net::SocketAddr::from((
            [127, 0, 0, 1],
            wait::free_port()?,
        )))
    };
    let (xds, debug, ready) = (port()?, port()?, port()?);
    let mut server = Command::new(env!("CARGO_BIN_EXE_ambientd"))
        .args(["serve", "--config-dir"])
        .arg(&config)
        .arg("--state-dir")
        .arg(scratch.path().join("state"))
        .args(["--xds-addr", &xds.to_string()])
        .args(["--debug-addr", &debug.to_string()])
        .args(["--ready-addr", &ready.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let is_ready = wait::until("the control plane", READY_LIMIT, || async {
        let answer = http_client::get(ready, "/ready").await?;
        anyhow::ensure!(answer.status.is_success(), "not ready");
        Ok(())
    })
    .await;
    tokio::time::sleep(SETTLED_AFTER).await;
    let memory = process::memory(server.id());
    server.kill()?;
    server.wait()?;
    is_ready?;
    memory
}

fn add(source: &str, at: &[Memory], pods: usize, table: &mut Table) -> anyhow::Result<()> {
    let [empty, full] = at else {
        anyhow::bail!("two measurements");
    };
    let per_pod = |of: fn(&Memory) -> u64| {
        let more = of(full).saturating_sub(of(empty));
        Measure::Bytes(more as f64 / pods as f64)
    };
    let resident: fn(&Memory) -> u64 = |memory| memory.rss;
    let most: fn(&Memory) -> u64 = |memory| memory.peak;
    table.add(
        format!("{source}: resident"),
        Measure::Bytes(full.rss as f64),
    );
    table.add(
        format!("{source}: of that heap and stacks"),
        Measure::Bytes(full.anon as f64),
    );
    table.add(
        format!("{source}: the most, while it started"),
        Measure::Bytes(full.peak as f64),
    );
    table.add(
        format!("{source}: an empty mesh"),
        Measure::Bytes(empty.rss as f64),
    );
    table.add(format!("{source}: per pod"), per_pod(resident));
    table.add(format!("{source}: per pod, the most"), per_pod(most));
    Ok(())
}
