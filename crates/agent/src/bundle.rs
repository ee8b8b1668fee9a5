//! Bundles of root certificates.

use std::collections::BTreeSet;
use std::fmt;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

/// Longest bundle, bytes of PEM.
pub(crate) const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
/// Most certificates in one.
const ROOTS_MAX: usize = 256;

/// A set of root certificates. Equal sets have equal PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Bundle(BTreeSet<Vec<u8>>);

/// Why a text is no bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("it holds no certificate")]
    Empty,
    #[error("it is larger than 1 MiB or holds more than {ROOTS_MAX} certificates")]
    TooLarge,
    #[error("it is not PEM")]
    Pem,
    #[error("its certificate {0} does not parse")]
    Certificate(usize),
}

// === impl Bundle ===

impl Bundle {
    /// Reads PEM with one certificate or more; whatever else is in there is an error.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BundleError> {
        if text.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge);
        }
        let blocks = pem::parse_many(text).map_err(|_| BundleError::Pem)?;
        if blocks.len() > ROOTS_MAX {
            return Err(BundleError::TooLarge);
        }
        let mut roots = BTreeSet::new();
        for (at, block) in blocks.into_iter().enumerate() {
            let parsed = x509_parser::parse_x509_certificate(block.contents());
            if block.tag() != "CERTIFICATE" || !matches!(parsed, Ok(([], _))) {
                return Err(BundleError::Certificate(at + 1));
            }
            roots.insert(block.into_contents());
        }
        if roots.is_empty() {
            return Err(BundleError::Empty);
        }
        Ok(Self(roots))
    }

    /// The certificates of both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them as PEM.
    pub(crate) fn to_pem(&self) -> String {
        let blocks: Vec<Pem> = self
            .0
            .iter()
            .map(|der| Pem::new("CERTIFICATE", der.clone()))
            .collect();
        pem::encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF))
    }

    /// Trust anchors; a root that cannot be one is left out.
    pub(crate) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(
            self.0
                .iter()
                .map(|der| CertificateDer::from(der.as_slice())),
        );
        store
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} roots)", self.0.len())
    }
}
