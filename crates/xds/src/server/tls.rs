//! TLS with a client certificate that is optional; but one that is shown must be good.
//!
//! Source: spec/control-plane.md §1.1.

use std::sync::Arc;

use ca::{Authority, CaError, ClientAuth, Issued, SpiffeClientVerifier};
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::NoServerSessionStorage;

/// The configuration of new connections: TLS 1.2 and 1.3, ALPN `h2`, a client
/// certificate asked for; one that is given must chain to the roots of the moment and
/// name exactly one workload of our trust domain or an alias of it, or the handshake fails. Connections
/// that are open keep what they began with.
///
/// # Errors
/// When certificate and key do not go together.
pub fn tls_config(
    authority: &Authority,
    serving: &Issued,
) -> Result<Arc<rustls::ServerConfig>, CaError> {
    tls_config_of(authority, serving, aws_lc_rs::default_provider())
}

/// The same with other cryptography: a version that `provider` has no cipher suite of is not
/// offered.
///
/// # Errors
/// When certificate and key do not go together, or no cipher suite is left.
pub fn tls_config_of(
    authority: &Authority,
    serving: &Issued,
    provider: rustls::crypto::CryptoProvider,
) -> Result<Arc<rustls::ServerConfig>, CaError> {
    let crypto = |error: rustls::Error| CaError::Crypto(error.to_string());
    let provider = Arc::new(provider);
    let verifier = SpiffeClientVerifier::watching(authority, ClientAuth::Optional, &provider);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(crypto)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(serving.tls_chain().to_vec(), serving.tls_key()?)
        .map_err(crypto)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the check of the certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
