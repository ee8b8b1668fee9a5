//! Running other programs: where we are, which cargo, and how failure is told.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a quiet step may take before it says what it is doing.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`; the compiled-in path serves a
    // binary that is started by hand.
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir
        .parent()
        .map_or_else(|| manifest_dir.clone(), Path::to_path_buf)
}

/// Where downloaded tools live: always inside the repository, whatever
/// `CARGO_TARGET_DIR` says, so that every target directory shares them.
pub(crate) fn tools() -> PathBuf {
    root().join("target").join("tools")
}

/// A command that runs at the root of the repository.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that started us, with `args`.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs `command` with its output let through.
///
/// # Errors
/// When it cannot start or does not end well.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs `command` with its output kept; prints `progress` only if it is slow.
///
/// # Errors
/// When it cannot start or does not end well; the message holds its output.
pub(crate) fn run_quietly(command: &mut Command, progress: &str) -> Result<Output> {
    let shown = show(command);
    let started = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let (sender, receiver) = mpsc::channel();
    // The thread ends with the child; a send can only fail once we are gone.
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let ended = if let Ok(ended) = receiver.recv_timeout(SILENCE_MAX) {
        ended
    } else {
        eprintln!("{progress} ...");
        let ended = receiver.recv().context("lost the child process")?;
        eprintln!("{progress}: {:.1} s", started.elapsed().as_secs_f64());
        ended
    };
    let output = ended.with_context(|| format!("cannot read from `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
    Ok(output)
}

/// The command as one would type it.
fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(std::ffi::OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
