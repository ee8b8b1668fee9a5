//! The identity inside a peer's certificate.

use std::sync::Arc;

use model::{SpiffeId, Str};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;

use crate::CaError;

/// Why a certificate names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The certificate does not parse.
    #[error("the certificate does not parse")]
    Malformed,
    /// There must be exactly one URI name.
    #[error("the certificate has {0} URI names, not one")]
    UriCount(usize),
    /// The URI is not a workload identity.
    #[error("the URI of the certificate is not a workload identity")]
    NotSpiffe,
}

/// The workload identity in a certificate: exactly one URI name, of SPIFFE form.
/// The chain is not verified here.
///
/// # Errors
/// [`PeerError`] for anything else.
///
/// Source: spec/control-plane.md §1.1, §3.5.
pub fn peer_spiffe_id(cert_der: &[u8]) -> Result<SpiffeId, PeerError> {
    let (_, cert) =
        x509_parser::parse_x509_certificate(cert_der).map_err(|_| PeerError::Malformed)?;
    let names = cert
        .subject_alternative_name()
        .map_err(|_| PeerError::Malformed)?;
    let mut uris = names
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|n| match n {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.count()) {
        (None, _) => Err(PeerError::UriCount(0)),
        (Some(uri), 0) => uri.parse().map_err(|_| PeerError::NotSpiffe),
        (Some(_), more) => Err(PeerError::UriCount(more + 1)),
    }
}

/// Demands a client certificate that chains to the root *and* carries exactly one
/// URI name, a workload identity of our trust domain.
#[derive(Debug)]
pub struct SpiffeClientVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    trust_domain: Str,
}

impl SpiffeClientVerifier {
    /// A verifier for one root and one trust domain.
    ///
    /// # Errors
    /// [`CaError::Crypto`] when the root is not usable as a trust anchor.
    pub fn new(
        root: CertificateDer<'static>,
        trust_domain: Str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, CaError> {
        let mut roots = RootCertStore::empty();
        roots.add(root).map_err(CaError::crypto)?;
        let webpki =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(CaError::crypto)?;
        Ok(Self {
            webpki,
            trust_domain,
        })
    }
}

impl ClientCertVerifier for SpiffeClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .webpki
            .verify_client_cert(end_entity, intermediates, now)?;
        match peer_spiffe_id(end_entity) {
            Ok(id) if id.trust_domain == self.trust_domain => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
