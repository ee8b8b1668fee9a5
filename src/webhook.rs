//! The admission webhook that validates Istio's objects.
//!
//! In: AdmissionReviews of the API server, over TLS with the certificate of the mesh CA. Out:
//! whether an object is taken, and what its author is told. Anybody on the network can ask;
//! nothing is learnt by it, and everything that a stranger may hold is bounded.
//!
//! There is no injection: `/inject` says so.
//!
//! Source: spec/control-plane.md §1.1, §8.9, §10 item 81.

mod review;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::http::{self, Limits};
use crate::identity::TlsConfig;

/// Length of a review, bytes: it may hold an object twice.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// How long a review may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// API servers at once, and whoever comes like one.
const CONNECTIONS_MAX: usize = 64;
/// Reviews judged at once.
const REVIEWS_MAX: usize = 4;
const NO_INJECTION: &str = "ambientd injects no sidecars: a pod joins the mesh by the label \
                            istio.io/dataplane-mode=ambient of its namespace\n";

/// Counters of the webhook, under the names that istiod gives them.
#[derive(Clone, Debug)]
pub struct Metrics {
    passed: IntCounterVec,
    failed: IntCounterVec,
    errors: IntCounterVec,
}

// === impl Metrics ===

impl Metrics {
    /// Creates and registers the counters.
    ///
    /// # Errors
    /// When the registry already has one of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        const OBJECT: [&str; 3] = ["group", "version", "resource"];
        const REASON: [&str; 4] = ["group", "version", "resource", "reason"];
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(Self {
            passed: counters(
                "galley_validation_passed",
                "Objects that the webhook took.",
                &OBJECT,
            )?,
            failed: counters(
                "galley_validation_failed",
                "Objects that the webhook refused.",
                &REASON,
            )?,
            errors: counters(
                "galley_validation_http_error",
                "Requests to the webhook that were no reviews.",
                &["status"],
            )?,
        })
    }
}

#[derive(Clone)]
struct Webhook {
    metrics: Metrics,
    turns: Arc<Semaphore>,
}

/// Serves until `shutdown`, then until the reviews under way are answered.
///
/// # Errors
/// When the serving certificate cannot be used; a bad client never is an error.
pub async fn serve(
    listener: TcpListener,
    tls: TlsConfig,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        ..Limits::default()
    };
    http::serve(listener, Some(tls), router(metrics), limits, shutdown)
        .await
        .context("the webhook")
}

fn router(metrics: Metrics) -> Router {
    let webhook = Webhook {
        metrics,
        turns: Arc::new(Semaphore::new(REVIEWS_MAX)),
    };
    Router::new()
        .route("/validate", post(validate))
        .route("/validate/{*rest}", post(validate))
        .route("/ready", get(|| async { StatusCode::OK }))
        .route("/inject", any(no_injection))
        .route("/inject/{*rest}", any(no_injection))
        .with_state(webhook)
}

async fn no_injection() -> Response {
    (StatusCode::NOT_FOUND, NO_INJECTION).into_response()
}

async fn validate(State(webhook): State<Webhook>, headers: HeaderMap, body: Body) -> Response {
    match answer(&webhook, &headers, body).await {
        Ok(answer) => axum::Json(answer).into_response(),
        Err((status, reason)) => {
            let labels = [status.as_str()];
            webhook.metrics.errors.with_label_values(&labels).inc();
            (status, format!("{reason}\n")).into_response()
        }
    }
}

type Refusal = (StatusCode, &'static str);

/// Source: spec/control-plane.md §8.9, for the order of these checks.
async fn answer(
    webhook: &Webhook,
    headers: &HeaderMap,
    body: Body,
) -> Result<serde_json::Value, Refusal> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let reason = "the body is larger than 3 MiB, or ended early";
            return Err((StatusCode::BAD_REQUEST, reason));
        }
        Err(_) => {
            return Err((
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time",
            ));
        }
    };
    if bytes.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "no body"));
    }
    let content_type = headers.get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != "application/json") {
        let reason = "Content-Type must be application/json";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let turn = Arc::clone(&webhook.turns).acquire_owned().await;
    let metrics = webhook.metrics.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        review::answer(&bytes, &metrics)
    });
    judged.await.map_err(|error| {
        tracing::error!(%error, "validation panicked");
        (StatusCode::INTERNAL_SERVER_ERROR, "validation failed")
    })
}
