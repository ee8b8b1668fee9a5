//! The smallest HTTP/1.1 client: one request, the whole answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest time for one exchange.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the other side to close.
const LINGER: Duration = Duration::from_secs(5);

/// A whole HTTP answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl HttpResponse {
    /// The body as text, damaged bytes replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("the body is not JSON: {:.200}", self.text()))
    }
}

/// `GET http://addr/path`.
pub async fn get(addr: SocketAddr, path: &str) -> anyhow::Result<HttpResponse> {
    call(addr, Method::GET, path).await
}

/// A request without a body.
pub async fn call(addr: SocketAddr, method: Method, path: &str) -> anyhow::Result<HttpResponse> {
    let what = format!("{method} http://{addr}{path}");
    let exchange = async {
        let request = request(method, &addr.to_string(), path)?;
        let stream = TcpStream::connect(addr).await.context("connecting")?;
        send_http1(stream, request).await
    };
    tokio::time::timeout(EXCHANGE_TIMEOUT, exchange)
        .await
        .with_context(|| format!("{what}: no answer within {EXCHANGE_TIMEOUT:?}"))?
        .with_context(|| what)
}

/// A request without a body for the given host.
pub fn request(method: Method, host: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, host)
        .body(Full::default())
        .with_context(|| format!("{path:?} on {host:?} makes no request"))
}

/// Sends one HTTP/1.1 request over a byte stream and reads the whole answer.
pub async fn send_http1<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<HttpResponse>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Ok(parts) = connection.without_shutdown().await {
            let _ = tokio::time::timeout(LINGER, close(parts.io.into_inner())).await;
        }
    });
    let response = sender
        .send_request(request)
        .await
        .context("sending the request")?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.context("reading the body")?.to_bytes();
    Ok(HttpResponse {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

/// Sends one HTTP/2 request over a byte stream and reads the whole answer and its trailers.
pub async fn send_http2<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(HttpResponse, HeaderMap)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .context("sending the request")?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.context("reading the body")?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let response = HttpResponse {
        status: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
    };
    Ok((response, trailers))
}

/// Ends a stream as a socket ends: our half closed, the other half read to its end. Inside
/// a tunnel a stream that is merely dropped is *reset*, and Envoy takes a peer that
/// resets most of its streams for an attack and closes the tunnel.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> std::io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink())
        .await
        .map(drop)
}

/// A task that ends with its handle.
#[derive(Debug)]
pub(crate) struct AbortOnDrop<T>(pub(crate) tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
