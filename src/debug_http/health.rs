//! Readiness and metrics.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::DebugState;
use super::access::is_loopback;
use crate::readiness;

#[derive(Deserialize)]
pub(super) struct ReadyQuery {
    verbose: Option<String>,
}

pub(super) async fn ready(
    State(state): State<DebugState>,
    ConnectInfo(addr): ConnectInfo<SocketAddr>,
    Query(query): Query<ReadyQuery>,
) -> Response {
    let status = if state.readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    match query.verbose {
        Some(_) => {
            let local = is_loopback(addr.ip());
            let text = readiness::report(&state.readiness, &state.late, local);
            (status, text).into_response()
        }
        None => status.into_response(),
    }
}

pub(super) async fn metrics(
    State(state): State<DebugState>,
    ConnectInfo(addr): ConnectInfo<SocketAddr>,
) -> Response {
    if state.local_metrics && !is_loopback(addr.ip()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let cluster = state.late.cluster.get();
    match state.metrics.text(state.snapshot().as_deref(), cluster) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
