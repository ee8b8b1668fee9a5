//! Readiness, metrics and the request to end, over HTTP.
//! Source: spec/control-plane.md §2.10; spec/gateway-api.md §2.11.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::state::SecretsRx;
use crate::{AgentError, admin};

/// Where Envoy is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits for the first certificate, or for its admin interface.
    Starting,
    /// It runs and its admin interface is here.
    Running(SocketAddr),
    /// It is being drained.
    Ending,
}

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct StatusState {
    pub(crate) secrets: SecretsRx,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled by `/quitquitquit`.
    pub(crate) quit: CancellationToken,
}

pub(crate) async fn bind(what: &'static str, addr: SocketAddr) -> Result<TcpListener, AgentError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| AgentError::Listen { what, addr, source })
}

/// For probes: readiness alone.
pub(crate) fn health(state: StatusState) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .with_state(state)
}

/// For everybody else.
pub(crate) fn status(state: StatusState) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .route("/stats/prometheus", get(metrics))
        .route("/quitquitquit", post(quit))
        .with_state(state)
}

pub(crate) async fn serve(listener: TcpListener, router: Router) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await
}

async fn ready(State(state): State<StatusState>) -> (StatusCode, String) {
    match verdict(&state).await {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing + "\n"),
    }
}

async fn verdict(state: &StatusState) -> Result<(), String> {
    let phase = *state.phase.borrow();
    match phase {
        Phase::Running(admin) => admin::missing(admin).await,
        Phase::Ending => Err("Envoy is being drained".to_owned()),
        Phase::Starting => {
            let secrets = state.secrets.borrow();
            match (&secrets.credentials, &secrets.failure) {
                (Some(_), _) => Err("Envoy is starting".to_owned()),
                (None, Some(failure)) => Err(format!("no certificate: {failure}")),
                (None, None) => Err("no certificate yet".to_owned()),
            }
        }
    }
}

/// Envoy's metrics, then the agent's.
async fn metrics(State(state): State<StatusState>) -> (StatusCode, Vec<u8>) {
    let own = state
        .metrics
        .text(&state.secrets.borrow(), SystemTime::now());
    let phase = *state.phase.borrow();
    let Phase::Running(admin) = phase else {
        return (StatusCode::OK, own);
    };
    let mut text = match admin::page(admin, "/stats/prometheus").await {
        Ok(body) => body.to_vec(),
        Err(error) => {
            tracing::warn!(%error, "cannot read Envoy's metrics");
            Vec::new()
        }
    };
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(own);
    (StatusCode::OK, text)
}

/// Ends the proxy as SIGTERM does; for those in the same pod.
async fn quit(
    State(state): State<StatusState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> StatusCode {
    if !peer.ip().to_canonical().is_loopback() {
        return StatusCode::FORBIDDEN;
    }
    state.quit.cancel();
    StatusCode::OK
}
