//! Ztunnels: connecting, being told of changes, and coming back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::load::process::{self, Memory};
use testkit::load::table::{Measure, Table, permille};
use testkit::load::world::World;
use testkit::load::ztunnel::now_ns;

use super::Options;
use super::clients::{Count, Floor, Ztunnels};
use super::memory_server::{self, Server};

/// What a server says by default of every response that it sends is part of the cost.
const LOG: &str = "info";
const MILLI: f64 = 1e6;
/// Between two changes of pods.
const EVERY: Duration = Duration::from_millis(100);
/// One of so many events is a namespace's.
const RELABEL_EVERY: usize = 100;
/// Events of the floor, which are as many as it takes to tell.
const FLOOR_EVENTS: usize = 100;
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
        table.add(
            "ready, p50 of clients",
            Measure::Millis(ready.p50 as f64 / MILLI),
        );
        table.add(
            "ready, last client",
            Measure::Millis(ready.last as f64 / MILLI),
        );
        table.add(
            "server CPU per client",
            Measure::Millis(busy * 1e3 / clients as f64),
        );
        per_client(table, "RSS more per client, peak", peak, rss, clients);
    }
    Ok(())
}

/// Pods change, and now and then a namespace does.
struct Churn {
    world: World,
    events: usize,
    pods: usize,
    namespaces: usize,
}

impl Churn {
    fn new(pods: usize) -> Self {
        Self {
            world: World::generate(memory_server::spec(pods)),
            events: 0,
            pods: 0,
            namespaces: 0,
        }
    }

    fn is_relabel(&self) -> bool {
        self.events % RELABEL_EVERY == RELABEL_EVERY / 2
    }

    /// Names of what the next event changes.
    fn names(&self) -> String {
        let spec = self.world.spec();
        if self.is_relabel() {
            memory_server::services(&self.world, self.namespaces % spec.namespaces)
        } else {
            // Pods far from each other, each once before the first again.
            memory_server::workload(&self.world, self.pods * 7919 % spec.pods)
        }
    }

    fn next(&mut self, server: &mut Server) -> anyhow::Result<()> {
        let spec = self.world.spec();
        if self.is_relabel() {
            server.relabel(self.namespaces % spec.namespaces)?;
            self.namespaces += 1;
        } else {
            server.flip(self.pods * 7919 % spec.pods)?;
            self.pods += 1;
        }
        self.events += 1;
        Ok(())
    }
}

/// Sends events for this long; returns when each was sent and whether it was a namespace's.
async fn churn_for(
    mesh: &mut Mesh,
    churn: &mut Churn,
    time: Duration,
) -> anyhow::Result<Vec<(u64, bool)>> {
    let mut sent = Vec::new();
    let mut tick = tokio::time::interval(EVERY);
    let began = Instant::now();
    mesh.clients.expect(1, &churn.names())?;
    tick.tick().await;
    while began.elapsed() < time {
        tick.tick().await;
        let is_relabel = churn.is_relabel();
        sent.push((now_ns(), is_relabel));
        churn.next(&mut mesh.server)?;
        // Before the event itself, so that none comes unexpected.
        if began.elapsed() + EVERY < time {
            mesh.clients.expect(sent.len() as u32 + 1, &churn.names())?;
        } else {
            break;
        }
    }
    Ok(sent)
}

/// Bytes that one more event costs a client.
async fn bytes_of_next(mesh: &mut Mesh, churn: &mut Churn, clients: usize) -> anyhow::Result<u64> {
    let before = mesh.clients.count()?.bytes;
    mesh.clients.expect(u32::MAX, &churn.names())?;
    tokio::time::sleep(EVERY).await;
    churn.next(&mut mesh.server)?;
    mesh.clients.seen()?;
    tokio::time::sleep(EVERY).await;
    Ok((mesh.clients.count()?.bytes - before) / clients as u64)
}

