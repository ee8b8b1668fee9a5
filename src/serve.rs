//! `ambientd serve`: sources, owner thread, servers, and the order of their start and end.
//!
//! The order is that of spec/control-plane.md §8.1: readiness is answered before anything else
//! exists; then objects are read until the first snapshot is complete; then the CA, xDS and the
//! webhook begin, and readiness with them.

mod cluster;
mod listen;
mod tasks;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use authn::{Authenticator, SecretReviewer, TokenReviewer};
use ca::Authority;
use model::Severity;
use model::object::Input;
use pipeline::{MeshDefaults, Pipeline};
use prometheus::Registry;
use snapshot::DeltaCache;
use source::Directory;
use tokio::sync::{mpsc, watch};
use xds::{AdsService, Connections, Deps, Report};

use crate::config::ServeArgs;
use crate::debug_http::{self, DebugState};
use crate::driver::{self, Channels, Debounce};
use crate::http;
use crate::identity::{self, Snapshots, TlsConfig};
use crate::jwks;
use crate::metrics::ProcessMetrics;
use crate::node::EnvoyNodes;
use crate::readiness::{Late, Part, Readiness};
use cluster::Cluster;
use listen::bind;
use tasks::{Ending, LAST_ANSWERS, Tasks};

/// Batches that wait for the owner thread; a source waits when it is full.
const INPUT_BATCHES_MAX: usize = 64;
/// Connecting and leaving classes that wait for the owner thread.
const INTEREST_MAX: usize = 1024;

/// Runs until SIGINT or SIGTERM, or until a part of it ends.
///
/// # Errors
/// What could not be started, by flag; or the part that ended.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    run_fed(args, None)
}

/// As [`run`]; what comes from `feed` takes the place of the directory's files. Its first batches
/// must be the complete lists of every kind.
///
/// # Errors
/// As those of [`run`].
pub fn run_fed(args: ServeArgs, feed: Option<Feed>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(args, feed));
    // Blocking requests to an API server that does not answer must not hold up the end.
    runtime.shutdown_timeout(LAST_ANSWERS);
    outcome
}

/// Batches of whoever is the source.
pub type Feed = mpsc::Receiver<Vec<Input>>;

/// What tasks read and feed.
struct Wires {
    registry: Registry,
    snapshots: Snapshots,
    inputs: mpsc::Sender<Vec<Input>>,
    late: Arc<Late>,
    readiness: Readiness,
}

/// Of those who connect: where they are listed and counted, who is told of them, and who says
/// which of them may read private keys.
struct Clients {
    connections: Arc<Connections>,
    metrics: Arc<xds::Metrics>,
    interest: mpsc::Sender<Report>,
    secrets: Option<Arc<dyn SecretReviewer>>,
}

/// How the start ended.
enum Started {
    /// By itself.
    Tried(anyhow::Result<()>),
    /// By a signal.
    Asked(anyhow::Result<()>),
    /// By the end of a part that was there already.
    Lost,
}

async fn serve(args: ServeArgs, feed: Option<Feed>) -> anyhow::Result<()> {
    tasks::raise_file_limit();
    let mut tasks = Tasks::new();
    let mut end = Ending::new()?;
    let parts = match (&args.config_dir, args.webhook_addr) {
        (None, Some(_)) => &[Part::Snapshot, Part::Authority, Part::Xds, Part::Webhook][..],
        _ => &[Part::Snapshot, Part::Authority, Part::Xds][..],
    };
    let readiness = Readiness::new(parts);
    let any_ended = tasks.any_ended.clone();
    let started = tokio::select! {
        started = start(&args, feed, &mut tasks, &readiness) => Started::Tried(started),
        signal = end.signal() => Started::Asked(signal),
        () = any_ended.cancelled() => Started::Lost,
    };
    // Who has not started whole has told nobody to come, but may hold the Lease.
    let (outcome, within) = match started {
        Started::Tried(Ok(())) => {
            let outcome = tokio::select! {
                signal = end.signal() => signal,
                ended = tasks.next_ended() => ended,
            };
            (outcome, args.shutdown_duration())
        }
        Started::Tried(outcome) | Started::Asked(outcome) => (outcome, Duration::ZERO),
        Started::Lost => (tasks.next_ended().await, Duration::ZERO),
    };
    readiness.stop();
    tracing::info!("stopping");
    tokio::select! {
        () = tasks.stop(within) => {}
        _ = end.signal() => tracing::info!("stopping at once"),
    }
    outcome
}

