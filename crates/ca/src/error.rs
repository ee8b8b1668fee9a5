//! What can go wrong, by what the caller can do about it.

use std::path::{Path, PathBuf};

use crate::CsrError;

/// Why the CA cannot be set up or changed. No variant ever holds key material.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Where the root is kept does not answer, or refuses; the same call may work later.
    #[error("{path}: {reason}")]
    Unavailable {
        /// What was asked for.
        path: PathBuf,
        /// Why, without any content of it.
        reason: String,
    },
    /// The file system refused; fix the directory or its permissions.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the CA is missing while the directory exists; restore it, or
    /// remove the directory to start with a new root.
    #[error(
        "{path}: missing. Restore it, or remove all that is beside it to create a new root (every workload must then get new certificates)"
    )]
    Incomplete {
        /// The missing file.
        path: PathBuf,
    },
    /// A file of the CA does not parse or does not fit; it is left as it is.
    #[error(
        "{path}: {reason}. The file is left untouched and no new root is created; restore it from a backup"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why, without any content of the file.
        reason: String,
    },
    /// A private key that others may read or write; tighten its mode.
    #[error("{path}: mode {mode:03o} opens a private key to others; run chmod 600")]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The root is no longer valid at the given time.
    #[error("{path}: the root certificate has expired")]
    Expired {
        /// The root certificate.
        path: PathBuf,
    },
    /// The names asked for cannot be certified by this CA.
    #[error("{0}")]
    Name(String),
    /// A plugged-in CA is only partly there; nothing falls back to a new root.
    #[error(
        "{dir}: a plugged-in CA must be whole, but {missing} is missing. Add it, or remove the other files to let a root be created"
    )]
    Partial {
        /// The directory.
        dir: PathBuf,
        /// The first missing file.
        missing: String,
    },
    /// The root of a running CA would change under its clients.
    #[error("the roots of trust would change: {0}; the CA keeps what it has")]
    RootChange(&'static str),
    /// A step of the rotation does not fit the state; see its text.
    #[error("{0}")]
    Rotation(&'static str),
    /// The new root would name another trust domain than the one that it replaces.
    #[error(
        "the root names trust domain {root:?}, not {given:?}; a rotation keeps the name. Leave --trust-domain out, or give what the root names"
    )]
    TrustDomain {
        /// That of the root.
        root: String,
        /// What was asked for.
        given: String,
    },
    /// Somebody else changed the stored root meanwhile; read it again.
    #[error("the stored root was changed by another process; try again")]
    Conflict,
    /// Signing or the TLS configuration failed.
    #[error("{0}")]
    Crypto(String),
}

impl CaError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn crypto(error: impl std::fmt::Display) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// Why no certificate was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// No signing certificate is loaded yet.
    #[error("the CA is not ready")]
    NotReady,
    /// The request is not acceptable.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// More life asked for than allowed.
    #[error("requested TTL {asked_secs} s is greater than the maximum {max_secs} s")]
    Ttl {
        /// As asked.
        asked_secs: i64,
        /// As allowed.
        max_secs: u64,
    },
    /// Creating the certificate failed.
    #[error("{0}")]
    Certificate(String),
}

impl SignError {
    /// The value of the metric label `error`. Source: spec/control-plane.md §4.2.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotReady => "CA_NOT_READY",
            Self::Csr(_) => "CSR_ERROR",
            Self::Ttl { .. } => "TTL_ERROR",
            Self::Certificate(_) => "CERT_GEN_ERROR",
        }
    }
}
