//! Builds the cluster's binary, once per state of its sources.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::wheel::discard;
use crate::{golang, steps};

/// The Kubernetes that is built; `go.mod` requires the same.
const VERSION: (&str, &str, &str) = ("1", "35", "1.35.4");

const PREFIX: &str = "cluster-";

/// How long a build may be in use after another has taken its place.
const IN_USE: Duration = Duration::from_secs(3600);

/// The path of the binary, built if its sources are new.
///
/// # Errors
/// When there is no Go, or the build fails.
pub(crate) fn ensure() -> Result<PathBuf> {
    let home = steps::tools().join(format!("{PREFIX}{:016x}", fingerprint()?));
    let binary = home.join("cluster");
    if binary.is_file() {
        note_use(&home)?;
        return Ok(binary);
    }
    let scratch = steps::tools().join(format!("{PREFIX}build.{}", std::process::id()));
    discard(&scratch)?;
    let placed = build(&scratch.join("cluster")).and_then(|()| {
        if binary.is_file() {
            return Ok(()); // Another run was faster.
        }
        fs::rename(&scratch, &home).with_context(|| format!("cannot create {}", home.display()))
    });
    let discarded = discard(&scratch);
    placed.context("cannot build the test cluster")?;
    discarded?;
    remove_older(&home)?;
    Ok(binary)
}

fn sources() -> PathBuf {
    steps::root().join("tests").join("cluster")
}

/// Flags of the linker: small, and a version that clients believe.
fn link_flags() -> String {
    let (major, minor, version) = VERSION;
    let set = |name: &str, value: &str| {
        ["component-base/version", "client-go/pkg/version"]
            .map(|package| format!(" -X k8s.io/{package}.{name}={value}"))
            .concat()
    };
    [
        "-s -w".to_owned(),
        set("gitVersion", &format!("v{version}")),
        set("gitMajor", major),
        set("gitMinor", minor),
        set("gitTreeState", "clean"),
    ]
    .concat()
}

/// One number for everything that the binary is made of, besides Go itself.
fn fingerprint() -> Result<u64> {
    let mut files = Vec::new();
    list(&sources(), &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    link_flags().hash(&mut hasher);
    for file in files {
        file.strip_prefix(sources())?.hash(&mut hasher);
        fs::read(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The files that Go reads, tests aside.
fn list(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            list(&path, found)?;
        } else if !name.ends_with("_test.go") {
            found.push(path);
        }
    }
    Ok(())
}

/// Vets and tests the sources: what was compiled for the binary is not compiled again.
///
/// # Errors
/// When there is no Go, or something of it fails.
pub(crate) fn test() -> Result<()> {
    for what in ["vet", "test"] {
        steps::run(go(what)?.args(["-trimpath", "./..."]))?;
    }
    Ok(())
}

/// A command of Go among the sources, with what decides whether compiled packages are reused.
fn go(what: &str) -> Result<Command> {
    let mut command = Command::new(golang::ensure()?);
    command
        .current_dir(sources())
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly")
        .arg(what);
    Ok(command)
}

fn build(binary: &Path) -> Result<()> {
    let mut command = go("build")?;
    println!(
        "building Kubernetes {} (5 minutes when the cache is cold) ...",
        VERSION.2
    );
    let began = Instant::now();
    command
        .args(["-buildvcs=false", "-trimpath"])
        .args(["-ldflags", &link_flags(), "-o"])
        .arg(binary)
        .arg(".");
    steps::run(&mut command)?;
    println!("built it in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Has the directory say when its binary was last given to anybody.
fn note_use(home: &Path) -> Result<()> {
    let noted = fs::File::open(home).and_then(|home| home.set_modified(SystemTime::now()));
    noted.with_context(|| format!("cannot note the use of {}", home.display()))
}

/// Removes builds of earlier sources, for each is more than 100 MB; but none that a test
/// which still runs may have been given.
fn remove_older(home: &Path) -> Result<()> {
    for entry in fs::read_dir(steps::tools())? {
        let entry = entry?;
        let path = entry.path();
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path != home && name.starts_with(PREFIX) && age > IN_USE {
            discard(&path)?;
        }
    }
    Ok(())
}
