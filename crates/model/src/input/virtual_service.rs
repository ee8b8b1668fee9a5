//! networking.istio.io VirtualService. Source: spec/policy-and-traffic.md §6.

use std::time::Duration;

use bytes::Bytes;

use super::HeaderEdits;
use crate::Str;
use crate::object::Labels;

/// A string match of Istio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(Str),
    /// Starts with.
    Prefix(Str),
    /// RE2, full match.
    Regex(Str),
}

/// One match of an `http` route; its parts are ANDed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualMatch {
    /// `name`.
    pub name: Str,
    /// `uri`.
    pub uri: Option<StringMatch>,
    /// `ignoreUriCase`.
    pub ignore_uri_case: bool,
    /// `scheme`.
    pub scheme: Option<StringMatch>,
    /// `method`.
    pub method: Option<StringMatch>,
    /// `authority`.
    pub authority: Option<StringMatch>,
    /// `headers` by name as written; `None` = present.
    pub headers: Vec<(Str, Option<StringMatch>)>,
    /// `withoutHeaders`, the same.
    pub without_headers: Vec<(Str, Option<StringMatch>)>,
    /// `queryParams`, the same.
    pub query: Vec<(Str, Option<StringMatch>)>,
    /// `port`.
    pub port: Option<u16>,
    /// `gateways`.
    pub gateways: Vec<Str>,
    /// `sourceLabels`.
    pub source_labels: Labels,
    /// `sourceNamespace`, empty when unset.
    pub source_namespace: Str,
    /// `statPrefix`.
    pub stat_prefix: Str,
}

/// `destination`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// Host as written.
    pub host: Str,
    /// `subset`, empty when unset.
    pub subset: Str,
    /// `port.number`.
    pub port: Option<u16>,
}

/// `headers` of a route or of one of its destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// `request`; names keep their case.
    pub request: HeaderEdits,
    /// `response`.
    pub response: HeaderEdits,
}

/// `route[]` of an `http`, `tcp` or `tls` route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Weight as written, 0 when unset.
    pub weight: u32,
    /// Headers (http only).
    pub headers: HeaderOperations,
}

/// `redirect`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualRedirect {
    /// `uri`: the whole path (or the prefix `%PREFIX()%`).
    pub uri: Option<Str>,
    /// `uriPrefix`.
    pub uri_prefix: Option<Str>,
    /// `authority`.
    pub authority: Option<Str>,
    /// `scheme`.
    pub scheme: Option<Str>,
    /// `port`.
    pub port: Option<u16>,
    /// `derivePort: FROM_REQUEST_PORT`.
    pub port_of_request: bool,
    /// `redirectCode`, 301 when unset.
    pub code: u16,
}

/// `directResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status, 200 to 599.
    pub status: u16,
    /// Body; empty for none.
    pub body: Bytes,
}

/// `rewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualRewrite {
    /// `uri`.
    pub uri: Option<Str>,
    /// `uriRegexRewrite`: pattern and substitution.
    pub uri_regex: Option<(Str, Str)>,
    /// `authority`.
    pub authority: Option<Str>,
}

/// `retries`, also the mesh default. Source: spec/policy-and-traffic.md §6.2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// `attempts`; 0 turns retries off.
    pub attempts: u32,
    /// `perTryTimeout`.
    pub per_try_timeout: Option<Duration>,
    /// `retryOn`, split at commas, empty for the default.
    pub retry_on: Vec<Str>,
    /// `retryRemoteLocalities`.
    pub remote_localities: bool,
    /// `retryIgnorePreviousHosts`.
    pub ignore_previous_hosts: Option<bool>,
    /// `backoff`.
    pub backoff: Option<Duration>,
}

/// How an abort ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// HTTP status.
    Http(u16),
    /// gRPC status code.
    Grpc(u32),
}

/// `fault`. Shares are parts per million; one that is not given is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `delay`: for how long and for which share.
    pub delay: Option<(Duration, u32)>,
    /// `abort`: with what and for which share.
    pub abort: Option<(AbortStatus, u32)>,
}

