//! Filter chains of `main_internal`. Source: spec/envoy-config.md §2.4, §2.5.

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as filter_state;
use envoy_types::pb::envoy::extensions::filters::http as http_filters;
use envoy_types::pb::envoy::extensions::filters::network as network_filters;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use model::Str;
use model::input::{PathNormalization, TunnelSettings};
use prost::{Message, Name};

use super::filter::{dynamic, ext_authz, identity, jwt};
use super::wire::{any, boolean, duration, seconds};
use super::{cluster, rbac, route};
use crate::ir::{ChainBody, ChainFilter, ChainIr, RouteSource, TcpIr};

/// Filter state with the original destination.
pub(super) const LOCAL_IP: &str = "envoy.filters.listener.original_dst.local_ip";

/// A chain.
pub(super) fn message(ir: &ChainIr) -> listener::FilterChain {
    let mut filters = Vec::new();
    if ir.republish_destination {
        filters.push(republish_destination());
    }
    match &ir.body {
        ChainBody::Http { .. } => {
            filters.push(filter(
                "envoy.filters.network.http_connection_manager",
                &manager(ir),
            ));
        }
        ChainBody::Tcp(to) => {
            let policies = ir.filters.iter();
            filters.extend(policies.filter_map(|one| network_policy(one, Peer::Hbone)));
            filters.push(forwarder(&ir.name, to));
        }
    }
    listener::FilterChain {
        name: ir.name.to_string(),
        filters,
        ..Default::default()
    }
}

/// Where the identity and the address of a client are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// In filter state: the tunnel that the connection came through was ended before.
    Hbone,
    /// On the connection itself.
    Tls,
}

/// The filter of connections that a policy is. Connections have no tokens.
pub(super) fn network_policy(ir: &ChainFilter, peer: Peer) -> Option<listener::Filter> {
    match ir {
        ChainFilter::Rbac(ir) => Some(filter(rbac::NETWORK, &rbac::network(ir, peer))),
        ChainFilter::ExtAuthz(ir) => {
            let refuse = || {
                let mark = ext_authz::marked(ir, rbac::NETWORK);
                filter(rbac::NETWORK, &rbac::refuse_marked(mark))
            };
            let ask = |config| filter(ext_authz::NAME_NETWORK, &config);
            Some(ext_authz::connection(ir).map_or_else(refuse, ask))
        }
        ChainFilter::Jwt(_) => None,
    }
}

/// The filter of requests that a policy is.
fn http_policy(ir: &ChainFilter, peer: Peer) -> hcm::HttpFilter {
    match ir {
        ChainFilter::Rbac(ir) => http_filter(rbac::HTTP, &rbac::http(ir, peer)),
        ChainFilter::ExtAuthz(ir) => http_filter(ext_authz::NAME_HTTP, &ext_authz::request(ir)),
        ChainFilter::Jwt(ir) => http_filter(jwt::NAME, &jwt::http(ir)),
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

/// Where opaque bytes go.
pub(super) fn forwarder(chain: &str, ir: &TcpIr) -> listener::Filter {
    use envoy_types::pb::envoy::r#type::v3::{HashPolicy, hash_policy};
    use tcp::tcp_proxy::{ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster};
    let (stat_prefix, specifier) = match ir.clusters.as_slice() {
        [(only, _)] => (&**only, ClusterSpecifier::Cluster(only.to_string())),
        several => {
            let weight = |(name, weight): &(Str, u32)| weighted_cluster::ClusterWeight {
                name: name.to_string(),
                weight: *weight,
                ..Default::default()
            };
            let clusters = several.iter().map(weight).collect();
            let weighted = WeightedCluster { clusters };
            (chain, ClusterSpecifier::WeightedClusters(weighted))
        }
    };
    let tunnel = |to: &TunnelSettings| TunnelingConfig {
        hostname: format!("{}:{}", to.host, to.port),
        use_post: to.post,
        ..Default::default()
    };
    let source_ip = hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {});
    let hash = HashPolicy {
        policy_specifier: Some(source_ip),
    };
    let config = tcp::TcpProxy {
        stat_prefix: stat_prefix.into(),
        idle_timeout: ir.idle_timeout.map(duration),
        max_downstream_connection_duration: ir.max_duration.map(duration),
        hash_policy: ir.hash_source_ip.then_some(hash).into_iter().collect(),
        tunneling_config: ir.tunnel.as_ref().map(tunnel),
        cluster_specifier: Some(specifier),
        ..Default::default()
    };
    filter("envoy.filters.network.tcp_proxy", &config)
}

/// The connection manager of a chain of requests. Addresses that a client names in
/// `x-forwarded-for` are not its own, and no policy looks at them.
fn manager(ir: &ChainIr) -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::{
        CodecType, ForwardClientCertDetails, Tracing, UpgradeConfig,
    };
    let mut out = hcm::HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: format!("inbound_0.0.0.0_{};", ir.port),
        http_filters: http_filters(ir),
        tracing: Some(Tracing::default()),
        stream_idle_timeout: Some(seconds(0)),
        use_remote_address: Some(boolean(false)),
        server_name: SERVER_NAME.into(),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".into(),
            ..Default::default()
        }],
        request_id_extension: Some(hcm::RequestIdExtension {
            typed_config: Some(any(&UuidRequestIdConfig::default())),
        }),
        ..Default::default()
    };
    if let ChainBody::Http {
        http2,
        normalization,
        forwards_identity,
        routes,
        ..
    } = &ir.body
    {
        out.http2_protocol_options = http2.then(Default::default);
        normalize(&mut out, *normalization);
        if *forwards_identity {
            out.forward_client_cert_details = ForwardClientCertDetails::AlwaysForwardOnly as i32;
        }
        out.route_specifier = Some(route_specifier(ir, routes));
    }
    out
}

