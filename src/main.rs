//! The `ambientd` binary: reads flags, hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match ambientd::config::read(std::env::args_os(), std::env::vars_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match ambientd::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ambientd: {error:#}");
            ExitCode::from(2)
        }
    }
}
