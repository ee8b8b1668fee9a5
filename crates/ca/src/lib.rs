//! Development certificate authority: root, serving and workload certificates.
//!
//! In: a state directory, a trust domain, the identities to certify, the time.
//! Out: PEM files for workloads, a TLS server configuration that demands a
//! workload certificate of this mesh, and the identity inside such a certificate.
//!
//! **Invariants**
//! - The root is created once, whole, by an atomic rename. Whatever is found
//!   afterwards is read or refused, never replaced: a root that changes silently
//!   takes the trust of every workload with it.
//! - Private keys are written with mode 0600 into directories of mode 0700 and
//!   appear in no `Debug` output and no error text.
//! - No certificate outlives its issuer, and a workload certificate carries
//!   exactly one URI name.
//! - No async runtime. The time is an argument, except where the TLS library
//!   verifies a handshake.

mod error;
mod files;
mod issue;
mod peer;
mod root;

pub use error::CaError;
pub use issue::{Issued, WorkloadFiles};
pub use peer::{PeerError, SpiffeClientVerifier, peer_spiffe_id};
pub use root::DevCa;

#[cfg(test)]
mod tests;
