//! Requests as a pod makes them, and what became of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Full;
use proto::workload::TunnelProtocol;
use rustls::pki_types::ServerName;
use serde_json::Value;
use testkit::echo::REQUEST_KEY;
use testkit::hbone::{HBONE_PORT, HboneError};
use testkit::http_client::{HttpResponse, send_http1, send_http2};
use testkit::ztunnel::{MeshState, Route, route};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::claim::Row;
use super::world::{Pod, Scene};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(25);
/// So many requests allow of a smaller tolerance.
const MANY: usize = 1000;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `namespace/name` of the waypoint on the way.
    via: Option<String>,
    got: Got,
    seconds: f64,
    /// Pods that were asked, in order.
    asked: Vec<String>,
}

#[derive(Debug)]
#[allow(dead_code, reason = "why is told by a claim that does not hold")]
enum Got {
    Answer(Answer),
    /// A node proxy refused.
    Reset(String),
    /// It did not work.
    Broken(String),
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
    grpc: Option<u32>,
    /// Name of the pod that answered.
    from: Option<String>,
}

impl Answer {
    fn of(response: HttpResponse, trailers: &HeaderMap) -> Self {
        let number = |from: &HeaderMap| from.get("grpc-status")?.to_str().ok()?.parse().ok();
        let grpc = number(&response.headers).or_else(|| number(trailers));
        let from_app = response.headers.contains_key("x-from-app");
        let is_grpc = response
            .headers
            .get("content-type")
            .is_some_and(|is| is == "application/grpc");
        let message = if is_grpc {
            response.body.get(5..)
        } else {
            Some(&response.body[..])
        };
        let saw: Option<Value> = message
            .filter(|_| from_app)
            .and_then(|message| serde_json::from_slice(message).ok());
        let from = saw
            .as_ref()
            .and_then(|saw| saw["version"].as_str())
            .map(str::to_owned);
        let (status, body) = (response.status.as_u16(), response.text());
        Self {
            status,
            headers: response.headers,
            body,
            grpc,
            from,
        }
    }
}

