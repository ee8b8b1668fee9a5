//! Debug HTTP: readiness, version, metrics, and what proxies were sent.
//! Source: spec/control-plane.md §6.
//!
//! Loopback peers may use everything. Other peers get `/ready`, `/version` and `/metrics`,
//! and the rest with a token: all of it from the root namespace and those that are allowed,
//! `/debug/config_dump` of proxies of their own namespace from elsewhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use authn::Peer;
use axum::Extension;
use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize as _};
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};
use snapshot::{ResourceType, Snapshot};
use tokio::sync::watch;
use xds::{Connection, Connections, SyncState};

use crate::metrics::ProcessMetrics;
use crate::readiness::{self, Late, Readiness};
use crate::{ambientz, render};

mod server;

pub use server::{Limits, serve};

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
    /// Whether clients may come.
    pub readiness: Readiness,
    /// What comes later; without an authenticator only this host may use `/debug/`.
    pub late: Arc<Late>,
    /// Answer `/metrics` to this host only.
    pub local_metrics: bool,
    /// Namespaces besides the root namespace whose accounts may use everything.
    pub namespaces: Arc<[String]>,
}

/// What of the mesh a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// Everything.
    All,
    /// Proxies of one namespace.
    Namespace(model::Str),
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

/// Source: spec/control-plane.md §6.1.
async fn access(
    State(state): State<DebugState>,
    ConnectInfo(addr): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    match scope(&state, addr, request.headers(), request.uri().path()).await {
        Ok(scope) => {
            request.extensions_mut().insert(scope);
            next.run(request).await
        }
        Err(status) => status.into_response(),
    }
}

async fn scope(
    state: &DebugState,
    addr: SocketAddr,
    headers: &HeaderMap,
    path: &str,
) -> Result<Scope, StatusCode> {
    if is_loopback(addr.ip()) {
        return Ok(Scope::All);
    }
    let authenticator = state
        .late
        .authenticator
        .get()
        .ok_or(StatusCode::UNAUTHORIZED)?;
    let peer = Peer {
        addr,
        identity: None,
        secure: false,
    };
    let caller = authenticator
        .authenticate_http(&peer, headers)
        .await
        .map_err(|error| {
            tracing::info!(peer = %addr, reason = error.reason(), %error, "debug request refused");
            StatusCode::UNAUTHORIZED
        })?;
    let snapshot = state.snapshot();
    let root = snapshot.map(|snapshot| snapshot.mesh.root_namespace.clone());
    let ns = caller.identity.ns;
    if root.as_ref() == Some(&ns) || state.namespaces.iter().any(|allowed| *ns == **allowed) {
        Ok(Scope::All)
    } else if path == "/debug/config_dump" {
        Ok(Scope::Namespace(ns))
    } else {
        Err(StatusCode::FORBIDDEN)
    }
}

/// A dual-stack listener shows loopback peers as `::ffff:127.0.0.1`.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[derive(Deserialize)]
struct ReadyQuery {
    verbose: Option<String>,
}

async fn ready(
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

async fn metrics(
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

async fn config_dump(
    State(state): State<DebugState>,
    Extension(scope): Extension<Scope>,
    Query(query): Query<DumpQuery>,
) -> Response {
    let Some(proxy_id) = query.proxy_id.filter(|id| !id.is_empty()) else {
        return (
            StatusCode::BAD_REQUEST,
            "You must provide a proxyID in the query string",
        )
            .into_response();
    };
    let mut connections = state.connections.list();
    connections.sort_by(|a, b| a.id.cmp(&b.id));
    // Those of others are not there, as far as a caller of another namespace can tell.
    let is_visible = |c: &Connection| match &scope {
        Scope::All => true,
        Scope::Namespace(ns) => c.client.ns == *ns,
    };
    let Some(connection) = connections
        .into_iter()
        .find(|c| is_visible(c) && c.id.contains(&proxy_id))
    else {
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
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, SystemTime};

    use authn::{Authenticator, AuthenticatorConfig, DevIssuer, TokenRequest};
    use prometheus::Registry;

    use super::*;

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

    fn state(issuer: Arc<DevIssuer>) -> DebugState {
        let registry = Registry::new();
        let config = AuthenticatorConfig {
            reviewer: issuer,
            cluster_ids: vec!["Kubernetes".to_owned()],
            remotes: BTreeMap::new(),
            audiences: vec!["istio-ca".to_owned()],
            trust_domain: Arc::new(|| "cluster.local".into()),
            clock: Arc::new(SystemTime::now),
        };
        let metrics = authn::Metrics::register(&registry).unwrap();
        let snapshot = Snapshot {
            mesh: Arc::new(model::MeshRow {
                root_namespace: "root".into(),
                ..model::MeshRow::default()
            }),
            ..Snapshot::default()
        };
        let late = Late::default();
        let authenticator = Arc::new(Authenticator::new(config, metrics));
        assert!(late.authenticator.set(authenticator).is_ok());
        DebugState {
            snapshots: watch::channel(Some(Arc::new(snapshot))).1,
            connections: Arc::default(),
            metrics: ProcessMetrics::register(registry, std::time::Instant::now()).unwrap(),
            config: Arc::default(),
            readiness: Readiness::new(&[]),
            late: Arc::new(late),
            local_metrics: true,
            namespaces: Arc::from(["ops".to_owned()]),
        }
    }

    #[tokio::test]
    async fn callers_from_elsewhere_need_a_token_and_see_what_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = DevIssuer::load_or_create(dir.path(), Arc::new(SystemTime::now)).unwrap();
        let issuer = Arc::new(issuer);
        let token = |scheme: &str, ns: &str| {
            let request = TokenRequest {
                ns,
                sa: "x",
                pod: None,
                audience: "istio-ca",
                ttl: Duration::from_secs(60),
            };
            format!("{scheme} {}", issuer.issue(&request).unwrap().expose())
        };
        let state = state(Arc::clone(&issuer));
        let (syncz, dump) = ("/debug/syncz", "/debug/config_dump");
        let app = || Ok(Scope::Namespace("app".into()));
        let cases = [
            ("127.0.0.1", String::new(), syncz, Ok(Scope::All)),
            ("::ffff:127.0.0.1", String::new(), syncz, Ok(Scope::All)),
            (
                "10.0.0.1",
                String::new(),
                syncz,
                Err(StatusCode::UNAUTHORIZED),
            ),
            (
                "10.0.0.1",
                "Bearer x".to_owned(),
                dump,
                Err(StatusCode::UNAUTHORIZED),
            ),
            (
                "10.0.0.1",
                token("Basic", "root"),
                syncz,
                Err(StatusCode::UNAUTHORIZED),
            ),
            ("10.0.0.1", token("Bearer", "root"), syncz, Ok(Scope::All)),
            ("10.0.0.1", token("Istio", "ops"), syncz, Ok(Scope::All)),
            (
                "10.0.0.1",
                token("Bearer", "app"),
                syncz,
                Err(StatusCode::FORBIDDEN),
            ),
            ("10.0.0.1", token("Bearer", "app"), dump, app()),
        ];
        for (ip, authorization, path, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", authorization.parse().unwrap());
            // Never consulted.
            headers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
            let addr = SocketAddr::new(ip.parse().unwrap(), 1);
            let found = scope(&state, addr, &headers, path).await;
            let scheme = authorization.split(' ').next();
            assert_eq!(found, expected, "{ip} {scheme:?} {path}");
        }
    }
}
