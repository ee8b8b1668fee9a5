//! Listeners: TLS with a client certificate, and plaintext on the loopback.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::identity::Peer;
use crate::metrics::Metrics;
use crate::service::AdsService;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes in progress at once.
const HANDSHAKES_MAX: usize = 256;
/// Connections open at once on one listener.
const CONNECTIONS_MAX: usize = 20_000;
/// Streams of one connection; proxies use one or two.
const STREAMS_PER_CONNECTION_MAX: u32 = 100;
/// Pause after a failed accept, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Source: spec/control-plane.md §1.1.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// What a client may send before it must wait, bytes.
const WINDOW_BYTES: u32 = 1 << 20;

/// Where to listen.
#[derive(Default)]
pub struct ServerConfig {
    /// A listener and the TLS configuration that demands a client certificate.
    pub tls: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
    /// A listener without authentication; it must be on a loopback address.
    pub plaintext: Option<TcpListener>,
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The plaintext listener would be open to the network.
    #[error(
        "plaintext xDS is only allowed on a loopback address, not on {0}: it does not authenticate its clients"
    )]
    NotLoopback(SocketAddr),
    /// The system refused.
    #[error("listener: {0}")]
    Io(#[from] io::Error),
    /// The transport failed.
    #[error("transport: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until the service's token is cancelled, then ends all streams, waits for
/// connections to close and returns.
///
/// # Errors
/// See [`ServerError`]. A bad client is never an error.
pub async fn serve(
    config: ServerConfig,
    service: AdsService,
    metrics: Arc<Metrics>,
) -> Result<(), ServerError> {
    if let Some(listener) = &config.plaintext {
        let addr = listener.local_addr()?;
        if !addr.ip().is_loopback() {
            return Err(ServerError::NotLoopback(addr));
        }
    }
    let shutdown = service.shutdown().clone();
    let tls = async {
        let Some((listener, tls)) = config.tls else {
            return Ok(());
        };
        let (ready, incoming) = mpsc::channel(16);
        let accept = accept_tls(listener, tls, ready, metrics);
        let serve = serve_incoming(incoming, service.clone(), &shutdown);
        tokio::select! { result = serve => result, () = accept => Ok(()) }
    };
    let plaintext = async {
        let Some(listener) = config.plaintext else {
            return Ok(());
        };
        let (ready, incoming) = mpsc::channel(16);
        let accept = accept_plaintext(listener, ready);
        let serve = serve_incoming(incoming, service.clone(), &shutdown);
        tokio::select! { result = serve => result, () = accept => Ok(()) }
    };
    tokio::try_join!(tls, plaintext).map(|_| ())
}

async fn serve_incoming<S>(
    incoming: mpsc::Receiver<io::Result<PeerIo<S>>>,
    service: AdsService,
    shutdown: &CancellationToken,
) -> Result<(), ServerError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serve = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), shutdown.cancelled());
    let grace = async {
        shutdown.cancelled().await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! { result = serve => Ok(result?), () = grace => Ok(()) }
}

/// Accepts a connection; never fails for good, never spins.
async fn accept(
    listener: &TcpListener,
    open: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(open).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(peer = %addr, %error, "cannot disable Nagle's algorithm");
                }
                return Some((stream, addr, permit));
            }
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_plaintext(
    listener: TcpListener,
    ready: mpsc::Sender<io::Result<PeerIo<TcpStream>>>,
) {
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some((io, addr, permit)) = accept(&listener, &open).await {
        let peer = Peer {
            addr,
            identity: None,
        };
        if ready
            .send(Ok(PeerIo {
                io,
                peer,
                _permit: permit,
            }))
            .await
            .is_err()
        {
            break;
        }
    }
    // The receiver is gone because the server is shutting down; it says when it is done.
    std::future::pending::<()>().await;
}

type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

async fn accept_tls(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    ready: mpsc::Sender<io::Result<PeerIo<TlsStream>>>,
    metrics: Arc<Metrics>,
) {
    let mut config = rustls::ServerConfig::clone(&config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Ok(slot) = Arc::clone(&handshakes).acquire_owned().await {
        let Some((stream, addr, permit)) = accept(&listener, &open).await else {
            break;
        };
        if ready.is_closed() {
            break;
        }
        let (acceptor, ready, metrics) = (acceptor.clone(), ready.clone(), Arc::clone(&metrics));
        tokio::spawn(async move {
            let result =
                tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(&acceptor, stream)).await;
            drop(slot);
            match result.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))) {
                Ok((io, identity)) => {
                    let peer = Peer {
                        addr,
                        identity: Some(identity),
                    };
                    let _ = ready
                        .send(Ok(PeerIo {
                            io,
                            peer,
                            _permit: permit,
                        }))
                        .await;
                }
                Err(error) => {
                    metrics.internal_errors.inc();
                    debug!(peer = %addr, %error, "TLS handshake failed");
                }
            }
        });
    }
    std::future::pending::<()>().await;
}

/// A handshake that ends with HTTP/2 and the identity of the peer, or not at all.
async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<(TlsStream, model::SpiffeId)> {
    let stream = acceptor.accept(stream).await?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the client does not speak HTTP/2"));
    }
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(|| io::Error::other("the client has no certificate"))?;
    let identity = ca::peer_spiffe_id(certificate).map_err(io::Error::other)?;
    Ok((stream, identity))
}

/// A connection that knows its peer.
struct PeerIo<S> {
    io: S,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl<S> Connected for PeerIo<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
