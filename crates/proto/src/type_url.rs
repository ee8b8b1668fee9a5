//! Type URLs of the resources we serve. Source: spec/workload-discovery.md §1.1,
//! spec/envoy-config.md §1.6.

/// What every type URL starts with; the rest is the message name.
pub const PREFIX: &str = "type.googleapis.com/";
/// Workloads and services, for ztunnel.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// Workloads alone, for metadata discovery.
pub const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
/// L4 policy, for ztunnel.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
/// CDS.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// EDS.
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// LDS.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// RDS.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// SDS.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// ECDS.
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// The bootstrap file of a proxy; never served, only written and rendered.
pub const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";
/// The address-range matcher of the unified matcher.
pub const IP_MATCHER: &str = "type.googleapis.com/xds.type.matcher.v3.IPMatcher";

/// The message name of a type URL: what follows the last slash, or all of it.
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}
