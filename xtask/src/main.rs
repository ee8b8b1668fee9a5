//! Developer commands: `cargo xtask <command>`.
//!
//! In: the repository. Out: a verdict, a demo or generated files.
//!
//! **Invariants.** `cargo xtask test` is all that continuous integration runs.
//! Tools are fetched into `target/tools`, pinned, and nowhere else.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

mod bench;
mod built;
mod cluster;
mod conformance;
mod demo;
mod deny;
mod deps;
mod envoy;
mod generate;
mod golang;
mod kind_up;
mod lex;
mod orphans;
mod steps;
mod test;
mod wheel;
mod workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of ambientd")]
enum Command {
    /// Show a mesh at work: the control plane, a live Envoy and a ztunnel's view
    Demo {
        /// Leave everything running until interrupted
        #[arg(long)]
        keep: bool,
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Everything continuous integration runs: checks, lints and all tests
    Test {
        /// Only this step; may be repeated
        #[arg(long = "only", value_name = "STEP")]
        only: Vec<String>,
    },
    /// Run the scenarios whose names contain NAME, or all
    Scenario {
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Measure what load costs, against floors; `bench micro` measures single functions
    Bench(bench::Bench),
    /// Write the generated files anew
    Gen {
        /// Only say whether they are stale
        #[arg(long)]
        check: bool,
    },
    /// Provide the pinned Envoy and print its path
    Envoy,
    /// A real Kubernetes without containers on this machine; needs root
    Cluster {
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Run the Gateway API's conformance suite against a test cluster; needs root
    Conformance(conformance::Conformance),
    /// A kind cluster with ambientd in istiod's place; needs kind, docker, helm and kubectl
    KindUp(kind_up::KindUp),
    /// Check licences, banned duplicates and sources
    Deny {
        /// Check security advisories instead; needs the network
        #[arg(long)]
        advisories: bool,
    },
    /// Check the arrows between crates and the purity of the pure ones
    CheckDeps,
    /// Check that every source file is compiled, finished and of a readable size
    CheckOrphans,
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by `Debug`, which adds a backtrace where `RUST_BACKTRACE` is set.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo { keep, args } => demo::demo(keep, &args),
        Command::Test { only } => test::run(&only),
        Command::Scenario { names } => demo::scenarios(&names),
        Command::Bench(flags) => bench::run(&flags),
        Command::Gen { check } => generate::run(check),
        Command::Envoy => envoy::ensure().map(|path| println!("{}", path.display())),
        Command::Cluster { action } => cluster::run(&action),
        Command::Conformance(flags) => conformance::run(&flags),
        Command::KindUp(flags) => kind_up::run(&flags),
        Command::Deny { advisories } => deny::run(advisories),
        Command::CheckDeps => deps::run(),
        Command::CheckOrphans => orphans::run(),
    }
}
