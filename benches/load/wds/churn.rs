//! `wds-churn`: pods and namespaces change while nobody comes or goes.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::load::process;
use testkit::load::table::{Measure, Table, permille};
use testkit::load::world::World;
use testkit::load::ztunnel::now_ns;

use super::super::Options;
use super::super::clients::Floor;
use super::super::memory_server::{self, Server};
use super::{EVERY, MILLI, Mesh, SETTLE, checked, sizes, start, title};

/// One of so many events is a namespace's.
const RELABEL_EVERY: usize = 100;
/// Events of the floor, which are as many as it takes to tell.
const FLOOR_EVENTS: usize = 100;

/// Pods change, and now and then a namespace does.
pub(super) struct Churn {
    world: World,
    pub(super) events: usize,
    pods: usize,
    namespaces: usize,
}

impl Churn {
    pub(super) fn new(pods: usize) -> Self {
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

    /// Makes the mesh what events make of it in the long run: half of its pods are unready and half
    /// of its namespaces have the label, which needs more memory than if all were alike. So what
    /// grows afterwards grows for good.
    pub(super) fn settle(&self, server: &mut Server) -> anyhow::Result<()> {
        let spec = self.world.spec();
        for event in (0..spec.pods).step_by(2) {
            server.flip(event * 7919 % spec.pods)?;
        }
        for namespace in (0..spec.namespaces).step_by(2) {
            server.relabel(namespace)?;
        }
        Ok(())
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

    pub(super) fn next(&mut self, server: &mut Server) -> anyhow::Result<()> {
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
