//! Certificate authority: roots, signing, trust bundle, and the service that hands
//! out workload certificates.
//!
//! In: a root that is ours ([`RootStore`]) or plugged in ([`CaCerts`]); certificate
//! requests of authenticated callers; the time. Out: certificate chains, the
//! [`TrustBundle`], serving certificates, and the identity inside a certificate.
//!
//! The parts: [`Csr`] takes the public key from a request. [`Signer`] is immutable
//! signing material that has proven itself. [`Authority`] holds the signer of the
//! moment and applies the rules of issuing. [`Source`] fills it and follows changes.
//! [`CertificateService`] speaks `istio.v1.auth`.
//!
//! **Invariants**
//! - A root is created once, whole, by an atomic step. Whatever is found afterwards
//!   is read or refused, never replaced: a root that changes silently takes the
//!   trust of every workload with it.
//! - Of a request only the public key counts, and whether it names a common name.
//!   Names, usages and life are ours, from the authenticated identity.
//! - A certificate carries exactly one URI name, is of the mesh's trust domain and never
//!   of an alias, may not sign others, and outlives none of its issuers.
//! - Private keys are wiped on drop, are written with mode 0600 into directories of
//!   mode 0700, and appear in no `Debug` output and no error text.
//! - Signing holds no lock, and every wait has a bound.
//! - The time is an argument of everything that signs; only watching, serving and
//!   the TLS library look at the clock.

mod authority;
mod bundle;
mod cacerts;
mod cert;
mod csr;
mod dev;
mod domains;
mod error;
mod files;
mod issue;
mod key;
mod peer;
pub mod root;
pub mod service;
mod signer;
mod source;

pub use authority::{Authority, RootPolicy, TtlPolicy};
pub use bundle::TrustBundle;
pub use cacerts::{CaCerts, Loaded};
pub use csr::{CSR_BYTES_MAX, Csr, CsrError};
pub use dev::{DevCa, WorkloadFiles};
pub use domains::TrustDomains;
pub use error::{CaError, SignError};
pub use issue::Issued;
pub use peer::{ClientAuth, PeerError, SpiffeClientVerifier, peer_spiffe_id};
pub use root::{FileStore, RootStore};
pub use service::{CertificateService, ServiceConfig};
pub use signer::{Part, Signer, SignerError, SignerParts};
pub use source::{Source, follow, watch};

#[cfg(test)]
mod tests;
