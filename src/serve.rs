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
use tonic::service::Routes;
use xds::{AdsService, Connections, Deps, IdentityPolicy, Limits, ServerConfig};

use crate::config::ServeArgs;
use crate::debug_http::{self, DebugState};
use crate::driver::{self, Channels, Debounce};
use crate::identity::{self, ServingNames, SnapshotNodes};
use crate::jwks;
use crate::metrics::ProcessMetrics;
use crate::node::EnvoyNodes;

/// Batches that wait for the owner thread; a source waits when it is full.
const INPUT_BATCHES_MAX: usize = 64;
/// Connecting and leaving classes that wait for the owner thread.
const INTEREST_MAX: usize = 1024;
/// A request for a certificate, bytes: twice the longest CSR.
const CSR_MESSAGE_BYTES_MAX: usize = 128 << 10;

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
    raise_file_limit();
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
        authenticator: None,
        namespaces: Arc::from(args.debug_namespace.as_slice()),
    };
    let mut tasks = JoinSet::new();
    let ready_listener = bind("--ready-addr", args.ready_addr).await?;
    tasks.spawn(debug_http::serve(
        ready_listener,
        debug_http::ready_only(debug.clone()),
        debug_http::Limits::default(),
        shutdown.clone(),
    ));
    let debug_listener = bind("--debug-addr", args.debug_addr).await?;
    let trust_domain = trust_domain(&args)?;
    let authenticator = identity::authenticator(&args, &trust_domain, &snapshots, &registry)?;
    let authenticator = Arc::new(authenticator);
    tasks.spawn(debug_http::serve(
        debug_listener,
        debug_http::router(DebugState {
            authenticator: Some(Arc::clone(&authenticator)),
            ..debug
        }),
        debug_http::Limits::default(),
        shutdown.clone(),
    ));
    let authority = authority(&args, &trust_domain)?;
    let followed = (Arc::clone(&authority.authority), snapshots.clone());
    tasks.spawn(async move { identity::follow_trust_domains(followed.0, followed.1).await });
    let deps = Deps {
        snapshots: snapshots.clone(),
        node_reader: Arc::new(EnvoyNodes),
        interest: interest_tx,
        connections,
        metrics: Arc::clone(&metrics),
        authenticator: Arc::clone(&authenticator),
        identity: identity_policy(&args)?,
        cache: Arc::new(DeltaCache::default()),
        streams_max: xds::service::STREAMS_MAX,
        streams_per_second: match args.max_requests_per_second {
            0 => xds::service::streams_per_second(),
            per_second => per_second,
        },
        shutdown: shutdown.clone(),
    };
    let key_sets = jwks::follow(
        jwks::fetcher(&args, &registry)?,
        snapshots.clone(),
        inputs_tx.clone(),
    );
    let certificates = certificates(&args, &authority, authenticator, snapshots, &registry)?;
    let server = listeners(
        &args,
        &authority,
        AdsService::new(deps),
        certificates,
        &mut tasks,
    )
    .await?;
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
    let stop = shutdown.clone();
    tasks.spawn(async move {
        Directory::watch(&config_dir, inputs_tx)
            .await
            .with_context(|| format!("--config-dir {}", config_dir.display()))
    });
    tasks.spawn(async move {
        xds::serve(server, metrics, stop)
            .await
            .context("xDS server")
    });
    tasks.spawn(key_sets);
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
    // The sources, the renewal, what follows trust domains, what fetches key sets and the owner
    // thread wait for input and have nothing to finish.
    tokio::select! {
        () = &mut grace => {}
        () = async { while tasks.len() > 6 && tasks.join_next().await.is_some() {} } => {}
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

/// Every connection is a file descriptor, and the usual limit of 1,024 is for interactive use.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn bind(flag: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("{flag} {addr}: cannot listen there"))
}

/// The authority, with what it signs with now, followed from here on.
fn authority(args: &ServeArgs, trust_domain: &str) -> anyhow::Result<Authority> {
    let ttl = ca::TtlPolicy::new(args.default_workload_cert_ttl, args.max_workload_cert_ttl)?;
    let authority = Arc::new(ca::Authority::new(trust_domain, ttl)?);
    let source = ca::Source::select(
        Some(&args.root_ca_dir),
        args.enable_ca_crl,
        args.multiroot_mesh,
        &args.state_dir,
    )
    .with_context(|| format!("--root-ca-dir {}", args.root_ca_dir.display()))?;
    source
        .start(&authority, SystemTime::now())
        .context("the certificate authority cannot start")?;
    Ok(Authority { authority, source })
}

struct Authority {
    authority: Arc<ca::Authority>,
    source: ca::Source,
}

