//! A real Envoy as an ingress gateway beside its agent: requests over HTTP, HTTPS with
//! certificates of Secrets that change, gRPC, TLS that is passed through and TLS that is ended,
//! and plain connections.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;
#[path = "common/door.rs"]
mod door;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use common::SOON;
use door::{Certificate, Door, TlsServer};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use testkit::app::App;
use testkit::daemon::Daemon;
use testkit::hbone::{HboneServer, Verdict};
use testkit::http_client::{self, HttpResponse, send_http1, send_http2};
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const WORLD: &str = include_str!("e2e_gateway/world.yaml");
const GATEWAY: &str = "127.61.0.30";
const IN_MESH: &str = "127.61.0.21";
const OUTSIDE: &str = "127.61.0.22";
/// The file of the Secret that changes.
const SECRET: &str = "secret.yaml";

/// Everything that stands behind the gateway; stops with the test.
struct Backends {
    _apps: Vec<App>,
    hbone: HboneServer,
}

impl Backends {
    async fn start(daemon: &Daemon, through: &Certificate) -> anyhow::Result<Self> {
        let pod = IN_MESH.parse()?;
        let allow = Arc::new(|_: &_| Verdict::Allow);
        let hbone = HboneServer::start(pod, &daemon.identity("shop", "web")?, allow).await?;
        let web = App::start(SocketAddr::new(pod, 8000), "web-0", "v1").await?;
        let inside = App::start("127.0.0.1:0".parse()?, "through-0", "v1").await?;
        let (chain, key) = through.chain();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        TlsServer::start((OUTSIDE, 8443), config, inside.addr()).await?;
        grpc_server().await?;
        echo_server().await?;
        Ok(Self {
            _apps: vec![web, inside],
            hbone,
        })
    }
}

/// Answers every call with its path and a status in trailers.
async fn grpc_server() -> anyhow::Result<()> {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = TcpListener::bind((OUTSIDE, 9001)).await?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
                let path = Bytes::from(request.uri().path().to_owned());
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let frames = [
                    Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(path)),
                    Ok(hyper::body::Frame::trailers(trailers)),
                ];
                let body = StreamBody::new(tokio_stream::iter(frames)).boxed();
                let response = Response::builder().header("content-type", "application/grpc");
                async move { response.body(body) }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(tcp), service),
            );
        }
    });
    Ok(())
}

/// Says everything again.
async fn echo_server() -> anyhow::Result<()> {
    let listener = TcpListener::bind((OUTSIDE, 9100)).await?;
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = tcp.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(())
}

/// What comes back of some bytes.
async fn echoed<S>(mut stream: S) -> anyhow::Result<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(b"hello").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer.to_vec())?)
}

struct Gateway {
    door: Door,
    backends: Backends,
    secure: Certificate,
    through: Certificate,
}

impl Gateway {
    async fn start() -> anyhow::Result<Self> {
        let secure = Certificate::of("secure.example.com");
        let through = Certificate::of("through.example.com");
        let files = [
            ("world.yaml", WORLD.to_owned()),
            (SECRET, secure.secret("secure").to_string()),
        ];
        let door = Box::pin(Door::start(GATEWAY, &files)).await?;
        let backends = Backends::start(&door.daemon, &through).await?;
        Ok(Self {
            door,
            backends,
            secure,
            through,
        })
    }

    /// TLS to the gateway, accepting this certificate alone.
    async fn connect(
        &self,
        certificate: &Certificate,
        port: u16,
        host: &str,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder()
            .with_root_certificates(certificate.roots()?)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned())?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(connector
            .connect(name, self.door.connect(port).await?)
            .await?)
    }

    async fn get_tls(
        &self,
        certificate: &Certificate,
        port: u16,
        host: &str,
        path: &str,
    ) -> anyhow::Result<HttpResponse> {
        let stream = self.connect(certificate, port, host).await?;
        send_http1(stream, http_client::request(Method::GET, host, path)?).await
    }

    async fn serves_requests(&self) -> anyhow::Result<()> {
        let answer = wait::until("the route", SOON, || async {
            let answer = self.door.get(80, "web.example.com", "/cart").await?;
            ensure!(answer.status == 200, "{}", answer.status);
            Ok(answer)
        })
        .await?;
        let body = answer.json()?;
        ensure!(body["pod"] == "web-0" && body["path"] == "/cart", "{body}");
        ensure!(body["headers"]["x-via"] == "door", "{body}");
        ensure!(
            self.backends.hbone.accepted_count() > 0,
            "the backend is reached over HBONE"
        );
        ensure!(answer.headers["server"] == "istio-envoy");
        for (host, path, status) in [
            ("web.example.com", "/old", 302),
            ("elsewhere.example.com", "/", 404),
            ("web.example.com:80", "/cart", 200),
            ("web.example.com", "/lost", 500),
        ] {
            let answer = self.door.get(80, host, path).await?;
            ensure!(answer.status == status, "{host}{path}: {}", answer.status);
        }
        let calls = self.door.connect(80).await?;
        let call = Request::post("http://calls.example.com/shop.Till/Ring")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::default())?;
        let (answer, trailers) = send_http2(calls, call).await?;
        ensure!(answer.text() == "/shop.Till/Ring", "{answer:?}");
        ensure!(trailers["grpc-status"] == "0", "{trailers:?}");
        Ok(())
    }

    async fn serves_tls(&self) -> anyhow::Result<()> {
        let host = "secure.example.com";
        let answer = wait::until("the Secret", SOON, || {
            self.get_tls(&self.secure, 443, host, "/")
        })
        .await?;
        ensure!(answer.json()?["pod"] == "web-0", "{answer:?}");
        let body = answer.json()?;
        ensure!(body["headers"]["x-forwarded-proto"] == "https", "{body}");
        let other = self.connect(&self.secure, 443, "other.example.com").await;
        ensure!(other.is_err(), "there is no listener of this name");
        // Passed through: the certificate is that of the server itself.
        let host = "through.example.com";
        let answer = self.get_tls(&self.through, 8443, host, "/inside").await?;
        ensure!(answer.json()?["pod"] == "through-0", "{answer:?}");
        // Ended, and what is inside are plain bytes.
        let ended = self
            .connect(&self.secure, 9443, "secure.example.com")
            .await?;
        ensure!(echoed(ended).await? == "hello");
        ensure!(echoed(self.door.connect(9000).await?).await? == "hello");
        Ok(())
    }

    /// The Secret changes, and nothing is restarted.
    async fn follows_secrets(&self) -> anyhow::Result<()> {
        let new = Certificate::of("secure.example.com");
        self.door.write(SECRET, &new.secret("secure").to_string())?;
        let host = "secure.example.com";
        wait::until("the new certificate", SOON, || {
            self.get_tls(&new, 443, host, "/")
        })
        .await?;
        let old = self.connect(&self.secure, 443, host).await;
        ensure!(old.is_err(), "the old certificate is still shown");
        Ok(())
    }
}

#[test]
fn requests_and_connections_get_through_a_gateway() {
    common::runtime().block_on(Box::pin(async {
        let gateway = Box::pin(Gateway::start()).await.unwrap();
        let outcome = async {
            gateway.serves_requests().await?;
            gateway.serves_tls().await?;
            gateway.follows_secrets().await
        };
        let outcome = Box::pin(outcome).await;
        gateway.door.conclude(outcome).await;
    }));
}
