//! The life of the agent, from first certificate to last connection.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use envoy::bootstrap::{BootstrapOptions, BootstrapSecrets, bootstrap};
use http::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::options::{DrainOptions, Options};
use crate::process::Envoy;
use crate::state::{Secrets, SecretsRx};
use crate::status::{Phase, StatusState};
use crate::{AgentError, admin, renewal, sds, status};

const BOOTSTRAP_FILE: &str = "envoy.json";
const ADMIN_FILE: &str = "admin-address";
/// Pause between two looks at something that should happen soon.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs until Envoy ends, or until a signal was counted and Envoy was drained; returns the
/// exit code, which is Envoy's. A second signal cuts the drain short.
///
/// Call it on the main thread (`block_on`), never in a task: the kernel takes the end of
/// the thread that started Envoy for the end of the agent ([`crate::exec_as_child_of`]).
///
/// # Errors
/// See [`AgentError`].
pub async fn run(options: Options, signals: watch::Receiver<u32>) -> Result<u8, AgentError> {
    create_dir(&options.run_dir)?;
    let (socket, listener) = sds::listen(&options.run_dir)?;
    let health = status::bind("probes", options.health_addr).await?;
    let status_listener = status::bind("status", options.status_addr).await?;
    let metrics = Arc::new(Metrics::new()?);
    let (secrets_tx, mut secrets) = watch::channel(Secrets::default());
    let (phase, phase_rx) = watch::channel(Phase::Starting);
    let state = StatusState {
        secrets: secrets.clone(),
        phase: phase_rx,
        metrics: Arc::clone(&metrics),
        quit: CancellationToken::new(),
    };

    let mut tasks = JoinSet::new();
    let (ca, identity) = (options.ca.clone(), options.identity.clone());
    let keep_roots = renewal::keep_roots(ca.clone(), secrets_tx.clone());
    let renew = renewal::keep_certificate(ca, identity, secrets_tx, Arc::clone(&metrics));
    let discovery = sds::serve(listener, secrets.clone(), metrics);
    let health = status::serve(health, status::health(state.clone()));
    let served = status::serve(status_listener, status::status(state.clone()));
    tasks.spawn(async move { (keep_roots.await, "the watch of the root file").1 });
    tasks.spawn(async move { (renew.await, "the renewal of certificates").1 });
    tasks.spawn(async move { (discovery.await.ok(), "secret discovery").1 });
    tasks.spawn(async move { (health.await.ok(), "the server of probes").1 });
    tasks.spawn(async move { (served.await.ok(), "the status server").1 });

    tokio::select! {
        () = first_certificate(&mut secrets) => {}
        () = signalled(&signals, 1) => return Ok(0),
        () = state.quit.cancelled() => return Ok(0),
        ended = tasks.join_next() => return Err(part_ended(ended)),
    }
    let admin_file = options.run_dir.join(ADMIN_FILE);
    let bootstrap_file = write_bootstrap(&options, &socket, &admin_file)?;
    let own = envoy_args(&options, &bootstrap_file, &admin_file);
    let mut envoy = Envoy::spawn(&options.envoy, &own)?;
    tracing::info!(bootstrap = %bootstrap_file.display(), "Envoy started");

    let supervised = async {
        let admin = admin_address(&admin_file).await;
        phase.send_replace(Phase::Running(admin));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        code = envoy.ended() => {
            tracing::warn!(code, "Envoy ended by itself");
            return Ok(code);
        }
        ended = tasks.join_next() => return Err(part_ended(ended)),
        () = signalled(&signals, 1) => {}
        () = state.quit.cancelled() => {}
        () = supervised => {}
    }
    let running = phase.send_replace(Phase::Ending);
    if let Phase::Running(admin) = running {
        tokio::select! {
            code = envoy.ended() => return Ok(code),
            () = drain(admin, options.drain) => {}
            () = signalled(&signals, 2) => tracing::warn!("asked again: ending at once"),
        }
    }
    let code = envoy.stop().await;
    tracing::info!(code, "Envoy ended");
    Ok(code)
}

fn part_ended(ended: Option<Result<&'static str, tokio::task::JoinError>>) -> AgentError {
    match ended {
        Some(Ok(part)) => AgentError::Ended(part),
        _ => AgentError::Ended("a part of the agent"),
    }
}

/// That many signals have come.
async fn signalled(signals: &watch::Receiver<u32>, count: u32) {
    let mut signals = signals.clone();
    if signals.wait_for(|seen| *seen >= count).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn first_certificate(secrets: &mut SecretsRx) {
    let found = secrets.wait_for(|secrets| secrets.credentials.is_some());
    if found.await.is_err() {
        // The renewal has ended; whoever waits for that says so.
        std::future::pending::<()>().await;
    }
}

/// Has Envoy ask its peers to leave, and gives them the time to.
async fn drain(admin: SocketAddr, options: DrainOptions) {
    tracing::info!(
        termination_seconds = options.termination.as_secs_f32(),
        "draining Envoy"
    );
    match admin::call(admin, Method::POST, "/drain_listeners?graceful").await {
        Ok((status, _)) if status.is_success() => {}
        Ok((status, _)) => tracing::warn!(%status, "Envoy does not drain"),
        Err(error) => tracing::warn!(%error, "Envoy does not drain"),
    }
    tokio::time::sleep(options.termination).await;
    if !options.until_idle {
        return;
    }
    let idle = async {
        while admin::connections(admin).await.is_some_and(|open| open > 0) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    if tokio::time::timeout(options.duration, idle).await.is_err() {
        tracing::warn!(limit = ?options.duration, "connections are still open: ending all the same");
    }
}

/// Envoy writes the address of its admin interface once it listens there.
async fn admin_address(file: &Path) -> SocketAddr {
    loop {
        if let Ok(text) = tokio::fs::read_to_string(file).await
            && let Ok(addr) = text.trim().parse()
        {
            return addr;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn create_dir(path: &Path) -> Result<(), AgentError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(AgentError::file(path))
}

/// Writes the bootstrap with mode 0600, in place of an old one.
fn write_bootstrap(
    options: &Options,
    socket: &Path,
    admin_file: &Path,
) -> Result<PathBuf, AgentError> {
    let bootstrap = bootstrap(&BootstrapOptions {
        secrets: BootstrapSecrets::Agent {
            socket: socket.to_string_lossy().into_owned(),
        },
        ..options.bootstrap.clone()
    });
    let path = options.run_dir.join(BOOTSTRAP_FILE);
    for stale in [&path, admin_file] {
        match std::fs::remove_file(stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(AgentError::file(stale)(error));
            }
            _ => {}
        }
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{bootstrap:#}\n").as_bytes()))
        .map_err(AgentError::file(&path))?;
    Ok(path)
}

/// What the agent adds to the caller's arguments. Source: spec/gateway-api.md §2.11.
fn envoy_args(options: &Options, bootstrap: &Path, admin_file: &Path) -> Vec<Vec<OsString>> {
    let family = if options.bootstrap.ip.is_ipv6() {
        "v6"
    } else {
        "v4"
    };
    let drain_seconds = options.drain.duration.as_secs().max(1).to_string();
    let pair = |flag: &str, value: OsString| vec![OsString::from(flag), value];
    vec![
        pair("-c", bootstrap.into()),
        pair("--admin-address-path", admin_file.into()),
        vec!["--disable-hot-restart".into()],
        pair("--drain-time-s", drain_seconds.into()),
        pair("--drain-strategy", "immediate".into()),
        pair("--local-address-ip-version", family.into()),
    ]
}