/// The service that hands out workload certificates.
fn certificates(
    args: &ServeArgs,
    authority: &Authority,
    authenticator: Arc<authn::Authenticator>,
    snapshots: identity::Snapshots,
    registry: &Registry,
) -> anyhow::Result<ca::CertificateService> {
    let trusted = args.trusted_node_account.join(",").parse();
    let clock: authn::Clock = Arc::new(SystemTime::now);
    let followed = Arc::clone(&authority.authority);
    ca::service::ExpiryMetrics::register(registry, followed, Arc::clone(&clock))?;
    Ok(ca::CertificateService::new(ca::ServiceConfig {
        authority: Arc::clone(&authority.authority),
        authenticator,
        trusted: trusted.context("--trusted-node-account")?,
        nodes: Arc::new(SnapshotNodes(snapshots)),
        limits: ca::service::Limits::default(),
        metrics: ca::service::CaMetrics::register(registry)?,
        clock,
    }))
}

async fn listeners(
    args: &ServeArgs,
    authority: &Authority,
    ads: AdsService,
    certificates: ca::CertificateService,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<ServerConfig> {
    let plaintext = match args.xds_plaintext_addr {
        Some(addr) if !addr.ip().is_loopback() => bail!(
            "--xds-plaintext-addr {addr}: plain text has no authentication and is served on \
             loopback addresses only; use --xds-addr for others"
        ),
        Some(addr) => Some((
            bind("--xds-plaintext-addr", addr).await?,
            Routes::new(ads.clone()),
        )),
        None => None,
    };
    let (names, ips) = serving_names(args);
    let names = ServingNames { names, ips };
    let Authority { authority, source } = authority;
    let (tls, config) = watch::channel(identity::serving(authority, &names)?);
    let (followed, source) = (Arc::clone(authority), source.clone());
    let dir = match &source {
        ca::Source::PluggedIn { ca, .. } => Some(ca.dir().to_owned()),
        ca::Source::Own(_) => Some(args.state_dir.join("ca")),
    };
    tasks.spawn(async move {
        ca::watch(source, dir.as_deref(), followed).await;
        Ok(())
    });
    let renewed = Arc::clone(authority);
    tasks.spawn(async move {
        identity::renew(renewed, names, tls).await;
        Ok(())
    });
    // What is decoded before the caller is known must be small.
    let certificates = certificates
        .into_server()
        .max_decoding_message_size(CSR_MESSAGE_BYTES_MAX);
    Ok(ServerConfig {
        tls: Some((
            bind("--xds-addr", args.xds_addr).await?,
            config,
            Routes::new(ads).add_service(certificates),
        )),
        plaintext,
        limits: Limits {
            age_max: args.connection_age_max,
            connections_per_address_max: args.connections_per_address_max,
            ..Limits::default()
        },
    })
}

/// DNS names and addresses of the serving certificate.
/// Source: spec/control-plane.md §1.2; loopback names besides, for file mode.
fn serving_names(args: &ServeArgs) -> (Vec<String>, Vec<IpAddr>) {
    let ns = &args.mesh.system_namespace;
    let mut names = vec!["localhost".to_owned()];
    // The Service of a revision that is not the default one has its name.
    match args.mesh.revision.as_str() {
        "" | "default" => {}
        revision => names.push(format!("istiod-{revision}.{ns}.svc")),
    }
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
    let texts = args.trusted_node_account.iter().map(|text| text.trim());
    // An empty variable trusts nobody.
    for text in texts.filter(|text| !text.is_empty()) {
        let (ns, name) = text
            .split_once('/')
            .filter(|(ns, name)| !ns.is_empty() && !name.is_empty() && !name.contains('/'))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser as _;

    use super::*;
    use crate::config::{Cli, Command};

    fn args(flags: &[&str]) -> ServeArgs {
        let words = ["ambientd", "serve", "--config-dir", "x"];
        match Cli::try_parse_from(words.iter().chain(flags))
            .unwrap()
            .command
        {
            Command::Serve(args) => args,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn node_accounts_may_be_none_and_are_names_alone() {
        let accounts = |text: &str| {
            let policy = identity_policy(&args(&["--trusted-node-account", text]));
            policy.map(|policy| policy.ztunnel_accounts).ok()
        };
        let ztunnel = (Str::from("istio-system"), Str::from("ztunnel"));
        assert_eq!(accounts(""), Some(Vec::new()));
        assert_eq!(accounts("istio-system/ztunnel, "), Some(vec![ztunnel]));
        for bad in ["ztunnel", "a/", "/b", "a/b/c"] {
            assert_eq!(accounts(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_serving_certificate_names_the_service_of_its_revision() {
        let names = |flags: &[&str]| serving_names(&args(flags)).0;
        let usual = [
            "istio-pilot.istio-system.svc",
            "istiod-remote.istio-system.svc",
            "istiod.istio-system.svc",
            "localhost",
        ];
        assert_eq!(names(&[]), usual);
        assert_eq!(names(&["--revision", "default"]), usual);
        let canary = names(&["--revision", "canary"]);
        assert!(canary.contains(&"istiod-canary.istio-system.svc".to_owned()));
        assert_eq!(canary.len(), usual.len() + 1);
    }
}
