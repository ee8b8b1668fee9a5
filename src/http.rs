//! The listener of HTTP/1.1, plain or over TLS: strangers reach it, so that everything they may
//! hold is bounded. What a request may hold after its headers is for its handler to bound.
//! Source: spec/control-plane.md §1.1 (timeouts).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;

use crate::identity::TlsConfig;

/// Pause after a failed accept, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What clients may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once; the oldest leaves for the newest, so that nobody keeps a
    /// probe out.
    pub connections_max: usize,
    /// How long a handshake may take, where there is one.
    pub handshake: Duration,
    /// How long the headers of a request may take, and a connection be silent before them.
    pub headers: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown`, then until the requests under way are answered. Handlers find the
/// address of the peer as [`ConnectInfo`]. Over TLS clients show no certificate.
///
/// # Errors
/// When the serving certificate cannot be used; a bad client never is an error.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsConfig>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if open.len() >= limits.connections_max {
            open.retain(|task| !task.is_finished());
        }
        while open.len() >= limits.connections_max.max(1) {
            if let Some(oldest) = open.pop_front() {
                oldest.abort();
            }
        }
        // The certificate of now: it is renewed without touching connections.
        let config = tls.as_ref().map(|tls| without_clients(&tls.borrow()));
        let config = config.transpose()?;
        let client = Client {
            addr,
            router: router.clone(),
            limits,
            shutdown: shutdown.clone(),
        };
        open.push_back(tasks.spawn(async move {
            match config {
                Some(config) => client.served_secure(stream, config).await,
                None => client.served(stream).await,
            }
        }));
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// The configuration of the xDS port with its certificate alone.
fn without_clients(config: &ServerConfig) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::clone(config.crypto_provider());
    let mut out = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    out.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(out)
}

/// Who came, and what it is served.
struct Client {
    addr: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
}

// === impl Client ===

impl Client {
    /// Shakes hands, then serves.
    async fn served_secure(self, stream: TcpStream, config: ServerConfig) {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepted = tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)).await;
        match accepted {
            Ok(Ok(stream)) => self.served(stream).await,
            Ok(Err(error)) => tracing::debug!(peer = %self.addr, %error, "handshake failed"),
            Err(_) => tracing::debug!(peer = %self.addr, "handshake took too long"),
        }
    }

    async fn served(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self {
            addr,
            router,
            limits,
            shutdown,
        } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(addr));
            router.clone().call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.headers)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %addr, %error, "HTTP connection ended");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn start(limits: Limits) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let peer = |ConnectInfo(addr): ConnectInfo<SocketAddr>| async move { addr.to_string() };
        let router = Router::new().route("/", get(peer));
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, None, router, limits, shutdown.clone()));
        (addr, shutdown)
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        // A connection that is cut off may end with a reset.
        let _ = stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn silent_connections_end_and_never_keep_others_out() {
        let limits = Limits {
            connections_max: 2,
            headers: Duration::from_millis(200),
            ..Limits::default()
        };
        let (addr, _shutdown) = start(limits).await;
        let mut oldest = TcpStream::connect(addr).await.unwrap();
        let mut silent = TcpStream::connect(addr).await.unwrap();
        let mut asking = TcpStream::connect(addr).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        asking.write_all(request).await.unwrap();
        let answer = rest(&mut asking).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let own = asking.local_addr().unwrap().to_string();
        assert!(answer.ends_with(&own), "{answer}");
        assert_eq!(rest(&mut oldest).await, "");
        // Neither bytes nor an end ever come from this client.
        let answer = rest(&mut silent).await;
        assert!(!answer.contains("200"), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections_at_once() {
        let (addr, shutdown) = start(Limits::default()).await;
        let mut idle = TcpStream::connect(addr).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        shutdown.cancel();
        rest(&mut idle).await;
    }
}
