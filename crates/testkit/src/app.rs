//! A sample workload: answers every HTTP/1.1 request with what it saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::http_client::AbortOnDrop;

/// A running sample workload; stops when dropped.
pub struct App {
    addr: SocketAddr,
    closes: Arc<AtomicBool>,
    _task: AbortOnDrop<()>,
}

impl App {
    /// Listens on `addr` and answers as `pod` of `version`.
    pub async fn start(addr: SocketAddr, pod: &str, version: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr)
            .await
            .with_context(|| format!("the workload {pod} cannot listen on {addr}"))?;
        Self::serve(listener.into_std()?, pod, version)
    }

    /// Answers on a socket that listens already, in whatever network namespace it was made.
    pub fn serve(
        listener: std::net::TcpListener,
        pod: &str,
        version: &str,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let addr = listener.local_addr()?;
        let (pod, version) = (pod.to_owned(), version.to_owned());
        let closes = Arc::new(AtomicBool::new(false));
        let closes_now = Arc::clone(&closes);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((tcp, from)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (pod, version) = (pod.clone(), version.clone());
                let closes = Arc::clone(&closes_now);
                let service = service_fn(move |request| {
                    let mut response = answer(&request, &pod, &version, from);
                    if closes.load(Ordering::Relaxed) {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                connections.spawn(async move {
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(tcp), service)
                        .await;
                });
            }
        });
        Ok(Self {
            addr,
            closes,
            _task: AbortOnDrop(task),
        })
    }

    /// Closes connections after each answer from now on.
    pub fn close_after_answers(&self) {
        self.closes.store(true, Ordering::Relaxed);
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn answer(
    request: &Request<Incoming>,
    pod: &str,
    version: &str,
    from: SocketAddr,
) -> Response<Full<Bytes>> {
    let headers: BTreeMap<&str, String> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.as_str(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = serde_json::json!({
        "pod": pod,
        "version": version,
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map_or("/", |p| p.as_str()),
        "peer": from.ip().to_string(),
        "headers": headers,
    });
    Response::builder()
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(format!("{body}\n"))))
        .expect("invariant: constant parts")
}
