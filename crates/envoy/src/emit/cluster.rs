//! Clusters. Source: spec/envoy-config.md §3.

mod options;
mod policy;
mod tls;

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3 as forward;
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::internal_upstream::v3 as upstream;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as http;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata;
use envoy_types::pb::google::protobuf::{Struct, Value, value};
use model::defaults::HBONE_PORT;

use super::wire::{any, duration, extension, internal, seconds, socket, uint32};
use super::{endpoint as ep, origin};
use crate::east_west::FORWARD_INNER_CONNECT;
use crate::ir::{
    ClusterIr, ClusterPolicy, Direction, Discovery, DnsEndpoint, DynamicHost, StaticClusterIr,
    TlsIr,
};

/// Namespace of the per-host metadata that becomes the CONNECT authority.
pub(super) const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";

/// Queries over one UDP socket, after which the resolver opens a new one: some servers and
/// NATs lose track of a port that lives on.
const DNS_UDP_QUERIES_MAX: u32 = 100;

/// A cluster of a service.
pub(super) fn service(ir: &ClusterIr) -> cluster::Cluster {
    let mut out = base(&ir.name);
    out.metadata = Some(service_metadata(ir));
    policy::apply(&mut out, &ir.policy);
    discovery(&mut out, ir);
    // Inner tunnels are opaque.
    let options = (ir.direction != Direction::Crossing).then(|| options::service(ir));
    if let Some(options) = options.flatten() {
        set_options(&mut out, &options);
    }
    let inner = backend_socket(&ir.policy);
    let tunnel = internal_upstream(&[ORIGINAL_DST, "istio"], inner.clone());
    match ir.direction {
        Direction::InboundVip | Direction::Crossing => out.transport_socket = Some(tunnel),
        Direction::Outbound => {
            let direct = if ir.policy.tls.is_some() {
                "user"
            } else {
                "tlsMode-disabled"
            };
            out.transport_socket_matches = socket_matches(tunnel, direct, inner);
        }
    }
    out
}

/// What is spoken to the backend itself: plain bytes or TLS, after the PROXY protocol.
fn backend_socket(policy: &ClusterPolicy) -> core::TransportSocket {
    use core::proxy_protocol_config::Version;
    let inner = policy
        .tls
        .as_ref()
        .map_or_else(super::tls::raw, tls::backend);
    let Some(version) = policy.proxy_protocol else {
        return inner;
    };
    let version = if version == 2 {
        Version::V2
    } else {
        Version::V1
    };
    let config = ProxyProtocolUpstreamTransport {
        config: Some(core::ProxyProtocolConfig {
            version: version as i32,
            ..Default::default()
        }),
        transport_socket: Some(inner),
        ..Default::default()
    };
    super::tls::socket("envoy.transport_sockets.upstream_proxy_protocol", &config)
}

/// A cluster that every waypoint has.
pub(super) fn fixed(ir: &StaticClusterIr) -> cluster::Cluster {
    match ir {
        StaticClusterIr::Internal(name, listener) => to_listener(name, listener),
        StaticClusterIr::ConnectOriginate(tls, idle) => connect_originate(tls, *idle),
        StaticClusterIr::ForwardInnerConnect => forward_inner_connect(),
        StaticClusterIr::Nobody(name) => cluster::Cluster {
            cluster_discovery_type: Some(of_type(cluster::cluster::DiscoveryType::Static)),
            ..base(name)
        },
    }
}

/// What all clusters have.
fn base(name: &str) -> cluster::Cluster {
    cluster::Cluster {
        name: name.into(),
        alt_stat_name: format!("{name};"),
        connect_timeout: Some(seconds(10)),
        circuit_breakers: Some(policy::circuit_breakers(&ClusterPolicy::default())),
        ..Default::default()
    }
}

fn of_type(kind: cluster::cluster::DiscoveryType) -> cluster::cluster::ClusterDiscoveryType {
    cluster::cluster::ClusterDiscoveryType::Type(kind as i32)
}

