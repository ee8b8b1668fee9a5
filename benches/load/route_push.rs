//! `route-push`: 3,000 `HTTPRoutes` behind 100 waypoints; one route is edited at a time, and its
//! waypoint acknowledges. Then the same through the Envoy of one waypoint: until the first answer
//! that has the new route.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::Method;
use model::Kind;
use serde_json::{Value, json};
use testkit::ads::waypoint_node;
use testkit::daemon::{BootstrapRequest, Daemon};
use testkit::envoy::Envoy;
use testkit::hbone::{HBONE_PORT, HboneClient};
use testkit::http_client::{self, send_http1};
use testkit::load::envoy::{Plan, Waypoint};
use testkit::load::process;
use testkit::load::table::{Measure, Table};
use testkit::load::world::{Spec, World};
use testkit::wait;
use tokio::sync::mpsc;

use super::Options;

const WAYPOINTS: usize = 100;
const SERVICES_PER_WAYPOINT: usize = 10;
const ROUTES: usize = 3_000;
const EDITS: usize = 200;
/// Further apart than changes are collected for: each edit is the first one after quiet.
const APART: Duration = Duration::from_millis(60);
const SOON: Duration = Duration::from_secs(30);
const ENVOY_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 71, 0, 1));
/// How often Envoy is asked while an edit is awaited.
const ASKED_EVERY: Duration = Duration::from_millis(1);

/// Acknowledged: by which waypoint, and when.
type Acked = (usize, Instant);

fn spec(options: &Options) -> Spec {
    let services = WAYPOINTS * SERVICES_PER_WAYPOINT;
    Spec {
        waypoints: WAYPOINTS,
        bound_every: 1,
        routes: ROUTES,
        services,
        policies: 0,
        ..Spec::of_pods(options.pods.unwrap_or(services * 10))
    }
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    for _ in 0..options.runs {
        let scratch = tempfile::tempdir()?;
        let mut files = Files::write(scratch.path(), World::generate(spec(options)))?;
        let daemon = Daemon::start(&files.config, &scratch.path().join("state")).await?;
        acknowledged(options, &daemon, &mut files, table).await?;
        answered(options, &daemon, &mut files, table).await?;
    }
    Ok(())
}

fn edits(options: &Options) -> usize {
    if options.quick { EDITS / 10 } else { EDITS }
}

/// The world as a directory: a file for each route, as teams keep them.
struct Files {
    world: World,
    config: PathBuf,
    draft: PathBuf,
}

impl Files {
    fn write(scratch: &Path, world: World) -> anyhow::Result<Self> {
        let files = Self {
            config: scratch.join("config"),
            draft: scratch.join("draft.json"),
            world,
        };
        let without = Spec {
            routes: 0,
            ..files.world.spec().clone()
        };
        World::generate(without).write_dir(&files.config)?;
        fs::create_dir(files.config.join("routes"))?;
        for route in 0..files.world.spec().routes {
            let value = files.world.object(Kind::HttpRoute, route);
            fs::write(files.route(route), value.to_string())?;
        }
        Ok(files)
    }

    fn route(&self, route: usize) -> PathBuf {
        self.config.join(format!("routes/route-{route}.json"))
    }

    /// Replaces a route's file in one step. Returns when that was.
    fn replace(&self, route: usize, value: &Value) -> anyhow::Result<Instant> {
        fs::write(&self.draft, value.to_string())?;
        let at = Instant::now();
        fs::rename(&self.draft, self.route(route))?;
        Ok(at)
    }

    fn edit(&mut self, route: usize) -> anyhow::Result<Instant> {
        let edited = self.world.edit_route(route);
        self.replace(route, &edited[0])
    }

    fn waypoint_of(&self, route: usize) -> usize {
        let service = self.world.service_of_route(route);
        self.world
            .waypoint_of_service(service)
            .expect("every service is bound")
    }
}

// --- until it is acknowledged ---

