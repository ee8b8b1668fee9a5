//! `ambientd serve`: sources, owner thread, servers, and the order of their start and end.
//!
//! The order is that of spec/control-plane.md §8.1: readiness is answered before anything else
//! exists; then objects are read until the first snapshot is complete; then the CA, xDS and the
//! webhook begin, and readiness with them.

mod cluster;
mod listen;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use authn::TokenReviewer;
use model::Severity;
use model::object::Input;
use prometheus::Registry;
use snapshot::DeltaCache;
use source::Directory;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xds::{AdsService, Connections, Deps};

use crate::config::ServeArgs;
use crate::debug_http::{self, DebugState};
use crate::driver::{self, Channels, Debounce};
use crate::http;
use crate::identity::{self, Snapshots};
use crate::jwks;
use crate::metrics::ProcessMetrics;
use crate::node::EnvoyNodes;
use crate::readiness::{Late, Part, Readiness};
use cluster::Cluster;
use listen::bind;

/// Batches that wait for the owner thread; a source waits when it is full.
const INPUT_BATCHES_MAX: usize = 64;
/// Connecting and leaving classes that wait for the owner thread.
const INTEREST_MAX: usize = 1024;
/// For requests that are being answered when everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// The least that servers get to end their streams.
const END_MIN: Duration = Duration::from_secs(2);

/// Runs until SIGINT or SIGTERM, or until a part of it ends.
///
/// # Errors
/// What could not be started, by flag; or the part that ended.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(args));
    // Blocking requests to an API server that does not answer must not hold up the end.
    runtime.shutdown_timeout(LAST_ANSWERS);
    outcome
}

/// What tasks read and feed.
struct Wires {
    registry: Registry,
    snapshots: Snapshots,
    inputs: mpsc::Sender<Vec<Input>>,
    late: Arc<Late>,
    readiness: Readiness,
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    raise_file_limit();
    let mut tasks = Tasks::new();
    let mut end = Ending::new()?;
    let parts = match (&args.config_dir, args.webhook_addr) {
        (None, Some(_)) => &[Part::Snapshot, Part::Authority, Part::Xds, Part::Webhook][..],
        _ => &[Part::Snapshot, Part::Authority, Part::Xds][..],
    };
    let readiness = Readiness::new(parts);
    let started = start(&args, &mut tasks, &readiness);
    let outcome = tokio::select! {
        started = started => started,
        signal = end.signal() => {
            tracing::info!("stopping before all has started");
            return signal;
        }
    };
    let outcome = match outcome {
        Ok(()) => tokio::select! {
            signal = end.signal() => signal,
            ended = tasks.next_ended() => ended,
        },
        Err(error) => return Err(error),
    };
    readiness.stop();
    tracing::info!("stopping");
    tokio::select! {
        () = tasks.stop(args.shutdown_duration()) => {}
        _ = end.signal() => tracing::info!("stopping at once"),
    }
    outcome
}

