//! Hosts that are resolved per request. Source: spec/envoy-config.md §3.3.

use envoy_types::pb::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use envoy_types::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as proxy;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state;

use super::super::chain::shared_state;
use super::super::cluster::resolver;
use super::super::wire::seconds;
use crate::ir::DynamicHost;

/// Name of the filter.
pub(in super::super) const NAME: &str = "envoy.filters.http.dynamic_forward_proxy";

/// Name of the filter that says which port is called.
pub(in super::super) const NAME_PORT: &str = "dynamic_port";

/// The port of a host that names none: Envoy would take that of the scheme.
pub(in super::super) fn port(host: &DynamicHost) -> set_filter_state::v3::Config {
    let entry = shared_state("envoy.upstream.dynamic_port", &host.port.to_string(), "");
    set_filter_state::v3::Config {
        on_request_headers: vec![FilterStateValue {
            shared_with_upstream: 0,
            ..entry
        }],
        ..Default::default()
    }
}

/// The filter of requests.
pub(in super::super) fn http(host: &DynamicHost) -> proxy::FilterConfig {
    use proxy::filter_config::ImplementationSpecifier;
    proxy::FilterConfig {
        allow_dynamic_host_from_filter_state: true,
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(cache(host))),
        ..Default::default()
    }
}

/// The cache of names. Envoy refuses two caches of one name that differ, so the filter and the
/// cluster both have it from here.
pub(in super::super) fn cache(host: &DynamicHost) -> DnsCacheConfig {
    DnsCacheConfig {
        name: host.host.to_string(),
        dns_lookup_family: DnsLookupFamily::All as i32,
        dns_refresh_rate: Some(seconds(60)),
        typed_dns_resolver_config: Some(resolver()),
        ..Default::default()
    }
}