async fn acknowledged(
    options: &Options,
    daemon: &Daemon,
    files: &mut Files,
    table: &mut Table,
) -> anyhow::Result<()> {
    let server = daemon.id().context("the control plane has ended")?;
    let (sender, mut acks) = mpsc::unbounded_channel();
    let messages = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for waypoint in 0..WAYPOINTS {
        let (ns, name) = files.world.waypoint_name(waypoint);
        let node = waypoint_node(&ns, &name, "10.128.0.1");
        let target = daemon.xds_as(&ns, &name)?;
        let mut client = Waypoint::connect(&target, node, Plan::default()).await?;
        client.settle(SOON).await.with_context(|| name)?;
        let (sender, messages) = (sender.clone(), Arc::clone(&messages));
        clients.push(tokio::spawn(async move {
            while client.next().await.is_ok() {
                messages.fetch_add(1, Ordering::Relaxed);
                let _ = sender.send((waypoint, Instant::now()));
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    while acks.try_recv().is_ok() {}
    messages.store(0, Ordering::Relaxed);
    let (busy, edits) = (process::cpu_seconds(server)?, edits(options));
    let mut taken = Vec::with_capacity(edits);
    for edit in 0..edits {
        tokio::time::sleep(APART).await;
        let route = edit * 37 % ROUTES;
        let began = files.edit(route)?;
        let (waypoint, at) = next(&mut acks).await?;
        ensure!(
            waypoint == files.waypoint_of(route),
            "another waypoint heard of it"
        );
        taken.push(at - began);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = process::cpu_seconds(server)? - busy;
    let heard = messages.load(Ordering::Relaxed) - edits as u64;
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    add(table, "edit to ACK (goal: p99 at most 10 ms)", &mut taken);
    table.add(
        "server CPU for each edit",
        Measure::Millis(busy * 1e3 / edits as f64),
    );
    table.add(
        "messages besides the one of the waypoint concerned (goal: 0)",
        Measure::Count(heard as f64),
    );
    Ok(())
}

async fn next(acks: &mut mpsc::UnboundedReceiver<Acked>) -> anyhow::Result<Acked> {
    let next = tokio::time::timeout(SOON, acks.recv()).await;
    next.context("nobody heard of an edit")?
        .context("no client is left")
}

/// Median, the 99th of 100, and the longest.
fn add(table: &mut Table, what: &str, taken: &mut [Duration]) {
    taken.sort_unstable();
    let at = |percent: usize| taken[(taken.len() * percent / 100).min(taken.len() - 1)];
    for (label, time) in [("p50", at(50)), ("p99", at(99)), ("max", at(100))] {
        table.add(
            format!("{what}: {label}"),
            Measure::Millis(time.as_secs_f64() * 1e3),
        );
    }
}

// --- until Envoy answers ---

/// A redirect answers without anybody behind the waypoint, and says which revision it is.
fn redirecting(files: &Files, route: usize, revision: usize) -> Value {
    let mut value = files.world.object(Kind::HttpRoute, route);
    let to = format!("revision-{revision}.example.com");
    let filter =
        json!({"type": "RequestRedirect", "requestRedirect": {"hostname": to, "statusCode": 302}});
    value["metadata"]["generation"] = json!(revision + 1_000);
    value["spec"]["rules"] = json!([{
        "matches": [{"path": {"type": "PathPrefix", "value": format!("/route-{route}")}}],
        "filters": [filter],
    }]);
    value
}

async fn answered(
    options: &Options,
    daemon: &Daemon,
    files: &mut Files,
    table: &mut Table,
) -> anyhow::Result<()> {
    let route = 0;
    let service = files.world.service_of_route(route);
    let (ns, name) = files.world.waypoint_name(files.waypoint_of(route));
    files.replace(route, &redirecting(files, route, 0))?;
    let vip = files.world.object(Kind::Service, service)["spec"]["clusterIP"].clone();
    let vip = format!(
        "{}:80",
        vip.as_str().context("a service without an address")?
    );

    let scratch = tempfile::tempdir()?;
    let bootstrap = scratch.path().join("envoy.yaml");
    let request = BootstrapRequest {
        kind: "waypoint",
        ns: ns.clone(),
        name: name.clone(),
        ip: ENVOY_IP.to_string(),
        admin_port: 0,
        sotw: false,
    };
    daemon.bootstrap(&request, &bootstrap)?;
    let mut envoy = Envoy::start(&bootstrap).await?;
    envoy
        .wait_ready(SOON)
        .await
        .with_context(|| daemon.log_tail())?;
    let client = HboneClient::new(Arc::new(daemon.identity(&ns, "client")?), None)?;
    let own = files
        .world
        .namespace_name(files.world.namespace_of_service(service));
    let asker = Asker {
        client,
        vip,
        host: format!("service-{service}.{own}.svc.cluster.local"),
        path: format!("/route-{route}"),
    };
    wait::until("the first redirect", SOON, || asker.sees("revision-0.")).await?;

    let mut taken = Vec::new();
    for revision in 1..=edits(options) {
        tokio::time::sleep(APART).await;
        let began = files.replace(route, &redirecting(files, route, revision))?;
        let want = format!("revision-{revision}.");
        while asker.sees(&want).await.is_err() {
            ensure!(began.elapsed() < SOON, "Envoy never answered with {want}");
            tokio::time::sleep(ASKED_EVERY).await;
        }
        taken.push(began.elapsed());
    }
    envoy.assert_no_nacks().await?;
    add(
        table,
        "edit to Envoy's first new answer (goal: p99 at most 30 ms)",
        &mut taken,
    );
    Ok(())
}

struct Asker {
    client: HboneClient,
    vip: String,
    host: String,
    path: String,
}

impl Asker {
    /// Asks once, through a stream of its own.
    async fn sees(&self, want: &str) -> anyhow::Result<()> {
        let server = SocketAddr::new(ENVOY_IP, HBONE_PORT);
        let stream = self.client.connect(server, &self.vip, None).await;
        let (stream, _) = stream.map_err(|error| anyhow::anyhow!("{error}"))?;
        let request = http_client::request(Method::GET, &self.host, &self.path)?;
        let answer = send_http1(stream, request).await?;
        let location = answer
            .headers
            .get("location")
            .and_then(|it| it.to_str().ok());
        let seen = location.is_some_and(|to| to.contains(want));
        ensure!(seen, "{} {location:?}", answer.status);
        Ok(())
    }
}
