//! `targets`: other control planes, each with a mesh of its own that is there already, measured
//! by the same clients: ztunnels that connect and come back, a waypoint that connects, and
//! certificates. What a control plane uses is read from its metrics.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use testkit::ads::{self, XdsTarget, waypoint_node};
use testkit::http_client;
use testkit::load::envoy::{Plan, Waypoint};
use testkit::load::table::{Measure, Table, permille};
use testkit::load::ztunnel::{Fleet, To};

use super::{Options, csr};

const CLIENTS: usize = 20;
const NODES: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(300);
const TURN: Duration = Duration::from_millis(100);
const MILLI: f64 = 1e6;

/// Another control plane, as flags describe it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    name: String,
    addr: SocketAddr,
    root: Option<PathBuf>,
    server_name: String,
    token: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    waypoint: Option<(String, String)>,
    waypoint_token: Option<PathBuf>,
}

impl Target {
    /// `NAME=ADDR`.
    pub(crate) fn read(text: &str) -> anyhow::Result<Self> {
        let (name, addr) = text.split_once('=').context("--target NAME=ADDR")?;
        Ok(Self {
            name: name.to_owned(),
            addr: addr.parse().context("--target NAME=IP:PORT")?,
            root: None,
            server_name: testkit::daemon::SERVER_NAME.to_owned(),
            token: None,
            metrics: None,
            waypoint: None,
            waypoint_token: None,
        })
    }

    /// A flag about the target that was named last.
    pub(crate) fn set(&mut self, flag: &str, value: &str) -> anyhow::Result<()> {
        match flag {
            "--target-root" => self.root = Some(value.into()),
            "--target-server-name" => value.clone_into(&mut self.server_name),
            "--target-token" => self.token = Some(value.into()),
            "--target-metrics" => self.metrics = Some(value.parse().context("IP:PORT")?),
            "--target-waypoint" => {
                let (ns, name) = value.split_once('/').context("NAMESPACE/NAME")?;
                self.waypoint = Some((ns.to_owned(), name.to_owned()));
            }
            "--target-waypoint-token" => self.waypoint_token = Some(value.into()),
            other => bail!("{other} says nothing of a target"),
        }
        Ok(())
    }

    fn root(&self) -> anyhow::Result<String> {
        let root = self.root.as_ref();
        let root = root.with_context(|| format!("--target-root of {}", self.name))?;
        std::fs::read_to_string(root).with_context(|| root.display().to_string())
    }

    fn xds(&self, token: Option<&PathBuf>) -> anyhow::Result<XdsTarget> {
        Ok(XdsTarget::Anonymous {
            addr: self.addr,
            server_name: self.server_name.clone(),
            root_pem: self.root()?,
            token: read(token)?,
        })
    }

    /// Processor seconds so far and resident bytes, as it says itself.
    async fn used(&self) -> anyhow::Result<Option<(f64, f64)>> {
        let Some(addr) = self.metrics else {
            return Ok(None);
        };
        let text = http_client::get(addr, "/metrics").await?.text();
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let found = lines.find(|(key, _)| *key == name);
            found.and_then(|(_, value)| value.trim().parse::<f64>().ok())
        };
        let (busy, memory) = (
            value("process_cpu_seconds_total"),
            value("process_resident_memory_bytes"),
        );
        // Not every target says it of itself.
        Ok(busy.map(|busy| (busy, memory.unwrap_or_default())))
    }
}

fn read(file: Option<&PathBuf>) -> anyhow::Result<Option<String>> {
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        anyhow::Ok(text.trim().to_owned())
    };
    file.map(read).transpose()
}

/// Runs the scenario, for the targets that were named.
pub(crate) async fn run(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    if options.targets.is_empty() {
        table.note("name other control planes: --target NAME=IP:PORT, then --target-root and more");
    }
    for target in &options.targets {
        for _ in 0..options.runs {
            ztunnels(target, options, table).await?;
            if target.waypoint.is_some() {
                waypoint(target, table).await?;
            }
            if target.token.is_some() {
                certificates(target, options, table).await?;
            }
        }
    }
    Ok(())
}

