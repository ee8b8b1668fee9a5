//! What a pod sees when it calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::net::TcpStream;

use super::netns::Netns;
use crate::http_client;

/// How long a caller waits for a connection or an answer.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// What the sample workload says it saw; `Null` when somebody else answered.
    pub seen: Value,
}

/// What became of a call.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Somebody answered.
    Answered(Answer),
    /// The connection was refused, or closed without an answer.
    Reset(String),
}

// === impl Outcome ===

impl Outcome {
    /// The status, 0 without an answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Answered(answer) => answer.status,
            Self::Reset(_) => 0,
        }
    }

    /// A field of what the sample workload saw.
    pub fn seen(&self, field: &str) -> String {
        match self {
            Self::Answered(answer) => answer.seen[field].as_str().unwrap_or_default().to_owned(),
            Self::Reset(_) => String::new(),
        }
    }
}

// === impl Netns ===

impl Netns {
    /// Connects from inside the namespace.
    ///
    /// # Errors
    /// When the connection is refused or takes too long.
    #[allow(clippy::unused_async, reason = "callers need not know that it blocks")]
    pub async fn connect(&self, to: SocketAddr) -> anyhow::Result<TcpStream> {
        let stream = self.run(|| {
            let stream = std::net::TcpStream::connect_timeout(&to, CALL_LIMIT)?;
            stream.set_nonblocking(true).map(|()| stream)
        })??;
        Ok(TcpStream::from_std(stream)?)
    }

    /// One HTTP request from inside the namespace.
    pub async fn call(&self, to: SocketAddr, method: Method, host: &str, path: &str) -> Outcome {
        let exchange = async {
            let stream = self.connect(to).await?;
            let request = http_client::request(method, host, path)?;
            http_client::send_http1(stream, request).await
        };
        let outcome = tokio::time::timeout(CALL_LIMIT, exchange).await;
        match outcome
            .map_err(anyhow::Error::from)
            .and_then(|result| result)
        {
            Ok(response) => Outcome::Answered(Answer {
                status: response.status.as_u16(),
                seen: response.json().unwrap_or(Value::Null),
                headers: response.headers,
            }),
            Err(error) => Outcome::Reset(format!("{error:#}")),
        }
    }
}

/// Asks a name server over UDP for the IPv4 addresses of a name. A captured pod's question is
/// answered by its ztunnel whichever server it asks.
///
/// # Errors
/// Without an answer, or when it does not parse.
pub fn resolve_by_dns(netns: &Netns, server: IpAddr, name: &str) -> anyhow::Result<Vec<Ipv4Addr>> {
    let answer = netns.run(|| -> std::io::Result<Vec<u8>> {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
        socket.set_read_timeout(Some(CALL_LIMIT))?;
        socket.send_to(&question(name), (server, 53))?;
        let mut bytes = [0; 1500];
        let (length, _) = socket.recv_from(&mut bytes)?;
        Ok(bytes[..length].to_vec())
    })??;
    addresses(&answer).with_context(|| format!("the answer for {name}"))
}

/// A query with recursion desired, one question, type A, class IN.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn addresses(message: &[u8]) -> anyhow::Result<Vec<Ipv4Addr>> {
    ensure!(message.len() >= 12, "too short");
    match message[3] & 0xf {
        0 => {}
        3 => return Ok(Vec::new()),
        code => bail!("code {code}"),
    }
    let count = u16::from_be_bytes([message[6], message[7]]);
    // The question repeats our name, uncompressed; then type and class.
    let mut at = skip_name(message, 12)? + 4;
    let mut found = Vec::new();
    for _ in 0..count {
        at = skip_name(message, at)?;
        let head = message.get(at..at + 10).context("truncated")?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let data = message
            .get(at + 10..at + 10 + length)
            .context("truncated")?;
        if let (1, &[a, b, c, d]) = (u16::from_be_bytes([head[0], head[1]]), data) {
            found.push(Ipv4Addr::new(a, b, c, d));
        }
        at += 10 + length;
    }
    Ok(found)
}

fn skip_name(message: &[u8], mut at: usize) -> anyhow::Result<usize> {
    loop {
        match message.get(at).context("truncated")? {
            0 => return Ok(at + 1),
            length if *length >= 0xc0 => return Ok(at + 2),
            length => at += 1 + usize::from(*length),
        }
    }
}
