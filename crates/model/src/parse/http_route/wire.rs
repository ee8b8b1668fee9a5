//! Routes as they are written. Words of closed sets are text here, so that a new one costs the
//! route that has it and nothing else. Source: spec/gateway-api.md §0, §6.

use serde::Deserialize;
use serde_json::Value;

/// `spec` of any route kind; `R` is its rule.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct RouteSpec<R> {
    pub(in crate::parse) parent_refs: Option<Vec<ParentRef>>,
    pub(in crate::parse) hostnames: Option<Vec<String>>,
    pub(in crate::parse) rules: Option<Vec<R>>,
    pub(in crate::parse) use_default_gateways: Option<Value>,
}

/// The same without hostnames, for TCPRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct BareRouteSpec<R> {
    pub(in crate::parse) parent_refs: Option<Vec<ParentRef>>,
    pub(in crate::parse) rules: Option<Vec<R>>,
    pub(in crate::parse) use_default_gateways: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct ParentRef {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) namespace: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) section_name: Option<String>,
    pub(in crate::parse) port: Option<i64>,
}

/// A rule of an HTTPRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct HttpRule {
    pub(in crate::parse) name: Option<String>,
    pub(in crate::parse) matches: Option<Vec<HttpMatch>>,
    pub(in crate::parse) filters: Option<Vec<Filter>>,
    pub(in crate::parse) backend_refs: Option<Vec<Backend>>,
    pub(in crate::parse) timeouts: Option<Timeouts>,
    pub(in crate::parse) retry: Option<Retry>,
    pub(in crate::parse) session_persistence: Option<Persistence>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct GrpcRule {
    pub(in crate::parse) name: Option<String>,
    pub(in crate::parse) matches: Option<Vec<GrpcMatch>>,
    pub(in crate::parse) filters: Option<Vec<Filter>>,
    pub(in crate::parse) backend_refs: Option<Vec<Backend>>,
    pub(in crate::parse) session_persistence: Option<Persistence>,
}

/// A rule of a TCPRoute or TLSRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct L4Rule {
    pub(in crate::parse) name: Option<String>,
    pub(in crate::parse) backend_refs: Option<Vec<Target>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct HttpMatch {
    pub(in crate::parse) path: Option<Path>,
    pub(in crate::parse) headers: Option<Vec<Condition>>,
    pub(in crate::parse) query_params: Option<Vec<Condition>>,
    pub(in crate::parse) method: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct GrpcMatch {
    pub(in crate::parse) method: Option<GrpcMethod>,
    pub(in crate::parse) headers: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct GrpcMethod {
    pub(in crate::parse) r#type: Option<String>,
    pub(in crate::parse) service: Option<String>,
    pub(in crate::parse) method: Option<String>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct Path {
    pub(in crate::parse) r#type: Option<String>,
    pub(in crate::parse) value: Option<String>,
}

/// Of a header or a query parameter.
#[derive(Deserialize)]
pub(in crate::parse) struct Condition {
    pub(in crate::parse) r#type: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) value: String,
}

#[derive(Deserialize)]
pub(in crate::parse) struct Backend {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) namespace: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) port: Option<i64>,
    pub(in crate::parse) weight: Option<i64>,
    pub(in crate::parse) filters: Option<Vec<Filter>>,
}

/// A backend without filters; of a mirror also without weight.
#[derive(Deserialize)]
pub(in crate::parse) struct Target {
    pub(in crate::parse) group: Option<String>,
    pub(in crate::parse) kind: Option<String>,
    pub(in crate::parse) namespace: Option<String>,
    pub(in crate::parse) name: String,
    pub(in crate::parse) port: Option<i64>,
    pub(in crate::parse) weight: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct Filter {
    pub(in crate::parse) r#type: String,
    pub(in crate::parse) request_header_modifier: Option<HeaderModifier>,
    pub(in crate::parse) response_header_modifier: Option<HeaderModifier>,
    pub(in crate::parse) request_mirror: Option<Mirror>,
    pub(in crate::parse) request_redirect: Option<Redirect>,
    pub(in crate::parse) url_rewrite: Option<Rewrite>,
    pub(in crate::parse) cors: Option<Cors>,
    /// Only so that its fields count as known.
    #[allow(dead_code, reason = "its type alone decides")]
    pub(in crate::parse) external_auth: Option<Value>,
    /// The same.
    #[allow(dead_code, reason = "its type alone decides")]
    pub(in crate::parse) extension_ref: Option<Value>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct HeaderModifier {
    pub(in crate::parse) set: Option<Vec<Header>>,
    pub(in crate::parse) add: Option<Vec<Header>>,
    pub(in crate::parse) remove: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct Header {
    pub(in crate::parse) name: String,
    pub(in crate::parse) value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct Mirror {
    pub(in crate::parse) backend_ref: Target,
    pub(in crate::parse) percent: Option<i64>,
    pub(in crate::parse) fraction: Option<Fraction>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct Fraction {
    pub(in crate::parse) numerator: i64,
    pub(in crate::parse) denominator: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct Redirect {
    pub(in crate::parse) scheme: Option<String>,
    pub(in crate::parse) hostname: Option<String>,
    pub(in crate::parse) path: Option<PathModifier>,
    pub(in crate::parse) port: Option<i64>,
    pub(in crate::parse) status_code: Option<i64>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct Rewrite {
    pub(in crate::parse) hostname: Option<String>,
    pub(in crate::parse) path: Option<PathModifier>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct PathModifier {
    pub(in crate::parse) r#type: String,
    pub(in crate::parse) replace_full_path: Option<String>,
    pub(in crate::parse) replace_prefix_match: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct Cors {
    pub(in crate::parse) allow_origins: Option<Vec<String>>,
    pub(in crate::parse) allow_credentials: Option<bool>,
    pub(in crate::parse) allow_methods: Option<Vec<String>>,
    pub(in crate::parse) allow_headers: Option<Vec<String>>,
    pub(in crate::parse) expose_headers: Option<Vec<String>>,
    pub(in crate::parse) max_age: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct Timeouts {
    pub(in crate::parse) request: Option<String>,
    pub(in crate::parse) backend_request: Option<String>,
}

#[derive(Deserialize)]
pub(in crate::parse) struct Retry {
    pub(in crate::parse) codes: Option<Vec<i64>>,
    pub(in crate::parse) attempts: Option<i64>,
    pub(in crate::parse) backoff: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct Persistence {
    pub(in crate::parse) session_name: Option<String>,
    pub(in crate::parse) absolute_timeout: Option<String>,
    pub(in crate::parse) idle_timeout: Option<String>,
    pub(in crate::parse) r#type: Option<String>,
    pub(in crate::parse) cookie_config: Option<CookieConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct CookieConfig {
    pub(in crate::parse) lifetime_type: Option<String>,
}