/// What is done to paths before any filter sees them.
pub(super) fn normalize(out: &mut hcm::HttpConnectionManager, how: PathNormalization) {
    use hcm::http_connection_manager::PathWithEscapedSlashesAction as Escaped;
    let unescapes = how == PathNormalization::DecodeAndMergeSlashes;
    out.normalize_path = Some(boolean(how != PathNormalization::None));
    out.merge_slashes = unescapes || how == PathNormalization::MergeSlashes;
    out.path_with_escaped_slashes_action = if unescapes {
        Escaped::UnescapeAndForward as i32
    } else {
        Escaped::KeepUnchanged as i32
    };
}

fn route_specifier(
    ir: &ChainIr,
    routes: &RouteSource,
) -> hcm::http_connection_manager::RouteSpecifier {
    use hcm::http_connection_manager::RouteSpecifier;
    match routes {
        RouteSource::Discovery => RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(cluster::ads()),
            route_config_name: ir.name.to_string(),
        }),
        RouteSource::Inline(routes) => RouteSpecifier::RouteConfig(route::configuration(routes)),
    }
}

/// Value of the `server` header.
pub(super) const SERVER_NAME: &str = "istio-envoy";

/// The HTTP filters in their order. Source: spec/policy-and-traffic.md §0.2.
fn http_filters(ir: &ChainIr) -> Vec<hcm::HttpFilter> {
    use http_filters::grpc_web as web;
    let ChainBody::Http {
        grpc_web,
        forwards_identity,
        dynamic_host,
        ..
    } = &ir.body
    else {
        return Vec::new();
    };
    let mut out = Vec::new();
    if *forwards_identity {
        out.push(http_filter(identity::NAME, &identity::config()));
    }
    let policies = ir.filters.iter();
    out.extend(policies.map(|one| http_policy(one, Peer::Hbone)));
    if *grpc_web {
        out.push(http_filter(
            "envoy.filters.http.grpc_web",
            &web::v3::GrpcWeb {},
        ));
    }
    out.extend(always());
    if let Some(host) = dynamic_host {
        out.push(http_filter(dynamic::NAME_PORT, &dynamic::port(host)));
        out.push(http_filter(dynamic::NAME, &dynamic::http(host)));
    }
    out.extend(last());
    out
}

/// The HTTP filters of a gateway in their order: those of policies, and what every chain has.
pub(super) fn plain_http_filters(policies: &[ChainFilter], peer: Peer) -> Vec<hcm::HttpFilter> {
    let policies = policies.iter().map(|one| http_policy(one, peer));
    policies.chain(always()).chain(last()).collect()
}

/// What every HTTP chain has after policies; routes say what faults and CORS do.
fn always() -> [hcm::HttpFilter; 3] {
    use http_filters::{cors, fault};
    let fault = fault::v3::HttpFault::default();
    [
        http_filter("envoy.filters.http.grpc_stats", &grpc_stats()),
        http_filter("envoy.filters.http.fault", &fault),
        http_filter("envoy.filters.http.cors", &cors::v3::Cors {}),
    ]
}

/// What every HTTP chain ends with. Without state the session filter does nothing; routes give
/// it one.
fn last() -> [hcm::HttpFilter; 2] {
    let session = http_filters::stateful_session::v3::StatefulSession::default();
    [http_filter(route::SESSION_FILTER, &session), router()]
}

fn grpc_stats() -> http_filters::grpc_stats::v3::FilterConfig {
    use http_filters::grpc_stats::v3::{FilterConfig, filter_config::PerMethodStatSpecifier};
    FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(boolean(false))),
        ..Default::default()
    }
}

/// The last HTTP filter.
pub(super) fn router() -> hcm::HttpFilter {
    let config = http_filters::router::v3::Router::default();
    http_filter("envoy.filters.http.router", &config)
}
