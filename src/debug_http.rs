//! Debug HTTP: readiness, version, metrics, and what proxies were sent.
//! Source: spec/control-plane.md §6.
//!
//! Loopback peers may use everything. Other peers get `/ready`, `/version` and `/metrics`,
//! and the rest with a token: all of it from the root namespace and those that are allowed,
//! `/debug/config_dump` of proxies of their own namespace from elsewhere.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize as _};
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};
use snapshot::Snapshot;
use tokio::sync::watch;
use xds::Connections;

use crate::metrics::ProcessMetrics;
use crate::readiness::{Late, Readiness};
use crate::{ambientz, render};

mod access;
mod dump;
mod health;
mod sync;

use access::access;
use dump::config_dump;
use health::{metrics, ready};
use sync::syncz;

/// Paths under `/debug`, for the index.
const PATHS: [&str; 6] = [
    "/debug/ambientz",
    "/debug/config",
    "/debug/config_dump",
    "/debug/findings",
    "/debug/list",
    "/debug/syncz",
];

/// What the handlers read.
#[derive(Clone)]
pub struct DebugState {
    /// The published snapshot.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Open streams.
    pub connections: Arc<Connections>,
    /// Metrics.
    pub metrics: ProcessMetrics,
    /// The flags in force, as text.
    pub config: Arc<String>,
    /// Whether clients may come.
    pub readiness: Readiness,
    /// What comes later; without an authenticator only this host may use `/debug/`.
    pub late: Arc<Late>,
    /// Answer `/metrics` to this host only.
    pub local_metrics: bool,
    /// Namespaces besides the root namespace whose accounts may use everything.
    pub namespaces: Arc<[String]>,
}

impl DebugState {
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.borrow().clone()
    }
}

/// Readiness alone, for the probe port.
pub fn ready_only(state: DebugState) -> Router {
    Router::new().route("/ready", get(ready)).with_state(state)
}

/// Readiness and the debug endpoints, for the probe port of a cluster.
pub fn ready_and_debug(state: DebugState) -> Router {
    let ready = Router::new().route("/ready", get(ready));
    ready.merge(debug(&state)).with_state(state)
}

/// Everything.
pub fn router(state: DebugState) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/version", get(|| async { crate::VERSION }))
        .route("/metrics", get(metrics))
        .merge(debug(&state))
        .with_state(state)
}

fn debug(state: &DebugState) -> Router<DebugState> {
    let local = Router::new()
        .route("/debug/ambientz", get(ambientz))
        .route("/debug/syncz", get(syncz))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/findings", get(findings))
        .route("/debug/list", get(|| async { axum::Json(PATHS) }))
        .route("/debug/config", get(config))
        .route_layer(middleware::from_fn_with_state(state.clone(), access));
    Router::new().route("/debug", get(index)).merge(local)
}

async fn index() -> Response {
    let links: Vec<String> = PATHS
        .iter()
        .map(|path| format!("<li><a href=\"{path}\">{path}</a></li>"))
        .collect();
    let links = links.concat();
    let page =
        format!("<!doctype html><title>ambientd debug</title><h1>ambientd</h1><ul>{links}</ul>");
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

async fn config(State(state): State<DebugState>) -> String {
    format!("{}\n", state.config)
}

#[derive(Deserialize)]
struct PrettyQuery {
    pretty: Option<String>,
}

async fn ambientz(State(state): State<DebugState>, Query(query): Query<PrettyQuery>) -> Response {
    let snapshot = state.snapshot().unwrap_or_default();
    match ambientz::view(&snapshot) {
        Ok(value) => answer(&value, query.pretty.is_some()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

async fn findings(State(state): State<DebugState>, Query(query): Query<PrettyQuery>) -> Response {
    let all = state.snapshot().map_or_else(
        || json!([]),
        |s| render::findings(&render::all_findings(&s)),
    );
    answer(&all, query.pretty.is_some())
}

/// JSON, on request indented by four spaces as istiod does.
fn written(value: &Value, pretty: bool) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    if pretty {
        let form = PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut Serializer::with_formatter(&mut text, form))?;
    } else {
        serde_json::to_writer(&mut text, value)?;
    }
    Ok(text)
}

fn answer(value: &Value, pretty: bool) -> Response {
    match written(value, pretty) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_answers_are_indented_by_four_spaces() {
        let value = json!({"a": [1]});
        let text = |pretty| written(&value, pretty).ok();
        assert_eq!(text(false).as_deref(), Some(&br#"{"a":[1]}"#[..]));
        let pretty = b"{\n    \"a\": [\n        1\n    ]\n}";
        assert_eq!(text(true).as_deref(), Some(&pretty[..]));
    }
}
