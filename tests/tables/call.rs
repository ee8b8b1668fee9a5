//! Requests of a case, as its caller makes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde_json::Value;
use testkit::echo::{DIRECTIVES, REQUEST_KEY};
use testkit::http_client::{HttpResponse, send_http1, send_http2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::case::{Call, Case};
use super::world::World;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(20);

/// What became of a request.
pub(crate) enum Outcome {
    Answered(Answer),
    Closed(String),
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// What the workload says that it saw.
    pub(crate) saw: Value,
    pub(crate) grpc: Option<u32>,
    pub(crate) seconds: f64,
}

impl Answer {
    fn of(response: HttpResponse, trailers: &HeaderMap, seconds: f64) -> Self {
        let number = |from: &HeaderMap| {
            let value = from.get("grpc-status")?;
            value.to_str().ok()?.parse().ok()
        };
        let from_app = response.headers.contains_key("x-from-app");
        let message = match response.headers.get("content-type") {
            Some(kind) if kind == "application/grpc" => response.body.get(5..),
            _ => Some(&response.body[..]),
        };
        let saw = message.filter(|_| from_app);
        Self {
            status: response.status.as_u16(),
            grpc: number(&response.headers).or_else(|| number(trailers)),
            saw: saw
                .and_then(|saw| serde_json::from_slice(saw).ok())
                .unwrap_or_default(),
            body: response.text(),
            headers: response.headers,
            seconds,
        }
    }

    pub(crate) fn version(&self) -> Option<&str> {
        self.saw["version"].as_str()
    }

    /// It in short.
    pub(crate) fn shown(&self) -> String {
        format!("{} {:?} {:.600}", self.status, self.headers, self.body)
    }
}

impl World {
    /// One request; its key.
    pub(crate) async fn call(
        self: &Arc<Self>,
        case: &Case,
        call: &Call,
    ) -> anyhow::Result<(Outcome, String)> {
        let key = self.next_key();
        let exchange = async {
            if call.tcp {
                self.bytes(case, call).await
            } else {
                self.http(case, call, &key).await
            }
        };
        let outcome = tokio::time::timeout(LIMIT, Box::pin(exchange)).await;
        Ok((
            outcome.with_context(|| format!("nothing within {LIMIT:?}"))??,
            key,
        ))
    }

    fn authority(case: &Case, call: &Call) -> String {
        let ip = match &call.to {
            Some(shared) => super::world::shared_vip(shared),
            None => case.vip(),
        };
        format!("{ip}:{}", call.port.unwrap_or_else(|| case.port()))
    }

    async fn http(&self, case: &Case, call: &Call, key: &str) -> anyhow::Result<Outcome> {
        let token = call.token.as_ref().map(|claims| self.keys.sign(claims));
        let request = request(case, call, key, token.as_deref())?;
        let authority = Self::authority(case, call);
        let client = &self.clients[&call.caller];
        let stream = match client.connect(Self::waypoint(), &authority, None).await {
            Ok((stream, _)) => stream,
            Err(error) => return Ok(Outcome::Closed(error.to_string())),
        };
        let begin = Instant::now();
        let answer = if call.http2 || call.grpc.is_some() {
            send_http2(stream, request).await
        } else {
            let answer = send_http1(stream, request).await;
            answer.map(|response| (response, HeaderMap::new()))
        };
        let seconds = begin.elapsed().as_secs_f64();
        Ok(match answer {
            Ok((response, trailers)) => Outcome::Answered(Answer::of(response, &trailers, seconds)),
            Err(error) => Outcome::Closed(format!("{error:#}")),
        })
    }

    /// Says something that looks like no HTTP and listens to the end. Who got past the waypoint
    /// hears it again; that the workload says who it is does not count, for Envoy's policies
    /// judge a connection at the first byte of the client, when a workload may have spoken.
    async fn bytes(&self, case: &Case, call: &Call) -> anyhow::Result<Outcome> {
        const WORD: &[u8] = b"\x01hello there\n";
        let authority = Self::authority(case, call);
        let client = &self.clients[&call.caller];
        let mut stream = match client.connect(Self::waypoint(), &authority, None).await {
            Ok((stream, _)) => stream,
            Err(error) => return Ok(Outcome::Closed(error.to_string())),
        };
        let mut heard = Vec::new();
        let exchange = async {
            stream.write_all(WORD).await?;
            while !heard.ends_with(WORD) && stream.read_buf(&mut heard).await? > 0 {}
            // As a socket ends: whoever merely drops streams loses his tunnel.
            stream.shutdown().await?;
            stream.read_to_end(&mut heard).await
        };
        let ended = tokio::time::timeout(Duration::from_secs(8), exchange).await;
        let text = String::from_utf8_lossy(&heard).into_owned();
        let heard = text.split_once('\n');
        let Some((version, rest)) = heard.filter(|(_, rest)| rest.as_bytes() == WORD) else {
            return Ok(Outcome::Closed(format!("{ended:?} {text:?}")));
        };
        Ok(Outcome::Answered(Answer {
            status: 200,
            headers: HeaderMap::new(),
            body: rest.to_owned(),
            saw: serde_json::json!({ "version": version }),
            grpc: None,
            seconds: 0.0,
        }))
    }
}

fn request(
    case: &Case,
    call: &Call,
    key: &str,
    token: Option<&str>,
) -> anyhow::Result<Request<http_body_util::Full<Bytes>>> {
    let mut placed = false;
    let mut fill = |text: &str| {
        placed |= text.contains("$token");
        text.replace("$token", token.unwrap_or_default())
    };
    let path = fill(call.grpc.as_ref().unwrap_or(&call.path));
    let host = call.host.clone().unwrap_or_else(|| case.service());
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        let values = match value {
            Value::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        for value in values {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), ToOwned::to_owned);
            let name: HeaderName = name.parse()?;
            headers.append(name, fill(&value).parse::<HeaderValue>()?);
        }
    }
    if let Some(token) = token.filter(|_| !placed) {
        headers.insert("authorization", format!("Bearer {token}").parse()?);
    }
    headers.insert(REQUEST_KEY, key.parse()?);
    if let Some(echo) = &call.echo {
        headers.insert(DIRECTIVES, echo.parse()?);
    }
    let mut body = vec![b'x'; call.body];
    let mut method = call.method.as_str();
    let http2 = call.http2 || call.grpc.is_some();
    if call.grpc.is_some() {
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        (method, body) = ("POST", vec![0; 5]);
    }
    let uri = if http2 {
        format!("http://{host}{path}")
    } else {
        path
    };
    let mut request = Request::builder().method(method).uri(uri);
    if !http2 {
        request = request.header("host", host);
    }
    let mut request = request.body(http_body_util::Full::new(Bytes::from(body)))?;
    request.headers_mut().extend(headers);
    Ok(request)
}
