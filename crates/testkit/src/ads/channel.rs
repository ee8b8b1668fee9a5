//! How an ADS server is reached.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use crate::hbone::Identity;

/// An ADS server and how to speak to it.
#[derive(Clone)]
pub enum XdsTarget {
    /// Plain text, loopback only.
    Plain(SocketAddr),
    /// TLS 1.3 with a client certificate; the server's certificate must carry the name.
    Tls {
        /// Where to connect.
        addr: SocketAddr,
        /// DNS name that the server's certificate must carry.
        server_name: String,
        /// Who connects.
        identity: Arc<Identity>,
    },
    /// TLS without a client certificate: who connects must say so by a token.
    Anonymous {
        /// Where to connect.
        addr: SocketAddr,
        /// DNS name that the server's certificate must carry.
        server_name: String,
        /// The root that the server's certificate must chain to, PEM.
        root_pem: String,
        /// The bearer token that streams show, if any.
        token: Option<String>,
    },
}

/// TLS 1.3 and HTTP/2 to a server of this root, without a certificate of our own.
///
/// # Errors
/// When the root is no certificate.
pub fn tls_without_certificate(root_pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(root_pem.as_bytes()) {
        roots.add(root?)?;
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What a byte stream to the server must be able to do.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl XdsTarget {
    /// Connects.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        Endpoint::from_static("http://ads")
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .connect_with_connector(Connector(self.clone()))
            .await
            .with_context(|| format!("connecting to the control plane at {}", self.addr()))
    }

    /// Where it connects to.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Plain(addr) | Self::Tls { addr, .. } | Self::Anonymous { addr, .. } => *addr,
        }
    }

    /// A message with the bearer token, if there is one.
    ///
    /// # Errors
    /// When no header can hold it.
    pub fn request<T>(&self, message: T) -> anyhow::Result<tonic::Request<T>> {
        let mut request = tonic::Request::new(message);
        if let Self::Anonymous {
            token: Some(token), ..
        } = self
        {
            let value = format!("Bearer {token}").parse();
            let value = value.context("a token that no header can hold")?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }

    async fn dial(self) -> anyhow::Result<TokioIo<Box<dyn Io>>> {
        let tcp = TcpStream::connect(self.addr()).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Io> = match self {
            Self::Plain(_) => Box::new(tcp),
            Self::Tls {
                server_name,
                identity,
                ..
            } => secure(tcp, server_name, identity.xds_client_config()?).await?,
            Self::Anonymous {
                server_name,
                root_pem,
                ..
            } => secure(tcp, server_name, tls_without_certificate(&root_pem)?).await?,
        };
        Ok(TokioIo::new(stream))
    }
}

async fn secure(
    tcp: TcpStream,
    server_name: String,
    config: Arc<ClientConfig>,
) -> anyhow::Result<Box<dyn Io>> {
    let name = ServerName::try_from(server_name)?;
    let stream = TlsConnector::from(config).connect(name, tcp).await;
    Ok(Box::new(stream.context("TLS handshake")?))
}

struct Connector(XdsTarget);

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move { target.dial().await.map_err(Into::into) })
    }
}
