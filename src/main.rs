//! The `ambientd` binary: reads flags, hands over.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = ambientd::config::Cli::parse();
    match ambientd::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ambientd: {error:#}");
            ExitCode::from(2)
        }
    }
}