/// `mirror` or an entry of `mirrors`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualMirror {
    /// Where copies go.
    pub destination: Destination,
    /// Share in parts per million; all of them when nothing is said.
    pub per_million: u32,
}

/// `corsPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualCors {
    /// `allowOrigins`, and `allowOrigin` as exact ones.
    pub origins: Vec<StringMatch>,
    /// `allowMethods`.
    pub methods: Vec<Str>,
    /// `allowHeaders`.
    pub headers: Vec<Str>,
    /// `exposeHeaders`.
    pub expose: Vec<Str>,
    /// `maxAge` in whole seconds.
    pub max_age_s: Option<u32>,
    /// `allowCredentials`.
    pub credentials: Option<bool>,
    /// `unmatchedPreflights: IGNORE`.
    pub ignore_unmatched_preflights: bool,
}

/// An `http` route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualHttp {
    /// `name`.
    pub name: Str,
    /// Matches, ORed; empty matches everything.
    pub matches: Vec<VirtualMatch>,
    /// Destinations.
    pub routes: Vec<WeightedDestination>,
    /// `redirect`.
    pub redirect: Option<VirtualRedirect>,
    /// `directResponse`.
    pub direct_response: Option<DirectResponse>,
    /// `delegate`: namespace (empty = that of the root) and name.
    pub delegate: Option<(Str, Str)>,
    /// `rewrite`.
    pub rewrite: Option<VirtualRewrite>,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `retries`; `None` = the mesh default.
    pub retries: Option<Retries>,
    /// `fault`.
    pub fault: Option<Fault>,
    /// `mirror` and `mirrors`.
    pub mirrors: Vec<VirtualMirror>,
    /// `corsPolicy`.
    pub cors: Option<VirtualCors>,
    /// `headers`; `None` when not given, which a delegate's root fills.
    pub headers: Option<HeaderOperations>,
}

/// One match of a `tcp` or `tls` route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualL4Match {
    /// `sniHosts` (tls only).
    pub sni_hosts: Vec<Str>,
    /// `destinationSubnets`.
    pub destination_subnets: Vec<Str>,
    /// `port`.
    pub port: Option<u16>,
    /// `sourceLabels`.
    pub source_labels: Labels,
    /// `gateways`.
    pub gateways: Vec<Str>,
    /// `sourceNamespace`, empty when unset.
    pub source_namespace: Str,
    /// `sourceSubnet`, empty when unset.
    pub source_subnet: Str,
}

/// A `tcp` or `tls` route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualL4 {
    /// Matches, ORed; empty matches everything.
    pub matches: Vec<VirtualL4Match>,
    /// Destinations.
    pub routes: Vec<WeightedDestination>,
}

/// networking.istio.io VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualService {
    /// Hosts as written.
    pub hosts: Vec<Str>,
    /// Gateways as written; empty = `mesh`.
    pub gateways: Vec<Str>,
    /// `exportTo` as written; empty = the mesh default.
    pub export_to: Vec<Str>,
    /// `http`.
    pub http: Vec<VirtualHttp>,
    /// `tls`.
    pub tls: Vec<VirtualL4>,
    /// `tcp`.
    pub tcp: Vec<VirtualL4>,
}

/// The path of the claim of a verified token that a header key of a match stands for
/// (`@request.auth.claims.a.b` or `@request.auth.claims[a][b]`); `None` for every other key.
/// Source: spec/envoy-config.md §5.3.
pub fn claim_of_header(name: &str) -> Option<Vec<Str>> {
    let text = name.strip_prefix(CLAIMS)?;
    let parts: Vec<&str> = if let Some(dotted) = text.strip_prefix('.') {
        dotted.split('.').collect()
    } else {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        inner.split("][").collect()
    };
    let good = |part: &&str| {
        !part.is_empty() && !part.contains(|c: char| matches!(c, '[' | ']') || c.is_control())
    };
    parts
        .iter()
        .all(good)
        .then(|| parts.into_iter().map(Str::from).collect())
}

/// What header keys that stand for claims begin with.
pub const CLAIMS: &str = "@request.auth.claims";
