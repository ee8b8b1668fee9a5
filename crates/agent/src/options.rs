//! What the agent is told.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use envoy::bootstrap::BootstrapOptions;
use model::SpiffeId;

/// Everything that the agent is told; see `ambientd agent --help` for the flags.
#[derive(Clone, Debug)]
pub struct Options {
    /// The identity to obtain.
    pub identity: SpiffeId,
    /// Where certificates come from.
    pub ca: CaOptions,
    /// The bootstrap; its secrets are replaced by the agent's own socket.
    pub bootstrap: BootstrapOptions,
    /// Directory of the bootstrap file and of the socket; created with mode 0700.
    pub run_dir: PathBuf,
    /// Where readiness and metrics are served, 15020 in clusters.
    pub status_addr: SocketAddr,
    /// Where readiness is served to probes, 15021 in clusters.
    pub health_addr: SocketAddr,
    /// How Envoy ends.
    pub drain: DrainOptions,
    /// How Envoy is started.
    pub envoy: EnvoyCommand,
}

/// The certificate authority.
#[derive(Clone, Debug)]
pub struct CaOptions {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name in its certificate.
    pub server_name: String,
    /// Cluster whose token is sent (metadata `clusterid`).
    pub cluster_id: String,
    /// PEM file with the roots of the control plane; looked at every second.
    pub root_file: PathBuf,
    /// File with the bearer token; read for every request.
    pub token_file: PathBuf,
    /// Validity asked for.
    pub ttl: Duration,
}

/// How Envoy ends after a signal.
#[derive(Clone, Copy, Debug)]
pub struct DrainOptions {
    /// How long Envoy may go on asking its peers to leave, once that has begun.
    pub duration: Duration,
    /// Time between the beginning of the drain and the end of Envoy.
    pub termination: Duration,
    /// Wait on after that until no connection is left, for `duration` at most.
    pub until_idle: bool,
}

/// The command that starts Envoy.
#[derive(Clone, Debug)]
pub struct EnvoyCommand {
    /// Program that is started with the whole command as its last arguments, and becomes
    /// it (see [`crate::exec_as_child_of`]); none starts Envoy directly.
    pub launcher: Vec<OsString>,
    /// Envoy's program.
    pub program: OsString,
    /// Its arguments, to which the agent adds its own.
    pub args: Vec<OsString>,
}
