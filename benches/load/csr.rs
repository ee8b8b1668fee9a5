//! `csr`: certificates for each second of a processor, asked for as ztunnel does over gRPC and
//! TLS, against the same work as a function call: reading the request and signing.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ambientd::identity::{ServingNames, SnapshotNodes, serving};
use anyhow::Context as _;
use authn::{Authenticator, AuthenticatorConfig, DevIssuer, PodRef, TokenRequest};
use ca::{CertificateService, Csr, DevCa};
use model::{ObjectKey, PodFact, SpiffeId, Str};
use prometheus::Registry;
use proto::auth::IstioCertificateRequest;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::{Struct, Value, value};
use snapshot::Snapshot;
use testkit::ads::XdsTarget;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::Options;
use super::child::Child;
use testkit::load::process;
use testkit::load::table::{Measure, Table};

/// The role of the server.
pub(crate) const SERVER: &str = "csr-server";

const NODES: usize = 32;
/// Requests under way on one connection: a ztunnel has several identities to renew.
const DEPTH: usize = 4;
/// Keys are made beforehand: making them is the client's work.
const REQUESTS: usize = 64;
const NS: &str = "team-0";
const SYSTEM: &str = "istio-system";
/// What clients wait that were told to come later.
const SHED_PAUSE: Duration = Duration::from_millis(20);
const WARM_UP: Duration = Duration::from_secs(1);

fn pod_name(node: usize) -> String {
    format!("ztunnel-{node}")
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for _ in 0..options.runs {
        let seconds = Duration::from_secs(options.seconds.unwrap_or(5));
        let mut server = Child::start(&[SERVER, &dir.path().display().to_string()])?;
        let addr: SocketAddr = server.line()?.parse().context("the server's address")?;
        let (served, busy) = load(dir.path(), addr, server.id(), seconds).await?;
        drop(server);
        let state = dir.path().to_owned();
        let bare = tokio::task::spawn_blocking(move || bare(&state, seconds)).await??;
        let per_core = served as f64 / busy;
        table.add(
            "served, certificates per core and second",
            Measure::Count(per_core),
        );
        table.add("read and signed by a function", Measure::Count(bare.issued));
        table.add("of that, signed alone", Measure::Count(bare.signed));
        table.add(
            "served against the function (goal: at least 0.5)",
            Measure::Ratio(per_core / bare.issued),
        );
        table.add(
            "served per second, wall",
            Measure::Count(served as f64 / seconds.as_secs_f64()),
        );
    }
    Ok(())
}

// --- the server ---

/// Serves certificates over TLS until standard input ends, as `ambientd serve` does, but without
/// limits of rates.
pub(crate) fn server(args: &[String]) -> anyhow::Result<()> {
    let [dir] = args else {
        anyhow::bail!("{SERVER} is started by a scenario");
    };
    tokio::runtime::Runtime::new()?.block_on(serve(PathBuf::from(dir)))
}

async fn serve(dir: PathBuf) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let ca = DevCa::load_or_create(&dir, "cluster.local", now)?;
    let mut snapshot = Snapshot::default();
    for node in 0..NODES {
        let facts = [
            (SYSTEM, pod_name(node), "ztunnel"),
            (NS, format!("web-{node}"), "web"),
        ];
        for (ns, name, account) in facts {
            let fact = PodFact {
                uid: Str::from(format!("uid-{name}")),
                service_account: Str::from(account),
                node: Str::from(format!("node-{node}")),
                gateway: None,
            };
            snapshot
                .pods
                .set(&ObjectKey::new(ns, name), Some(Arc::new(fact)));
        }
    }
    let (_keep, snapshots) = watch::channel(Some(Arc::new(snapshot)));
    let clock: authn::Clock = Arc::new(SystemTime::now);
    let registry = Registry::new();
    let config = AuthenticatorConfig {
        reviewer: Arc::new(DevIssuer::load_or_create(&dir, Arc::clone(&clock))?),
        cluster_ids: vec!["Kubernetes".to_owned()],
        remotes: BTreeMap::new(),
        audiences: vec![authn::DEFAULT_AUDIENCE.to_owned()],
        trust_domain: Arc::new(|| Str::from("cluster.local")),
        clock: Arc::clone(&clock),
    };
    let many = std::num::NonZeroU32::new(10_000_000).context("not zero")?;
    let service = CertificateService::new(ca::ServiceConfig {
        authority: Arc::clone(ca.authority()),
        authenticator: Arc::new(Authenticator::new(
            config,
            authn::Metrics::register(&registry)?,
        )),
        trusted: "istio-system/ztunnel".parse()?,
        nodes: Arc::new(SnapshotNodes(snapshots)),
        limits: ca::service::Limits {
            caller_per_second: many,
            caller_burst: many,
            global_per_second: many,
            global_burst: many,
            ..ca::service::Limits::default()
        },
        metrics: ca::service::CaMetrics::register(&registry)?,
        clock,
    });
    let names = ServingNames {
        names: vec![testkit::daemon::SERVER_NAME.to_owned()],
        ..ServingNames::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let (_tls, config) = watch::channel(serving(ca.authority(), &names)?);
    let routes = Routes::new(service.into_server());
    let stop = CancellationToken::new();
    let ended = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ended.cancel();
    });
    let config = xds::ServerConfig {
        tls: Some((listener, config, routes)),
        ..xds::ServerConfig::default()
    };
    let metrics = Arc::new(xds::Metrics::register(&registry)?);
    Ok(xds::serve(config, metrics, stop).await?)
}

