//! The demo: a small mesh on loopback addresses, shown at work.
//!
//! In: `manifests/demo`, the `ambientd` binary, an Envoy. Out: a table of requests and
//! what became of them, the time a change takes, what a restart costs; an exit code that
//! says whether all of it was as claimed.

mod door;
mod report;
mod requests;
mod restart;
mod split;
mod traffic;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use report::Report;
use world::World;

/// Command line of the demo.
#[derive(Clone, Debug, Parser)]
#[command(name = "ambientd-demo", about = "Shows a mesh at work on one machine")]
pub struct Options {
    /// Leave everything running afterwards and print what to try; Ctrl-C ends it.
    #[arg(long)]
    pub keep: bool,
    /// Requests per measurement of the split.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(50..=100_000))]
    pub requests: u32,
    /// The manifests to run; a copy is made.
    #[arg(long)]
    pub manifests: Option<PathBuf>,
}

/// Runs the demo and says how it went.
pub async fn run(options: Options) -> ExitCode {
    let mut report = Report::new();
    let outcome = tokio::select! {
        outcome = scenes(&options, &mut report) => Some(outcome),
        () = interrupted() => None,
    };
    match outcome {
        Some(Ok(())) => report.finish(),
        Some(Err(error)) => report.abort(&error),
        None => report.interrupted(),
    }
}

async fn scenes(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let manifests = match &options.manifests {
        Some(dir) => dir.clone(),
        None => default_manifests()?,
    };
    let mut world = World::start(&manifests, report).await?;
    requests::show(&world, report).await?;
    split::show(&world, report, options.requests).await?;
    restart::show(&mut world, report).await?;
    if options.keep {
        report.verdict();
        door::keep_open(&world, report).await?;
    }
    Ok(())
}

/// The manifests of this repository, wherever the binary is started in it.
fn default_manifests() -> anyhow::Result<PathBuf> {
    let built_from = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/demo"));
    [PathBuf::from("manifests/demo"), built_from]
        .into_iter()
        .find(|dir| dir.is_dir())
        .context("no manifests/demo here; name the directory with --manifests")
}

/// Ends when the process is asked to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("signals can be watched");
    let mut int = signal(SignalKind::interrupt()).expect("signals can be watched");
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