/// Changes while nobody comes or goes.
pub(crate) async fn churn(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (pods, clients) = sizes(options, 50_000, 1_000);
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { 15 } else { 60 });
    title(table, pods, clients);
    table.note(format!("{seconds} s of 10 events each"));
    for _ in 0..options.runs {
        let state = tempfile::tempdir()?;
        let mut mesh = start(state.path(), pods).await?;
        mesh.clients.connect(clients)?;
        let mut churn = Churn::new(pods);
        let pod_bytes = bytes_of_next(&mut mesh, &mut churn, clients).await?;
        churn.events = RELABEL_EVERY / 2;
        let namespace_bytes = bytes_of_next(&mut mesh, &mut churn, clients).await?;
        churn.events = 1;
        tokio::time::sleep(SETTLE).await;
        let (server, own) = (mesh.server.id(), mesh.clients.0.id());
        let before = (process::cpu_seconds(server)?, process::cpu_seconds(own)?);
        let time = Duration::from_secs(seconds);
        let sent = churn_for(&mut mesh, &mut churn, time).await?;
        let mut took = Vec::new();
        for _ in &sent {
            let seen = mesh.clients.seen()?;
            let (at, is_relabel) = sent[seen.event as usize - 1];
            took.push((seen.last.saturating_sub(at) as f64 / MILLI, is_relabel));
        }
        let after = (process::cpu_seconds(server)?, process::cpu_seconds(own)?);
        checked(mesh.clients.count()?, clients)?;
        drop(mesh);
        times(table, &took);
        let each = 1e3 / sent.len() as f64;
        table.add(
            "bytes per client, event of a pod",
            Measure::Bytes(pod_bytes as f64),
        );
        table.add(
            "bytes per client, event of a namespace",
            Measure::Bytes(namespace_bytes as f64),
        );
        let cpu = (after.0 - before.0) * each;
        table.add("server CPU per event", Measure::Millis(cpu));
        table.add(
            "clients' CPU per event",
            Measure::Millis((after.1 - before.1) * each),
        );
        let relabels = sent.iter().filter(|it| it.1).count() as f64 / sent.len() as f64;
        let bytes = (pod_bytes, namespace_bytes, relabels);
        for (answer, name) in [(false, "writing"), (true, "writing, answers read")] {
            let floor = floor_churn(state.path(), clients, bytes, answer).await?;
            table.add(
                format!("floor: {name}, CPU per event"),
                Measure::Millis(floor.cpu),
            );
            for (event, took) in [("pod", floor.pod), ("namespace", floor.namespace)] {
                table.add(
                    format!("floor: {name}, {event}, begun to last read"),
                    Measure::Millis(took),
                );
            }
            let goal = if answer { "" } else { " (goal: at most 2)" };
            table.add(
                format!("server CPU against {name}{goal}"),
                Measure::Ratio(cpu / floor.cpu),
            );
        }
    }
    Ok(())
}

fn times(table: &mut Table, took: &[(f64, bool)]) {
    let all: Vec<f64> = took.iter().map(|it| it.0).collect();
    let of = |wanted: bool| {
        took.iter()
            .filter(|it| it.1 == wanted)
            .map(|it| it.0)
            .collect()
    };
    let kinds: [(&str, Vec<f64>); 3] =
        [("event", all), ("pod", of(false)), ("namespace", of(true))];
    for (name, mut times) in kinds {
        let goal = if name == "event" {
            " (goal: at most 20 ms)"
        } else {
            ""
        };
        table.add(
            format!("{name} to last ACK, p50"),
            Measure::Millis(permille(&mut times, 500)),
        );
        table.add(
            format!("{name} to last ACK, p99{goal}"),
            Measure::Millis(permille(&mut times, 990)),
        );
        table.add(
            format!("{name} to last ACK, max"),
            Measure::Millis(permille(&mut times, 1000)),
        );
    }
}

/// Milliseconds of an event, at the pace of the events.
struct FloorOfChurn {
    /// Of the processor.
    cpu: f64,
    /// Until the last client has it.
    pod: f64,
    namespace: f64,
}

async fn floor_churn(
    state: &Path,
    clients: usize,
    (pod, namespace, relabels): (u64, u64, f64),
    answer: bool,
) -> anyhow::Result<FloorOfChurn> {
    let mut floor = Floor::start(state, clients)?;
    let mut cost = async |bytes: u64, count: usize| {
        let before = process::cpu_seconds(floor.writer_id())?;
        let mut took = 0.0;
        let mut tick = tokio::time::interval(EVERY);
        for _ in 0..count {
            tick.tick().await;
            let (began, ended) = floor.write(bytes, answer)?;
            took += (ended - began) as f64 / MILLI;
        }
        let busy = process::cpu_seconds(floor.writer_id())? - before;
        anyhow::Ok((busy * 1e3 / count as f64, took / count as f64))
    };
    let pod = cost(pod, FLOOR_EVENTS).await?;
    let namespace = cost(namespace, FLOOR_EVENTS / 10).await?;
    Ok(FloorOfChurn {
        cpu: pod.0 * (1.0 - relabels) + namespace.0 * relabels,
        pod: pod.1,
        namespace: namespace.1,
    })
}

