//! The identity inside a peer's certificate.

use std::sync::{Arc, Mutex, PoisonError};

use model::SpiffeId;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;

use crate::Authority;
use crate::bundle::TrustBundle;
use crate::domains::TrustDomains;
use crate::signer::Signer;

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

/// Whether a client may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No; the handshake fails.
    Required,
    /// Yes; but one that it shows must be good.
    Optional,
}

/// Demands of a client certificate that it chains to the roots *and* carries exactly
/// one URI name, a workload identity of our trust domain or of an alias of it.
#[derive(Debug)]
pub struct SpiffeClientVerifier {
    signer: watch::Receiver<Option<Arc<Signer>>>,
    /// What was built for the last bundle seen.
    built: Mutex<Option<(Arc<TrustBundle>, WebPki)>>,
    client_auth: ClientAuth,
    provider: Arc<CryptoProvider>,
    domains: watch::Receiver<Arc<TrustDomains>>,
}

type WebPki = Arc<dyn ClientCertVerifier>;

// === impl SpiffeClientVerifier ===

impl SpiffeClientVerifier {
    /// A verifier that follows an authority: each handshake sees the roots and the trust
    /// domains of its moment.
    pub fn watching(
        authority: &Authority,
        client_auth: ClientAuth,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        Self {
            signer: authority.watch(),
            built: Mutex::new(None),
            client_auth,
            provider: Arc::clone(provider),
            domains: authority.watch_trust_domains(),
        }
    }

    fn webpki(&self) -> Result<WebPki, Error> {
        let bundle = match self.signer.borrow().as_ref() {
            Some(signer) => Arc::clone(signer.bundle()),
            None => return Err(Error::General("no roots of trust are loaded".to_owned())),
        };
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, webpki)) = built.as_ref()
            && Arc::ptr_eq(of, &bundle)
        {
            return Ok(Arc::clone(webpki));
        }
        let verifier = webpki(bundle.root_store(), &self.provider)
            .map_err(|e| Error::General(e.to_string()))?;
        *built = Some((bundle, Arc::clone(&verifier)));
        Ok(verifier)
    }
}

fn webpki(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<WebPki, VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()
}

impl ClientCertVerifier for SpiffeClientVerifier {
    /// No hints: every client of a mesh has one certificate, and the roots may
    /// change between two handshakes.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.client_auth == ClientAuth::Required
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .webpki()?
            .verify_client_cert(end_entity, intermediates, now)?;
        match peer_spiffe_id(end_entity) {
            Ok(id) if self.domains.borrow().accepts(&id.trust_domain) => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