/// What a phase used, for its rows.
struct Used<'a> {
    target: &'a Target,
    before: Option<(f64, f64)>,
}

impl<'a> Used<'a> {
    async fn begin(target: &'a Target) -> anyhow::Result<Self> {
        let before = target.used().await?;
        Ok(Self { target, before })
    }

    async fn add(self, table: &mut Table, phase: &str) -> anyhow::Result<()> {
        let name = &self.target.name;
        if let (Some(before), Some(after)) = (self.before, self.target.used().await?) {
            let busy = Measure::Seconds(after.0 - before.0);
            table.add(format!("{name}: {phase}, its CPU"), busy);
            table.add(format!("{name}: {phase}, its RSS"), Measure::Bytes(after.1));
        }
        Ok(())
    }
}

async fn ztunnels(target: &Target, options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let clients = options.size(options.clients, CLIENTS, CLIENTS / 4);
    let name = &target.name;
    let to = To {
        addr: target.addr,
        server_name: target.server_name.clone(),
        tls: ads::tls_without_certificate(&target.root()?)?,
        token: read(target.token.as_ref())?,
        nodes: NODES,
    };
    let mut fleet = Fleet::new(to)?;
    for (phase, resume) in [("ztunnels connect", false), ("ztunnels come back", true)] {
        let used = Used::begin(target).await?;
        let before = fleet.totals();
        let began = Instant::now();
        fleet.connect(clients, resume)?;
        while !fleet.is_ready() {
            fleet.turn(Some(TURN))?;
            let lost = fleet.totals().lost - before.lost;
            ensure!(lost == 0, "{name}: {lost} clients were refused or lost");
            ensure!(
                began.elapsed() < LIMIT,
                "{name}: not every client was answered"
            );
        }
        let (took, after) = (fleet.ready().0, fleet.totals());
        let mut took: Vec<f64> = took.into_iter().map(|it| it as f64 / MILLI).collect();
        let each = |now: u64, before: u64| (now - before) as f64 / clients as f64;
        let row = |what: &str| format!("{name}: {phase}, {what}");
        table.add(row("all"), Measure::Seconds(began.elapsed().as_secs_f64()));
        table.add(
            row("p99 of clients"),
            Measure::Millis(permille(&mut took, 990)),
        );
        let resources = each(after.resources, before.resources);
        table.add(row("resources per client"), Measure::Count(resources));
        table.add(
            row("bytes per client"),
            Measure::Bytes(each(after.bytes, before.bytes)),
        );
        used.add(table, phase).await?;
        fleet.leave();
    }
    Ok(())
}

async fn waypoint(target: &Target, table: &mut Table) -> anyhow::Result<()> {
    let (ns, name) = target.waypoint.clone().unwrap_or_default();
    let token = target.waypoint_token.as_ref().or(target.token.as_ref());
    let (xds, node) = (target.xds(token)?, waypoint_node(&ns, &name, "127.0.0.1"));
    let mut first = Waypoint::connect(&xds, node.clone(), Plan::default()).await?;
    let plan = first.settle(LIMIT).await?.plan;
    drop(first);
    let used = Used::begin(target).await?;
    let began = Instant::now();
    let mut again = Waypoint::connect(&xds, node, plan).await?;
    let settled = again.settle(LIMIT).await?;
    let wall = Measure::Seconds(began.elapsed().as_secs_f64());
    table.add(format!("{}: a waypoint connects", target.name), wall);
    let bytes = Measure::Bytes(settled.bytes as f64);
    table.add(
        format!("{}: a waypoint connects, resources", target.name),
        bytes,
    );
    used.add(table, "a waypoint connects").await
}

async fn certificates(target: &Target, options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let time = Duration::from_secs(options.seconds.unwrap_or(5));
    let used = Used::begin(target).await?;
    let callers = vec![Arc::new(target.xds(target.token.as_ref())?)];
    let count = csr::ask(&callers, None, time, || Ok(())).await?;
    let rate = count as f64 / time.as_secs_f64();
    table.add(
        format!("{}: certificates per second", target.name),
        Measure::Count(rate),
    );
    used.add(table, "certificates").await
}
