//! The listener: TLS without client certificates, HTTP/1.1, everything bounded.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
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
    /// Connections open at once; the oldest leaves for the newest.
    pub connections_max: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long the headers of a request may take, and a connection be silent before them.
    pub headers: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(30),
        }
    }
}

pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsConfig,
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
        let config = without_clients(&tls.borrow())?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (router, shutdown) = (router.clone(), shutdown.clone());
        open.push_back(tasks.spawn(async move {
            let accepted = tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await;
            match accepted {
                Ok(Ok(stream)) => connection(stream, addr, router, limits, shutdown).await,
                Ok(Err(error)) => tracing::debug!(peer = %addr, %error, "handshake failed"),
                Err(_) => tracing::debug!(peer = %addr, "handshake took too long"),
            }
        }));
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// The configuration of the xDS port with its certificate alone: API servers present none.
fn without_clients(config: &ServerConfig) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::clone(config.crypto_provider());
    let mut out = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&config.cert_resolver));
    out.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(out)
}

async fn connection(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    addr: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| router.clone().call(request));
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
        tracing::debug!(peer = %addr, %error, "connection of the webhook ended");
    }
}
