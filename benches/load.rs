//! Load: what a mesh of some size costs a control plane, against a floor that is measured in
//! the same run. `cargo xtask bench` runs it; see `docs/performance.md`.
//!
//! In: scenarios by name and sizes. Out: a table for each, and JSON. No time is judged here;
//! where a goal is a ratio or a count the row's name says it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot go on should stop, and is shown, not counted with"
)]

#[path = "load/child.rs"]
mod child;
#[path = "load/clients.rs"]
mod clients;
#[path = "load/csr.rs"]
mod csr;
#[path = "load/event_cost.rs"]
mod event_cost;
#[path = "load/memory.rs"]
mod memory;
#[path = "load/memory_server.rs"]
mod memory_server;
#[path = "load/route_push.rs"]
mod route_push;
#[path = "load/start.rs"]
mod start;
#[path = "load/target.rs"]
mod target;
#[path = "load/waypoint_cold.rs"]
mod waypoint_cold;
#[path = "load/wds.rs"]
mod wds;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use target::Target;
use testkit::load::table::Table;

/// That of the server in memory is the program's; clients and floor have it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Sizes; a scenario has its own where none is given.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where objects come from: `memory`, `dir` or `kube`.
    pub(crate) source: Option<String>,
    pub(crate) pods: Option<usize>,
    pub(crate) clients: Option<usize>,
    /// How often everything is done.
    pub(crate) runs: usize,
    /// How long it is done where that is a choice.
    pub(crate) seconds: Option<u64>,
    /// Other control planes, by name and address, with whatever comes after these.
    pub(crate) targets: Vec<Target>,
    pub(crate) json: Option<PathBuf>,
    /// Sizes that show that it works rather than what it costs.
    pub(crate) quick: bool,
}

impl Options {
    /// The size that was asked for, or that of the scenario, or of its quick form.
    pub(crate) fn size(&self, asked: Option<usize>, usual: usize, quick: usize) -> usize {
        asked.unwrap_or(if self.quick { quick } else { usual })
    }
}

/// All scenarios, in the order in which they run.
const SCENARIOS: &[&str] = &[
    "wds-cold",
    "wds-reconnect",
    "wds-churn",
    "storm",
    "soak",
    "event-cost",
    "memory",
    "route-push",
    "waypoint-cold",
    "csr",
    "start",
    "targets",
];

fn main() -> anyhow::Result<()> {
    // Cargo says so to every benchmark.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    if let Some(role) = args.first()
        && let Some(outcome) = role_of(role, &args[1..])
    {
        return outcome;
    }
    let (names, options) = read(&args)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut tables = Vec::new();
    for name in SCENARIOS {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut table = Table::new(*name);
        runtime.block_on(scenario(name, &options, &mut table))?;
        println!("{table}");
        tables.push(table.json());
        if let Some(path) = &options.json {
            std::fs::write(path, format!("{:#}\n", serde_json::json!(tables)))?;
        }
    }
    Ok(())
}

/// What this process is when it was started by a scenario.
fn role_of(role: &str, args: &[String]) -> Option<anyhow::Result<()>> {
    Some(match role {
        memory_server::ROLE => memory_server::run(args),
        clients::ZTUNNELS => clients::ztunnels(args),
        clients::WRITER => clients::writer(args),
        clients::READERS => clients::readers(args),
        csr::SERVER => csr::server(args),
        _ => return None,
    })
}

async fn scenario(name: &str, options: &Options, table: &mut Table) -> anyhow::Result<()> {
    match name {
        "wds-cold" => wds::cold(options, table).await,
        "wds-reconnect" => wds::reconnect(options, table).await,
        "wds-churn" => wds::churn(options, table).await,
        "storm" => wds::storm(options, table).await,
        "soak" => wds::soak(options, table).await,
        "event-cost" => event_cost::run(options, table),
        "memory" => memory::run(options, table).await,
        "route-push" => Box::pin(route_push::run(options, table)).await,
        "waypoint-cold" => waypoint_cold::run(options, table).await,
        "csr" => csr::run(options, table).await,
        "start" => start::run(options, table).await,
        "targets" => target::run(options, table).await,
        _ => bail!("{name} is not known"),
    }
}

fn read(args: &[String]) -> anyhow::Result<(Vec<String>, Options)> {
    let mut names = Vec::new();
    let mut options = Options {
        source: None,
        pods: None,
        clients: None,
        runs: 1,
        seconds: None,
        targets: Vec::new(),
        json: None,
        quick: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--source" => options.source = Some(value()?.clone()),
            "--pods" => options.pods = Some(value()?.parse()?),
            "--clients" => options.clients = Some(value()?.parse()?),
            "--runs" => options.runs = value()?.parse::<usize>()?.max(1),
            "--seconds" => options.seconds = Some(value()?.parse()?),
            "--target" => {
                options.targets.push(Target::read(value()?)?);
            }
            flag if flag.starts_with("--target-") => {
                let target = options.targets.last_mut();
                target
                    .context("--target comes first")?
                    .set(flag, value()?)?;
            }
            "--json" => options.json = Some(value()?.into()),
            "--quick" => options.quick = true,
            name if SCENARIOS.contains(&name) => names.push(name.to_owned()),
            other => bail!(
                "{other} is neither a flag nor one of {}",
                SCENARIOS.join(", ")
            ),
        }
    }
    Ok((names, options))
}