/// Starts everything, in order.
async fn start(args: &ServeArgs, tasks: &mut Tasks, readiness: &Readiness) -> anyhow::Result<()> {
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
        snapshots: snapshots.clone(),
        connections: Arc::clone(&connections),
        metrics: ProcessMetrics::register(registry.clone(), began)?,
        config: Arc::new(format!("{args:#?}")),
        readiness: readiness.clone(),
        late: Arc::clone(&wires.late),
        local_metrics: args.local_metrics,
        namespaces: Arc::from(args.debug_namespace.as_slice()),
    };
    serve_debug(args, tasks, debug).await?;
    tell_findings(args, &wires).await;

    let channels = Channels {
        inputs,
        interest: interest_rx,
        snapshots: snapshots_tx,
    };
    let pipeline = crate::commands::pipeline(&args.mesh);
    let owner = driver::spawn(pipeline, debounce(args), channels)?;
    tasks.spawn(watch_owner(owner));
    let cluster = match &args.config_dir {
        Some(dir) => {
            tasks.spawn(watch_directory(dir.clone(), wires.inputs.clone()));
            None
        }
        None => Some(Cluster::start(args, tasks, &wires).await?),
    };
    let trust_domain = first_trust_domain(tasks, snapshots.clone()).await?;
    readiness.done(Part::Snapshot);

    let ttl = ca::TtlPolicy::new(args.default_workload_cert_ttl, args.max_workload_cert_ttl)?;
    let authority = Arc::new(ca::Authority::new(&trust_domain, ttl)?);
    match &cluster {
        Some(cluster) => cluster.fill(args, tasks, &authority).await?,
        None => fill_from_files(args, tasks, &authority)?,
    }
    let _ = wires.late.authority.set(Arc::clone(&authority));
    readiness.done(Part::Authority);
    tasks.spawn(identity::follow_trust_domains(
        Arc::clone(&authority),
        snapshots.clone(),
    ));

    let reviewer: Arc<dyn TokenReviewer> = match &cluster {
        Some(cluster) => cluster.reviewer(),
        None => Arc::new(identity::issuer(args, &snapshots)?),
    };
    let authenticator =
        identity::authenticator(args, reviewer, &trust_domain, &snapshots, &registry)?;
    let authenticator = Arc::new(authenticator);
    let _ = wires.late.authenticator.set(Arc::clone(&authenticator));
    let ads = AdsService::new(Deps {
        snapshots: snapshots.clone(),
        node_reader: Arc::new(EnvoyNodes),
        interest,
        connections,
        metrics: Arc::clone(&metrics),
        authenticator: Arc::clone(&authenticator),
        identity: listen::identity_policy(args)?,
        cache: Arc::new(DeltaCache::default()),
        streams_max: xds::service::STREAMS_MAX,
        streams_per_second: match args.max_requests_per_second {
            0 => xds::service::streams_per_second(),
            per_second => per_second,
        },
        shutdown: tasks.ended.clone(),
    });
    let certificates = listen::certificates(
        args,
        &authority,
        authenticator,
        snapshots.clone(),
        &registry,
    )?;
    let (server, tls, renewal) = listen::listeners(args, &authority, ads, certificates).await?;
    tasks.spawn(async move {
        renewal.await;
        Ok(())
    });
    let stop = tasks.stopping.clone();
    tasks.spawn_finishing(async move {
        let served = xds::serve(server, metrics, stop).await;
        served.context("xDS server")
    });
    readiness.done(Part::Xds);
    tasks.spawn(jwks::follow(
        jwks::fetcher(args, &registry)?,
        snapshots,
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

/// Readiness and debug HTTP.
async fn serve_debug(args: &ServeArgs, tasks: &mut Tasks, debug: DebugState) -> anyhow::Result<()> {
    let ready = bind("--ready-addr", args.ready_addr).await?;
    let router = match &args.config_dir {
        Some(_) => debug_http::ready_only(debug.clone()),
        None => debug_http::ready_and_debug(debug.clone()),
    };
    let limits = http::Limits::default();
    tasks.spawn_answering(http::serve(
        ready,
        None,
        router,
        limits,
        tasks.ended.clone(),
    ));
    let listener = bind("--debug-addr", args.debug_addr()).await?;
    let router = debug_http::router(debug);
    tasks.spawn_answering(http::serve(
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

async fn watch_directory(
    dir: std::path::PathBuf,
    inputs: mpsc::Sender<Vec<Input>>,
) -> anyhow::Result<()> {
    Directory::watch(&dir, inputs)
        .await
        .with_context(|| format!("--config-dir {}", dir.display()))
}

/// The trust domain of the first snapshot: there is none before everything was read.
async fn first_trust_domain(tasks: &mut Tasks, mut snapshots: Snapshots) -> anyhow::Result<String> {
    let first = async {
        let first = snapshots.wait_for(Option::is_some).await;
        let first = first.context("the pipeline thread ended")?;
        let mesh = first.as_ref().map(|snapshot| &snapshot.mesh);
        Ok(mesh.map_or_else(String::new, |mesh| mesh.trust_domain.to_string()))
    };
    tokio::select! {
        first = first => first,
        ended = tasks.next_ended() => match ended {
            Err(error) => Err(error),
            Ok(()) => bail!("a part of ambientd ended"),
        },
    }
}

/// Fills the authority from files, and follows them.
fn fill_from_files(
    args: &ServeArgs,
    tasks: &mut Tasks,
    authority: &Arc<ca::Authority>,
) -> anyhow::Result<()> {
    let source = ca::Source::select(
        Some(&args.root_ca_dir),
        args.enable_ca_crl,
        args.multiroot_mesh,
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

