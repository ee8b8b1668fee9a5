//! Private keys: read, generated, used, and wiped when dropped.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::{Zeroize, Zeroizing};

use crate::CaError;

const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_WITH_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A private key and the text it was read from. Both are wiped on drop; neither
/// is printed, compared or serialized.
pub(crate) struct PrivateKey {
    pair: KeyPair,
    pem: Zeroizing<String>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

// === impl PrivateKey ===

impl PrivateKey {
    /// A new key on P-256: what ztunnel uses, and the cheapest to sign with.
    pub(crate) fn generate() -> Result<Self, CaError> {
        let pair = KeyPair::generate().map_err(CaError::crypto)?;
        let pem = Zeroizing::new(pair.serialize_pem());
        Ok(Self { pair, pem })
    }

    /// Reads PKCS#1, SEC1 or PKCS#8 in PEM form; `None` for anything else, such as
    /// an encrypted key. The text is kept as it is, so that adopting an existing
    /// installation never rewrites its key.
    pub(crate) fn from_pem(text: Zeroizing<String>) -> Option<Self> {
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).ok()?;
        let pair = KeyPair::try_from(&der);
        let mut der = der;
        der.zeroize();
        let key = Self {
            pair: pair.ok()?,
            pem: text,
        };
        key.signature_algorithm().is_some().then_some(key)
    }

    /// The text the key was read from.
    pub(crate) fn pem(&self) -> &Zeroizing<String> {
        &self.pem
    }

    /// The key in DER form, for the TLS library.
    pub(crate) fn der(&self) -> Result<PrivateKeyDer<'static>, CaError> {
        PrivateKeyDer::from_pem_slice(self.pem.as_bytes())
            .map_err(|_| CaError::Crypto("the private key does not read back".to_owned()))
    }

    /// The public key as a SubjectPublicKeyInfo.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// The bits of the public key.
    pub(crate) fn public_raw(&self) -> &[u8] {
        self.pair.public_key_raw()
    }

    /// How this key signs: RSA with SHA-256, EC with the hash of its curve.
    pub(crate) fn signature_algorithm(&self) -> Option<AlgorithmIdentifierOwned> {
        let algorithm = self.pair.algorithm();
        let (oid, parameters) = if *algorithm == rcgen::PKCS_RSA_SHA256 {
            (SHA256_WITH_RSA, Some(Any::null()))
        } else if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
            (ECDSA_WITH_SHA256, None)
        } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
            (ECDSA_WITH_SHA384, None)
        } else if *algorithm == rcgen::PKCS_ECDSA_P521_SHA512 {
            (ECDSA_WITH_SHA512, None)
        } else if *algorithm == rcgen::PKCS_ED25519 {
            (ED25519, None)
        } else {
            return None;
        };
        Some(AlgorithmIdentifierOwned { oid, parameters })
    }

    /// Whether signing takes some tens of microseconds; RSA takes milliseconds.
    pub(crate) fn is_quick(&self) -> bool {
        let algorithm = self.pair.algorithm();
        *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 || *algorithm == rcgen::PKCS_ED25519
    }

    /// Signs.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CaError> {
        self.pair.sign(message).map_err(CaError::crypto)
    }
}

/// A random positive serial number of 128 bits, its top bits fixed so that every
/// serial number is as long.
pub(crate) fn serial() -> Result<[u8; 16], CaError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CaError::Crypto("the system gives no randomness".to_owned()))?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    Ok(bytes)
}
