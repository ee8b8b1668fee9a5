//! The demo mesh on one machine, without a cluster: `ambientd`, sample workloads, a real
//! Envoy as waypoint. Ends with failure when something is not as claimed.

use std::process::ExitCode;

use clap::Parser as _;
use testkit::demo::{self, Options};

#[tokio::main]
async fn main() -> ExitCode {
    demo::run(Options::parse()).await
}
