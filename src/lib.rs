//! Wiring of ambientd: flags, sources, the pipeline's owner thread, servers, debug HTTP.
//!
//! In: flags and environment ([`config`]). Out: the subcommands of the binary.
//!
//! **Invariants**
//! - [`config`] alone reads flags and environment.
//! - [`driver`] alone calls `Pipeline::apply` in a running server; everything else
//!   reads immutable snapshots.
//! - Offline commands run the very same pipeline as `serve`.

pub mod agent;
pub mod ambientz;
pub mod analyze;
pub mod commands;
pub mod config;
pub mod credentials;
pub mod debug_http;
pub mod driver;
pub mod http;
pub mod identity;
pub mod install;
pub mod jwks;
pub mod metrics;
pub mod node;
pub mod pod_info;
pub mod proxy;
pub mod readiness;
pub mod render;
pub mod serve;
pub mod target;
pub mod webhook;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use config::{Cli, Command};

/// `name-version`, as `ambientd version` and `/version` print it.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-ambientd");

/// Runs a command line.
///
/// # Errors
/// What the person who called should read: it names the object or flag and the fix.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let levels = cli.log_output_level.as_deref();
    let filter = levels.map_or(cli.log, |levels| config::log_filter(levels).0);
    match cli.command {
        Command::Serve(args) => {
            start_logging(&filter, cli.log_as_json.is_on())?;
            serve::run(*args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Render(args) => commands::render(&args),
        Command::Analyze(args) => commands::analyze(&args),
        Command::Bootstrap(args) => commands::bootstrap(&args),
        Command::Agent(args) => {
            start_logging(&filter, cli.log_as_json.is_on())?;
            agent::run(args)
        }
        Command::Proxy(args) => {
            start_logging(&filter, cli.log_as_json.is_on())?;
            proxy::run(&args)
        }
        Command::AgentInstall(args) => install::run(&args),
        Command::AgentEnvoy(args) => Err(agent::become_envoy(&args)),
        Command::Token(args) => credentials::token(&args),
        Command::Ca(args) => credentials::ca(&args),
        Command::Version => {
            commands::print(&format!("{VERSION}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Has everything logged to standard error.
///
/// # Errors
/// When the filter is none.
pub fn start_logging(filter: &str, json: bool) -> anyhow::Result<()> {
    use anyhow::Context as _;
    // Whoever asks the API server says what came of it, and says it once.
    let quiet = if filter.contains("kube_client") {
        ""
    } else {
        ",kube_client=off"
    };
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{filter}{quiet}"))
        .with_context(|| format!("--log {filter:?} is not a log filter"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
    Ok(())
}
