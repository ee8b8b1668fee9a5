//! A workload for tests that look closely: it answers HTTP/1.1, HTTP/2 and gRPC with what it
//! saw, keeps a log of it, fails when a request asks for that, and echoes bytes on a TCP port.
//!
//! A request tells it what to do in the header `x-echo`, by words: `status=503`, `delay=300`
//! (milliseconds), `reset`, `grpc=14`, `header=name:value`; `on=v1` limits the first three to
//! that version, `first=2` to the first two attempts with the same `x-request-key`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::http_client::AbortOnDrop;

/// Names a request across its attempts and copies.
pub const REQUEST_KEY: &str = "x-request-key";
/// What the workload is asked to do.
pub const DIRECTIVES: &str = "x-echo";

/// What workloads saw, by request key: who was asked, in order.
#[derive(Clone, Default)]
pub struct EchoLog(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl EchoLog {
    /// Versions that were asked with this key, in order.
    pub fn of(&self, key: &str) -> Vec<String> {
        let log = self.0.lock().expect("no holder panics");
        log.get(key).cloned().unwrap_or_default()
    }

    /// Notes a request; which attempt of this key it is, from 1.
    fn note(&self, key: &str, version: &str) -> usize {
        let mut log = self.0.lock().expect("no holder panics");
        let seen = log.entry(key.to_owned()).or_default();
        seen.push(version.to_owned());
        seen.len()
    }
}

/// A running workload; stops when dropped.
pub struct Echo {
    _tasks: [AbortOnDrop<()>; 2],
}

impl Echo {
    /// Listens for HTTP and for bytes, and answers as `version`.
    pub async fn start(
        http: SocketAddr,
        tcp: SocketAddr,
        version: &str,
        log: &EchoLog,
    ) -> anyhow::Result<Self> {
        let bind = async |addr| {
            let listener = TcpListener::bind(addr).await;
            listener.with_context(|| format!("{version} cannot listen on {addr}"))
        };
        let (http, tcp) = (bind(http).await?, bind(tcp).await?);
        let who = Arc::new((version.to_owned(), log.clone()));
        let bytes = Arc::clone(&who);
        Ok(Self {
            _tasks: [
                AbortOnDrop(tokio::spawn(accept(http, move |tcp| {
                    serve(tcp, Arc::clone(&who))
                }))),
                AbortOnDrop(tokio::spawn(accept(tcp, move |tcp| {
                    echo(tcp, Arc::clone(&bytes))
                }))),
            ],
        })
    }
}

type Who = Arc<(String, EchoLog)>;

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((tcp, _)) => drop(connections.spawn(serve(tcp))),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Says who it is, then everything that it hears.
async fn echo(mut tcp: TcpStream, who: Who) {
    let hello = format!("{}\n", who.0);
    if tcp.write_all(hello.as_bytes()).await.is_ok() {
        let (mut from, mut to) = tcp.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    }
}

async fn serve(tcp: TcpStream, who: Who) {
    let service = service_fn(move |request| answer(request, Arc::clone(&who)));
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(tcp), service)
        .await;
}

/// What `x-echo` asks for.
#[derive(Default)]
struct Directives {
    status: Option<StatusCode>,
    delay: Duration,
    reset: bool,
    grpc: u32,
    headers: Vec<(HeaderName, HeaderValue)>,
    on: Option<String>,
    first: Option<usize>,
}

impl Directives {
    fn of(headers: &HeaderMap) -> Self {
        let mut out = Self::default();
        let text = headers
            .get(DIRECTIVES)
            .and_then(|value| value.to_str().ok());
        for word in text.unwrap_or_default().split_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "status" => out.status = value.parse().ok(),
                "delay" => out.delay = Duration::from_millis(value.parse().unwrap_or_default()),
                "reset" => out.reset = true,
                "grpc" => out.grpc = value.parse().unwrap_or_default(),
                "on" => out.on = Some(value.to_owned()),
                "first" => out.first = value.parse().ok(),
                "header" => {
                    if let Some((name, value)) = value.split_once(':')
                        && let (Ok(name), Ok(value)) = (name.parse(), value.parse())
                    {
                        out.headers.push((name, value));
                    }
                }
                _ => {}
            }
        }
        out
    }
}

async fn answer(
    request: Request<Incoming>,
    who: Who,
) -> anyhow::Result<Response<BoxBody<Bytes, Infallible>>> {
    let (version, log) = &*who;
    let wanted = Directives::of(request.headers());
    let key = request.headers().get(REQUEST_KEY);
    let attempt = key.map_or(1, |key| {
        log.note(&String::from_utf8_lossy(key.as_bytes()), version)
    });
    let applies = wanted.on.as_ref().is_none_or(|on| on == version)
        && wanted.first.is_none_or(|first| attempt <= first);
    let saw = saw(&request, version);
    // The whole request first: an answer before its end looks like a failure to some.
    let (parts, body) = request.into_parts();
    let _ = body.collect().await;
    let mut status = StatusCode::OK;
    if applies {
        tokio::time::sleep(wanted.delay).await;
        anyhow::ensure!(!wanted.reset, "as asked");
        status = wanted.status.unwrap_or(status);
    }
    let content = parts.headers.get(http::header::CONTENT_TYPE);
    let grpc = content.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let failed = grpc && applies && wanted.grpc != 0;
    let mut response = Response::new(if failed {
        // An answer without a message: its status stands among the headers.
        http_body_util::Empty::new().boxed()
    } else if grpc {
        grpc_body(&saw)
    } else {
        let text = Bytes::from(format!("{saw}\n"));
        http_body_util::Full::new(text).boxed()
    });
    *response.status_mut() = status;
    let own = if grpc {
        "application/grpc"
    } else {
        "application/json"
    };
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(own));
    headers.insert("x-from-app", HeaderValue::from_static("yes"));
    if failed {
        headers.insert("grpc-status", HeaderValue::from(wanted.grpc));
    }
    headers.extend(
        wanted
            .headers
            .into_iter()
            .map(|(name, value)| (Some(name), value)),
    );
    Ok(response)
}

/// One message, and the trailers of a success.
fn grpc_body(saw: &Value) -> BoxBody<Bytes, Infallible> {
    let text = saw.to_string();
    let mut message = vec![0];
    message.extend((text.len() as u32).to_be_bytes());
    message.extend(text.as_bytes());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from(message)), Frame::trailers(trailers)];
    StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))).boxed()
}

fn saw(request: &Request<Incoming>, version: &str) -> Value {
    let mut headers = BTreeMap::<&str, String>::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str())
            .and_modify(|all| *all = format!("{all},{value}"))
            .or_insert_with(|| value.into_owned());
    }
    let host = request.uri().authority().map(ToString::to_string);
    json!({
        "version": version,
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map_or("/", |p| p.as_str()),
        "host": host.or_else(|| headers.get("host").cloned()),
        "headers": headers,
    })
}
