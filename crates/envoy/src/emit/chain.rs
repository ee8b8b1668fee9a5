//! Filter chains of `main_internal`. Source: spec/envoy-config.md §2.4, §2.5.

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as filter_state;
use envoy_types::pb::envoy::extensions::filters::http as http_filters;
use envoy_types::pb::envoy::extensions::filters::network as network_filters;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::google::protobuf::BoolValue;
use prost::{Message, Name};

use super::wire::{any, seconds};
use super::{cluster, rbac, route};
use crate::ir::{ChainBody, ChainFilter, ChainIr, RouteSource};

/// Filter state with the original destination.
pub(super) const LOCAL_IP: &str = "envoy.filters.listener.original_dst.local_ip";

/// A chain.
pub(super) fn message(ir: &ChainIr) -> listener::FilterChain {
    let mut filters = Vec::new();
    if ir.republish_destination {
        filters.push(republish_destination());
    }
    match &ir.body {
        ChainBody::Http {
            http2,
            grpc_web,
            routes,
            ..
        } => {
            filters.push(filter(
                "envoy.filters.network.http_connection_manager",
                &manager(ir, *http2, *grpc_web, routes),
            ));
        }
        ChainBody::Tcp(to) => {
            filters.extend(ir.filters.iter().filter_map(network_policy));
            let cluster = to.clusters.first().map_or("", |(cluster, _)| cluster);
            filters.push(tcp_proxy(cluster, cluster, None));
        }
    }
    listener::FilterChain {
        name: ir.name.to_string(),
        filters,
        ..Default::default()
    }
}

/// The filter of connections that a policy is.
fn network_policy(ir: &ChainFilter) -> Option<listener::Filter> {
    match ir {
        ChainFilter::Rbac(ir) => Some(filter("envoy.filters.network.rbac", &rbac::network(ir))),
        ChainFilter::ExtAuthz(_) | ChainFilter::Jwt(_) => None,
    }
}

/// The filter of requests that a policy is.
fn http_policy(ir: &ChainFilter) -> Option<hcm::HttpFilter> {
    match ir {
        ChainFilter::Rbac(ir) => Some(http_filter("envoy.filters.http.rbac", &rbac::http(ir))),
        ChainFilter::ExtAuthz(_) | ChainFilter::Jwt(_) => None,
    }
}

/// A network filter.
pub(super) fn filter<M: Message + Name>(name: &str, config: &M) -> listener::Filter {
    let config_type = Some(listener::filter::ConfigType::TypedConfig(any(config)));
    listener::Filter {
        name: name.into(),
        config_type,
    }
}

/// An HTTP filter.
pub(super) fn http_filter<M: Message + Name>(name: &str, config: &M) -> hcm::HttpFilter {
    let config_type = Some(hcm::http_filter::ConfigType::TypedConfig(any(config)));
    hcm::HttpFilter {
        name: name.into(),
        config_type,
        ..Default::default()
    }
}

/// A TCP proxy, tunnelled when a CONNECT authority is given.
pub(super) fn tcp_proxy(
    stat_prefix: &str,
    cluster: &str,
    connect: Option<&str>,
) -> listener::Filter {
    let tunneling_config = connect.map(|hostname| tcp::tcp_proxy::TunnelingConfig {
        hostname: hostname.into(),
        ..Default::default()
    });
    let config = tcp::TcpProxy {
        stat_prefix: stat_prefix.into(),
        tunneling_config,
        cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    };
    filter("envoy.filters.network.tcp_proxy", &config)
}

/// A filter state entry that the next internal connection sees.
pub(super) fn shared_state(
    key: &str,
    format: &str,
    factory: &str,
) -> filter_state::FilterStateValue {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use filter_state::filter_state_value::{Key, SharedWithUpstream, Value};
    let text = core::data_source::Specifier::InlineString(format.into());
    let source = core::DataSource {
        specifier: Some(text),
        ..Default::default()
    };
    let format = core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::TextFormatSource(
            source,
        )),
        ..Default::default()
    };
    filter_state::FilterStateValue {
        factory_key: factory.into(),
        shared_with_upstream: SharedWithUpstream::Once as i32,
        key: Some(Key::ObjectKey(key.into())),
        value: Some(Value::FormatString(format)),
        ..Default::default()
    }
}

/// The first sharing of the destination has expired on this connection, and `encap` has no
/// host metadata that would carry it.
fn republish_destination() -> listener::Filter {
    let format = format!("%FILTER_STATE({LOCAL_IP}:PLAIN)%");
    let config = network_filters::set_filter_state::v3::Config {
        on_new_connection: vec![shared_state(LOCAL_IP, &format, "")],
        ..Default::default()
    };
    filter("connect_authority", &config)
}

fn manager(
    ir: &ChainIr,
    http2: bool,
    grpc_web: bool,
    routes: &RouteSource,
) -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::{
        CodecType, PathWithEscapedSlashesAction, RouteSpecifier, Tracing, UpgradeConfig,
    };
    let routes = match routes {
        RouteSource::Discovery => RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(cluster::ads()),
            route_config_name: ir.name.to_string(),
        }),
        RouteSource::Inline(routes) => RouteSpecifier::RouteConfig(route::configuration(routes)),
    };
    let escaped = PathWithEscapedSlashesAction::KeepUnchanged as i32;
    hcm::HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: format!("inbound_0.0.0.0_{};", ir.port),
        http_filters: http_filters(ir, grpc_web),
        tracing: Some(Tracing::default()),
        http2_protocol_options: http2.then(Default::default),
        stream_idle_timeout: Some(seconds(0)),
        use_remote_address: Some(BoolValue { value: false }),
        server_name: SERVER_NAME.into(),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".into(),
            ..Default::default()
        }],
        normalize_path: Some(BoolValue { value: true }),
        path_with_escaped_slashes_action: escaped,
        request_id_extension: Some(hcm::RequestIdExtension {
            typed_config: Some(any(&UuidRequestIdConfig::default())),
        }),
        route_specifier: Some(routes),
        ..Default::default()
    }
}

/// Value of the `server` header.
pub(super) const SERVER_NAME: &str = "istio-envoy";

fn http_filters(ir: &ChainIr, grpc_web: bool) -> Vec<hcm::HttpFilter> {
    use http_filters::{cors, fault, grpc_stats, grpc_web as web};
    let mut out: Vec<hcm::HttpFilter> = ir.filters.iter().filter_map(http_policy).collect();
    if grpc_web {
        out.push(http_filter(
            "envoy.filters.http.grpc_web",
            &web::v3::GrpcWeb {},
        ));
    }
    let per_method =
        grpc_stats::v3::filter_config::PerMethodStatSpecifier::StatsForAllMethods(BoolValue {
            value: false,
        });
    let stats = grpc_stats::v3::FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(per_method),
        ..Default::default()
    };
    out.push(http_filter("envoy.filters.http.grpc_stats", &stats));
    out.push(http_filter(
        "envoy.filters.http.fault",
        &fault::v3::HttpFault::default(),
    ));
    out.push(http_filter("envoy.filters.http.cors", &cors::v3::Cors {}));
    out.push(router());
    out
}

/// The last HTTP filter.
pub(super) fn router() -> hcm::HttpFilter {
    let config = http_filters::router::v3::Router::default();
    http_filter("envoy.filters.http.router", &config)
}
