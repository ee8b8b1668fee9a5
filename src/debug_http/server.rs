//! The listener of plain HTTP: strangers reach it, so that everything they may hold is bounded.
//! Source: spec/control-plane.md §1.1 (timeouts).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;

/// Pause after a failed accept, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What clients may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once; the oldest leaves for the newest, so that nobody keeps a
    /// probe out.
    pub connections_max: usize,
    /// How long the headers of a request may take, and a connection be silent before them.
    pub headers: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            headers: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown`, then until the requests under way are answered.
///
/// # Errors
/// None so far; a bad client never is one.
pub async fn serve(
    listener: TcpListener,
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
        let connection = connection(stream, addr, router.clone(), limits, shutdown.clone());
        open.push_back(tasks.spawn(connection));
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn connection(
    stream: TcpStream,
    addr: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
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
        tokio::spawn(serve(listener, router, limits, shutdown.clone()));
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
