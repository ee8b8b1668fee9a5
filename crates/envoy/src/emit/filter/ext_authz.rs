//! External authorization. Source: spec/policy-and-traffic.md §1.8.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3 as http;
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3 as network;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode};
use model::Str;
use model::input::CheckedBody;

use super::super::metadata;
use super::super::rbac::{HTTP, NETWORK};
use super::super::wire::{duration, string};
use crate::ir::{ExtAuthzIr, HttpAuthorizerIr, StrMatch};

/// Name of the filter of requests.
pub(in super::super) const NAME_HTTP: &str = "envoy.filters.http.ext_authz";
/// Name of the filter of connections.
pub(in super::super) const NAME_NETWORK: &str = "envoy.filters.network.ext_authz";
/// Key under which the RBAC filter before it leaves its mark.
const MARK: &str = "istio_ext_authz_shadow_effective_policy_id";

/// The filter of requests.
pub(in super::super) fn request(ir: &ExtAuthzIr) -> http::ExtAuthz {
    use http::ext_authz::Services;
    let (services, allowed_headers) = match &ir.http {
        None => (Services::GrpcService(grpc(ir)), None),
        Some(own) => (
            Services::HttpService(http_service(ir, own)),
            headers(&own.request_headers),
        ),
    };
    http::ExtAuthz {
        transport_api_version: core::ApiVersion::V3 as i32,
        failure_mode_allow: ir.fail_open,
        with_request_body: ir.body.map(body),
        clear_route_cache: ir.clear_route_cache,
        status_on_error: ir.status_on_error.and_then(status),
        filter_enabled_metadata: Some(marked(ir, HTTP)),
        allowed_headers,
        services: Some(services),
        ..Default::default()
    }
}

/// The filter of connections; `None` for an authorizer that only knows requests.
pub(in super::super) fn connection(ir: &ExtAuthzIr) -> Option<network::ExtAuthz> {
    ir.http.is_none().then(|| network::ExtAuthz {
        stat_prefix: "tcp.".into(),
        grpc_service: Some(grpc(ir)),
        failure_mode_allow: ir.fail_open,
        transport_api_version: core::ApiVersion::V3 as i32,
        filter_enabled_metadata: Some(marked(ir, NETWORK)),
        ..Default::default()
    })
}

/// Only what the RBAC filter before marked for this provider is asked about.
pub(in super::super) fn marked(ir: &ExtAuthzIr, rbac: &str) -> matcher::MetadataMatcher {
    // Up to the bracket, since the name of another provider may begin with this one's.
    let prefix = arcstr::format!("istio-ext-authz-{}-ns[", ir.provider);
    let value = metadata::text_value(string(&StrMatch::Prefix(prefix), false));
    metadata::entry(rbac, [MARK], value)
}

/// A status that Envoy has a name for; it refuses others.
fn status(code: u16) -> Option<HttpStatus> {
    let code = StatusCode::try_from(i32::from(code)).ok()?;
    (code != StatusCode::Empty).then_some(HttpStatus { code: code as i32 })
}

fn grpc(ir: &ExtAuthzIr) -> core::GrpcService {
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let target = EnvoyGrpc {
        cluster_name: ir.cluster.to_string(),
        authority: ir.host.to_string(),
        ..Default::default()
    };
    core::GrpcService {
        timeout: Some(duration(ir.timeout)),
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
        ..Default::default()
    }
}

fn http_service(ir: &ExtAuthzIr, own: &HttpAuthorizerIr) -> http::HttpService {
    let uri = core::HttpUri {
        uri: own.uri.to_string(),
        timeout: Some(duration(ir.timeout)),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(
            ir.cluster.to_string(),
        )),
    };
    let header = |(name, value): &(Str, Str)| core::HeaderValue {
        key: name.to_string(),
        value: value.to_string(),
        ..Default::default()
    };
    let add = &own.additional_headers;
    let request = http::AuthorizationRequest {
        headers_to_add: add.iter().map(header).collect(),
        ..Default::default()
    };
    let response = http::AuthorizationResponse {
        allowed_upstream_headers: headers(&own.upstream_on_allow),
        allowed_client_headers: headers(&own.downstream_on_deny),
        allowed_client_headers_on_success: headers(&own.downstream_on_allow),
        ..Default::default()
    };
    http::HttpService {
        server_uri: Some(uri),
        path_prefix: own.path_prefix.to_string(),
        authorization_request: (!add.is_empty()).then_some(request),
        authorization_response: (response != http::AuthorizationResponse::default())
            .then_some(response),
        ..Default::default()
    }
}

/// Names of headers; `None` for no list at all, which is not an empty one.
fn headers(names: &[StrMatch]) -> Option<matcher::ListStringMatcher> {
    let patterns: Vec<_> = names.iter().map(|name| string(name, true)).collect();
    (!patterns.is_empty()).then_some(matcher::ListStringMatcher { patterns })
}

fn body(ir: CheckedBody) -> http::BufferSettings {
    http::BufferSettings {
        max_request_bytes: ir.max_bytes,
        allow_partial_message: ir.allow_partial,
        pack_as_bytes: ir.pack_as_bytes,
    }
}
