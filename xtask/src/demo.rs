//! `demo` and `scenario`: the things one runs to look at.

use std::env::consts::EXE_SUFFIX;

use anyhow::Result;

use crate::{envoy, steps, test, workspace};

/// Builds the control plane and runs the demo against it, with `args` passed on.
///
/// # Errors
/// When something cannot be built or fetched, or the demo fails.
pub(crate) fn demo(keep: bool, args: &[String]) -> Result<()> {
    let envoy = envoy::ensure()?;
    println!("building ambientd and the demo (minutes when the cache is cold) ...");
    // One build for both: their dependencies then agree on features.
    let mut build = steps::cargo(&["build", "-p", "ambientd", "-p", "ambientd-testkit"]);
    steps::run(build.args(["--bin", "ambientd", "--bin", "ambientd-demo"]))?;
    let built = workspace::target_directory()?.join("debug");
    let mut demo = steps::command(built.join(format!("ambientd-demo{EXE_SUFFIX}")));
    demo.env("AMBIENTD_ENVOY", envoy)
        .env("AMBIENTD_BIN", built.join(format!("ambientd{EXE_SUFFIX}")));
    if keep {
        demo.arg("--keep");
    }
    steps::run(demo.args(args))
}

/// Runs the scenarios whose names contain one of `names`, or all.
///
/// # Errors
/// When one fails.
pub(crate) fn scenarios(names: &[String]) -> Result<()> {
    let envoy = envoy::ensure()?;
    // The harness takes one filter at a time.
    let filters: Vec<Option<&String>> = if names.is_empty() {
        vec![None]
    } else {
        names.iter().map(Some).collect()
    };
    for filter in filters {
        let mut test = steps::cargo(&["test", "-p", "ambientd", "--test", "scenarios"]);
        test.env(test::ENVOY_VARIABLE, &envoy).arg("--");
        steps::run(test.args(filter))?;
    }
    Ok(())
}