/// Starts everything, in order.
async fn start(
    args: &ServeArgs,
    feed: Option<Feed>,
    tasks: &mut Tasks,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let (wires, mut clients) = Box::pin(wire(args, tasks, readiness)).await?;
    let cluster = match &args.config_dir {
        Some(dir) => {
            let inputs = wires.inputs.clone();
            match feed {
                Some(feed) => tasks.spawn(forward(feed, inputs)),
                None => tasks.spawn(watch_directory(dir.clone(), inputs)),
            }
            None
        }
        None => Some(Cluster::start(args, tasks, &wires).await?),
    };
    clients.secrets = cluster.as_ref().map(Cluster::secret_reviewer);
    let trust_domain = first_trust_domain(wires.snapshots.clone()).await?;
    readiness.done(Part::Snapshot);

    let authority = sign(args, tasks, &wires, (&trust_domain, cluster.as_ref())).await?;
    readiness.done(Part::Authority);

    let reviewer: Arc<dyn TokenReviewer> = match &cluster {
        Some(cluster) => cluster.reviewer(),
        None => Arc::new(identity::issuer(args, &wires.snapshots)?),
    };
    let (snapshots, registry) = (&wires.snapshots, &wires.registry);
    let authenticator =
        identity::authenticator(args, reviewer, &trust_domain, snapshots, registry)?;
    let authenticator = Arc::new(authenticator);
    let _ = wires.late.authenticator.set(Arc::clone(&authenticator));
    let tls = serve_xds(args, tasks, &wires, clients, (&authority, authenticator)).await?;
    readiness.done(Part::Xds);

    tasks.spawn(jwks::follow(
        jwks::fetcher(args, &wires.registry)?,
        wires.snapshots.clone(),
        wires.inputs.clone(),
    ));
    if let Some(cluster) = cluster {
        cluster.write(args, tasks, &wires, &authority)?;
        Cluster::webhook(args, tasks, &wires, tls).await?;
    }
    tracing::info!(
        source = %match &args.config_dir {
            Some(dir) => dir.display().to_string(),
            None => "kubernetes".to_owned(),
        },
        xds = %args.xds_addr,
        debug = %args.debug_addr(),
        ready = %args.ready_addr,
        "serving"
    );
    Ok(())
}

/// HTTP, and the owner thread with what leads to it.
async fn wire(
    args: &ServeArgs,
    tasks: &mut Tasks,
    readiness: &Readiness,
) -> anyhow::Result<(Wires, Clients)> {
    let began = Instant::now();
    let registry = Registry::new();
    let metrics = Arc::new(xds::Metrics::register(&registry)?);
    let connections = Arc::new(Connections::default());
    let (snapshots_tx, snapshots) = watch::channel(None);
    let (inputs_tx, inputs) = mpsc::channel(INPUT_BATCHES_MAX);
    let (interest, interest_rx) = mpsc::channel(INTEREST_MAX);
    let wires = Wires {
        registry: registry.clone(),
        snapshots: snapshots.clone(),
        inputs: inputs_tx,
        late: Arc::default(),
        readiness: readiness.clone(),
    };
    let debug = DebugState {
        snapshots,
        connections: Arc::clone(&connections),
        metrics: ProcessMetrics::register(registry, began)?,
        config: Arc::new(format!("{args:#?}")),
        readiness: readiness.clone(),
        late: Arc::clone(&wires.late),
        local_metrics: args.local_metrics.is_on(),
        namespaces: Arc::from(args.debug_namespace.as_slice()),
    };
    serve_debug(args, tasks, debug).await?;
    tell_findings(args, &wires).await;
    let channels = Channels {
        inputs,
        interest: interest_rx,
        snapshots: snapshots_tx,
    };
    let pipeline = Pipeline::new(MeshDefaults {
        is_alone: args.config_dir.is_some(),
        ..crate::commands::defaults(&args.mesh)
    });
    let mut deployments = args.mesh.deployments()?;
    let (own_image, debounce) = (cluster::own_image(args), debounce(args));
    tasks.spawn(async move {
        // An API server that does not answer holds this up, but not readiness, which says so.
        if let (Some(settings), Some(image)) = (&mut deployments, own_image.await) {
            settings.stock_image.agent = Some(image.into());
        }
        let pipeline = pipeline.with_deployments(deployments);
        tasks::watch_owner(driver::spawn(pipeline, debounce, channels)?).await
    });
    let clients = Clients {
        connections,
        metrics,
        interest,
        secrets: None,
    };
    Ok((wires, clients))
}

/// The CA, which signs once this returns.
async fn sign(
    args: &ServeArgs,
    tasks: &mut Tasks,
    wires: &Wires,
    (trust_domain, cluster): (&str, Option<&Cluster>),
) -> anyhow::Result<Arc<Authority>> {
    let ttl = ca::TtlPolicy::new(args.default_workload_cert_ttl, args.max_workload_cert_ttl)?;
    let authority = Arc::new(Authority::new(trust_domain, ttl)?);
    match cluster {
        Some(cluster) => cluster.fill(args, tasks, &authority).await?,
        None => fill_from_files(args, tasks, &authority)?,
    }
    let _ = wires.late.authority.set(Arc::clone(&authority));
    let followed = (Arc::clone(&authority), wires.snapshots.clone());
    tasks.spawn(identity::follow_trust_domains(followed.0, followed.1));
    Ok(authority)
}

