//! Tools that come as Python wheels: fetched by pip, held to hashes, unpacked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::steps;

/// A wheel to fetch.
pub(crate) struct Wheel {
    /// Names the package and its hashes; relative to the root of the repository.
    pub(crate) requirements: &'static str,
    /// What it is, for people who wait.
    pub(crate) what: &'static str,
}

impl Wheel {
    /// Downloads and unpacks it; the answer is a directory in `scratch`.
    ///
    /// # Errors
    /// When Python is missing, or the download fails or is not what it should be.
    pub(crate) fn unpack(&self, scratch: &Path) -> Result<PathBuf> {
        let wheels = scratch.join("wheels");
        fs::create_dir_all(&wheels)
            .with_context(|| format!("cannot create {}", wheels.display()))?;
        self.download(scratch, &wheels)?;
        let wheel = fs::read_dir(&wheels)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .context("pip downloaded no wheel")?;
        let unpacked = scratch.join("unpacked");
        let mut unzip = steps::command("python3");
        unzip
            .args(["-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(&unpacked);
        steps::run_quietly(&mut unzip, &format!("unpacking {}", self.what))?;
        discard(&wheels)?;
        Ok(unpacked)
    }

    /// Downloads with the pip at hand, or else with a fresh one in a virtual environment.
    fn download(&self, scratch: &Path, wheels: &Path) -> Result<()> {
        let Err(with_own) = self.pip_download("python3".as_ref(), wheels) else {
            return Ok(());
        };
        let venv = scratch.join("venv");
        let with_venv = make_venv(&venv)
            .and_then(|()| self.pip_download(&venv.join("bin").join("python"), wheels))
            .and_then(|()| discard(&venv));
        with_venv.map_err(|with_venv| {
            anyhow::anyhow!(
                "neither pip nor a virtual environment could download it; Python 3.9 or later \
                 with pip or venv (Debian: python3-pip or python3-venv) and a reachable PyPI are \
                 needed\nwith pip: {with_own:#}\nwith venv: {with_venv:#}"
            )
        })
    }

    fn pip_download(&self, program: &Path, wheels: &Path) -> Result<()> {
        let mut pip = steps::command(program);
        pip.args(["-m", "pip", "download", "--quiet", "--no-input"])
            .args(["--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary=:all:", "--require-hashes"])
            .args(["--requirement", self.requirements, "--dest"])
            .arg(wheels);
        steps::run_quietly(&mut pip, &format!("downloading {}", self.what)).map(drop)
    }
}

/// A virtual environment whose pip is new enough to know the wheels' platform tags.
fn make_venv(venv: &Path) -> Result<()> {
    let mut create = steps::command("python3");
    create.args(["-m", "venv"]).arg(venv);
    steps::run_quietly(&mut create, "making a Python environment")?;
    let mut upgrade = steps::command(venv.join("bin").join("python"));
    upgrade
        .args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--upgrade", "pip"]);
    steps::run_quietly(&mut upgrade, "upgrading pip").map(drop)
}

/// Removes `directory` if it is there.
///
/// # Errors
/// When it is there and stays.
pub(crate) fn discard(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

/// Marks a file as a program: the archives do not say.
///
/// # Errors
/// When that is not possible here.
#[cfg(unix)]
pub(crate) fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))
}

/// The tools are packaged for Linux alone.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub(crate) fn make_executable(file: &Path) -> Result<()> {
    anyhow::bail!("{} is packaged for Linux only", file.display())
}
