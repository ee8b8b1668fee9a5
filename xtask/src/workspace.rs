//! What `cargo metadata` knows of our own packages.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::steps;

/// When a dependency is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By the crate itself.
    Normal,
    /// By its build script.
    Build,
    /// By its tests and benchmarks.
    Dev,
}

/// One direct dependency.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    /// Name of the package, not of a rename.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// One package of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    /// The root file of every target: library, binaries, tests, benches, build script.
    pub(crate) roots: Vec<PathBuf>,
}

/// Reads the workspace, sorted by package name.
///
/// # Errors
/// When `cargo metadata` fails or prints what it should not.
pub(crate) fn packages() -> Result<Vec<Package>> {
    let mut packages = array(&metadata()?, "packages")?
        .iter()
        .map(package)
        .collect::<Result<Vec<_>>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

/// The target directory that cargo builds into.
///
/// # Errors
/// As [`packages`].
pub(crate) fn target_directory() -> Result<PathBuf> {
    text(&metadata()?, "target_directory").map(PathBuf::from)
}

fn metadata() -> Result<Value> {
    let mut command = steps::cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let output = steps::run_quietly(&mut command, "reading the workspace")?;
    serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
}

fn package(value: &Value) -> Result<Package> {
    let mut directory = PathBuf::from(text(value, "manifest_path")?);
    directory.pop();
    Ok(Package {
        name: text(value, "name")?,
        directory,
        dependencies: array(value, "dependencies")?
            .iter()
            .map(dependency)
            .collect::<Result<_>>()?,
        roots: array(value, "targets")?
            .iter()
            .map(|target| text(target, "src_path").map(PathBuf::from))
            .collect::<Result<_>>()?,
    })
}

fn dependency(value: &Value) -> Result<Dependency> {
    Ok(Dependency {
        name: text(value, "name")?,
        kind: match value.get("kind").and_then(Value::as_str) {
            Some("dev") => Kind::Dev,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        },
    })
}

fn text(value: &Value, field: &str) -> Result<String> {
    value
        .get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("cargo metadata: no string `{field}`"))
}

fn array<'v>(value: &'v Value, field: &str) -> Result<&'v [Value]> {
    value
        .get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .with_context(|| format!("cargo metadata: no array `{field}`"))
}
