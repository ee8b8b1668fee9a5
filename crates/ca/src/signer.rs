//! Signing material: certificate, key, chain and the bundle it belongs to.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use zeroize::Zeroizing;

use crate::bundle::TrustBundle;
use crate::cert::{self, CLOCK_SKEW, CaCert, Leaf, San};
use crate::key::PrivateKey;

/// Intermediates of one CA.
const CHAIN_MAX: usize = 8;

/// The texts that make a signer.
pub struct SignerParts {
    /// The certificate that signs, PEM; the first one counts.
    pub cert_pem: String,
    /// Its private key: PKCS#1, SEC1 or PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// What clients need between leaf and root, the signing certificate first;
    /// empty when that is a root.
    pub chain_pem: String,
    /// The roots.
    pub bundle_pem: String,
}

/// Which of the parts is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The signing certificate.
    Certificate,
    /// The private key.
    Key,
    /// The chain.
    Chain,
    /// The roots.
    Roots,
}

/// Why parts make no signer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// A part does not parse or does not fit the others.
    #[error("{part:?}: {reason}")]
    Unfit {
        /// The part.
        part: Part,
        /// Why, without any content.
        reason: String,
    },
    /// A part is no longer valid.
    #[error("{0:?}: expired")]
    Expired(Part),
}

impl SignerError {
    fn unfit(part: Part, reason: impl Into<String>) -> Self {
        Self::Unfit {
            part,
            reason: reason.into(),
        }
    }
}

/// Everything that signing needs, immutable: a change is another signer.
pub struct Signer {
    cert: CaCert,
    key: PrivateKey,
    chain: Vec<CaCert>,
    chain_pem: Vec<String>,
    bundle: Arc<TrustBundle>,
    not_after: SystemTime,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("not_after", &self.not_after)
            .field("intermediates", &self.chain.len())
            .field("roots", &self.bundle.root_count())
            .finish_non_exhaustive()
    }
}

// === impl Signer ===

impl Signer {
    /// Reads and checks all parts, then signs a probe and verifies it as a client
    /// would: a signer that exists works.
    ///
    /// # Errors
    /// [`SignerError`] names the part to repair.
    ///
    /// Source: spec/control-plane.md §4.7.
    pub fn new(parts: SignerParts, now: SystemTime) -> Result<Self, SignerError> {
        let parse = |part, text: &str| {
            let ders = cert::certificates(text).map_err(|e| SignerError::unfit(part, e))?;
            ders.iter()
                .map(|der| CaCert::parse(der).map_err(|e| SignerError::unfit(part, e)))
                .collect::<Result<Vec<_>, _>>()
        };
        let cert = parse(Part::Certificate, &parts.cert_pem)?
            .into_iter()
            .next()
            .ok_or_else(|| {
                SignerError::unfit(Part::Certificate, "not a certificate in PEM form")
            })?;
        let key = PrivateKey::from_pem(parts.key_pem).ok_or_else(|| {
            SignerError::unfit(
                Part::Key,
                "not a private key in PEM form (PKCS#1, SEC1 or PKCS#8)",
            )
        })?;
        if cert.public_raw != key.public_raw() {
            return Err(SignerError::unfit(
                Part::Key,
                "does not belong to the signing certificate",
            ));
        }
        let chain = parse(Part::Chain, &parts.chain_pem)?;
        if chain.len() > CHAIN_MAX {
            return Err(SignerError::unfit(
                Part::Chain,
                "longer than 8 certificates",
            ));
        }
        let bundle = TrustBundle::from_pem(&parts.bundle_pem)
            .map_err(|e| SignerError::unfit(Part::Roots, e))?;
        Self::assemble(cert, key, chain, Arc::new(bundle), now)
    }

    fn assemble(
        cert: CaCert,
        key: PrivateKey,
        chain: Vec<CaCert>,
        bundle: Arc<TrustBundle>,
        now: SystemTime,
    ) -> Result<Self, SignerError> {
        let is_root = bundle.certs().iter().any(|root| root.der == cert.der);
        if !is_root && chain.first().is_none_or(|c| !c.is_same_authority(&cert)) {
            return Err(SignerError::unfit(
                Part::Chain,
                "does not begin with the signing certificate, so clients could not verify it",
            ));
        }
        if cert.not_after <= now {
            return Err(SignerError::Expired(Part::Certificate));
        }
        if chain.iter().any(|c| c.not_after <= now) {
            return Err(SignerError::Expired(Part::Chain));
        }
        if bundle.certs().iter().all(|root| root.not_after <= now) {
            return Err(SignerError::Expired(Part::Roots));
        }
        if cert.not_before > now + CLOCK_SKEW {
            return Err(SignerError::unfit(Part::Certificate, "is not valid yet"));
        }
        check_path_lengths(&chain, &bundle)?;
        // No certificate outlives any of its issuers.
        let not_after = chain
            .iter()
            .map(|c| c.not_after)
            .fold(cert.not_after, std::cmp::min);
        let signer = Self {
            chain_pem: chain.iter().map(|c| cert::to_pem(&c.der)).collect(),
            cert,
            key,
            chain,
            bundle,
            not_after,
        };
        signer.probe(now)?;
        Ok(signer)
    }

