//! What clients must trust, apart from what signs.

use std::time::SystemTime;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use crate::cert::{self, CaCert};

/// Roots in one bundle.
const ROOTS_MAX: usize = 64;

/// The roots of the mesh: at least one, in order. These very bytes end every
/// response, and are what is distributed to namespaces.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    pem: String,
    certs: Vec<CaCert>,
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

// === impl TrustBundle ===

impl TrustBundle {
    /// Reads concatenated PEM certificates. What stands between them is dropped,
    /// duplicates too.
    ///
    /// # Errors
    /// Says why the text is not a bundle of CA certificates; nothing of the text is
    /// repeated.
    pub fn from_pem(text: &str) -> Result<Self, String> {
        let mut certs: Vec<CaCert> = Vec::new();
        for der in cert::certificates(text)? {
            if certs.iter().any(|known| known.der == der) {
                continue;
            }
            if certs.len() == ROOTS_MAX {
                return Err(format!("more than {ROOTS_MAX} roots"));
            }
            certs.push(CaCert::parse(&der)?);
        }
        if certs.is_empty() {
            return Err("no certificate in PEM form".to_owned());
        }
        Ok(Self::new(certs))
    }

    pub(crate) fn new(certs: Vec<CaCert>) -> Self {
        let pem = certs.iter().map(|c| cert::to_pem(&c.der)).collect();
        Self { pem, certs }
    }

    /// All roots, concatenated PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The roots in DER form.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certs.iter().map(|c| &c.der)
    }

    /// How many roots.
    pub fn root_count(&self) -> usize {
        self.certs.len()
    }

    /// The roots for the TLS library.
    pub fn root_store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.certificates().cloned());
        store
    }

    /// When the first root expires.
    pub fn not_after(&self) -> SystemTime {
        let ends = self.certs.iter().map(|c| c.not_after);
        ends.min().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(crate) fn certs(&self) -> &[CaCert] {
        &self.certs
    }

    /// Whether every root of `other` is here, byte for byte.
    pub fn contains(&self, other: &Self) -> bool {
        other
            .certs
            .iter()
            .all(|c| self.certs.iter().any(|own| own.der == c.der))
    }

    /// As [`TrustBundle::contains`], where a root renewed over its key is the same.
    pub(crate) fn contains_authorities(&self, other: &Self) -> bool {
        other
            .certs
            .iter()
            .all(|c| self.certs.iter().any(|own| own.is_same_authority(c)))
    }
}
