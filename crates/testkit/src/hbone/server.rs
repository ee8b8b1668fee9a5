//! The inbound side: stands in for the ztunnel of a destination pod.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{SpiffeId, Str};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{HBONE_PORT, Identity};
use crate::http_client::AbortOnDrop;

const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// What L4 policy may know of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Connection {
    /// The identity in the peer's certificate.
    pub peer: SpiffeId,
    /// Where the connection comes from.
    pub source: IpAddr,
    /// Address and port of the workload that is asked for.
    pub destination: SocketAddr,
}

/// The answer of L4 policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Proxy the connection.
    Allow,
    /// Answer CONNECT with 401.
    Deny,
}

/// Decides on each connection.
pub type Authorize = Arc<dyn Fn(&L4Connection) -> Verdict + Send + Sync>;

struct Shared {
    pod: IpAddr,
    /// `host:port` of services → port of the workload.
    services: Mutex<HashMap<String, u16>>,
    trust_domain: Str,
    authorize: Authorize,
    handshakes: AtomicUsize,
    accepted: AtomicUsize,
    denied: AtomicUsize,
}

/// An HBONE server on a pod's address; stops when dropped.
pub struct HboneServer {
    addr: SocketAddr,
    tls: watch::Sender<Arc<ServerConfig>>,
    shared: Arc<Shared>,
    _task: AbortOnDrop<()>,
}

impl HboneServer {
    /// Listens on `pod:15008` with the pod's certificate.
    pub async fn start(
        pod: IpAddr,
        identity: &Identity,
        authorize: Authorize,
    ) -> anyhow::Result<Self> {
        let addr = SocketAddr::new(pod, HBONE_PORT);
        let listener = TcpListener::bind(addr)
            .await
            .with_context(|| format!("listening on {addr}"))?;
        let (tls, current) = watch::channel(identity.hbone_server_config()?);
        let shared = Arc::new(Shared {
            pod,
            services: Mutex::default(),
            trust_domain: identity.id.trust_domain.clone(),
            authorize,
            handshakes: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            denied: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, current, Arc::clone(&shared)));
        Ok(Self {
            addr,
            tls,
            shared,
            _task: AbortOnDrop(task),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves with another certificate from now on. Connections that are open are asked to
    /// end: their streams go on, new ones need a new handshake.
    pub fn renew(&self, identity: &Identity) -> anyhow::Result<()> {
        self.tls.send_replace(identity.hbone_server_config()?);
        Ok(())
    }

    /// Takes tunnels for a service, `host:port`, to a port of the workload, as they come from other
    /// networks.
    pub fn serve(&self, service: &str, port: u16) {
        let services = self.shared.services.lock();
        let mut services = services.unwrap_or_else(PoisonError::into_inner);
        services.insert(service.to_owned(), port);
    }

    /// How many handshakes have succeeded.
    pub fn handshakes_count(&self) -> usize {
        self.shared.handshakes.load(Ordering::Relaxed)
    }

    /// How many CONNECTs were proxied.
    pub fn accepted_count(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many CONNECTs were refused by policy.
    pub fn denied_count(&self) -> usize {
        self.shared.denied.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    shared: Arc<Shared>,
) {
    // Dropped with the accept loop: connections do not outlive the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            if let Err(error) = serve(tcp, from, tls, shared).await {
                tracing::debug!(%from, error = format!("{error:#}"), "tunnel ended");
            }
        });
    }
}

async fn serve(
    tcp: TcpStream,
    from: SocketAddr,
    mut current: watch::Receiver<Arc<ServerConfig>>,
    shared: Arc<Shared>,
) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let acceptor = TlsAcceptor::from(Arc::clone(&current.borrow_and_update()));
    let tls = tokio::time::timeout(STEP_TIMEOUT, acceptor.accept(tcp)).await??;
    let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = ca::peer_spiffe_id(leaf.context("the client sent no certificate")?)?;
    ensure!(
        peer.trust_domain == shared.trust_domain,
        "{peer} is of another trust domain"
    );
    shared.handshakes.fetch_add(1, Ordering::Relaxed);
    let service = service_fn(move |request| {
        let (peer, shared) = (peer.clone(), Arc::clone(&shared));
        async move { Ok::<_, std::convert::Infallible>(tunnel(request, peer, from, &shared).await) }
    });
    let serving =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service);
    let mut serving = pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return ended.context("HTTP/2"),
        renewed = current.changed() => {
            if renewed.is_ok() {
                serving.as_mut().graceful_shutdown();
            }
        }
    }
    serving.await.context("HTTP/2")
}

/// Answers one CONNECT: 200 and a proxied stream, 400 for what is not for this pod, 401
/// when policy refuses, 503 when the workload does not answer.
async fn tunnel(
    request: Request<Incoming>,
    peer: SpiffeId,
    from: SocketAddr,
    shared: &Shared,
) -> Response<Empty<Bytes>> {
    let named = |authority: &str| {
        let services = shared.services.lock();
        let services = services.unwrap_or_else(PoisonError::into_inner);
        let port = services.get(authority).copied();
        port.map(|port| SocketAddr::new(shared.pod, port))
    };
    let destination = request
        .uri()
        .authority()
        .and_then(|a| a.as_str().parse().ok().or_else(|| named(a.as_str())));
    let destination: SocketAddr = match destination {
        Some(addr) if request.method() == Method::CONNECT => addr,
        _ => return status(StatusCode::BAD_REQUEST),
    };
    if destination.ip() != shared.pod {
        return status(StatusCode::BAD_REQUEST);
    }
    let connection = L4Connection {
        peer,
        source: from.ip(),
        destination,
    };
    if (shared.authorize)(&connection) == Verdict::Deny {
        shared.denied.fetch_add(1, Ordering::Relaxed);
        return status(StatusCode::UNAUTHORIZED);
    }
    let workload = tokio::time::timeout(STEP_TIMEOUT, TcpStream::connect(destination)).await;
    let Ok(Ok(mut workload)) = workload else {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    };
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut workload).await {
            tracing::debug!(%destination, %error, "stream ended");
        }
    });
    status(StatusCode::OK)
}

fn status(code: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = code;
    response
}
