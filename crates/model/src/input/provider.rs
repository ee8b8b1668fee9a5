//! Mesh-wide settings that proxies follow: extension providers and path normalisation.
//! Source: spec/policy-and-traffic.md §0.2, §1.8.

use std::time::Duration;

use crate::Str;

/// `pathNormalization.normalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathNormalization {
    /// `NONE`: the path is taken as it comes.
    None,
    /// `BASE` and `DEFAULT`: RFC 3986.
    #[default]
    Base,
    /// `MERGE_SLASHES`.
    MergeSlashes,
    /// `DECODE_AND_MERGE_SLASHES`.
    DecodeAndMergeSlashes,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedBody {
    /// `maxRequestBytes`.
    pub max_bytes: u32,
    /// `allowPartialMessage`.
    pub allow_partial: bool,
    /// `packAsBytes`.
    pub pack_as_bytes: bool,
}

/// What only authorizers that speak HTTP have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAuthorizer {
    /// `pathPrefix`.
    pub path_prefix: Str,
    /// `includeRequestHeadersInCheck`.
    pub request_headers: Vec<Str>,
    /// `includeAdditionalHeadersInCheck`, sorted.
    pub additional_headers: Vec<(Str, Str)>,
    /// `headersToUpstreamOnAllow`.
    pub upstream_on_allow: Vec<Str>,
    /// `headersToDownstreamOnDeny`.
    pub downstream_on_deny: Vec<Str>,
    /// `headersToDownstreamOnAllow`.
    pub downstream_on_allow: Vec<Str>,
}

/// `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorizer {
    /// `service`: `ns/host` or `host`.
    pub service: Str,
    /// `port`.
    pub port: u16,
    /// `timeout`; `None` = 600 s.
    pub timeout: Option<Duration>,
    /// `failOpen`.
    pub fail_open: bool,
    /// `statusOnError`.
    pub status_on_error: Option<u16>,
    /// `clearRouteCache`.
    pub clear_route_cache: bool,
    /// `includeRequestBodyInCheck`.
    pub body: Option<CheckedBody>,
    /// Speaks HTTP; `None` speaks gRPC.
    pub http: Option<HttpAuthorizer>,
}

/// What a provider is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// Decides about requests.
    Authorizer(Box<Authorizer>),
    /// Another one, by the name of its field.
    Other(Str),
    /// It cannot be read: field (relative to the provider) and reason.
    Invalid(Str, Str),
}

/// `extensionProviders[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionProvider {
    /// Name.
    pub name: Str,
    /// Kind.
    pub kind: ProviderKind,
}
