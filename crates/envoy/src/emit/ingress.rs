//! Listeners of ingress gateways and their virtual hosts. Source: spec/envoy-config.md §6.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::listener as listener_filters;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use model::Str;
use model::input::PathNormalization;
use model::proxy::{ForwardClientCert, Topology};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::chain::{
    Peer, SERVER_NAME, filter, forwarder, network_policy, normalize, plain_http_filters,
};
use super::listener::{additional, inspector};
use super::route::DIRECT_RESPONSE_BYTES_MAX;
use super::wire::{any, boolean, encode as canonical, seconds, socket, uint32};
use super::{cluster, tls};
use crate::ir::{GatewayBody, GatewayChainIr, GatewayListenerIr, Inspected};

/// Field number of `VirtualHost.routes`.
const ROUTES: u32 = 3;
/// Field number of `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;

/// A virtual host around routes that are encoded already.
pub(super) fn virtual_host<'b>(
    name: String,
    domain: &Str,
    routes: impl Iterator<Item = &'b Bytes>,
) -> Vec<u8> {
    let mut out = canonical(&route::VirtualHost {
        name,
        domains: vec![domain.to_string()],
        include_request_attempt_count: true,
        ..Default::default()
    });
    append(&mut out, ROUTES, routes);
    out
}

/// A route configuration around virtual hosts that are encoded already.
pub(super) fn configuration<'b>(name: &Str, hosts: impl Iterator<Item = &'b Bytes>) -> Vec<u8> {
    let mut out = canonical(&route::RouteConfiguration {
        name: name.to_string(),
        validate_clusters: Some(boolean(false)),
        max_direct_response_body_size_bytes: Some(uint32(DIRECT_RESPONSE_BYTES_MAX)),
        ignore_port_in_host_matching: true,
        ..Default::default()
    });
    append(&mut out, VIRTUAL_HOSTS, hosts);
    out
}

/// Members of a repeated field: put together, their bytes are the same message.
fn append<'b>(out: &mut Vec<u8>, field: u32, members: impl Iterator<Item = &'b Bytes>) {
    for member in members {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(member.len() as u64, out);
        out.extend_from_slice(member);
    }
}

/// A listener.
pub(super) fn encode(ir: &GatewayListenerIr) -> (Str, Vec<u8>) {
    let mut addresses = ir.bind.iter().map(|ip| socket(&ip.to_string(), ir.port));
    let message = listener::Listener {
        name: ir.name.to_string(),
        address: addresses.next(),
        additional_addresses: addresses.map(additional).collect(),
        listener_filters: filters_of_listener(ir),
        filter_chains: chains(ir),
        traffic_direction: if ir.is_inbound {
            core::TrafficDirection::Inbound as i32
        } else {
            core::TrafficDirection::Outbound as i32
        },
        max_connections_to_accept_per_socket_event: Some(uint32(1)),
        ..Default::default()
    };
    (ir.name.clone(), canonical(&message))
}

fn filters_of_listener(ir: &GatewayListenerIr) -> Vec<listener::ListenerFilter> {
    let mut out = Vec::new();
    if ir.topology.proxy_protocol {
        out.push(inspector(
            "envoy.filters.listener.proxy_protocol",
            &listener_filters::proxy_protocol::v3::ProxyProtocol::default(),
            &Inspected::Everywhere,
        ));
    }
    if ir.chains.iter().any(|chain| chain.is_tls) {
        out.push(inspector(
            "envoy.filters.listener.tls_inspector",
            &listener_filters::tls_inspector::v3::TlsInspector::default(),
            &Inspected::Everywhere,
        ));
    }
    out
}

/// Where some connections begin with TLS and some do not, that tells them apart.
fn chains(ir: &GatewayListenerIr) -> Vec<listener::FilterChain> {
    let is_mixed =
        ir.chains.iter().any(|chain| !chain.is_tls) && ir.chains.iter().any(|chain| chain.is_tls);
    ir.chains
        .iter()
        .map(|one| {
            let transport = match (is_mixed, one.is_tls) {
                (false, _) => "",
                (true, true) => "tls",
                (true, false) => "raw_buffer",
            };
            chain(ir, one, transport)
        })
        .collect()
}

fn chain(ir: &GatewayListenerIr, one: &GatewayChainIr, transport: &str) -> listener::FilterChain {
    let names = one.server_names.iter().map(Str::to_string).collect();
    let matches = listener::FilterChainMatch {
        server_names: names,
        transport_protocol: transport.into(),
        ..Default::default()
    };
    let is_everything = one.server_names.is_empty() && transport.is_empty();
    let mut filters = Vec::new();
    match &one.body {
        GatewayBody::Http(routes, normalization) => filters.push(filter(
            "envoy.filters.network.http_connection_manager",
            &manager(ir, one, routes, *normalization),
        )),
        GatewayBody::Tcp(to) => {
            let policies = one.filters.iter();
            filters.extend(policies.filter_map(|one| network_policy(one, Peer::Tls)));
            filters.push(forwarder(&one.name, to));
        }
    }
    listener::FilterChain {
        name: one.name.to_string(),
        filter_chain_match: (!is_everything).then_some(matches),
        filters,
        transport_socket: one.tls.as_ref().map(tls::server),
        transport_socket_connect_timeout: one.tls.is_some().then(|| seconds(15)),
        ..Default::default()
    }
}

fn manager(
    ir: &GatewayListenerIr,
    chain: &GatewayChainIr,
    routes: &Str,
    normalization: PathNormalization,
) -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::{CodecType, RouteSpecifier, Tracing, UpgradeConfig};
    let mut out = hcm::HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: format!("outbound_0.0.0.0_{};", ir.port),
        http_filters: plain_http_filters(&chain.filters, Peer::Tls),
        tracing: Some(Tracing::default()),
        stream_idle_timeout: Some(seconds(0)),
        use_remote_address: Some(boolean(true)),
        xff_num_trusted_hops: ir.topology.trusted_hops,
        server_name: SERVER_NAME.into(),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".into(),
            ..Default::default()
        }],
        request_id_extension: Some(hcm::RequestIdExtension {
            typed_config: Some(any(&UuidRequestIdConfig::default())),
        }),
        route_specifier: Some(RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(cluster::ads()),
            route_config_name: routes.to_string(),
        })),
        ..Default::default()
    };
    normalize(&mut out, normalization);
    forward_client_cert(&mut out, ir.topology);
    out
}

/// What the application is told of the client's certificate.
fn forward_client_cert(out: &mut hcm::HttpConnectionManager, topology: Topology) {
    use hcm::http_connection_manager::{
        ForwardClientCertDetails as Details, SetCurrentClientCertDetails,
    };
    let details = match topology.forward_client_cert {
        ForwardClientCert::Sanitize => Details::Sanitize,
        ForwardClientCert::ForwardOnly => Details::ForwardOnly,
        ForwardClientCert::AppendForward => Details::AppendForward,
        ForwardClientCert::SanitizeSet => Details::SanitizeSet,
        ForwardClientCert::AlwaysForwardOnly => Details::AlwaysForwardOnly,
    };
    out.forward_client_cert_details = details as i32;
    if matches!(details, Details::AppendForward | Details::SanitizeSet) {
        out.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: Some(boolean(true)),
            cert: true,
            dns: true,
            uri: true,
            ..Default::default()
        });
    }
}
