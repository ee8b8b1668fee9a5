//! The API as it is written. Source: spec/policy-and-traffic.md §6.

#![allow(clippy::struct_field_names, reason = "the API names its fields so")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Words of the API, to suggest one of them for a misspelt field.
pub(super) const FIELDS: &[&str] = &[
    "abort",
    "add",
    "allowCredentials",
    "allowHeaders",
    "allowMethods",
    "allowOrigin",
    "allowOrigins",
    "attempts",
    "authority",
    "backoff",
    "body",
    "bytes",
    "corsPolicy",
    "delay",
    "delegate",
    "derivePort",
    "destination",
    "destinationSubnets",
    "directResponse",
    "exact",
    "exponentialDelay",
    "exportTo",
    "exposeHeaders",
    "fault",
    "fixedDelay",
    "gateways",
    "grpcStatus",
    "headers",
    "host",
    "hosts",
    "http",
    "httpStatus",
    "ignoreUriCase",
    "match",
    "maxAge",
    "method",
    "mirror",
    "mirrorPercent",
    "mirrorPercentage",
    "mirrors",
    "name",
    "namespace",
    "number",
    "perTryTimeout",
    "percent",
    "percentage",
    "port",
    "prefix",
    "prefixRewrite",
    "queryParams",
    "redirect",
    "redirectCode",
    "regex",
    "remove",
    "request",
    "response",
    "retries",
    "retryIgnorePreviousHosts",
    "retryOn",
    "retryRemoteLocalities",
    "rewrite",
    "route",
    "scheme",
    "set",
    "sniHosts",
    "sourceLabels",
    "sourceNamespace",
    "sourceSubnet",
    "statPrefix",
    "status",
    "string",
    "subset",
    "tcp",
    "timeout",
    "tls",
    "unmatchedPreflights",
    "uri",
    "uriRegexRewrite",
    "value",
    "weight",
    "withoutHeaders",
];

/// `spec`; its rules are read one by one, so that a bad one costs itself alone.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) hosts: Option<Vec<String>>,
    pub(super) gateways: Option<Vec<String>>,
    pub(super) export_to: Option<Vec<String>>,
    pub(super) http: Option<Vec<Value>>,
    pub(super) tls: Option<Vec<Value>>,
    pub(super) tcp: Option<Vec<Value>>,
}

pub(super) type Strings = BTreeMap<String, String>;
pub(super) type StringMatches = BTreeMap<String, Option<StringMatch>>;

#[derive(Deserialize, Default)]
pub(super) struct StringMatch {
    pub(super) exact: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) regex: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpMatch {
    pub(super) name: Option<String>,
    pub(super) uri: Option<StringMatch>,
    pub(super) scheme: Option<StringMatch>,
    pub(super) method: Option<StringMatch>,
    pub(super) authority: Option<StringMatch>,
    pub(super) headers: Option<StringMatches>,
    pub(super) port: Option<i64>,
    pub(super) source_labels: Option<Strings>,
    pub(super) gateways: Option<Vec<String>>,
    pub(super) query_params: Option<StringMatches>,
    pub(super) ignore_uri_case: Option<bool>,
    pub(super) without_headers: Option<StringMatches>,
    pub(super) source_namespace: Option<String>,
    pub(super) stat_prefix: Option<String>,
}

/// What must be readable of a rule whose other fields are not.
#[derive(Deserialize, Default)]
pub(super) struct MatchOnly {
    pub(super) name: Option<String>,
    #[serde(rename = "match")]
    pub(super) matches: Option<Vec<Option<HttpMatch>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Http {
    pub(super) name: Option<String>,
    #[serde(rename = "match")]
    pub(super) matches: Option<Vec<Option<HttpMatch>>>,
    pub(super) route: Option<Vec<RouteDestination>>,
    pub(super) redirect: Option<Redirect>,
    pub(super) direct_response: Option<DirectResponse>,
    pub(super) delegate: Option<Delegate>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) timeout: Option<String>,
    pub(super) retries: Option<Retries>,
    pub(super) fault: Option<Fault>,
    pub(super) mirror: Option<Destination>,
    pub(super) mirrors: Option<Vec<Mirror>>,
    pub(super) mirror_percent: Option<i64>,
    pub(super) mirror_percentage: Option<Percent>,
    pub(super) cors_policy: Option<Cors>,
    pub(super) headers: Option<Headers>,
}

