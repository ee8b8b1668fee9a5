//! Envoy's admin interface on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest exchange.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer: all statistics of a large proxy.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// `server.state` while Envoy is live.
const LIVE: u64 = 0;
/// The statistics that readiness reads, as a percent-encoded expression.
const READINESS: &str = "/stats?filter=%5E(server.state%7Clistener_manager.workers_started\
    %7Ccluster_manager.cds.update_success%7Clistener_manager.lds.update_success)$";
/// Open connections of every listener.
const CONNECTIONS: &str = "/stats?filter=%5Elistener%5C..*%5C.downstream_cx_active$";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A request without body.
pub(crate) async fn call(
    admin: SocketAddr,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), Error> {
    let exchange = async {
        let stream = TcpStream::connect(admin).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, admin.to_string())
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await?;
            Ok::<_, Error>((parts.status, body.to_bytes()))
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end with the last byte of the answer.
            ended = &mut connection => { ended?; answer.await }
        }
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err("no answer in time".into()))
}

/// A page that must answer 200.
pub(crate) async fn page(admin: SocketAddr, path: &str) -> Result<Bytes, Error> {
    match call(admin, Method::GET, path).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(format!("{path} says {status}").into()),
    }
}

/// What Envoy still lacks, or nothing when it serves.
pub(crate) async fn missing(admin: SocketAddr) -> Result<(), String> {
    let body = page(admin, READINESS)
        .await
        .map_err(|error| format!("Envoy's admin interface does not answer: {error}"))?;
    verdict(&numbers(&body))
}

/// Open connections of all listeners, internal ones too.
pub(crate) async fn connections(admin: SocketAddr) -> Option<u64> {
    let body = page(admin, CONNECTIONS).await.ok()?;
    // Connections of Envoy to itself end with those that they carry.
    Some(numbers(&body).values().sum())
}

/// `name: value` lines.
fn numbers(body: &[u8]) -> BTreeMap<String, u64> {
    String::from_utf8_lossy(body)
        .lines()
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(':')?;
            Some((name.trim().to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// Source: spec/envoy-config.md §8.1 (readiness).
fn verdict(stats: &BTreeMap<String, u64>) -> Result<(), String> {
    let stat = |name: &str| stats.get(name).copied();
    let mut missing = Vec::new();
    for (name, what) in [
        ("cluster_manager.cds.update_success", "clusters"),
        ("listener_manager.lds.update_success", "listeners"),
    ] {
        if stat(name).unwrap_or_default() == 0 {
            missing.push(format!("the control plane has sent no {what} yet"));
        }
    }
    match stat("server.state") {
        Some(LIVE) => {}
        Some(1) => missing.push("Envoy is draining".to_owned()),
        Some(_) => missing.push("Envoy is initializing".to_owned()),
        None => missing.push("Envoy does not say its state".to_owned()),
    }
    if stat("listener_manager.workers_started") != Some(1) {
        missing.push("Envoy's workers have not started".to_owned());
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing() {
        let all = "server.state: 0\nlistener_manager.workers_started: 1\n\
            cluster_manager.cds.update_success: 3\nlistener_manager.lds.update_success: 1\n";
        let cases = [
            (all.to_owned(), Ok(())),
            (
                all.replace("lds.update_success: 1", "lds.update_success: 0"),
                Err("the control plane has sent no listeners yet"),
            ),
            (
                all.replace("state: 0", "state: 2")
                    .replace("cds.update_success: 3", "x: 0"),
                Err("the control plane has sent no clusters yet; Envoy is initializing"),
            ),
            (
                all.replace("state: 0", "state: 1"),
                Err("Envoy is draining"),
            ),
            (
                String::new(),
                Err(
                    "the control plane has sent no clusters yet; the control plane has sent no \
                     listeners yet; Envoy does not say its state; Envoy's workers have not started",
                ),
            ),
        ];
        for (text, expected) in cases {
            let verdict = verdict(&numbers(text.as_bytes()));
            assert_eq!(verdict, expected.map_err(str::to_owned), "{text}");
        }
    }
}
