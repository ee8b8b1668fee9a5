//! Network namespaces.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace; deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/var/run/netns").join(name)
}

/// Moves the calling thread into a namespace.
pub(super) fn enter(name: &str) -> anyhow::Result<()> {
    let file = File::open(path(name)).with_context(|| format!("namespace {name}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering namespace {name}"))
}

/// Why this machine cannot have namespaces, if so.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let probe = format!("al{}-probe", std::process::id());
    Netns::create(&probe)
        .err()
        .map(|error| format!("{error:#}"))
}

fn run_to_end(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

// === impl Netns ===

impl Netns {
    /// A new namespace whose loopback is up.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        run_to_end(Command::new("ip").args(["netns", "add", name]))?;
        let netns = Self {
            name: name.to_owned(),
        };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn open(&self) -> anyhow::Result<File> {
        Ok(File::open(path(&self.name))?)
    }

    /// `ip -n NAME ARGS`.
    ///
    /// # Errors
    /// With the words of `ip`.
    pub fn ip(&self, args: &[&str]) -> anyhow::Result<()> {
        run_to_end(Command::new("ip").args(["-n", &self.name]).args(args))
    }

    /// Runs a closure in the namespace: sockets that it makes and processes that it starts
    /// belong there for good.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.name)?;
                Ok(body())
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a process in the namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> anyhow::Result<std::process::Child> {
        let what = format!("{command:?}");
        self.run(|| command.spawn())?.context(what)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = run_to_end(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}
