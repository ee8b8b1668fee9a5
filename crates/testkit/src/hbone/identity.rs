//! A workload's certificate and the TLS configurations made of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use ca::{DevCa, WorkloadFiles};
use model::SpiffeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// Certificate chain, key and root of one workload.
#[derive(Debug)]
pub struct Identity {
    /// Who this is, as in the certificate.
    pub id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Whom it trusts.
    roots: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Has the development CA issue a certificate, valid for one day.
    pub fn issue(ca: &DevCa, id: &SpiffeId) -> anyhow::Result<Self> {
        let issued = ca
            .issue_workload(id, Duration::from_secs(24 * 3600), SystemTime::now())
            .with_context(|| format!("issuing a certificate for {id}"))?;
        Self::from_pem(&issued.chain_pem, &issued.key_pem, ca.root_pem())
            .with_context(|| format!("reading the certificate issued for {id}"))
    }

    /// From PEM text: the chain with the leaf first, the key, the roots.
    pub fn from_pem(chain: &str, key: &str, root: &str) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the certificate chain is not PEM")?;
        let leaf = chain.first().context("the certificate chain is empty")?;
        let roots = CertificateDer::pem_slice_iter(root.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the roots are not PEM")?;
        ensure!(!roots.is_empty(), "there is no root");
        Ok(Self {
            id: ca::peer_spiffe_id(leaf)?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the key is not PEM")?,
            roots,
            chain,
        })
    }

    /// From the files that the CA wrote for a workload.
    pub fn from_files(files: &WorkloadFiles) -> anyhow::Result<Self> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        Self::from_pem(
            &read(&files.cert_chain)?,
            &read(&files.key)?,
            &read(&files.root)?,
        )
    }

    /// TLS for dialling an HBONE server: TLS 1.3, ALPN `h2`, our certificate; the
    /// server must be a workload of this mesh.
    pub fn hbone_client_config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = provider();
        let verifier = ChainOnly {
            webpki: WebPkiServerVerifier::builder_with_provider(
                self.roots()?,
                Arc::clone(&provider),
            )
            .build()?,
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS for dialling the control plane: TLS 1.3, ALPN `h2`, our certificate; the
    /// server's name is checked as usual.
    pub fn xds_client_config(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS for serving HBONE: TLS 1.3, ALPN `h2`, a client certificate of one of our roots
    /// required. Whose it is, the server looks at after the handshake.
    pub fn hbone_server_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots()?, Arc::clone(&provider))
                .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// How many roots it trusts.
    pub fn roots_count(&self) -> usize {
        self.roots.len()
    }

    fn roots(&self) -> anyhow::Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots.add(root.clone())?;
        }
        Ok(Arc::new(roots))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Verifies a server's chain to the root as WebPKI does, and in place of its DNS name
/// demands that the leaf carries one SPIFFE identity.
///
/// HBONE servers are dialled by address and have no DNS name. *Which* identity is
/// acceptable depends on the destination; the caller compares it after the handshake,
/// as ztunnel does.
#[derive(Debug)]
struct ChainOnly {
    webpki: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // WebPKI checks the chain, the validity and the usages first and the name
        // last: these two errors say that all but the name is in order.
        match self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        ca::peer_spiffe_id(end_entity)
            .map(|_| ServerCertVerified::assertion())
            .map_err(|_| CertificateError::ApplicationVerificationFailure.into())
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
