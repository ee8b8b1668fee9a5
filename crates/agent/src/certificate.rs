//! The key, the request for a certificate, and what is demanded of the answer.
//! Source: spec/control-plane.md §4.1, §4.4, §4.5.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _, SanType};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use zeroize::{Zeroize as _, Zeroizing};

use crate::bundle::{Bundle, BundleError};

/// Most elements of an answer: leaf, intermediates, roots.
const ELEMENTS_MAX: usize = 16;

/// A certificate with its key, and the roots that came with it.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// Leaf, then intermediates.
    pub(crate) chain_pem: String,
    pub(crate) key_pem: Zeroizing<String>,
    pub(crate) roots: Bundle,
    pub(crate) not_after: SystemTime,
    chain: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("roots", &self.roots)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the answer has {0} elements; a leaf and the roots are needed")]
    Elements(usize),
    #[error("element {0} of the answer is not one certificate in PEM form")]
    Pem(usize),
    #[error("the roots of the answer cannot be used: {0}")]
    Roots(#[from] BundleError),
    #[error("the certificate is not for {0}")]
    Identity(SpiffeId),
    #[error("the certificate belongs to another key")]
    Key,
    #[error("the certificate cannot serve as both client and server")]
    Usage,
    #[error("the certificate does not chain to the known roots or is not valid now: {0}")]
    Chain(String),
    #[error("cryptography: {0}")]
    Crypto(String),
}

/// A key that waits for its certificate.
pub(crate) struct Pending {
    key: KeyPair,
    /// The request, PEM.
    pub(crate) csr_pem: String,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

// === impl Pending ===

impl Pending {
    /// A new P-256 key and a request for the identity.
    pub(crate) fn new(identity: &SpiffeId) -> Result<Self, CertificateError> {
        let crypto = |error: rcgen::Error| CertificateError::Crypto(error.to_string());
        let key = KeyPair::generate().map_err(crypto)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = identity.to_string().try_into().map_err(crypto)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let request = params.serialize_request(&key).map_err(crypto)?;
        let csr_pem = request.pem().map_err(crypto)?;
        Ok(Self { key, csr_pem })
    }

    /// Takes the answer, if it is the certificate asked for and chains to `known` roots or
    /// those of the answer itself, which came over a channel that `known` vouches for.
    pub(crate) fn accept(
        self,
        answer: &[String],
        identity: &SpiffeId,
        known: &Bundle,
        now: SystemTime,
    ) -> Result<Credentials, CertificateError> {
        let elements = CertificateError::Elements(answer.len());
        let Some((last, certificates)) = answer.split_last() else {
            return Err(elements);
        };
        if certificates.is_empty() || answer.len() > ELEMENTS_MAX {
            return Err(elements);
        }
        let roots = Bundle::parse(last.as_bytes())?;
        let chain = certificates
            .iter()
            .enumerate()
            .map(|(at, text)| one_certificate(text).ok_or(CertificateError::Pem(at + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        let not_after = self.check_leaf(chain.first().map_or(&[], |leaf| leaf), identity)?;
        let credentials = Credentials {
            chain_pem: certificates
                .iter()
                .flat_map(|text| [text.trim_end(), "\n"])
                .collect(),
            key_pem: Zeroizing::new(self.key.serialize_pem()),
            roots,
            not_after,
            chain,
        };
        let trusted = credentials.roots.union(known);
        credentials.verify(&trusted, now)?;
        Ok(credentials)
    }

    /// The end of the leaf's validity.
    fn check_leaf(&self, der: &[u8], identity: &SpiffeId) -> Result<SystemTime, CertificateError> {
        let (_, leaf) =
            x509_parser::parse_x509_certificate(der).map_err(|_| CertificateError::Pem(1))?;
        let names = leaf.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |san| san.value.general_names.as_slice());
        let expected = identity.to_string();
        if !matches!(names, [GeneralName::URI(uri)] if *uri == expected) {
            return Err(CertificateError::Identity(identity.clone()));
        }
        if leaf.public_key().subject_public_key.data.as_ref() != self.key.der_bytes() {
            return Err(CertificateError::Key);
        }
        let usage = leaf.extended_key_usage().ok().flatten();
        if !usage.is_some_and(|usage| usage.value.client_auth && usage.value.server_auth) {
            return Err(CertificateError::Usage);
        }
        let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default();
        Ok(UNIX_EPOCH + Duration::from_secs(end))
    }
}

// === impl Credentials ===

impl Credentials {
    /// That the chain leads to one of the roots and is valid now.
    pub(crate) fn verify(&self, roots: &Bundle, now: SystemTime) -> Result<(), CertificateError> {
        let chain = |error: &dyn fmt::Display| CertificateError::Chain(error.to_string());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots.store()),
            crate::issuer::provider(),
        )
        .build()
        .map_err(|error| chain(&error))?;
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return Err(CertificateError::Elements(0));
        };
        verifier
            .verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since))
            .map(drop)
            .map_err(|error| chain(&error))
    }
}

/// Exactly one certificate.
fn one_certificate(text: &str) -> Option<CertificateDer<'static>> {
    let mut all = CertificateDer::pem_slice_iter(text.as_bytes());
    match (all.next(), all.next()) {
        (Some(Ok(certificate)), None) => Some(certificate),
        _ => None,
    }
}
