//! One descriptor pool for our own messages and the Envoy messages we emit.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::FileDescriptorSet;

use crate::{Error, type_url};

/// Our own files, compiled by the build script.
const OWN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/own.bin"));
/// Envoy's files, pruned and checked in by `cargo xtask gen`.
const ENVOY: &[u8] = include_bytes!("../descriptors/envoy.bin");

/// The Envoy messages that the pool must know, by full name. `cargo xtask gen`
/// keeps these and what they refer to; add a name here before emitting a new
/// extension. Source: spec/envoy-config.md §0.1.
pub const ENVOY_ROOTS: &[&str] = &[
    // Resources and the bootstrap file.
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.core.v3.TypedExtensionConfig",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.route.v3.ScopedRouteConfiguration",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    // The protocol itself.
    "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    "envoy.service.discovery.v3.DiscoveryRequest",
    "envoy.service.discovery.v3.DiscoveryResponse",
    // Network filters.
    "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.network.rbac.v3.RBAC",
    "envoy.extensions.filters.network.set_filter_state.v3.Config",
    "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "envoy.extensions.filters.network.wasm.v3.Wasm",
    // HTTP filters.
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
    "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig",
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
    "envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
    "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.lua.v3.Lua",
    "envoy.extensions.filters.http.lua.v3.LuaPerRoute",
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.set_filter_state.v3.Config",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
    "envoy.extensions.filters.http.wasm.v3.Wasm",
    "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
    "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState",
    // Listener filters.
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    // Transport sockets and upstreams.
    "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
    "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    // Names.
    "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
    // Matching.
    "envoy.extensions.matching.common_inputs.network.v3.ApplicationProtocolInput",
    "envoy.extensions.matching.common_inputs.network.v3.DestinationIPInput",
    "envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput",
    "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
    "envoy.extensions.matching.common_inputs.network.v3.ServerNameInput",
    "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput",
    "envoy.extensions.matching.common_inputs.network.v3.TransportProtocolInput",
    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
    "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
    "xds.type.matcher.v3.IPMatcher",
    "xds.type.matcher.v3.Matcher",
    // Retries and load balancing.
    "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided",
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
    "envoy.extensions.load_balancing_policies.random.v3.Random",
    "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    // Telemetry.
    "envoy.config.trace.v3.OpenTelemetryConfig",
    "envoy.config.trace.v3.ZipkinConfig",
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
    "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.formatter.cel.v3.Cel",
    "envoy.extensions.formatter.metadata.v3.Metadata",
    "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
    "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    // Bootstrap extensions.
    "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
    // Payloads and vocabulary.
    "google.protobuf.Any",
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.Duration",
    "google.protobuf.Empty",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.ListValue",
    "google.protobuf.StringValue",
    "google.protobuf.Struct",
    "google.protobuf.Timestamp",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.Value",
];

/// Every message this product can name, parsed once.
///
/// Our own discovery and node messages are slices of Envoy's; the pool holds the
/// full ones, and of ours only the `istio` packages.
pub fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        // A test builds the same pool and fails on any error. Should a file be
        // damaged all the same, its messages are unknown types, not a panic.
        build(ENVOY, OWN).unwrap_or_default()
    })
}

/// The descriptor of a message, by full name or type URL.
///
/// # Errors
/// [`Error::UnknownType`] when the pool does not have it.
pub fn message(type_url: &str) -> Result<MessageDescriptor, Error> {
    let name = type_url::message_name(type_url);
    pool()
        .get_message_by_name(name)
        .ok_or_else(|| Error::UnknownType(name.to_owned()))
}

/// The pool of two descriptor sets; of `own` only the files under `istio/`.
fn build(envoy: &[u8], own: &[u8]) -> Result<DescriptorPool, Error> {
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_set(FileDescriptorSet::decode(envoy)?)?;
    let mut own = FileDescriptorSet::decode(own)?;
    own.file.retain(|file| file.name().starts_with("istio/"));
    pool.add_file_descriptor_set(own)?;
    Ok(pool)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Checked-in bytes that reviewers can still live with.
    const ENVOY_BYTES_MAX: usize = 600 * 1024;

    #[test]
    fn the_checked_in_descriptors_parse_and_stay_small() {
        let pool = build(ENVOY, OWN).unwrap();
        assert!(pool.all_messages().len() > ENVOY_ROOTS.len());
        assert!(ENVOY.len() < ENVOY_BYTES_MAX, "{} bytes", ENVOY.len());
    }

    #[test]
    fn every_root_and_every_served_type_resolves() {
        let served = [
            type_url::ADDRESS,
            type_url::WORKLOAD,
            type_url::AUTHORIZATION,
            type_url::CLUSTER,
            type_url::ENDPOINT,
            type_url::LISTENER,
            type_url::ROUTE,
            type_url::SECRET,
            type_url::EXTENSION_CONFIG,
            type_url::BOOTSTRAP,
            type_url::IP_MATCHER,
        ];
        let missing: Vec<&str> = ENVOY_ROOTS
            .iter()
            .chain(&served)
            .copied()
            .filter(|name| message(name).is_err())
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn the_ip_matcher_uses_the_full_matcher_types() {
        let range = message("xds.type.matcher.v3.IPMatcher.IPRangeMatcher").unwrap();
        let kinds: Vec<String> = range
            .fields()
            .filter_map(|field| field.kind().as_message().map(|m| m.full_name().to_owned()))
            .collect();
        assert_eq!(
            kinds,
            [
                "xds.core.v3.CidrRange",
                "xds.type.matcher.v3.Matcher.OnMatch"
            ]
        );
    }
}