#[derive(Deserialize, Default)]
pub(super) struct Delegate {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct Headers {
    pub(super) request: Option<Operations>,
    pub(super) response: Option<Operations>,
}

#[derive(Deserialize, Default)]
pub(super) struct Operations {
    pub(super) set: Option<Strings>,
    pub(super) add: Option<Strings>,
    pub(super) remove: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
pub(super) struct RouteDestination {
    pub(super) destination: Option<Destination>,
    pub(super) weight: Option<i64>,
    pub(super) headers: Option<Headers>,
}

#[derive(Deserialize, Default)]
pub(super) struct Destination {
    pub(super) host: Option<String>,
    pub(super) subset: Option<String>,
    pub(super) port: Option<PortSelector>,
}

#[derive(Deserialize, Default)]
pub(super) struct PortSelector {
    pub(super) number: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Redirect {
    pub(super) uri: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) port: Option<i64>,
    pub(super) derive_port: Option<String>,
    pub(super) scheme: Option<String>,
    pub(super) redirect_code: Option<i64>,
    pub(super) prefix_rewrite: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct DirectResponse {
    pub(super) status: Option<i64>,
    pub(super) body: Option<Body>,
}

#[derive(Deserialize, Default)]
pub(super) struct Body {
    pub(super) string: Option<String>,
    pub(super) bytes: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rewrite {
    pub(super) uri: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Deserialize, Default)]
pub(super) struct RegexRewrite {
    #[serde(rename = "match")]
    pub(super) pattern: Option<String>,
    pub(super) rewrite: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Retries {
    pub(super) attempts: Option<i64>,
    pub(super) per_try_timeout: Option<String>,
    pub(super) retry_on: Option<String>,
    pub(super) retry_remote_localities: Option<bool>,
    pub(super) retry_ignore_previous_hosts: Option<bool>,
    pub(super) backoff: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct Fault {
    pub(super) delay: Option<Delay>,
    pub(super) abort: Option<Abort>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delay {
    pub(super) percent: Option<i64>,
    pub(super) fixed_delay: Option<String>,
    pub(super) exponential_delay: Option<String>,
    pub(super) percentage: Option<Percent>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Abort {
    pub(super) http_status: Option<i64>,
    pub(super) grpc_status: Option<String>,
    pub(super) http2_error: Option<String>,
    pub(super) percentage: Option<Percent>,
}

#[derive(Deserialize, Default)]
pub(super) struct Percent {
    pub(super) value: Option<f64>,
}

#[derive(Deserialize, Default)]
pub(super) struct Mirror {
    pub(super) destination: Option<Destination>,
    pub(super) percentage: Option<Percent>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cors {
    pub(super) allow_origin: Option<Vec<String>>,
    pub(super) allow_origins: Option<Vec<StringMatch>>,
    pub(super) allow_methods: Option<Vec<String>>,
    pub(super) allow_headers: Option<Vec<String>>,
    pub(super) expose_headers: Option<Vec<String>>,
    pub(super) max_age: Option<String>,
    pub(super) allow_credentials: Option<bool>,
    pub(super) unmatched_preflights: Option<String>,
}

/// A rule of `tls` or `tcp`.
#[derive(Deserialize, Default)]
pub(super) struct L4 {
    #[serde(rename = "match")]
    pub(super) matches: Option<Vec<Option<L4Match>>>,
    pub(super) route: Option<Vec<L4Destination>>,
}

/// What must be readable of such a rule whose destinations are not.
#[derive(Deserialize, Default)]
pub(super) struct L4MatchOnly {
    #[serde(rename = "match")]
    pub(super) matches: Option<Vec<Option<L4Match>>>,
}

#[derive(Deserialize, Default)]
pub(super) struct L4Destination {
    pub(super) destination: Option<Destination>,
    pub(super) weight: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct L4Match {
    pub(super) sni_hosts: Option<Vec<String>>,
    pub(super) destination_subnets: Option<Vec<String>>,
    pub(super) port: Option<i64>,
    pub(super) source_subnet: Option<String>,
    pub(super) source_labels: Option<Strings>,
    pub(super) gateways: Option<Vec<String>>,
    pub(super) source_namespace: Option<String>,
}
