//! What a real Envoy as an ingress gateway answers in the rows of spec/gateway-api.md §9 that
//! are about traffic. Hosts and ports of `e2e_gateway_answers/world.yaml` are numbered by row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;
#[path = "common/door.rs"]
mod door;

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::ensure;
use common::SOON;
use door::Door;
use http::{HeaderMap, Request};
use http_body_util::Full;
use testkit::echo::{Echo, EchoLog};
use testkit::http_client::{HttpResponse, send_http2};
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const WORLD: &str = include_str!("e2e_gateway_answers/world.yaml");
const GATEWAY: &str = "127.61.1.30";
/// Versions of the workload by the last byte of their address.
const WORKLOADS: [(&str, u8); 3] = [("v1", 21), ("v2", 22), ("v3", 23)];
/// Requests where shares are counted.
const MANY: usize = 120;

/// Row, port, host, path, and what is answered: a status, `v1` for that workload's answer, or
/// `-> host` for a redirect there.
const ROWS: [(u32, u16, &str, &str, &str); 37] = [
    // The backend is missing: 500. One without endpoints is none of that.
    (56, 80, "h56.test", "/gone", "500"),
    (56, 80, "h56.test", "/gone/more", "500"),
    (56, 80, "h56.test", "/idle", "503"),
    (56, 80, "h56.test", "/", "v1"),
    // No port: all rules are gone.
    (58, 80, "h58.test", "/bad", "404"),
    (58, 80, "h58.test", "/", "404"),
    // One filter that is not supported costs all three rules.
    (59, 80, "h59.test", "/one", "404"),
    (59, 80, "h59.test", "/two", "404"),
    (59, 80, "h59.test", "/three", "404"),
    (60, 80, "h60.test", "/bad", "404"),
    (60, 80, "h60.test", "/", "404"),
    (61, 80, "h61.test", "/headers", "500"),
    (61, 80, "h61.test", "/nothing", "500"),
    (61, 80, "h61.test", "/away", "-> away.test"),
    (61, 80, "h61.test", "/else", "404"),
    (62, 80, "h62.test", "/", "500"),
    (63, 80, "h63.test", "/", "v1"),
    // Hosts of others, for comparison.
    (64, 80, "elsewhere.test", "/", "404"),
    (65, 80, "age.h65.test", "/", "-> older.test"),
    (65, 80, "namespace.h65.test", "/", "-> far-z.test"),
    (65, 80, "name.h65.test", "/", "-> shop-a.test"),
    // The most specific listener alone, also for what its routes do not match.
    (66, 81, "bar.com", "/bar", "v1"),
    (66, 81, "bar.com:81", "/bar", "v1"),
    (66, 81, "BAR.com", "/bar", "v1"),
    (66, 81, "bar.com", "/", "404"),
    (66, 81, "foo.com", "/bar", "v2"),
    (66, 81, "a.bar.com", "/", "v2"),
    (66, 81, "bar.org", "/bar", "404"),
    // And where it has no route.
    (66, 83, "bar.com", "/", "404"),
    (66, 83, "foo.com", "/", "v2"),
    // The intersection of what the route and its listeners are for.
    (68, 82, "x.a.test", "/", "v1"),
    (68, 82, "b.test", "/", "v1"),
    (68, 82, "y.a.test", "/", "404"),
    (68, 82, "x.b.test", "/", "404"),
    (68, 82, "c.test", "/", "404"),
    (68, 82, "a.test", "/", "404"),
    (68, 82, "x.x.a.test", "/", "404"),
];

/// An answer in the words of [`ROWS`].
fn shown(answer: &HttpResponse) -> String {
    if let Some(to) = answer.headers.get("location") {
        let to = to.to_str().unwrap_or_default();
        let host = to.trim_start_matches("http://").split(['/', ':']).next();
        return format!("-> {}", host.unwrap_or_default());
    }
    let version = answer.json().ok();
    let version = version.and_then(|body| Some(body["version"].as_str()?.to_owned()));
    version.unwrap_or_else(|| answer.status.as_u16().to_string())
}

