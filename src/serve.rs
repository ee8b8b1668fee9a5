//! `ambientd serve`: sources, owner thread, servers, and the order of their start and end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use model::Str;
use prometheus::Registry;
use snapshot::DeltaCache;
use source::Directory;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xds::{AdsService, Connections, Deps, IdentityPolicy, ServerConfig};

use crate::config::ServeArgs;
use crate::debug_http::{self, DebugState};
use crate::driver::{self, Channels, Debounce};
use crate::metrics::ProcessMetrics;
use crate::node::EnvoyNodes;

/// Batches that wait for the owner thread; a source waits when it is full.
const INPUT_BATCHES_MAX: usize = 64;
/// Connecting and leaving classes that wait for the owner thread.
const INTEREST_MAX: usize = 1024;

/// Runs until SIGINT or SIGTERM, or until a part of it ends.
///
/// # Errors
/// What could not be started, by flag; or the part that ended.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let shutdown = CancellationToken::new();
    let registry = Registry::new();
    let process = ProcessMetrics::register(registry.clone(), started)?;
    let metrics = Arc::new(xds::Metrics::register(&registry)?);
    let connections = Arc::new(Connections::default());
    let (snapshots_tx, snapshots) = watch::channel(None);
    let (inputs_tx, inputs) = mpsc::channel(INPUT_BATCHES_MAX);
    let (interest_tx, interest) = mpsc::channel(INTEREST_MAX);

    let debug = DebugState {
        snapshots: snapshots.clone(),
        connections: Arc::clone(&connections),
        metrics: process,
        config: Arc::new(format!("{args:#?}")),
    };
    let mut tasks = JoinSet::new();
    let ready_listener = bind("--ready-addr", args.ready_addr).await?;
    let debug_listener = bind("--debug-addr", args.debug_addr).await?;
    tasks.spawn(debug_http::serve(
        ready_listener,
        debug_http::ready_only(debug.clone()),
        shutdown.clone(),
    ));
    tasks.spawn(debug_http::serve(
        debug_listener,
        debug_http::router(debug),
        shutdown.clone(),
    ));

    let trust_domain = trust_domain(&args)?;
    let server = listeners(&args, &trust_domain).await?;
    let deps = Deps {
        snapshots,
        node_reader: Arc::new(EnvoyNodes),
        interest: interest_tx,
        connections,
        metrics: Arc::clone(&metrics),
        identity: identity_policy(&args)?,
        cache: Arc::new(DeltaCache::default()),
        streams_max: xds::service::STREAMS_MAX,
        shutdown: shutdown.clone(),
    };
    let debounce = Debounce {
        after: Duration::from_millis(args.debounce_after),
        max: Duration::from_millis(args.debounce_max.max(args.debounce_after)),
    };
    let pipeline = crate::commands::pipeline(&args.mesh);
    let channels = Channels {
        inputs,
        interest,
        snapshots: snapshots_tx,
    };
    let owner = driver::spawn(pipeline, debounce, channels)?;

    let config_dir = args.config_dir.clone();
    tasks.spawn(async move {
        Directory::watch(&config_dir, inputs_tx)
            .await
            .with_context(|| format!("--config-dir {}", config_dir.display()))
    });
    tasks.spawn(async move {
        xds::serve(server, AdsService::new(deps), metrics)
            .await
            .context("xDS server")
    });
    tasks.spawn(watch_owner(owner));
    tracing::info!(
        config_dir = %args.config_dir.display(),
        xds = %args.xds_addr,
        debug = %args.debug_addr,
        ready = %args.ready_addr,
        "serving"
    );
    let outcome = tokio::select! {
        signal = terminate() => signal,
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("a part of ambientd ended")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error).context("a part of ambientd failed"),
        },
    };
    shutdown.cancel();
    tracing::info!("stopping");
    let grace = tokio::time::sleep(Duration::from_secs(2));
    tokio::pin!(grace);
    // The source and the owner thread wait for input and have nothing to finish.
    tokio::select! {
        () = &mut grace => {}
        () = async { while tasks.len() > 2 && tasks.join_next().await.is_some() {} } => {}
    }
    tasks.abort_all();
    outcome
}

/// Ends when the owner thread ends, so that its death is the death of the process.
async fn watch_owner(owner: std::thread::JoinHandle<()>) -> anyhow::Result<()> {
    while !owner.is_finished() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    match owner.join() {
        Ok(()) => bail!("the pipeline thread ended"),
        Err(_) => bail!("the pipeline thread panicked"),
    }
}

async fn bind(flag: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("{flag} {addr}: cannot listen there"))
}

async fn listeners(args: &ServeArgs, trust_domain: &str) -> anyhow::Result<ServerConfig> {
    let plaintext = match args.xds_plaintext_addr {
        Some(addr) if !addr.ip().is_loopback() => bail!(
            "--xds-plaintext-addr {addr}: plain text has no authentication and is served on \
             loopback addresses only; use --xds-addr for others"
        ),
        Some(addr) => Some(bind("--xds-plaintext-addr", addr).await?),
        None => None,
    };
    let ca = ca::DevCa::load_or_create(&args.state_dir, trust_domain, SystemTime::now())
        .with_context(|| format!("--state-dir {}", args.state_dir.display()))?;
    let (names, ips) = serving_names(args);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tls = ca
        .server_config(&names, &ips, SystemTime::now())
        .context("cannot issue the serving certificate")?;
    tracing::info!(root = %ca.root_path().display(), "clients must trust this root");
    Ok(ServerConfig {
        tls: Some((bind("--xds-addr", args.xds_addr).await?, tls)),
        plaintext,
    })
}

/// DNS names and addresses of the serving certificate.
/// Source: spec/control-plane.md §1.2; loopback names besides, for file mode.
fn serving_names(args: &ServeArgs) -> (Vec<String>, Vec<IpAddr>) {
    let ns = &args.mesh.system_namespace;
    let mut names = vec!["localhost".to_owned()];
    names.extend(["istiod", "istiod-remote", "istio-pilot"].map(|name| format!("{name}.{ns}.svc")));
    let mut ips = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    if !args.xds_addr.ip().is_unspecified() {
        ips.push(args.xds_addr.ip());
    }
    for name in args
        .serving_name
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
    {
        match name.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => names.push(name.to_owned()),
        }
    }
    names.sort_unstable();
    names.dedup();
    ips.sort_unstable();
    ips.dedup();
    (names, ips)
}

fn identity_policy(args: &ServeArgs) -> anyhow::Result<IdentityPolicy> {
    let mut accounts = Vec::new();
    for text in args.trusted_node_account.iter().map(|text| text.trim()) {
        let (ns, name) = text
            .split_once('/')
            .filter(|(ns, name)| !ns.is_empty() && !name.is_empty())
            .with_context(|| format!("--trusted-node-account {text:?} is not NAMESPACE/ACCOUNT"))?;
        accounts.push((Str::from(ns), Str::from(name)));
    }
    Ok(IdentityPolicy {
        ztunnel_accounts: accounts,
    })
}

/// The trust domain that mesh config names when the process starts.
fn trust_domain(args: &ServeArgs) -> anyhow::Result<String> {
    let inputs = Directory::load(&args.config_dir)
        .with_context(|| format!("--config-dir {}", args.config_dir.display()))?;
    let mut pipeline = crate::commands::pipeline(&args.mesh);
    pipeline.apply(inputs);
    Ok(pipeline.mesh().trust_domain.to_string())
}

async fn terminate() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.context("cannot wait for SIGINT"),
        _ = terminate.recv() => Ok(()),
    }
}