// --- the clients ---

/// Certificates that were handed out in the time, and the processor's seconds of the server.
async fn load(
    dir: &Path,
    addr: SocketAddr,
    server: u32,
    time: Duration,
) -> anyhow::Result<(u64, f64)> {
    let ca = DevCa::load_or_create(dir, "cluster.local", SystemTime::now())?;
    let issuer = DevIssuer::load_or_create(dir, Arc::new(SystemTime::now))?;
    let caller = |node| {
        let name = pod_name(node);
        let pod = PodRef {
            uid: Str::from(format!("uid-{name}")),
            name: Str::from(name),
        };
        let token = issuer.issue(&TokenRequest {
            ns: SYSTEM,
            sa: "ztunnel",
            pod: Some(&pod),
            audience: authn::DEFAULT_AUDIENCE,
            ttl: Duration::from_secs(3600),
        })?;
        anyhow::Ok(Arc::new(XdsTarget::Anonymous {
            addr,
            server_name: testkit::daemon::SERVER_NAME.to_owned(),
            root_pem: ca.root_pem().to_owned(),
            token: Some(token.expose().to_owned()),
        }))
    };
    let callers: Vec<_> = (0..NODES).map(caller).collect::<Result<_, _>>()?;
    let identity = format!("spiffe://cluster.local/ns/{NS}/sa/web");
    let mut busy = Vec::new();
    let count = ask(&callers, Some(&identity), time, || {
        busy.push(process::cpu_seconds(server)?);
        Ok(())
    });
    let count = count.await?;
    Ok((count, busy[1] - busy[0]))
}

/// Has each caller ask again and again; `edge` is called when the time begins and when it ends.
/// Returns how many certificates came in it.
pub(crate) async fn ask(
    callers: &[Arc<XdsTarget>],
    identity: Option<&str>,
    time: Duration,
    mut edge: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let requests = Arc::new(requests(identity)?);
    let (count, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut running = Vec::new();
    for (at, caller) in callers.iter().enumerate() {
        let channel = caller.channel().await?;
        for lane in 0..DEPTH {
            let (caller, channel) = (Arc::clone(caller), channel.clone());
            let (requests, count) = (Arc::clone(&requests), Arc::clone(&count));
            let stop = Arc::clone(&stop);
            running.push(tokio::spawn(async move {
                let mut client = IstioCertificateServiceClient::new(channel);
                let mut at = at + lane;
                while !stop.load(Ordering::Relaxed) {
                    at += 1;
                    let request = requests[at % requests.len()].clone();
                    match client.create_certificate(caller.request(request)?).await {
                        Ok(_) => count.fetch_add(1, Ordering::Relaxed),
                        // More than it lets in: that many a second are what it has.
                        Err(status) if status.code() == tonic::Code::Unavailable => {
                            tokio::time::sleep(SHED_PAUSE).await;
                            continue;
                        }
                        Err(status) => return Err(status.into()),
                    };
                }
                anyhow::Ok(())
            }));
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let before = count.load(Ordering::Relaxed);
    edge()?;
    tokio::time::sleep(time).await;
    let after = count.load(Ordering::Relaxed);
    edge()?;
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await??;
    }
    Ok(after - before)
}

fn csr() -> anyhow::Result<String> {
    let key = rcgen::KeyPair::generate()?;
    Ok(rcgen::CertificateParams::default()
        .serialize_request(&key)?
        .pem()?)
}

/// As ztunnel asks for an identity of its node; or as anybody asks for its own.
fn requests(identity: Option<&str>) -> anyhow::Result<Vec<IstioCertificateRequest>> {
    let metadata = identity.map(|identity| {
        let kind = Some(value::Kind::StringValue(identity.to_owned()));
        let fields = [("ImpersonatedIdentity".to_owned(), Value { kind })];
        let fields = fields.into();
        Struct { fields }
    });
    let request = |_| {
        anyhow::Ok(IstioCertificateRequest {
            csr: csr()?,
            validity_duration: 86_400,
            metadata: metadata.clone(),
        })
    };
    (0..REQUESTS).map(request).collect()
}

// --- the floor ---

struct Bare {
    issued: f64,
    signed: f64,
}

/// On one thread of this process: reading requests and signing them, and signing alone.
fn bare(dir: &Path, time: Duration) -> anyhow::Result<Bare> {
    let ca = DevCa::load_or_create(dir, "cluster.local", SystemTime::now())?;
    let identity = SpiffeId::new("cluster.local", NS, "web");
    let texts: Vec<String> = (0..REQUESTS).map(|_| csr()).collect::<Result<_, _>>()?;
    let read: Vec<Csr> = texts
        .iter()
        .map(|text| Csr::from_pem(text))
        .collect::<Result<_, _>>()?;
    let sign = |csr: &Csr| {
        ca.authority()
            .sign(csr, &identity, 86_400, SystemTime::now())
    };
    Ok(Bare {
        issued: per_second(time, |at| {
            sign(&Csr::from_pem(&texts[at % REQUESTS])?)?;
            Ok(())
        })?,
        signed: per_second(time, |at| {
            sign(&read[at % REQUESTS])?;
            Ok(())
        })?,
    })
}

/// How often for each second of the processor.
fn per_second(
    time: Duration,
    mut once: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let (began, busy) = (Instant::now(), process::cpu_seconds(std::process::id())?);
    let mut count = 0;
    while began.elapsed() < time {
        once(count)?;
        count += 1;
    }
    Ok(count as f64 / (process::cpu_seconds(std::process::id())? - busy))
}
