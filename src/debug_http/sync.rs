//! `/debug/syncz`: how far each connected proxy is. Source: spec/control-plane.md §6.2.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use xds::{Connection, SyncState};

use super::{DebugState, answer};

#[derive(Deserialize)]
pub(super) struct SyncQuery {
    namespace: Option<String>,
    pretty: Option<String>,
}

pub(super) async fn syncz(
    State(state): State<DebugState>,
    Query(query): Query<SyncQuery>,
) -> Response {
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