    /// Verifies a leaf of this signer as a client does.
    fn probe(&self, now: SystemTime) -> Result<(), SignerError> {
        let unfit =
            |e: &dyn std::fmt::Display| SignerError::unfit(Part::Certificate, e.to_string());
        let key = PrivateKey::generate().map_err(|e| unfit(&e))?;
        let leaf = Leaf {
            spki_der: &key.public_der(),
            common_name: None,
            sans: &[San::Uri("spiffe://probe.invalid/ns/probe/sa/probe")],
            not_before: now,
            not_after: self.not_after,
        };
        let der = CertificateDer::from(self.sign_leaf(&leaf).map_err(|e| unfit(&e))?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(self.bundle.root_store());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|e| SignerError::unfit(Part::Roots, e.to_string()))?;
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let chain: Vec<_> = self.chain_der().cloned().collect();
        verifier
            .verify_client_cert(&der, &chain, UnixTime::since_unix_epoch(since))
            .map(|_| ())
            .map_err(|e| {
                let reason = format!("does not verify to the roots through the chain: {e}");
                SignerError::unfit(Part::Certificate, reason)
            })
    }

    /// The roots that clients of this signer trust.
    pub fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// The end of every certificate that it signs, at the latest.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// How many intermediates stand between leaf and root.
    pub fn intermediate_count(&self) -> usize {
        self.chain.len()
    }

    /// Whether both sign with one certificate and hand out the same chain and roots.
    pub fn is_same(&self, other: &Self) -> bool {
        self.cert.der == other.cert.der
            && self.chain_pem == other.chain_pem
            && self.bundle == other.bundle
    }

    /// Whether signing takes less than handing it to another thread.
    pub(crate) fn is_quick(&self) -> bool {
        self.key.is_quick()
    }

    /// The intermediates in DER form, leaf to root.
    pub(crate) fn chain_der(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.chain.iter().map(|c| &c.der)
    }

    pub(crate) fn sign_leaf(&self, leaf: &Leaf<'_>) -> Result<Vec<u8>, crate::CaError> {
        cert::sign_leaf(leaf, &self.cert, &self.key)
    }

    /// Leaf, intermediates one by one, the whole bundle last.
    ///
    /// Source: spec/control-plane.md §4.5.
    pub(crate) fn response(&self, leaf_der: &[u8]) -> Vec<String> {
        let mut elements = Vec::with_capacity(self.chain_pem.len() + 2);
        elements.push(cert::to_pem(leaf_der));
        elements.extend(self.chain_pem.iter().cloned());
        elements.push(self.bundle.pem().to_owned());
        elements
    }

    /// Certificates of the signer and its chain, for checks of revocation lists.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &CaCert> {
        let own = self.chain.is_empty().then_some(&self.cert);
        self.chain.iter().chain(own)
    }
}

/// Whether every CA of the chain, and a root above it, may stand so far from a leaf. The probe
/// does not look at this for roots, but Envoy does.
///
/// Source: RFC 5280 §4.2.1.9.
fn check_path_lengths(chain: &[CaCert], bundle: &TrustBundle) -> Result<(), SignerError> {
    let refuse = |part| {
        let reason = "its path length allows fewer CAs between it and a workload";
        Err(SignerError::unfit(part, reason))
    };
    let mut below = 0;
    for cert in chain {
        if cert.path_len.is_some_and(|max| max < below) {
            return refuse(Part::Chain);
        }
        below += u32::from(!cert.is_self_issued());
    }
    let Some(top) = chain.iter().rfind(|cert| !cert.is_self_issued()) else {
        return Ok(());
    };
    let mut above = bundle
        .certs()
        .iter()
        .filter(|root| root.is_named(&top.issuer_raw))
        .peekable();
    if above.peek().is_some() && above.all(|root| root.path_len.is_some_and(|max| max < below)) {
        return refuse(Part::Roots);
    }
    Ok(())
}