/// A URL as tables have it.
struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    fn of(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .with_context(|| format!("{text} is no URL"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let tls = scheme == "https";
        let default = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse()?),
            None => (authority, default),
        };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: format!("/{path}"),
        })
    }

    /// The Host header, given the address that is called.
    fn authority(&self, to: SocketAddr) -> String {
        match (self.tls, self.port) {
            _ if self.host.starts_with('{') => to.to_string(),
            (false, 80) | (true, 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

impl Scene {
    fn pod(&self, name: &str) -> anyhow::Result<&Pod> {
        let is = |pod: &&Pod| pod.name == name || format!("{}/{}", pod.ns, pod.name) == name;
        let mut found = self.pods.iter().filter(is);
        let pod = found.next().with_context(|| format!("no pod {name}"))?;
        ensure!(found.next().is_none(), "several pods are called {name}");
        Ok(pod)
    }

    /// One request.
    pub(crate) async fn call(
        &self,
        row: &Row,
        ask: &str,
        token: Option<&str>,
    ) -> anyhow::Result<Outcome> {
        let caller = self.pod(&row.caller)?;
        let (method, url) = ask.split_once(' ').context("METHOD URL")?;
        let url = Url::of(url)?;
        let to = SocketAddr::new(self.resolve(caller, &url.host)?, url.port);
        let key = self.next_key();
        let token = token.map(|name| self.token(name)).transpose()?;
        let request = request(row, method, &url, to, &key, token)?;
        let begin = Instant::now();
        let (via, stream) = Box::pin(self.open(caller, to)).await?;
        let exchange = async {
            let stream = match stream {
                Ok(stream) => stream,
                Err(got) => return got,
            };
            let broken = |error: anyhow::Error| Got::Broken(format!("{error:#}"));
            let stream = match self.wrap(stream, &url).await {
                Ok(stream) => stream,
                Err(error) => return broken(error),
            };
            let answer = if method == "GRPC" {
                send_http2(stream, request).await
            } else {
                let answer = send_http1(stream, request).await;
                answer.map(|answer| (answer, HeaderMap::new()))
            };
            match answer {
                Ok((response, trailers)) => Got::Answer(Answer::of(response, &trailers)),
                Err(error) => broken(error),
            }
        };
        let got = tokio::time::timeout(LIMIT, Box::pin(exchange)).await;
        Ok(Outcome {
            via,
            got: got.with_context(|| format!("nothing within {LIMIT:?}"))?,
            seconds: begin.elapsed().as_secs_f64(),
            asked: self.log.of(&key),
        })
    }

    fn token<'t>(&'t self, name: &'t str) -> anyhow::Result<&'t str> {
        match name.strip_prefix("text:") {
            Some(text) => Ok(text),
            None => Ok(self
                .tokens
                .get(name)
                .with_context(|| format!("no token {name}"))?),
        }
    }

    /// The address that a name has for a pod.
    fn resolve(&self, caller: &Pod, host: &str) -> anyhow::Result<IpAddr> {
        if let Some(pod) = host.strip_prefix('{') {
            return Ok(self.pod(pod.trim_end_matches('}'))?.ip);
        }
        let state = self.ztunnel.state();
        let is_headless = |name: &str| {
            let host = format!("{name}.{}.svc.cluster.local", caller.ns);
            let found = state.services.values().find(|one| one.hostname == host);
            found.is_some_and(|service| service.addresses.is_empty())
        };
        if let Some((pod, service)) = host.split_once('.')
            && is_headless(service)
        {
            return Ok(self.pod(pod)?.ip);
        }
        let names = [
            host.to_owned(),
            format!("{host}.{}.svc.cluster.local", caller.ns),
            format!("{host}.svc.cluster.local"),
        ];
        let service = state
            .services
            .values()
            .find(|one| names.contains(&one.hostname));
        let Some(service) = service else {
            ensure!(host.ends_with(".example.com"), "nobody is {host}");
            return Ok(self.outside);
        };
        let address = service.addresses.first().context("no address")?;
        let bytes = <[u8; 4]>::try_from(&address.address[..])?;
        Ok(IpAddr::from(bytes))
    }

    /// A connection of a pod, the way that its node takes it.
    async fn open(
        &self,
        caller: &Pod,
        to: SocketAddr,
    ) -> anyhow::Result<(Option<String>, Result<Box<dyn Io>, Got>)> {
        let state = self.ztunnel.state();
        let captured = state
            .workload_by_ip(caller.ip)
            .is_some_and(|workload| workload.tunnel_protocol == TunnelProtocol::Hbone as i32);
        let choice = self.ztunnel.next_choice();
        let decided = if captured {
            route(&state, to, choice)
        } else {
            plain_route(&state, to, choice)
        };
        let (hop, is_waypoint) = match decided {
            Err(error) => return Ok((None, Err(Got::Reset(error.to_string())))),
            Ok(Route::Plain(to) | Route::Passthrough(to)) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(caller.ip, 0))?;
                return Ok((
                    None,
                    match socket.connect(to).await {
                        Ok(stream) => Ok(Box::new(stream)),
                        Err(error) => Err(Got::Broken(format!("{to}: {error}"))),
                    },
                ));
            }
            Ok(Route::Waypoint(hop)) => (hop, true),
            Ok(Route::Workload(hop)) => (hop, false),
        };
        ensure!(hop.server.port() == HBONE_PORT, "{hop:?}");
        let via = is_waypoint.then(|| format!("{}/{}", hop.expected.ns, hop.name));
        let authority = hop.authority.to_string();
        let connected = caller
            .client
            .connect(hop.server, &authority, Some(&hop.expected));
        Ok((
            via,
            match Box::pin(connected).await {
                Ok((stream, _)) => Ok(Box::new(stream)),
                Err(HboneError::Refused(status)) => Err(Got::Reset(format!("CONNECT: {status}"))),
                Err(other) => bail!("{other}"),
            },
        ))
    }

    /// TLS of the application, where the URL wants it.
    async fn wrap(&self, stream: Box<dyn Io>, url: &Url) -> anyhow::Result<Box<dyn Io>> {
        if !url.tls {
            return Ok(stream);
        }
        let name = ServerName::try_from(url.host.clone())?;
        let connector = TlsConnector::from(self.certificate.client());
        let tls = Box::pin(connector.connect(name, stream)).await;
        Ok(Box::new(tls.context("the handshake of the application")?))
    }
}

/// Where a node without a proxy for the pod leads to: straight to one of the pods.
fn plain_route(
    state: &Arc<MeshState>,
    to: SocketAddr,
    choice: usize,
) -> Result<Route, testkit::ztunnel::RouteError> {
    let mut state = MeshState::clone(state);
    for service in state.services.values_mut() {
        service.waypoint = None;
        service.weighted_waypoints.clear();
    }
    for workload in state.workloads.values_mut() {
        workload.waypoint = None;
    }
    Ok(match route(&state, to, choice)? {
        Route::Workload(hop) => Route::Plain(hop.authority),
        other => other,
    })
}

fn request(
    row: &Row,
    method: &str,
    url: &Url,
    to: SocketAddr,
    key: &str,
    token: Option<&str>,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let grpc = method == "GRPC";
    let path = &url.path;
    let host = url.authority(to);
    let uri = if grpc {
        format!("http://{host}{path}")
    } else {
        path.clone()
    };
    let body = if grpc { vec![0; 5] } else { Vec::new() };
    let mut request = Request::builder()
        .method(if grpc { "POST" } else { method })
        .uri(uri)
        .body(Full::new(Bytes::from(body)))?;
    let headers = request.headers_mut();
    if grpc {
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
    } else {
        headers.insert("host", host.parse()?);
    }
    headers.insert(REQUEST_KEY, key.parse()?);
    if let Some(token) = token {
        headers.insert("authorization", format!("Bearer {token}").parse()?);
    }
    for (name, value) in &row.headers {
        headers.insert(name.parse::<HeaderName>()?, value.parse()?);
    }
    Ok(request)
}

impl Outcome {
    /// Whether it is as the row says.
    pub(crate) fn check(&self, row: &Row) -> anyhow::Result<()> {
        if let Some(want) = row.via.as_deref() {
            let via = self.via.as_deref();
            let is = match via {
                None => want == "none",
                Some(via) => {
                    via == want || via.split_once('/').is_some_and(|(_, name)| name == want)
                }
            };
            ensure!(is, "via {via:?}, want {want}");
        }
        let (least, most) = (row.min_seconds, row.max_seconds);
        ensure!(least.is_none_or(|least| self.seconds >= least), "too early");
        ensure!(most.is_none_or(|most| self.seconds <= most), "too late");
        if let Some(want) = row.asked {
            ensure!(
                self.asked.len() == want,
                "pods were asked {} times",
                self.asked.len()
            );
        }
        let answer = match (&self.got, row.reset, row.fails) {
            (Got::Reset(_), true, _) | (Got::Broken(_), _, true) => return Ok(()),
            (Got::Answer(answer), false, false) => answer,
            _ => bail!("not what was expected"),
        };
        if row.shares.is_empty() {
            let want = row.status.unwrap_or(200);
            ensure!(
                answer.status == want,
                "status {}, want {want}",
                answer.status
            );
        }
        if let Some(want) = row.grpc_status {
            ensure!(
                answer.grpc == Some(want),
                "gRPC status {:?}, want {want}",
                answer.grpc
            );
        }
        if let Some(want) = &row.from {
            let from = answer.from.as_ref();
            ensure!(
                from.is_some_and(|from| want.all().contains(from)),
                "from {from:?}"
            );
        }
        if let Some(want) = &row.body {
            ensure!(answer.body.contains(want), "body {:?}", answer.body);
        }
        let unwanted = row
            .without
            .iter()
            .find(|name| answer.headers.contains_key(*name));
        ensure!(unwanted.is_none(), "header {unwanted:?}");
        Ok(())
    }

    /// The pod that answered with 200, where the row tells pods apart, or what else came.
    fn kind(&self, row: &Row) -> String {
        match &self.got {
            Got::Answer(Answer { status: 200, .. }) if row.shares.contains_key("200") => {
                "200".to_owned()
            }
            Got::Answer(Answer {
                status: 200,
                from: Some(from),
                ..
            }) => from.clone(),
            Got::Answer(answer) => answer.status.to_string(),
            Got::Reset(_) => "reset".to_owned(),
            Got::Broken(_) => "broken".to_owned(),
        }
    }
}

/// Of all requests of a row together.
pub(crate) fn check_all(row: &Row, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let all = outcomes.len() as f64;
    let points = if outcomes.len() >= MANY { 5.0 } else { 10.0 };
    let mut counts = BTreeMap::<String, usize>::new();
    for outcome in outcomes {
        *counts.entry(outcome.kind(row)).or_default() += 1;
    }
    if !row.shares.is_empty() {
        let other = counts.keys().find(|kind| !row.shares.contains_key(*kind));
        ensure!(other.is_none(), "others too: {counts:?}");
    }
    for (kind, want) in &row.shares {
        let got = counts.get(kind).copied().unwrap_or_default() as f64 / all * 100.0;
        ensure!(
            (got - want).abs() <= points,
            "{kind} has {got} %, want {want}: {counts:?}"
        );
    }
    if let Some((seconds, want)) = row.slow {
        let slow = outcomes
            .iter()
            .filter(|outcome| outcome.seconds >= seconds)
            .count();
        let got = slow as f64 / all * 100.0;
        ensure!(
            (got - want).abs() <= points,
            "{got} % took {seconds} s, want {want}"
        );
    }
    Ok(())
}