/// A gRPC call: which workload answered, or the status.
async fn call(stream: TcpStream, host: &str, path: &str) -> anyhow::Result<String> {
    let request = Request::post(format!("http://{host}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::default())?;
    let (answer, trailers) = send_http2(stream, request).await?;
    let status = |from: &HeaderMap| {
        let value = from.get("grpc-status")?;
        Some(value.to_str().ok()?.to_owned())
    };
    let message = answer.body.get(5..).unwrap_or_default();
    let body: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
    if let Some(version) = body["version"].as_str() {
        return Ok(version.to_owned());
    }
    let status = status(&answer.headers).or_else(|| status(&trailers));
    Ok(format!("grpc {}", status.unwrap_or_default()))
}

struct World {
    door: Door,
    _workloads: Vec<Echo>,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let mut workloads = Vec::new();
        let log = EchoLog::default();
        for (version, last) in WORKLOADS {
            let ip = IpAddr::from([127, 61, 1, last]);
            let echo = Echo::start((ip, 8080).into(), (ip, 9090).into(), version, &log);
            workloads.push(echo.await?);
        }
        let files = [("world.yaml", WORLD.to_owned())];
        let door = Box::pin(Door::start(GATEWAY, &files)).await?;
        for (port, host, path) in [
            (80, "good.test", "/"),
            (81, "foo.com", "/"),
            (82, "b.test", "/"),
            (83, "foo.com", "/"),
        ] {
            wait::until("a route of the port", SOON, || async {
                let answer = door.get(port, host, path).await?;
                ensure!(answer.status == 200, "{port}: {}", answer.status);
                Ok(())
            })
            .await?;
        }
        Ok(Self {
            door,
            _workloads: workloads,
        })
    }

    async fn rows(&self) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        for (row, port, host, path, expected) in ROWS {
            let found = shown(&self.door.get(port, host, path).await?);
            if found != expected {
                wrong.push(format!(
                    "{row}: {host}:{port}{path} {found}, not {expected}"
                ));
            }
        }
        for (row, host, path, expected) in [
            // 12: unimplemented, as 404 is for calls.
            (63, "grpc.h63.test", "/shop.Till/Ring", "grpc 12"),
            (64, "h64.test", "/shop.Till/Ring", "v2"),
            (64, "h64.test", "/shop.Till/Other", "v1"),
            (64, "h64.test", "/shop.Tills/Other", "v2"),
        ] {
            let found = call(self.door.connect(80).await?, host, path).await?;
            if found != expected {
                wrong.push(format!("{row}: {host}{path} {found}, not {expected}"));
            }
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    }

    /// 57: the share of a backend without grant is refused, the other one is served.
    async fn shares(&self) -> anyhow::Result<()> {
        let mut counts = BTreeMap::<String, usize>::new();
        for _ in 0..MANY {
            let found = shown(&self.door.get(80, "h57.test", "/").await?);
            *counts.entry(found).or_default() += 1;
        }
        let of = |what: &str| counts.get(what).copied().unwrap_or_default();
        ensure!(of("v1") + of("500") == MANY, "{counts:?}");
        ensure!(of("v1").abs_diff(of("500")) < MANY / 2, "{counts:?}");
        Ok(())
    }

    /// 62: connections are taken and closed.
    async fn closes(&self) -> anyhow::Result<()> {
        let mut stream = self.door.connect(9062).await?;
        // Whether the word or the end is first is a matter of time.
        let _ = stream.write_all(b"hello").await;
        let mut heard = Vec::new();
        let end = tokio::time::timeout(SOON, stream.read_to_end(&mut heard)).await;
        ensure!(end.is_ok() && heard.is_empty(), "{end:?} {heard:?}");
        Ok(())
    }
}

#[test]
fn an_ingress_gateway_answers_as_the_edge_cases_say() {
    common::runtime().block_on(Box::pin(async {
        let world = Box::pin(World::start()).await.unwrap();
        let outcome = async {
            world.rows().await?;
            world.shares().await?;
            world.closes().await
        };
        let outcome = Box::pin(outcome).await;
        world.door.conclude(outcome).await;
    }));
}