/// Everybody comes back at once while pods change.
pub(crate) async fn storm(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (pods, clients) = sizes(options, 50_000, 1_000);
    title(table, pods, clients);
    for _ in 0..options.runs {
        let state = tempfile::tempdir()?;
        let mut mesh = start(state.path(), pods).await?;
        let id = mesh.server.id();
        mesh.clients.connect(clients)?;
        let first = mesh.clients.count()?;
        mesh.clients.leave()?;
        tokio::time::sleep(SETTLE).await;
        let rss = process::memory(id)?.rss;
        process::reset_peak(id)?;
        let busy = process::cpu_seconds(id)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut server = mesh.server;
        let changing = std::thread::spawn(move || {
            let mut churn = Churn::new(pods);
            while !stopped.load(Ordering::Relaxed) {
                churn.next(&mut server)?;
                std::thread::sleep(EVERY);
            }
            anyhow::Ok((server, churn.events))
        });
        std::thread::sleep(EVERY);
        let ready = mesh.clients.resume(clients)?;
        stop.store(true, Ordering::Relaxed);
        let (_server, events) = changing.join().expect("a thread")?;
        let busy = process::cpu_seconds(id)? - busy;
        let peak = process::memory(id)?.peak;
        let count = checked(mesh.clients.count()?, clients)?;
        table.add(
            "ready, p50 of clients",
            Measure::Millis(ready.p50 as f64 / MILLI),
        );
        table.add(
            "ready, p99 of clients",
            Measure::Millis(ready.p99 as f64 / MILLI),
        );
        table.add(
            "ready, last client",
            Measure::Millis(ready.last as f64 / MILLI),
        );
        table.add("events meanwhile", Measure::Count(events as f64));
        let resources = (count.resources - first.resources) as f64 / clients as f64;
        table.add("resources sent per client", Measure::Count(resources));
        table.add("server CPU", Measure::Seconds(busy));
        table.add("server RSS before", Measure::Bytes(rss as f64));
        table.add("server RSS, peak", Measure::Bytes(peak as f64));
        per_client(table, "RSS more per client, peak", peak, rss, clients);
    }
    Ok(())
}

/// Changes for long.
pub(crate) async fn soak(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (pods, clients) = sizes(options, 20_000, 200);
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { 60 } else { 1_200 });
    title(table, pods, clients);
    table.note(format!("{seconds} s of 10 events each"));
    for _ in 0..options.runs {
        let state = tempfile::tempdir()?;
        let mut mesh = start(state.path(), pods).await?;
        let id = mesh.server.id();
        mesh.clients.connect(clients)?;
        let mut churn = Churn::new(pods);
        let (began, mut samples) = (Instant::now(), Vec::new());
        let mut tick = tokio::time::interval(EVERY);
        while began.elapsed().as_secs() < seconds {
            tick.tick().await;
            churn.next(&mut mesh.server)?;
            if churn.events.is_multiple_of(50) {
                let rss = process::memory(id)?.rss as f64;
                samples.push((began.elapsed().as_secs_f64(), rss));
            }
        }
        checked(mesh.clients.count()?, clients)?;
        let full = process::memory(id)?.rss as f64;
        mesh.clients.leave()?;
        tokio::time::sleep(SETTLE * 5).await;
        let left = process::memory(id)?.rss as f64;
        // Until everything was edited once, what is edited first takes its place.
        let late = &samples[samples.len() / 4..];
        table.add("events", Measure::Count(churn.events as f64));
        table.add(
            "RSS before the clients",
            Measure::Bytes(mesh.before.rss as f64),
        );
        table.add("RSS at a quarter of the time", Measure::Bytes(late[0].1));
        table.add("RSS at the end", Measure::Bytes(full));
        table.add(
            "RSS slope per hour, last three quarters",
            Measure::Bytes(slope(late) * 3600.0),
        );
        table.add("RSS after all clients left", Measure::Bytes(left));
        let before = mesh.before.rss as f64;
        table.add(
            "RSS after all clients left, against before",
            Measure::Ratio(left / before),
        );
    }
    Ok(())
}

/// Of the line that fits best.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|it| it.0), mean(|it| it.1));
    let over: f64 = samples.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    let under: f64 = samples.iter().map(|it| (it.0 - x).powi(2)).sum();
    over / under
}
