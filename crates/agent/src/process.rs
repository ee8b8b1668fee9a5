//! Envoy as a child process.
//!
//! That Envoy never outlives the agent rests on three things: a dropped handle kills it,
//! whatever ends the agent in order; the launcher asks the kernel to kill it when the
//! agent itself is killed ([`exec_as_child_of`]); and in a pod the agent is process 1,
//! with which everything ends. Envoy gets a process group of its own, so that an
//! interrupt from a terminal reaches the agent alone, which then drains.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use crate::AgentError;
use crate::options::EnvoyCommand;

/// How long Envoy may take to end after SIGTERM before it is killed.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// A running Envoy; killed when dropped.
pub(crate) struct Envoy {
    child: Child,
}

// === impl Envoy ===

impl Envoy {
    /// Starts Envoy with `own` arguments after the caller's, save flags that the caller
    /// gave already. Call it on a thread that lives as long as the agent: the kernel takes
    /// the end of that thread for the end of the parent.
    pub(crate) fn spawn(command: &EnvoyCommand, own: &[Vec<OsString>]) -> Result<Self, AgentError> {
        let mut words = command.launcher.clone();
        words.push(command.program.clone());
        words.extend(command.args.iter().cloned());
        for argument in own {
            let is_given = argument
                .first()
                .is_some_and(|flag| is_given(&command.args, flag));
            if !is_given {
                words.extend(argument.iter().cloned());
            }
        }
        let program = words.remove(0);
        let child = Command::new(&program)
            .args(words)
            .stdin(std::process::Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| AgentError::Spawn {
                program: command.program.to_string_lossy().into_owned(),
                source,
            })?;
        Ok(Self { child })
    }

    /// Waits for its end; returns the exit code, or 128 and the signal.
    pub(crate) async fn ended(&mut self) -> u8 {
        match self.child.wait().await {
            Ok(status) => code(status),
            Err(error) => {
                tracing::error!(%error, "cannot wait for Envoy");
                1
            }
        }
    }

    /// SIGTERM, and SIGKILL to what does not heed it.
    pub(crate) async fn stop(&mut self) -> u8 {
        if let Some(pid) = self.pid()
            && let Err(error) = rustix::process::kill_process(pid, Signal::TERM)
        {
            tracing::debug!(%error, "Envoy takes no signal");
        }
        if let Ok(code) = tokio::time::timeout(KILL_GRACE, self.ended()).await {
            return code;
        }
        tracing::warn!(grace = ?KILL_GRACE, "Envoy does not end: killing it");
        if let Err(error) = self.child.start_kill() {
            tracing::warn!(%error, "cannot kill Envoy");
        }
        self.ended().await
    }

    fn pid(&self) -> Option<Pid> {
        let id = i32::try_from(self.child.id()?).ok()?;
        Pid::from_raw(id)
    }
}

fn is_given(args: &[OsString], flag: &OsString) -> bool {
    let prefix = format!("{}=", flag.to_string_lossy());
    args.iter()
        .any(|arg| arg == flag || arg.to_string_lossy().starts_with(&prefix))
}

fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Becomes `command`, to be killed by the kernel when the process `parent`, which must
/// have started this one, is gone. Returns only on failure.
pub fn exec_as_child_of(parent: u32, command: &[OsString]) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    let current = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    // In a pid namespace the parent is outside of it, and there is no telling.
    if current.is_some_and(|pid| u32::try_from(pid) != Ok(parent)) {
        return io::Error::other("the agent has ended");
    }
    let Some((program, args)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command");
    };
    std::process::Command::new(Path::new(program))
        .args(args)
        .exec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shell(script: &str) -> EnvoyCommand {
        EnvoyCommand {
            launcher: Vec::new(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into(), "envoy".into()],
        }
    }

    #[tokio::test]
    async fn the_exit_code_is_that_of_the_child_or_its_signal() {
        let own = [vec!["7".into()]];
        let mut child = Envoy::spawn(&shell("exit $1"), &own).unwrap();
        assert_eq!(child.ended().await, 7);
        let mut child = Envoy::spawn(&shell("kill -9 $$"), &[]).unwrap();
        assert_eq!(child.ended().await, 137);
    }

    #[tokio::test]
    async fn a_child_is_asked_to_end_before_it_is_killed() {
        let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
        let mut child = Envoy::spawn(&shell(script), &[]).unwrap();
        // Until the trap is set, the signal ends the shell at once: 128 + 15.
        let code = child.stop().await;
        assert!([5, 143].contains(&code), "{code}");
    }

    #[test]
    fn flags_of_the_caller_win() {
        let args = [
            "--drain-time-s".into(),
            "3".into(),
            "--log-level=info".into(),
        ];
        for (flag, expected) in [
            ("--drain-time-s", true),
            ("--log-level", true),
            ("--log", false),
        ] {
            assert_eq!(is_given(&args, &flag.into()), expected, "{flag}");
        }
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let command = EnvoyCommand {
            launcher: Vec::new(),
            program: "/nowhere/envoy".into(),
            args: Vec::new(),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _guard = runtime.enter();
        let error = Envoy::spawn(&command, &[]).err().unwrap().to_string();
        assert!(
            error.starts_with("cannot start /nowhere/envoy: "),
            "{error}"
        );
    }
}
