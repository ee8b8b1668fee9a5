//! `deny`: licences, banned duplicates and sources, by a pinned cargo-deny.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps;

/// The version that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

/// Checks what follows from `Cargo.lock` alone, or with `advisories` only those.
///
/// # Errors
/// When cargo-deny cannot be had or finds a fault.
pub(crate) fn run(advisories: bool) -> Result<()> {
    let mut deny = ensure()?;
    deny.args(["--workspace", "check"]);
    if advisories {
        deny.arg("advisories");
    } else {
        deny.args(["bans", "licenses", "sources"]);
    }
    steps::run(&mut deny)
}

/// A command that starts a working cargo-deny, which is installed if need be.
fn ensure() -> Result<Command> {
    if works(&mut steps::cargo(&["deny"])) {
        return Ok(steps::cargo(&["deny"]));
    }
    let home = steps::tools().join("cargo-deny");
    let binary = home
        .join("bin")
        .join(format!("cargo-deny{}", std::env::consts::EXE_SUFFIX));
    if !works(&mut steps::command(&binary)) {
        install(&home).with_context(|| format!("cannot install cargo-deny {VERSION}"))?;
    }
    Ok(steps::command(binary))
}

fn works(command: &mut Command) -> bool {
    steps::run_quietly(command.arg("--version"), "looking for cargo-deny").is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deny {VERSION}")
    })
}

fn install(home: &Path) -> Result<()> {
    eprintln!("installing cargo-deny {VERSION}, once; it takes a few minutes ...");
    let build = home.join("build");
    let mut install = steps::cargo(&["install", "cargo-deny", "--locked", "--force", "--quiet"]);
    install
        .args(["--version", VERSION, "--root"])
        .arg(home)
        .arg("--target-dir")
        .arg(&build);
    let installed = steps::run(&mut install);
    if build.exists() {
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    }
    installed
}
