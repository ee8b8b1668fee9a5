//! Local agent of a stock Envoy: makes it a waypoint or gateway of the mesh.
//!
//! In: the identity to obtain, a bearer token and a root bundle in files, the address of
//! the certificate authority, the command that starts Envoy. Out: a certificate that is
//! always fresh, served to Envoy by secret discovery over a Unix socket; the bootstrap
//! file; Envoy as a child process that is drained before it ends; readiness and metrics
//! over HTTP.
//!
//! **Invariants**
//! - The private key is made here, lives in memory, and leaves the process only over the
//!   socket, in a directory that no other user may enter. It appears in no log, and is wiped
//!   when it is replaced; the encoded copy on its way to Envoy is not.
//! - A certificate is used only when it carries exactly the identity asked for, belongs to
//!   our key and chains to the known roots.
//! - A certificate that is still valid is never given up because a renewal fails.
//! - Roots are only ever added by the authority while its old ones are in use: what Envoy
//!   trusts is the union of the root file and of the latest answer.
//! - Envoy never outlives the agent, and the agent never outlives Envoy.

mod admin;
mod bundle;
mod certificate;
mod error;
mod issuer;
mod metrics;
mod options;
mod process;
mod renewal;
mod run;
mod sds;
mod state;
mod status;

pub use error::AgentError;
pub use options::{CaOptions, DrainOptions, EnvoyCommand, Options};
pub use process::exec_as_child_of;
pub use run::run;

#[cfg(test)]
mod tests;
