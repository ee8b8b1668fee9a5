//! Roles: this program again, as a process of its own, so that what each costs is told apart.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;

/// A role, running; killed when dropped. It is told what to do by lines, and answers by lines.
pub(crate) struct Child {
    process: std::process::Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program with other arguments.
    pub(crate) fn start(args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::of(command.args(args))
    }

    /// Starts another program.
    pub(crate) fn of(command: &mut Command) -> anyhow::Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let to = process.stdin.take().context("no stdin")?;
        let from = BufReader::new(process.stdout.take().context("no stdout")?);
        Ok(Self { process, to, from })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Says something.
    pub(crate) fn say(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.to, "{line}")?;
        self.to.flush().context("a role has ended")
    }

    /// The next line that it says, without its end.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line)?;
        anyhow::ensure!(read > 0, "a role has ended: what it said is above");
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// Says something and waits for the answer.
    pub(crate) fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        self.say(line)?;
        self.line()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
