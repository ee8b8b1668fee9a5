//! The outbound side: tunnels and the streams inside them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{Empty, Full};
use hyper::client::conn::http2;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::SpiffeId;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::Identity;
use crate::http_client::{HttpResponse, send_http1};

/// A byte stream inside a tunnel.
pub type HboneStream = TokioIo<Upgraded>;

/// Longest time for a TCP connect, a handshake or an answer to CONNECT.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a stream could not be opened.
#[derive(Debug)]
pub enum HboneError {
    /// The peer answered CONNECT with this status; 401 means refused by L4 policy.
    Refused(StatusCode),
    /// The server's identity is not the one expected.
    WrongPeer {
        /// Who was expected.
        expected: SpiffeId,
        /// Who answered.
        got: SpiffeId,
    },
    /// No tunnel: refused connection, failed handshake, broken HTTP/2.
    Transport(anyhow::Error),
}

impl std::fmt::Display for HboneError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "CONNECT was answered with {status}"),
            Self::WrongPeer { expected, got } => {
                write!(f, "the peer is {got}, expected was {expected}")
            }
            Self::Transport(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for HboneError {}

#[derive(Clone)]
struct Tunnel {
    requests: http2::SendRequest<Empty<Bytes>>,
    peer: SpiffeId,
}

/// The outbound side of one workload. Tunnels are kept and reused per destination;
/// a broken one is replaced by the next call.
pub struct HboneClient {
    identity: Arc<Identity>,
    tls: Arc<ClientConfig>,
    source: Option<IpAddr>,
    tunnels: Mutex<HashMap<SocketAddr, Tunnel>>,
}

impl HboneClient {
    /// A client with this certificate. With `source`, connections come from that
    /// address, as they would from the workload's pod.
    pub fn new(identity: Arc<Identity>, source: Option<IpAddr>) -> anyhow::Result<Self> {
        let tls = identity.hbone_client_config()?;
        Ok(Self {
            identity,
            tls,
            source,
            tunnels: Mutex::new(HashMap::new()),
        })
    }

    /// Who this client is.
    pub fn id(&self) -> &SpiffeId {
        &self.identity.id
    }

    /// How many tunnels are open now.
    pub async fn tunnel_count(&self) -> usize {
        self.tunnels
            .lock()
            .await
            .values()
            .filter(|t| !t.requests.is_closed())
            .count()
    }

    /// Dials anew for every stream from now on; open streams go on.
    pub async fn forget_tunnels(&self) {
        self.tunnels.lock().await.clear();
    }

    /// Opens a stream: a tunnel to `server` (usually port 15008), then CONNECT with
    /// `authority` (a VIP or pod address with port). Returns the server's identity too.
    ///
    /// # Errors
    /// [`HboneError`], by what the caller can do about it.
    pub async fn connect(
        &self,
        server: SocketAddr,
        authority: &str,
        expected: Option<&SpiffeId>,
    ) -> Result<(HboneStream, SpiffeId), HboneError> {
        self.connect_saying(server, authority, None, expected).await
    }

    /// The same, saying what opened the tunnel (`x-istio-source`).
    async fn connect_saying(
        &self,
        server: SocketAddr,
        authority: &str,
        source: Option<&str>,
        expected: Option<&SpiffeId>,
    ) -> Result<(HboneStream, SpiffeId), HboneError> {
        let mut tunnel = self.tunnel(server).await.map_err(HboneError::Transport)?;
        if let Some(expected) = expected.filter(|id| **id != tunnel.peer) {
            return Err(HboneError::WrongPeer {
                expected: expected.clone(),
                got: tunnel.peer,
            });
        }
        let exchange = async {
            let request = connect_request(authority, source)?;
            tunnel
                .requests
                .send_request(request)
                .await
                .with_context(|| format!("CONNECT {authority} at {server}"))
        };
        let response = timed("the answer to CONNECT", exchange).await;
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                self.tunnels.lock().await.remove(&server);
                return Err(HboneError::Transport(error));
            }
        };
        if !response.status().is_success() {
            return Err(HboneError::Refused(response.status()));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .with_context(|| format!("the stream of CONNECT {authority} at {server}"))
            .map_err(HboneError::Transport)?;
        Ok((TokioIo::new(upgraded), tunnel.peer))
    }

    /// One HTTP/1.1 request on a stream of its own.
    ///
    /// # Errors
    /// As [`HboneClient::connect`]; [`HboneError::Transport`] when the stream breaks.
    pub async fn request(
        &self,
        server: SocketAddr,
        authority: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<HttpResponse, HboneError> {
        let (stream, _) = self.connect(server, authority, None).await?;
        timed("the HTTP answer", send_http1(stream, request))
            .await
            .map_err(HboneError::Transport)
    }

    /// One HTTP/1.1 request in a tunnel inside a tunnel, as clients of other networks send it to a
    /// service: the outer one ends at the gateway between the networks, the inner one at whoever
    /// that leads to, whose identity is returned too.
    ///
    /// # Errors
    /// [`HboneError`], of either tunnel.
    pub async fn request_across(
        &self,
        gateway: SocketAddr,
        service: &str,
        source: Option<&str>,
        request: Request<Full<Bytes>>,
    ) -> Result<(HttpResponse, SpiffeId), HboneError> {
        let (outer, _) = self.connect_saying(gateway, service, source, None).await?;
        let inner = self.open(outer, gateway).await;
        let mut inner = inner.map_err(HboneError::Transport)?;
        let exchange = async {
            let connect = connect_request(service, None)?;
            anyhow::Ok(inner.requests.send_request(connect).await?)
        };
        let response = timed("the answer to the inner CONNECT", exchange)
            .await
            .map_err(HboneError::Transport)?;
        if !response.status().is_success() {
            return Err(HboneError::Refused(response.status()));
        }
        let exchange = async {
            let stream = TokioIo::new(hyper::upgrade::on(response).await?);
            send_http1(stream, request).await
        };
        let answer = timed("the HTTP answer", exchange).await;
        Ok((answer.map_err(HboneError::Transport)?, inner.peer))
    }

    async fn tunnel(&self, server: SocketAddr) -> anyhow::Result<Tunnel> {
        let mut tunnels = self.tunnels.lock().await;
        if let Some(tunnel) = tunnels.get(&server).filter(|t| !t.requests.is_closed()) {
            return Ok(tunnel.clone());
        }
        let tunnel = self.dial(server).await?;
        tunnels.insert(server, tunnel.clone());
        Ok(tunnel)
    }

    async fn dial(&self, server: SocketAddr) -> anyhow::Result<Tunnel> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = self.source {
            socket
                .bind(SocketAddr::new(source, 0))
                .with_context(|| format!("taking {source} as source address"))?;
        }
        let tcp = timed("a TCP connection", async {
            socket
                .connect(server)
                .await
                .with_context(|| format!("connecting to {server}"))
        })
        .await?;
        tcp.set_nodelay(true)?;
        self.open(tcp, server).await
    }

    /// Opens a tunnel over a connection that leads to a server.
    async fn open<S>(&self, connection: S, server: SocketAddr) -> anyhow::Result<Tunnel>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tls = timed("the TLS handshake", async {
            TlsConnector::from(Arc::clone(&self.tls))
                .connect(ServerName::IpAddress(server.ip().into()), connection)
                .await
                .with_context(|| format!("TLS handshake with {server} as {}", self.identity.id))
        })
        .await?;
        let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = ca::peer_spiffe_id(leaf.context("the server sent no certificate")?)?;
        let (requests, connection) = timed("the HTTP/2 preface", async {
            Ok(http2::Builder::new(TokioExecutor::new())
                .handshake(TokioIo::new(tls))
                .await?)
        })
        .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%server, %error, "tunnel ended");
            }
        });
        Ok(Tunnel { requests, peer })
    }
}

fn connect_request(authority: &str, source: Option<&str>) -> anyhow::Result<Request<Empty<Bytes>>> {
    let request = Request::builder().method(Method::CONNECT).uri(authority);
    let request = match source {
        Some(source) => request.header("x-istio-source", source),
        None => request,
    };
    let request = request.body(Empty::new());
    request.with_context(|| format!("{authority:?} is no authority"))
}

async fn timed<T>(what: &str, step: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(STEP_TIMEOUT, step)
        .await
        .with_context(|| format!("no sign of {what} within {STEP_TIMEOUT:?}"))?
}
