//! What ends the agent.

use std::path::{Path, PathBuf};

/// Why the agent cannot run. What can be mended by waiting is never one of these: it is
/// logged, counted and tried again.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or directory of the agent cannot be made; mend the directory.
    #[error("{path}: {source}")]
    File {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The socket's path is longer than the system allows; choose a shorter directory.
    #[error("{path}: the path of a Unix socket may have {max} bytes at most")]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// An address is taken or not ours; choose another.
    #[error("cannot listen on {addr} for {what}: {source}")]
    Listen {
        /// What for.
        what: &'static str,
        /// The address.
        addr: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Envoy cannot be started; mend the command.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A part of the agent ended, which it never should.
    #[error("{0} ended")]
    Ended(&'static str),
    /// A metric could not be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl AgentError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::File { path, source }
    }
}
