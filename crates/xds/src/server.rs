//! Listeners: TLS, where a certificate or a token says who it is, and plaintext on the
//! loopback.
//!
//! What is bounded before anybody is known: handshakes and silent connections (the
//! oldest leaves for the newest), connections of one address, headers, streams, what
//! may be sent before it is read, and floods of frames that demand answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use authn::Peer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use connection::Surroundings;
use guests::{Addresses, Guests};

mod connection;
mod guests;
mod io_guard;
mod tls;

pub(crate) use connection::Going;
pub use tls::{tls_config, tls_config_of};

/// Pause after a failed accept, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may have no stream.
    pub idle: Duration,
    /// Age at which a connection is asked to go, give or take a tenth.
    pub age_max: Duration,
    /// How long its streams may then still live.
    pub grace: Duration,
    /// When the server ends: clients are sent away spread over this time, so that those that
    /// take them in are not overrun.
    pub drain: Duration,
    /// How long a client that is then sent away may wait for the answers of what it asked
    /// before. The server waits for nobody longer than `drain` and this.
    pub last_answers: Duration,
    /// Connections open at once on one listener.
    pub connections_max: usize,
    /// Of these, connections of one address; this host's are not counted.
    pub connections_per_address_max: usize,
    /// Of these, connections that have proven nothing yet.
    pub guests_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            age_max: Duration::from_secs(30 * 60),
            grace: Duration::from_secs(10),
            drain: Duration::ZERO,
            last_answers: Duration::from_secs(10),
            connections_max: 20_000,
            connections_per_address_max: 1_000,
            guests_max: 2_048,
        }
    }
}

/// Where to listen, and what to serve there.
#[derive(Default)]
pub struct ServerConfig {
    /// The TLS listener, its configuration for new connections, and its services: each
    /// must authenticate before it answers with anything but a status.
    pub tls: Option<(
        TcpListener,
        watch::Receiver<Arc<rustls::ServerConfig>>,
        Routes,
    )>,
    /// A listener without authentication; it must be on a loopback address.
    pub plaintext: Option<(TcpListener, Routes)>,
    /// Bounds.
    pub limits: Limits,
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
}

/// Serves until `shutdown`, then lets nobody in any more, sends clients away spread over
/// [`Limits::drain`], and returns when they are gone. The streams of a connection that is asked
/// to go end with it; what services do besides they must end themselves.
///
/// # Errors
/// See [`ServerError`]. A bad client is never an error.
pub async fn serve(
    config: ServerConfig,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    if let Some((listener, _)) = &config.plaintext {
        let addr = listener.local_addr()?;
        if !addr.ip().is_loopback() {
            return Err(ServerError::NotLoopback(addr));
        }
    }
    let listener = |socket, routes: Routes, tls| {
        let with = Surroundings {
            routes: routes.prepare(),
            limits: config.limits,
            metrics: Arc::clone(&metrics),
            shutdown: shutdown.clone(),
        };
        Listener {
            socket,
            tls,
            open: Arc::new(Semaphore::new(config.limits.connections_max)),
            guests: Guests::new(config.limits.guests_max),
            addresses: Addresses::new(config.limits.connections_per_address_max),
            with: Arc::new(with),
            tasks: TaskTracker::new(),
        }
    };
    let tls = config
        .tls
        .map(|(socket, tls, routes)| listener(socket, routes, Some(tls)));
    let plaintext = config
        .plaintext
        .map(|(socket, routes)| listener(socket, routes, None));
    tokio::join!(run(tls), run(plaintext));
    Ok(())
}

async fn run(listener: Option<Listener>) {
    if let Some(listener) = listener {
        listener.run().await;
    }
}

struct Listener {
    socket: TcpListener,
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    open: Arc<Semaphore>,
    guests: Arc<Guests>,
    addresses: Arc<Addresses>,
    with: Arc<Surroundings>,
    tasks: TaskTracker,
}

impl Listener {
    async fn run(self) {
        loop {
            let accepted = tokio::select! {
                () = self.with.shutdown.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, addr)) => self.admit(stream, addr),
                Err(error) => {
                    warn!(%error, "accept failed");
                    self.guests.evict_oldest();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Nobody new is let in while the last ones leave.
        drop(self.socket);
        self.tasks.close();
        let limits = self.with.limits;
        let _ = tokio::time::timeout(limits.drain + limits.last_answers, self.tasks.wait()).await;
    }

    /// Starts the task of a connection, or closes it at once: never waits for others.
    fn admit(&self, stream: TcpStream, addr: SocketAddr) {
        let refuse = |reason| {
            debug!(peer = %addr, reason, "connection refused");
            let closed = &self.with.metrics.connections_closed;
            closed.with_label_values(&[reason]).inc();
        };
        let Some(place) = self.addresses.place(addr.ip()) else {
            return refuse("address_limit");
        };
        let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() else {
            return refuse("limit");
        };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(peer = %addr, %error, "cannot disable Nagle's algorithm");
        }
        let guest = self.guests.admit();
        let tls = self.tls.as_ref().map(|tls| Arc::clone(&tls.borrow()));
        let with = Arc::clone(&self.with);
        self.tasks.spawn(async move {
            // Both in boxes: what only the handshake needs is gone after it, and nobody keeps
            // room for the other way. That is 12 KiB of each connection.
            let serving = if let Some(config) = tls {
                let shaken = Box::pin(shake(config, stream, addr, &guest, &with)).await;
                let Some((io, peer)) = shaken else { return };
                connection::serve(io, peer, guest, with)
            } else {
                // On this host: nothing to prove.
                guest.prove();
                let peer = Peer {
                    addr,
                    identity: None,
                    secure: false,
                };
                connection::serve(stream, peer, guest, with)
            };
            serving.await;
            drop((place, permit));
        });
    }
}

/// Shakes hands; who it is then, if it may come in.
async fn shake(
    config: Arc<rustls::ServerConfig>,
    stream: TcpStream,
    addr: SocketAddr,
    guest: &guests::Guest,
    with: &Surroundings,
) -> Option<(TlsStream, Peer)> {
    let shaken = tokio::select! {
        biased;
        () = guest.evicted() => Err(("evicted", io::Error::other("others came"))),
        () = with.shutdown.cancelled() => return None,
        shaken = tokio::time::timeout(with.limits.handshake, handshake(config, stream)) => {
            match shaken {
                Ok(Ok(shaken)) => Ok(shaken),
                Ok(Err(error)) => Err(("handshake", error)),
                Err(_) => Err(("handshake_timeout", io::ErrorKind::TimedOut.into())),
            }
        }
    };
    match shaken {
        Ok((io, identity)) => {
            if identity.is_some() {
                guest.prove();
            }
            let peer = Peer {
                addr,
                identity,
                secure: true,
            };
            Some((io, peer))
        }
        Err((reason, error)) => {
            let closed = &with.metrics.connections_closed;
            closed.with_label_values(&[reason]).inc();
            debug!(peer = %addr, reason, %error, "TLS handshake failed");
            None
        }
    }
}

type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// A handshake that ends with HTTP/2, and with the identity of the peer if it has a
/// certificate.
async fn handshake(
    config: Arc<rustls::ServerConfig>,
    stream: TcpStream,
) -> io::Result<(TlsStream, Option<model::SpiffeId>)> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the client does not speak HTTP/2"));
    }
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let identity = certificate
        .map(|certificate| ca::peer_spiffe_id(certificate).map_err(io::Error::other))
        .transpose()?;
    Ok((stream, identity))
}