fn discovery(out: &mut cluster::Cluster, ir: &ClusterIr) {
    use cluster::cluster::{DiscoveryType, EdsClusterConfig};
    match &ir.discovery {
        Discovery::Eds => {
            out.cluster_discovery_type = Some(of_type(DiscoveryType::Eds));
            out.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: ir.name.to_string(),
            });
        }
        Discovery::OriginalDst => {
            out.cluster_discovery_type = Some(of_type(DiscoveryType::OriginalDst));
            provides_itself(out);
        }
        Discovery::StrictDns(targets) => {
            out.cluster_discovery_type = Some(of_type(DiscoveryType::StrictDns));
            dns(out, targets);
        }
        Discovery::Dynamic(host) => {
            out.cluster_discovery_type = Some(dynamic(ir, host));
            provides_itself(out);
        }
        Discovery::Nobody => {
            out.cluster_discovery_type = Some(of_type(DiscoveryType::Static));
        }
        Discovery::LogicalDns(target) => {
            out.cluster_discovery_type = Some(of_type(DiscoveryType::LogicalDns));
            dns(out, std::slice::from_ref(target));
        }
    }
}

/// The cluster chooses its hosts itself: nothing of load balancing applies.
fn provides_itself(out: &mut cluster::Cluster) {
    out.lb_policy = cluster::cluster::LbPolicy::ClusterProvided as i32;
    out.lb_config = None;
    if let Some(common) = &mut out.common_lb_config {
        common.locality_config_specifier = None;
    }
}

/// Hosts are resolved per request. Envoy wants to hear it when a certificate need not be for
/// the host of the request.
fn dynamic(ir: &ClusterIr, host: &DynamicHost) -> cluster::cluster::ClusterDiscoveryType {
    use cluster::cluster::{ClusterDiscoveryType, CustomClusterType};
    use forward::cluster_config::ClusterImplementationSpecifier;
    let tls = ir.policy.tls.as_ref();
    let config = forward::ClusterConfig {
        allow_insecure_cluster_options: tls.is_some_and(|tls| !tls::names_come_from_request(tls)),
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
            super::filter::dynamic::cache(host),
        )),
        ..Default::default()
    };
    ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".into(),
        typed_config: Some(any(&config)),
    })
}

/// Discovery over the stream that everything else comes from.
pub(super) fn ads() -> core::ConfigSource {
    use core::config_source::ConfigSourceSpecifier;
    core::ConfigSource {
        initial_fetch_timeout: Some(seconds(0)),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    }
}

#[allow(
    deprecated,
    reason = "the successor is a cluster extension that older Envoys lack"
)]
fn dns(out: &mut cluster::Cluster, targets: &[DnsEndpoint]) {
    let lb_endpoint = |target: &DnsEndpoint| endpoint::LbEndpoint {
        load_balancing_weight: Some(uint32(target.weight)),
        ..ep::at(socket(&target.host, target.port))
    };
    out.dns_refresh_rate = Some(seconds(60));
    out.respect_dns_ttl = true;
    out.dns_jitter = Some(envoy_types::pb::google::protobuf::Duration {
        seconds: 0,
        nanos: 100_000_000,
    });
    // Which families a proxy can use, only the proxy knows: the resolver leaves the others out.
    out.dns_lookup_family = cluster::cluster::DnsLookupFamily::All as i32;
    out.typed_dns_resolver_config = Some(resolver());
    out.load_assignment = Some(endpoint::ClusterLoadAssignment {
        cluster_name: out.name.clone(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: targets.iter().map(lb_endpoint).collect(),
            ..Default::default()
        }],
        ..Default::default()
    });
}

/// How names are resolved.
pub(super) fn resolver() -> core::TypedExtensionConfig {
    let config = CaresDnsResolverConfig {
        udp_max_queries: Some(uint32(DNS_UDP_QUERIES_MAX)),
        filter_unroutable_families: true,
        ..Default::default()
    };
    extension("envoy.network.dns_resolver.cares", &config)
}

/// To an internal listener, as plain bytes. Filter state crosses because it is shared, so
/// no metadata is passed.
fn to_listener(name: &str, listener: &str) -> cluster::Cluster {
    let mut out = base(name);
    out.cluster_discovery_type = Some(of_type(cluster::cluster::DiscoveryType::Static));
    out.load_assignment = Some(endpoint::ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![ep::at(internal(listener, String::new()))],
            ..Default::default()
        }],
        ..Default::default()
    });
    out.transport_socket = Some(internal_upstream(&[], super::tls::raw()));
    if *listener != *FORWARD_INNER_CONNECT {
        let idle = Duration::from_secs(300);
        protocol(&mut out, options::use_downstream(), idle);
    }
    out
}

/// To the HBONE port of whatever the connection is for, as plain bytes: they are a tunnel already.
fn forward_inner_connect() -> cluster::Cluster {
    use cluster::cluster::{DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig};
    let mut out = base(&FORWARD_INNER_CONNECT);
    out.cluster_discovery_type = Some(of_type(DiscoveryType::OriginalDst));
    out.lb_policy = LbPolicy::ClusterProvided as i32;
    out.cleanup_interval = Some(seconds(60));
    out.lb_config = Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
        upstream_port_override: Some(uint32(HBONE_PORT.into())),
        ..Default::default()
    }));
    out
}

