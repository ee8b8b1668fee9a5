//! Debug HTTP: readiness, version, metrics, and what proxies were sent.
//! Source: spec/control-plane.md §6.
//!
//! Loopback peers may use everything. Other peers get `/ready`, `/version` and `/metrics`;
//! the rest answers 401 until callers can authenticate here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize as _};
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};
use snapshot::{ResourceType, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xds::{Connection, Connections, SyncState};

use crate::metrics::ProcessMetrics;
use crate::{ambientz, render};

/// istioctl looks for exactly this text.
const NOT_CONNECTED: &str =
    "Proxy not connected to this Pilot instance. It may be connected to another instance.";
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

/// Everything.
pub fn router(state: DebugState) -> Router {
    let local = Router::new()
        .route("/debug/ambientz", get(ambientz))
        .route("/debug/syncz", get(syncz))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/findings", get(findings))
        .route("/debug/list", get(|| async { axum::Json(PATHS) }))
        .route("/debug/config", get(config))
        .route_layer(middleware::from_fn(loopback_only));
    Router::new()
        .route("/ready", get(ready))
        .route("/version", get(|| async { crate::VERSION }))
        .route("/metrics", get(metrics))
        .route("/debug", get(index))
        .merge(local)
        .with_state(state)
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
        .context("debug HTTP")
}

async fn loopback_only(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if is_loopback(peer.ip()) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

/// A dual-stack listener shows loopback peers as `::ffff:127.0.0.1`.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

async fn ready(State(state): State<DebugState>) -> StatusCode {
    if state.snapshot().is_some() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn metrics(State(state): State<DebugState>) -> Response {
    match state.metrics.text(state.snapshot().as_deref()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
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
struct DumpQuery {
    #[serde(rename = "proxyID")]
    proxy_id: Option<String>,
    types: Option<String>,
    pretty: Option<String>,
}

#[derive(Deserialize)]
struct SyncQuery {
    namespace: Option<String>,
    pretty: Option<String>,
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

async fn syncz(State(state): State<DebugState>, Query(query): Query<SyncQuery>) -> Response {
    let wanted = |connection: &&Connection| {
        query
            .namespace
            .as_ref()
            .is_none_or(|ns| connection.client.ns.as_str() == ns)
    };
    let all: Vec<Value> = state
        .connections
        .list()
        .iter()
        .filter(wanted)
        .map(sync_status)
        .collect();
    answer(&Value::Array(all), query.pretty.is_some())
}

/// One entry of `/debug/syncz`. Source: spec/control-plane.md §6.2.
fn sync_status(connection: &Connection) -> Value {
    let client = &connection.client;
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("cluster_id", json!(client.cluster_id.as_str()));
    put("proxy", json!(client.pod.as_str()));
    put("proxy_type", json!(client.kind.as_str()));
    put("istio_version", json!(client.version.as_str()));
    let mut resources = BTreeMap::new();
    for status in &connection.types {
        let prefix = match status.short {
            "cds" => "cluster",
            "lds" => "listener",
            "rds" => "route",
            "eds" => "endpoint",
            _ => "",
        };
        if !prefix.is_empty() {
            put(&format!("{prefix}_sent"), json!(status.nonce_sent));
            put(&format!("{prefix}_acked"), json!(status.nonce_acked));
        }
        resources.insert(
            status.type_url,
            json!({
                "sent": status.nonce_sent,
                "acked": status.nonce_acked,
                "lastError": status.last_error,
                "state": SyncState::of(status).as_str(),
                "resources": status.resources_count,
                "responses": status.responses_count,
            }),
        );
    }
    put("connection_id", json!(connection.id));
    put("resources", json!(resources));
    Value::Object(out)
}

async fn config_dump(State(state): State<DebugState>, Query(query): Query<DumpQuery>) -> Response {
    let Some(proxy_id) = query.proxy_id.filter(|id| !id.is_empty()) else {
        return (
            StatusCode::BAD_REQUEST,
            "You must provide a proxyID in the query string",
        )
            .into_response();
    };
    let mut connections = state.connections.list();
    connections.sort_by(|a, b| a.id.cmp(&b.id));
    let Some(connection) = connections.into_iter().find(|c| c.id.contains(&proxy_id)) else {
        return (StatusCode::NOT_FOUND, NOT_CONNECTED).into_response();
    };
    let Some(snapshot) = state.snapshot() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "no snapshot is published yet",
        )
            .into_response();
    };
    match dump(&snapshot, &connection, query.types.as_deref()) {
        Ok(value) => answer(&value, query.pretty.is_some()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
    }
}

/// Type URL → resource name → proto-JSON of everything that the proxy's class receives now.
fn dump(
    snapshot: &Snapshot,
    connection: &Connection,
    types: Option<&str>,
) -> anyhow::Result<Value> {
    let class = connection.client.class.as_ref();
    let offered: &[ResourceType] = if class.is_some() {
        &[
            ResourceType::Cluster,
            ResourceType::Endpoint,
            ResourceType::Listener,
            ResourceType::Route,
        ]
    } else {
        &[ResourceType::Address, ResourceType::Authorization]
    };
    let mut out = Map::new();
    for ty in offered {
        if types.is_some_and(|types| !types.split(',').any(|asked| asked == ty.short())) {
            continue;
        }
        if let Some(resources) = snapshot.resources(class, *ty) {
            out.insert(
                ty.type_url().to_owned(),
                render::resources_json(*ty, resources)?,
            );
        }
    }
    Ok(Value::Object(out))
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
    use serde_json::json;

    use super::{is_loopback, written};

    #[test]
    fn pretty_answers_are_indented_by_four_spaces() {
        let value = json!({"a": [1]});
        let text = |pretty| written(&value, pretty).ok();
        assert_eq!(text(false).as_deref(), Some(&br#"{"a":[1]}"#[..]));
        let pretty = b"{\n    \"a\": [\n        1\n    ]\n}";
        assert_eq!(text(true).as_deref(), Some(&pretty[..]));
    }

    #[test]
    fn mapped_loopback_addresses_are_loopback() {
        for ip in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(ip.parse().map(is_loopback), Ok(true), "{ip}");
        }
        assert_eq!("10.0.0.1".parse().map(is_loopback), Ok(false));
    }
}
