//! `/debug/config_dump`: what one proxy is to hold now.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use snapshot::{ResourceType, Snapshot};
use xds::Connection;

use super::access::Scope;
use super::{DebugState, answer};
use crate::render;

/// istioctl looks for exactly this text.
const NOT_CONNECTED: &str =
    "Proxy not connected to this Pilot instance. It may be connected to another instance.";

#[derive(Deserialize)]
pub(super) struct DumpQuery {
    #[serde(rename = "proxyID")]
    proxy_id: Option<String>,
    types: Option<String>,
    pretty: Option<String>,
}

pub(super) async fn config_dump(
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
