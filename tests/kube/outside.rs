//! A client outside of the cluster, who knows of a Gateway what its status says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use testkit::cluster::Cluster;
use testkit::http_client::{self, HttpResponse, send_http1, send_http2};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::{conditions, get};

/// More than any answer takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A Gateway as seen from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outside {
    ip: IpAddr,
}

impl Outside {
    /// By the address in its status, once that says that it is programmed.
    pub(crate) fn of(cluster: &Cluster, ns: &str, gateway: &str) -> anyhow::Result<Self> {
        let object = get(cluster, ns, &["gateway", gateway])?;
        let said = conditions(&object);
        for wanted in ["Accepted=True/Accepted", "Programmed=True/Programmed"] {
            ensure!(said.iter().any(|one| one == wanted), "{gateway}: {said:?}");
        }
        let addresses = object["status"]["addresses"].as_array();
        let mut addresses = addresses.into_iter().flatten();
        let of_type = |one: &&Value| one["type"] == "IPAddress";
        let address = addresses.find(of_type).context("no address")?["value"].as_str();
        let ip = address.context("no value")?.parse()?;
        Ok(Self { ip })
    }

    async fn connect(self, port: u16) -> anyhow::Result<TcpStream> {
        let to = SocketAddr::new(self.ip, port);
        let connected = tokio::time::timeout(LIMIT, TcpStream::connect(to)).await;
        connected
            .context("no answer")?
            .with_context(|| format!("connecting to {to}"))
    }

    /// GET in plain HTTP.
    pub(crate) async fn get(self, host: &str, path: &str) -> anyhow::Result<HttpResponse> {
        self.ask(Method::GET, host, path).await
    }

    /// A request in plain HTTP.
    pub(crate) async fn ask(
        self,
        method: Method,
        host: &str,
        path: &str,
    ) -> anyhow::Result<HttpResponse> {
        let stream = self.connect(80).await?;
        let request = http_client::request(method, host, path)?;
        let answered = tokio::time::timeout(LIMIT, send_http1(stream, request)).await;
        answered.context("no answer")?
    }

    /// TLS by this name; whatever certificate is shown is taken.
    pub(crate) async fn tls(self, name: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(name.to_owned())?;
        let stream = self.connect(443).await?;
        let shaken = tokio::time::timeout(LIMIT, connector.connect(name, stream)).await;
        Ok(shaken.context("no answer")??)
    }

    /// GET in HTTPS, and the certificate that was shown.
    pub(crate) async fn get_tls(
        self,
        host: &str,
        path: &str,
    ) -> anyhow::Result<(HttpResponse, CertificateDer<'static>)> {
        let stream = self.tls(host).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = shown
            .first()
            .context("no certificate")?
            .clone()
            .into_owned();
        let request = http_client::request(Method::GET, host, path)?;
        let answered = tokio::time::timeout(LIMIT, send_http1(stream, request)).await;
        Ok((answered.context("no answer")??, shown))
    }

    /// A gRPC call with an empty message; the answer and its trailers.
    pub(crate) async fn call(
        self,
        host: &str,
        method: &str,
    ) -> anyhow::Result<(HttpResponse, HeaderMap)> {
        let stream = self.connect(80).await?;
        let request = Request::post(format!("http://{host}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(&[0; 5])))?;
        let answered = tokio::time::timeout(LIMIT, send_http2(stream, request)).await;
        answered.context("no answer")?
    }

    /// The line with which a server that speaks first says who it is, and what it does with bytes.
    pub(crate) async fn first_line(self, port: u16) -> anyhow::Result<String> {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = self.connect(port).await?;
        let talk = async {
            let mut line = String::new();
            loop {
                match stream.read_u8().await? {
                    b'\n' => break,
                    byte => line.push(char::from(byte)),
                }
            }
            stream.write_all(b"\x00\xffbytes").await?;
            let mut echoed = [0; 7];
            stream.read_exact(&mut echoed).await?;
            ensure!(echoed == *b"\x00\xffbytes", "{echoed:?}");
            Ok(line)
        };
        tokio::time::timeout(LIMIT, talk)
            .await
            .context("no answer")?
    }
}

/// Takes any certificate, for the test compares it itself.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
