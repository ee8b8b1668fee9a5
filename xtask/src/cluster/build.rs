//! Builds the cluster's binary, once per state of its sources.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::built::Built;
use crate::steps;

/// The Kubernetes that is built; `go.mod` requires the same.
const VERSION: (&str, &str, &str) = ("1", "35", "1.35.4");

const BINARY: &str = "cluster";

/// The path of the binary, built if its sources are new.
///
/// # Errors
/// When there is no Go, or the build fails.
pub(crate) fn ensure() -> Result<PathBuf> {
    let home = module()
        .ensure(|scratch| build(&scratch.join(BINARY)))
        .context("cannot build the test cluster")?;
    Ok(home.join(BINARY))
}

fn module() -> Built {
    Built {
        name: "cluster",
        module: "cluster",
        with_tests: false,
        salt: link_flags(),
        proof: BINARY,
    }
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

/// Vets and tests the sources.
///
/// # Errors
/// When there is no Go, or something of it fails.
pub(crate) fn test() -> Result<()> {
    module().test()
}

fn build(binary: &Path) -> Result<()> {
    let mut command = module().go()?;
    println!(
        "building Kubernetes {} (5 minutes when the cache is cold) ...",
        VERSION.2
    );
    let began = Instant::now();
    command
        .args(["build", "-buildvcs=false", "-trimpath"])
        .args(["-ldflags", &link_flags(), "-o"])
        .arg(binary)
        .arg(".");
    steps::run(&mut command)?;
    println!("built it in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
