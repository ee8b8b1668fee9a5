//! The client of the certificate authority. Source: spec/control-plane.md §4.1.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use proto::auth::IstioCertificateRequest;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

use crate::bundle::Bundle;
use crate::options::CaOptions;

/// Longest time for one request, connection included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest token, bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// Largest answer, bytes.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssuerError {
    #[error("the token {path}: {source}", path = .0.display(), source = .1)]
    Token(std::path::PathBuf, io::Error),
    #[error("{0:?} is not the name of a server")]
    Name(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("connecting to {0}: {1}")]
    Connect(String, String),
    #[error("the authority says {code:?}: {message}", code = .0.code(), message = .0.message())]
    Refused(Box<tonic::Status>),
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
}

/// The cryptography of all TLS here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Has a request signed; returns the elements of the answer as they are.
pub(crate) async fn sign(
    ca: &CaOptions,
    roots: &Bundle,
    csr_pem: String,
) -> Result<Vec<String>, IssuerError> {
    let exchange = exchange(ca, roots, csr_pem);
    tokio::time::timeout(REQUEST_TIMEOUT, exchange)
        .await
        .unwrap_or(Err(IssuerError::Timeout))
}

async fn exchange(
    ca: &CaOptions,
    roots: &Bundle,
    csr_pem: String,
) -> Result<Vec<String>, IssuerError> {
    let bearer = bearer(&ca.token_file)
        .await
        .map_err(|error| IssuerError::Token(ca.token_file.clone(), error))?;
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr: csr_pem,
        validity_duration: i64::try_from(ca.ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    request.metadata_mut().insert("authorization", bearer);
    if let Ok(cluster) = AsciiMetadataValue::try_from(ca.cluster_id.as_str()) {
        request.metadata_mut().insert("clusterid", cluster);
    }
    let channel = connect(ca, roots).await?;
    let answer = IstioCertificateServiceClient::new(channel)
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .create_certificate(request)
        .await
        .map_err(|status| IssuerError::Refused(Box::new(status)))?;
    Ok(answer.into_inner().cert_chain)
}

/// `Bearer` and the token, read anew: projected tokens rotate.
async fn bearer(path: &Path) -> io::Result<AsciiMetadataValue> {
    let file = tokio::fs::File::open(path).await?;
    let mut text = String::new();
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).await?;
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::other("the file is empty"));
    }
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| io::Error::other("the file holds what no header may hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn address(ca: &CaOptions) -> String {
    if ca.host.contains(':') {
        format!("[{}]:{}", ca.host, ca.port)
    } else {
        format!("{}:{}", ca.host, ca.port)
    }
}

async fn connect(ca: &CaOptions, roots: &Bundle) -> Result<Channel, IssuerError> {
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots.store())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(ca.server_name.clone())
        .map_err(|_| IssuerError::Name(ca.server_name.clone()))?;
    let connector = Connector {
        host: ca.host.clone(),
        port: ca.port,
        name,
        tls: TlsConnector::from(Arc::new(tls)),
    };
    Endpoint::from_static("https://ca")
        .connect_with_connector(connector)
        .await
        .map_err(|error| IssuerError::Connect(address(ca), causes(&error)))
}

/// An error with everything below it: tonic's own text says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

struct Connector {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (host, port, name) = (self.host.clone(), self.port, self.name.clone());
        let tls = self.tls.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(name, tcp).await?))
        })
    }
}
