//! Ztunnels: connecting and coming back; below, being told of changes.

#[path = "wds/churn.rs"]
mod churn;
#[path = "wds/soak.rs"]
mod soak;
#[path = "wds/storm.rs"]
mod storm;

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::load::process::{self, Memory};
use testkit::load::table::{Measure, Table};

use super::Options;
use super::clients::{Count, Floor, Times, Ztunnels};
use super::memory_server::Server;
pub(crate) use churn::churn;
pub(crate) use soak::soak;
pub(crate) use storm::storm;

/// What a server says by default of every response that it sends is part of the cost.
const LOG: &str = "info";
const MILLI: f64 = 1e6;
/// Between two changes of pods.
const EVERY: Duration = Duration::from_millis(100);
/// What is freed late, and answers that are under way.
const SETTLE: Duration = Duration::from_secs(2);

/// A server with clients that have their first answers.
struct Mesh {
    server: Server,
    clients: Ztunnels,
    /// Of the server: before the clients came.
    before: Memory,
}

fn sizes(options: &Options, pods: usize, clients: usize) -> (usize, usize) {
    let pods = options.size(options.pods, pods, 5_000);
    (pods, options.size(options.clients, clients, 20))
}

fn title(table: &mut Table, pods: usize, clients: usize) {
    table.note(format!(
        "{pods} pods, {clients} clients, source: memory, log level {LOG}"
    ));
}

async fn start(state: &Path, pods: usize) -> anyhow::Result<Mesh> {
    let server = Server::start(state, pods, LOG).await?;
    let clients = Ztunnels::start(state, server.xds)?;
    tokio::time::sleep(SETTLE).await;
    let before = process::memory(server.id())?;
    Ok(Mesh {
        server,
        clients,
        before,
    })
}

fn per_client(table: &mut Table, name: &str, now: u64, before: u64, clients: usize) {
    let more = now as f64 - before as f64;
    table.add(name, Measure::Bytes(more / clients as f64));
}

/// How long it took until clients that came back had what they lacked.
fn add_ready(table: &mut Table, ready: &Times) {
    for (name, ns) in [
        ("p50 of clients", ready.p50),
        ("p99 of clients", ready.p99),
        ("last client", ready.last),
    ] {
        table.add(format!("ready, {name}"), Measure::Millis(ns as f64 / MILLI));
    }
}

fn checked(count: Count, clients: usize) -> anyhow::Result<Count> {
    anyhow::ensure!(
        count.lost == 0 && count.open == clients as u64,
        "{} of {clients} clients are left, {} were lost",
        count.open,
        count.lost
    );
    Ok(count)
}

/// Everybody connects to a server that is ready.
pub(crate) async fn cold(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (pods, clients) = sizes(options, 50_000, 200);
    title(table, pods, clients);
    for _ in 0..options.runs {
        let state = tempfile::tempdir()?;
        let mut mesh = start(state.path(), pods).await?;
        let (server, own) = (mesh.server.id(), mesh.clients.0.id());
        process::reset_peak(server)?;
        let (busy, began) = (process::cpu_split(server)?, Instant::now());
        let ready = mesh.clients.connect(clients)?;
        let wall = began.elapsed();
        let busy_after = process::cpu_split(server)?;
        let peak = process::memory(server)?.peak;
        tokio::time::sleep(SETTLE).await;
        let after = process::memory(server)?;
        let count = checked(mesh.clients.count()?, clients)?;
        let cpu = busy_after.0 + busy_after.1 - busy.0 - busy.1;
        table.add(
            "connected to last ACK, wall",
            Measure::Seconds(wall.as_secs_f64()),
        );
        table.add(
            "connected to ACK, p50 of clients",
            Measure::Millis(ready.p50 as f64 / MILLI),
        );
        table.add(
            "connected to ACK, last client",
            Measure::Millis(ready.last as f64 / MILLI),
        );
        table.add("resources per client", Measure::Count(count.held as f64));
        table.add(
            "bytes per client",
            Measure::Bytes(count.bytes as f64 / clients as f64),
        );
        table.add("server CPU", Measure::Seconds(cpu));
        table.add(
            "server CPU, in the kernel",
            Measure::Seconds(busy_after.1 - busy.1),
        );
        table.add("clients' CPU", Measure::Seconds(process::cpu_seconds(own)?));
        table.add("server RSS before", Measure::Bytes(mesh.before.rss as f64));
        table.add("server RSS, peak", Measure::Bytes(peak as f64));
        per_client(
            table,
            "RSS more per client, peak",
            peak,
            mesh.before.rss,
            clients,
        );
        per_client(
            table,
            "RSS more per client, idle (goal: at most 64 KiB)",
            after.rss,
            mesh.before.rss,
            clients,
        );
        table.add("server threads", Measure::Count(after.threads as f64));
        drop(mesh);
        let floor = floor_cold(state.path(), clients, count.bytes / clients as u64)?;
        table.add("floor: bare TLS writer, CPU", Measure::Seconds(floor.0));
        table.add("floor: wall", Measure::Seconds(floor.1));
        table.add(
            "server CPU against the floor (goal: at most 1.5)",
            Measure::Ratio(cpu / floor.0),
        );
    }
    Ok(())
}

/// CPU of the writer from connecting on, and wall seconds of writing.
fn floor_cold(state: &Path, clients: usize, bytes: u64) -> anyhow::Result<(f64, f64)> {
    let mut floor = Floor::start(state, clients)?;
    let (began, ended) = floor.write(bytes, false)?;
    let busy = process::cpu_seconds(floor.writer_id())?;
    Ok((busy, (ended - began) as f64 / 1e9))
}

/// Everybody comes back and holds what there is.
pub(crate) async fn reconnect(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (pods, clients) = sizes(options, 50_000, 200);
    title(table, pods, clients);
    for _ in 0..options.runs {
        let state = tempfile::tempdir()?;
        let mut mesh = start(state.path(), pods).await?;
        let server = mesh.server.id();
        mesh.clients.connect(clients)?;
        let first = checked(mesh.clients.count()?, clients)?;
        mesh.clients.leave()?;
        tokio::time::sleep(SETTLE).await;
        process::reset_peak(server)?;
        let (busy, rss) = (process::cpu_seconds(server)?, process::memory(server)?.rss);
        let ready = mesh.clients.resume(clients)?;
        let busy = process::cpu_seconds(server)? - busy;
        let peak = process::memory(server)?.peak;
        tokio::time::sleep(SETTLE).await;
        let count = checked(mesh.clients.count()?, clients)?;
        let sent = count.resources - first.resources;
        table.add(
            "resources held per client",
            Measure::Count(count.held as f64),
        );
        table.add("resources sent (goal: 0)", Measure::Count(sent as f64));
        let bytes = (count.bytes - first.bytes) as f64 / clients as f64;
        table.add("bytes sent per client", Measure::Bytes(bytes));
        add_ready(table, &ready);
        table.add(
            "server CPU per client",
            Measure::Millis(busy * 1e3 / clients as f64),
        );
        per_client(table, "RSS more per client, peak", peak, rss, clients);
    }
    Ok(())
}
