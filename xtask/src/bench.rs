//! `bench`: load against its floor, and what single functions cost.

pub(crate) mod check;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{envoy, steps, test};

/// Benchmarks of functions, with their crates. What a cluster costs is `cluster measure`'s.
const MICRO: &[(&str, &str)] = &[
    ("ambientd-flow", "flow"),
    ("ambientd-snapshot", "diff"),
    ("ambientd", "apply"),
    ("ambientd", "cost"),
];
/// Scenarios that go through a real Envoy.
const WITH_ENVOY: &[&str] = &["route-push"];

/// Flags of `bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Scenarios by name, all if there is none; or `micro` and a filter, for single functions
    #[arg(value_name = "SCENARIO")]
    names: Vec<String>,
    /// Where objects come from, in scenarios that have the choice: memory, dir or kube
    #[arg(long)]
    source: Option<String>,
    /// Pods of the mesh
    #[arg(long)]
    pods: Option<usize>,
    /// Clients that connect
    #[arg(long)]
    clients: Option<usize>,
    /// How often everything is measured
    #[arg(long)]
    runs: Option<usize>,
    /// How long scenarios last that last as long as one wants
    #[arg(long)]
    seconds: Option<u64>,
    /// Another control plane to measure with the same clients; repeatable
    #[arg(long, value_name = "NAME=ADDR")]
    target: Vec<String>,
    /// Write the results here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Small sizes, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Count instructions and bytes of single functions and events, and compare with the baseline
    #[arg(long)]
    check: bool,
    /// With --check: take what is counted as the new baseline
    #[arg(long, requires = "check")]
    bless: bool,
    /// What else the targets are told, each behind its target (docs/performance.md)
    #[arg(last = true, value_name = "TARGET FLAGS")]
    rest: Vec<String>,
}

/// Runs what was asked for, optimised.
///
/// # Errors
/// When something cannot be built, or fails. Slowness is no failure.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    if bench.check {
        return check::run(bench.bless);
    }
    match bench.names.split_first() {
        Some((first, filters)) if first == "micro" => micro(filters),
        _ => load(bench),
    }
}

fn micro(filters: &[String]) -> Result<()> {
    for (package, name) in MICRO {
        println!("==> {package}");
        let mut bench = steps::cargo(&["bench", "-p", package, "--bench", name]);
        if !filters.is_empty() {
            bench.arg("--").args(filters);
        }
        steps::run(&mut bench)?;
    }
    Ok(())
}

fn load(bench: &Bench) -> Result<()> {
    let mut run = steps::cargo(&["bench", "-p", "ambientd", "--bench", "load", "--"]);
    let is_wanted = |name: &&str| bench.names.is_empty() || bench.names.iter().any(|it| it == name);
    if WITH_ENVOY.iter().any(is_wanted) {
        run.env(test::ENVOY_VARIABLE, envoy::ensure()?);
    }
    run.args(&bench.names);
    let numbers = [
        ("--pods", bench.pods),
        ("--clients", bench.clients),
        ("--runs", bench.runs),
    ];
    for (flag, value) in numbers {
        if let Some(value) = value {
            run.args([flag, &value.to_string()]);
        }
    }
    if let Some(seconds) = bench.seconds {
        run.args(["--seconds", &seconds.to_string()]);
    }
    if let Some(source) = &bench.source {
        run.args(["--source", source]);
    }
    for target in &bench.target {
        run.args(["--target", target]);
    }
    if let Some(path) = &bench.json {
        // Benchmarks run in the directory of their crate.
        run.arg("--json").arg(std::path::absolute(path)?);
    }
    if bench.quick {
        run.arg("--quick");
    }
    run.args(&bench.rest);
    steps::run(&mut run)
}