fn connect_originate(ir: &TlsIr, idle: Duration) -> cluster::Cluster {
    use cluster::cluster::{DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig};
    use metadata::metadata_key::{PathSegment, path_segment::Segment};
    let segment = PathSegment {
        segment: Some(Segment::Key("waypoint".into())),
    };
    let mut out = base("connect_originate");
    out.cluster_discovery_type = Some(of_type(DiscoveryType::OriginalDst));
    out.lb_policy = LbPolicy::ClusterProvided as i32;
    out.cleanup_interval = Some(seconds(60));
    out.lb_config = Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
        upstream_port_override: Some(uint32(HBONE_PORT.into())),
        metadata_key: Some(metadata::MetadataKey {
            key: ORIGINAL_DST.into(),
            path: vec![segment],
        }),
        ..Default::default()
    }));
    protocol(&mut out, options::connect(), idle);
    out.transport_socket = Some(super::tls::upstream(ir));
    out
}

fn protocol(
    out: &mut cluster::Cluster,
    options: http::http_protocol_options::UpstreamProtocolOptions,
    idle: Duration,
) {
    let common = core::HttpProtocolOptions {
        idle_timeout: Some(duration(idle)),
        ..Default::default()
    };
    let options = http::HttpProtocolOptions {
        common_http_protocol_options: Some(common),
        upstream_protocol_options: Some(options),
        ..Default::default()
    };
    set_options(out, &options);
}

fn set_options(out: &mut cluster::Cluster, options: &http::HttpProtocolOptions) {
    out.typed_extension_protocol_options = [(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
        any(options),
    )]
    .into();
}

/// Internal upstream, passing these host metadata on. With ordinary socket endpoints it is the
/// inner socket alone.
fn internal_upstream(passed: &[&str], inner: core::TransportSocket) -> core::TransportSocket {
    use metadata::metadata_kind::{Host, Kind};
    use upstream::internal_upstream_transport::MetadataValueSource;
    let source = |name: &&str| MetadataValueSource {
        kind: Some(metadata::MetadataKind {
            kind: Some(Kind::Host(Host {})),
        }),
        name: (*name).into(),
    };
    let config = upstream::InternalUpstreamTransport {
        passthrough_metadata: passed.iter().map(source).collect(),
        transport_socket: Some(inner),
    };
    super::tls::socket("internal_upstream", &config)
}

/// HBONE for endpoints marked so, the socket of the backend itself for the others.
fn socket_matches(
    tunnel: core::TransportSocket,
    direct: &str,
    inner: core::TransportSocket,
) -> Vec<cluster::cluster::TransportSocketMatch> {
    use cluster::cluster::TransportSocketMatch;
    vec![
        TransportSocketMatch {
            name: "hbone".into(),
            r#match: Some(text_struct(&[("tunnel", "http")])),
            transport_socket: Some(tunnel),
        },
        TransportSocketMatch {
            name: direct.into(),
            r#match: Some(Struct::default()),
            transport_socket: Some(inner),
        },
    ]
}

fn text(text: &str) -> Value {
    Value {
        kind: Some(value::Kind::StringValue(text.into())),
    }
}

/// A struct of texts.
pub(super) fn text_struct(fields: &[(&str, &str)]) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(key, v)| ((*key).into(), text(v)))
            .collect(),
    }
}

/// Which service this is, for telemetry.
fn service_metadata(ir: &ClusterIr) -> core::Metadata {
    use envoy_types::pb::google::protobuf::ListValue;
    let service = text_struct(&[
        ("host", &ir.service.hostname),
        ("name", &ir.service_name),
        ("namespace", &ir.service.ns),
    ]);
    let list = ListValue {
        values: vec![Value {
            kind: Some(value::Kind::StructValue(service)),
        }],
    };
    let mut istio = Struct::default();
    istio.fields.insert(
        "services".into(),
        Value {
            kind: Some(value::Kind::ListValue(list)),
        },
    );
    if let Some(rule) = &ir.policy.rule {
        let path = origin::path("DestinationRule", rule);
        istio.fields.insert("config".into(), text(&path));
    }
    if !ir.subset.is_empty() {
        istio.fields.insert("subset".into(), text(&ir.subset));
    }
    core::Metadata {
        filter_metadata: [("istio".to_owned(), istio)].into(),
        ..Default::default()
    }
}