/// xDS and the CA on their listeners; returns the TLS configuration, which is renewed.
async fn serve_xds(
    args: &ServeArgs,
    tasks: &mut Tasks,
    wires: &Wires,
    clients: Clients,
    (authority, authenticator): (&Arc<Authority>, Arc<Authenticator>),
) -> anyhow::Result<TlsConfig> {
    let metrics = clients.metrics;
    let ads = AdsService::new(Deps {
        snapshots: wires.snapshots.clone(),
        node_reader: Arc::new(EnvoyNodes),
        interest: clients.interest,
        connections: clients.connections,
        metrics: Arc::clone(&metrics),
        authenticator: Arc::clone(&authenticator),
        identity: listen::identity_policy(args)?,
        secrets: clients.secrets,
        cache: Arc::new(DeltaCache::default()),
        streams_max: xds::service::STREAMS_MAX,
        streams_per_second: match args.max_requests_per_second {
            0 => xds::service::streams_per_second(),
            per_second => per_second,
        },
        shutdown: tasks.ended.clone(),
    });
    let snapshots = wires.snapshots.clone();
    let certificates =
        listen::certificates(args, authority, authenticator, snapshots, &wires.registry)?;
    let snapshots = wires.snapshots.clone();
    let (server, tls, renewal) =
        listen::listeners(args, authority, ads, certificates, snapshots).await?;
    tasks.spawn(async move {
        renewal.await;
        Ok(())
    });
    let stop = tasks.stopping.clone();
    tasks.spawn_finishing(async move {
        let served = xds::serve(server, metrics, stop).await;
        served.context("xDS server")
    });
    Ok(tls)
}

/// Readiness and debug HTTP.
async fn serve_debug(args: &ServeArgs, tasks: &mut Tasks, debug: DebugState) -> anyhow::Result<()> {
    let ready = bind("--ready-addr", args.ready_addr).await?;
    let router = match &args.config_dir {
        Some(_) => debug_http::ready_only(debug.clone()),
        None => debug_http::ready_and_debug(debug.clone()),
    };
    let limits = http::Limits::default();
    tasks.spawn(http::serve(
        ready,
        None,
        router,
        limits,
        tasks.ended.clone(),
    ));
    let listener = bind("--debug-addr", args.debug_addr()).await?;
    let router = debug_http::router(debug);
    tasks.spawn(http::serve(
        listener,
        None,
        router,
        limits,
        tasks.ended.clone(),
    ));
    Ok(())
}

/// What of flags and environment has no effect: to the log once, and to whoever reads findings.
async fn tell_findings(args: &ServeArgs, wires: &Wires) {
    for finding in &args.findings {
        let (object, message) = (&finding.object.key.name, &finding.message);
        if finding.severity == Severity::Info {
            tracing::info!(%object, code = finding.code, "{message}");
        } else {
            tracing::warn!(%object, code = finding.code, "{message}");
        }
    }
    let findings = Input::SourceFindings("process", args.findings.clone());
    // The owner thread begins when all this is set up; the channel has room.
    let _ = wires.inputs.send(vec![findings]).await;
}

fn debounce(args: &ServeArgs) -> Debounce {
    Debounce {
        after: Duration::from_millis(args.debounce_after),
        max: Duration::from_millis(args.debounce_max.max(args.debounce_after)),
    }
}

async fn forward(mut feed: Feed, inputs: mpsc::Sender<Vec<Input>>) -> anyhow::Result<()> {
    while let Some(batch) = feed.recv().await {
        inputs
            .send(batch)
            .await
            .context("the pipeline thread ended")?;
    }
    // Whoever feeds no more has said all that there is.
    std::future::pending().await
}

async fn watch_directory(
    dir: std::path::PathBuf,
    inputs: mpsc::Sender<Vec<Input>>,
) -> anyhow::Result<()> {
    Directory::watch(&dir, inputs)
        .await
        .with_context(|| format!("--config-dir {}", dir.display()))
}

/// The trust domain of the first snapshot: there is none before everything was read.
async fn first_trust_domain(mut snapshots: Snapshots) -> anyhow::Result<String> {
    let first = snapshots.wait_for(Option::is_some).await;
    let first = first.context("the pipeline thread ended")?;
    let mesh = first.as_ref().map(|snapshot| &snapshot.mesh);
    Ok(mesh.map_or_else(String::new, |mesh| mesh.trust_domain.to_string()))
}

/// Fills the authority from files, and follows them.
fn fill_from_files(
    args: &ServeArgs,
    tasks: &mut Tasks,
    authority: &Arc<Authority>,
) -> anyhow::Result<()> {
    let source = ca::Source::select(
        Some(&args.root_ca_dir),
        args.enable_ca_crl.is_on(),
        args.multiroot_mesh.is_on(),
        &args.state_dir,
    )
    .with_context(|| format!("--root-ca-dir {}", args.root_ca_dir.display()))?;
    let (flag, dir) = match &source {
        ca::Source::PluggedIn { ca, .. } => ("--root-ca-dir", ca.dir().to_owned()),
        ca::Source::Own(_) => ("--state-dir", args.state_dir.join("ca")),
    };
    source
        .start(authority, SystemTime::now())
        .with_context(|| format!("{flag}: the certificate authority cannot start"))?;
    let followed = Arc::clone(authority);
    tasks.spawn(async move {
        ca::watch(source, Some(&dir), followed).await;
        Ok(())
    });
    Ok(())
}
