//! A certificate together with its new key.

use std::fmt;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::CaError;
use crate::cert;
use crate::key::PrivateKey;
use crate::signer::Signer;

/// A new certificate and its private key, which is wiped on drop.
pub struct Issued {
    /// The leaf, the intermediates, and the whole root bundle.
    pub chain_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: Zeroizing<String>,
    tls_chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("chain_pem", &self.chain_pem)
            .finish_non_exhaustive()
    }
}

// === impl Issued ===

impl Issued {
    pub(crate) fn new(leaf: Vec<u8>, signer: &Signer, key: PrivateKey) -> Self {
        let leaf = CertificateDer::from(leaf);
        let mut chain_pem = cert::to_pem(&leaf);
        let mut tls_chain = vec![leaf];
        for der in signer.chain_der() {
            chain_pem.push_str(&cert::to_pem(der));
            tls_chain.push(der.clone());
        }
        chain_pem.push_str(signer.bundle().pem());
        Self {
            chain_pem,
            key_pem: key.pem().clone(),
            tls_chain,
            key,
        }
    }

    /// The leaf in DER form.
    pub fn leaf_der(&self) -> &CertificateDer<'static> {
        // The constructor begins the chain with the leaf.
        static NONE: CertificateDer<'static> = CertificateDer::from_slice(&[]);
        self.tls_chain.first().unwrap_or(&NONE)
    }

    /// What a TLS peer is sent: the leaf and the intermediates, without roots.
    pub fn tls_chain(&self) -> &[CertificateDer<'static>] {
        &self.tls_chain
    }

    /// The private key for the TLS library.
    ///
    /// # Errors
    /// [`CaError::Crypto`] never in practice: the key was just made.
    pub fn tls_key(&self) -> Result<PrivateKeyDer<'static>, CaError> {
        self.key.der()
    }
}
