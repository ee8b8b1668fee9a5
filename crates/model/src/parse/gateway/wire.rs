//! Gateways and ListenerSets as they are written. Words of closed sets are text here, so that a
//! new one costs its own listener and nothing else. Source: spec/gateway-api.md §0.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewaySpec {
    pub(super) gateway_class_name: String,
    pub(super) listeners: Vec<Listener>,
    pub(super) addresses: Option<Vec<Address>>,
    pub(super) infrastructure: Option<Infrastructure>,
    pub(super) allowed_listeners: Option<AllowedListeners>,
    pub(super) tls: Option<GatewayTls>,
    pub(super) default_scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListenerSetSpec {
    pub(super) parent_ref: ParentRef,
    pub(super) listeners: Vec<Listener>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParentRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct Address {
    pub(super) r#type: Option<String>,
    pub(super) value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Infrastructure {
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) parameters_ref: Option<ParametersRef>,
}

#[derive(Deserialize)]
pub(super) struct ParametersRef {
    #[serde(default)]
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct AllowedListeners {
    pub(super) namespaces: Option<Namespaces>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) port: Option<i64>,
    pub(super) protocol: String,
    pub(super) hostname: Option<String>,
    pub(super) allowed_routes: Option<AllowedRoutes>,
    pub(super) tls: Option<ListenerTls>,
}

#[derive(Default, Deserialize)]
pub(super) struct AllowedRoutes {
    pub(super) kinds: Option<Vec<RouteKind>>,
    pub(super) namespaces: Option<Namespaces>,
}

#[derive(Deserialize)]
pub(super) struct RouteKind {
    pub(super) group: Option<String>,
    pub(super) kind: String,
}

#[derive(Deserialize)]
pub(super) struct Namespaces {
    pub(super) from: Option<String>,
    pub(super) selector: Option<Selector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Selector {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
    pub(super) match_expressions: Option<Vec<Expression>>,
}

#[derive(Deserialize)]
pub(super) struct Expression {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) values: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListenerTls {
    pub(super) mode: Option<String>,
    pub(super) certificate_refs: Option<Vec<Reference>>,
    pub(super) options: Option<BTreeMap<String, String>>,
}

/// A reference to a Secret or ConfigMap.
#[derive(Deserialize)]
pub(in crate::parse) struct Reference {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) namespace: Option<String>,
    pub(in crate::parse) name: String,
}

#[derive(Deserialize)]
pub(super) struct GatewayTls {
    pub(super) backend: Option<Backend>,
    pub(super) frontend: Option<Frontend>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Backend {
    pub(super) client_certificate_ref: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Frontend {
    pub(super) default: Option<FrontendTls>,
    pub(super) per_port: Option<Vec<PerPort>>,
}

#[derive(Deserialize)]
pub(super) struct PerPort {
    pub(super) port: i64,
    pub(super) tls: Option<FrontendTls>,
}

#[derive(Deserialize)]
pub(super) struct FrontendTls {
    pub(super) validation: Option<Validation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Validation {
    #[serde(default)]
    pub(super) ca_certificate_refs: Vec<Reference>,
    pub(super) mode: Option<String>,
}
