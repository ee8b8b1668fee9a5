//! Programs in Go that are built once per state of their sources, and kept in
//! `target/tools`.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::wheel::discard;
use crate::{golang, steps};

/// How long a build may be in use after another has taken its place.
const IN_USE: Duration = Duration::from_secs(3600);

/// What is built.
pub(crate) struct Built {
    /// The build's directory is named after it.
    pub(crate) name: &'static str,
    /// The module, below `tests`.
    pub(crate) module: &'static str,
    /// Whether `_test.go` files are part of it.
    pub(crate) with_tests: bool,
    /// What else decides the outcome, such as flags of the linker.
    pub(crate) salt: String,
    /// A file of a build that is complete.
    pub(crate) proof: &'static str,
}

impl Built {
    /// Where the module is.
    pub(crate) fn sources(&self) -> PathBuf {
        steps::root().join("tests").join(self.module)
    }

    /// The directory of the build, made by `build` if the sources are new.
    ///
    /// # Errors
    /// When the sources cannot be read or the build fails.
    pub(crate) fn ensure(&self, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let prefix = format!("{}-", self.name);
        let home = steps::tools().join(format!("{prefix}{:016x}", self.fingerprint()?));
        let proof = home.join(self.proof);
        if proof.is_file() {
            note_use(&home)?;
            return Ok(home);
        }
        let scratch = steps::tools().join(format!("{prefix}build.{}", std::process::id()));
        discard(&scratch)?;
        let placed = build(&scratch).and_then(|()| {
            if proof.is_file() {
                return Ok(()); // Another run was faster.
            }
            fs::rename(&scratch, &home).with_context(|| format!("cannot create {}", home.display()))
        });
        let discarded = discard(&scratch);
        placed?;
        discarded?;
        remove_older(&prefix, &home)?;
        Ok(home)
    }

    /// One number for everything that the build is made of, besides Go itself.
    fn fingerprint(&self) -> Result<u64> {
        let mut files = Vec::new();
        let sources = self.sources();
        self.list(&sources, &mut files)?;
        files.sort();
        let mut hasher = DefaultHasher::new();
        self.salt.hash(&mut hasher);
        for file in files {
            file.strip_prefix(&sources)?.hash(&mut hasher);
            fs::read(&file)
                .with_context(|| format!("cannot read {}", file.display()))?
                .hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    fn list(&self, directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        let entries = fs::read_dir(directory)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                self.list(&path, found)?;
            } else if self.with_tests || !name.ends_with("_test.go") {
                found.push(path);
            }
        }
        Ok(())
    }

    /// A `go` in the module that builds without the machine's habits.
    ///
    /// # Errors
    /// When there is no Go.
    pub(crate) fn go(&self) -> Result<Command> {
        let mut command = Command::new(golang::ensure()?);
        command
            .current_dir(self.sources())
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=readonly");
        Ok(command)
    }

    /// Vets and tests the sources: what was compiled for the build is not compiled again.
    ///
    /// # Errors
    /// When there is no Go, or something of it fails.
    pub(crate) fn test(&self) -> Result<()> {
        for what in ["vet", "test"] {
            steps::run(self.go()?.args([what, "-trimpath", "./..."]))?;
        }
        Ok(())
    }
}

/// Has the directory say when its build was last given to anybody.
fn note_use(home: &Path) -> Result<()> {
    let noted = fs::File::open(home).and_then(|home| home.set_modified(SystemTime::now()));
    noted.with_context(|| format!("cannot note the use of {}", home.display()))
}

/// Removes builds of earlier sources, for they are large; but none that a test which
/// still runs may have been given.
fn remove_older(prefix: &str, home: &Path) -> Result<()> {
    for entry in fs::read_dir(steps::tools())? {
        let entry = entry?;
        let path = entry.path();
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path != home && name.starts_with(prefix) && age > IN_USE {
            discard(&path)?;
        }
    }
    Ok(())
}
