//! The `ambientd` binary: reads flags, hands over.

use std::process::ExitCode;

/// A mesh at rest takes a fifth less than with glibc's allocator, whose free memory stays in pieces
/// (docs/performance.md, "Memory"); musl's, which the image would have, has one lock for all.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
