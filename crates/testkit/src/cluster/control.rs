//! Killing, stopping and starting parts of a cluster.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::Cluster;

/// Longer than the cluster gives a part that was asked to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A process of a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// The store.
    Etcd,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `kube-proxy`, which serves all nodes.
    Proxy,
    /// A node, by its name.
    Node(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Proxy => "kube-proxy",
            Self::Node(name) => name,
        })
    }
}

impl Cluster {
    /// `kill -9`: when this returns, the process is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, part: &Part) -> anyhow::Result<()> {
        self.command("kill", part)
    }

    /// Asks a part to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not run.
    pub fn term(&self, part: &Part) -> anyhow::Result<()> {
        self.command("term", part)
    }

    /// Has a part stand still: its connections stay open and say nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_part(&self, part: &Part) -> anyhow::Result<()> {
        self.command("stop", part)
    }

    /// Has a stopped part go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn cont(&self, part: &Part) -> anyhow::Result<()> {
        self.command("cont", part)
    }

    /// Starts a part that has ended; does not wait until it is ready.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn start_part(&self, part: &Part) -> anyhow::Result<()> {
        self.command("start", part)
    }

    fn command(&self, command: &str, part: &Part) -> anyhow::Result<()> {
        let context = || format!("{command} {part}");
        let mut stream = UnixStream::connect(self.dir().join("control")).with_context(context)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        writeln!(stream, "{command} {part}")?;
        let mut answer = String::new();
        BufReader::new(stream)
            .read_line(&mut answer)
            .with_context(context)?;
        match answer.trim() {
            "ok" => Ok(()),
            error => bail!("{command} {part}: {error}"),
        }
    }
}
