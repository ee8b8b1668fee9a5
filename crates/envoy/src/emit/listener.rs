//! Listeners. Source: spec/envoy-config.md §2.1–§2.3, §2.7.

use std::collections::BTreeSet;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{
    MatchSet, Rule,
};
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http as http_filters;
use envoy_types::pb::envoy::extensions::filters::listener as listener_filters;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::protobuf::BoolValue;
use model::Str;
use model::defaults::HBONE_PORT;
use model::proxy::StringFactory;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name};

use super::chain::{LOCAL_IP, SERVER_NAME, filter, http_filter, router, shared_state, tcp_proxy};
use super::wire::{any, encode as canonical, seconds, socket, uint32};
use super::{istio as istio_form, matcher, tls};
use crate::east_west::FORWARD_INNER_CONNECT;
use crate::ir::{ChainBody, ChainIr, Inspected, ListenerIr, MainIr, TcpIr, TlsIr};
use crate::listeners::{CONNECT_ORIGINATE, CONNECT_TERMINATE, MAIN_INTERNAL};
use crate::static_clusters::BLACK_HOLE;

/// Field number of `Listener.filter_chains`.
const FILTER_CHAINS: u32 = 3;

/// Name and bytes of a listener.
pub(super) fn encode(ir: &ListenerIr) -> (Str, Vec<u8>) {
    match ir {
        ListenerIr::ConnectTerminate {
            bind,
            tls,
            strings,
            istio,
            tells_source,
        } => {
            let mut terminator = terminator(*strings);
            if *istio {
                terminator.http_filters.insert(0, istio_form::downstream());
            }
            if *tells_source {
                terminator.http_filters.insert(1, request_source(*strings));
            }
            let message = connect_terminate(bind, tls, &terminator);
            (CONNECT_TERMINATE, canonical(&message))
        }
        ListenerIr::Main(main) => (MAIN_INTERNAL, main_internal(main)),
        ListenerIr::ConnectOriginate => {
            let authority = Some("%DOWNSTREAM_LOCAL_ADDRESS%");
            let message = by_destination(&CONNECT_ORIGINATE, authority);
            (CONNECT_ORIGINATE, canonical(&message))
        }
        ListenerIr::ForwardInnerConnect => {
            let message = by_destination(&FORWARD_INNER_CONNECT, None);
            (FORWARD_INNER_CONNECT, canonical(&message))
        }
        ListenerIr::Gateway(ir) => super::ingress::encode(ir),
    }
}

fn connect_terminate(
    bind: &[IpAddr],
    tls: &TlsIr,
    terminator: &hcm::HttpConnectionManager,
) -> listener::Listener {
    use listener::listener::{
        ConnectionBalanceConfig,
        connection_balance_config::{BalanceType, ExactBalance},
    };
    let manager = filter("envoy.filters.network.http_connection_manager", terminator);
    let mut addresses = bind.iter().map(|ip| socket(&ip.to_string(), HBONE_PORT));
    listener::Listener {
        name: CONNECT_TERMINATE.to_string(),
        address: addresses.next(),
        additional_addresses: addresses.map(additional).collect(),
        filter_chains: vec![listener::FilterChain {
            name: "default".into(),
            filters: vec![manager],
            transport_socket: Some(tls::downstream(tls)),
            ..Default::default()
        }],
        connection_balance_config: Some(ConnectionBalanceConfig {
            balance_type: Some(BalanceType::ExactBalance(ExactBalance {})),
        }),
        ..Default::default()
    }
}

/// A further address.
pub(super) fn additional(address: core::Address) -> listener::AdditionalAddress {
    listener::AdditionalAddress {
        address: Some(address),
        ..Default::default()
    }
}

fn terminator(strings: StringFactory) -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::{
        ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
    };
    let keepalive = core::KeepaliveSettings {
        interval: Some(seconds(10)),
        timeout: Some(seconds(20)),
        ..Default::default()
    };
    hcm::HttpConnectionManager {
        stat_prefix: CONNECT_TERMINATE.to_string(),
        http_filters: vec![connect_authority(strings), router()],
        http2_protocol_options: Some(core::Http2ProtocolOptions {
            allow_connect: true,
            max_concurrent_streams: Some(uint32(100)),
            connection_keepalive: Some(keepalive),
            ..Default::default()
        }),
        server_name: SERVER_NAME.into(),
        stream_idle_timeout: Some(seconds(0)),
        use_remote_address: Some(BoolValue { value: false }),
        forward_client_cert_details: ForwardClientCertDetails::AppendForward as i32,
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: Some(BoolValue { value: true }),
            dns: true,
            uri: true,
            ..Default::default()
        }),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "CONNECT".into(),
            ..Default::default()
        }],
        route_specifier: Some(RouteSpecifier::RouteConfig(connect_routes())),
        ..Default::default()
    }
}

fn connect_routes() -> route::RouteConfiguration {
    use route::route_action::{ClusterSpecifier, UpgradeConfig, upgrade_config::ConnectConfig};
    use route::route_match::{ConnectMatcher, PathSpecifier};
    let action = route::RouteAction {
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "CONNECT".into(),
            connect_config: Some(ConnectConfig::default()),
            ..Default::default()
        }],
        cluster_specifier: Some(ClusterSpecifier::Cluster(MAIN_INTERNAL.to_string())),
        ..Default::default()
    };
    let connect = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    route::RouteConfiguration {
        name: "default".into(),
        virtual_hosts: vec![route::VirtualHost {
            name: "default".into(),
            domains: vec!["*".into()],
            routes: vec![connect],
            ..Default::default()
        }],
        validate_clusters: Some(BoolValue { value: false }),
        ..Default::default()
    }
}

/// What the inner connection shall know of the outer one. The strings need a factory whose
/// objects are hashable, or two clients could share one inner connection. The remote address
/// is the direct one: a client cannot forge it with a forwarded header, and it keeps the
/// connections of two peers apart besides.
fn connect_authority(strings: StringFactory) -> hcm::HttpFilter {
    let factory = factory(strings);
    let remote = "envoy.filters.listener.original_dst.remote_ip";
    let config = http_filters::set_filter_state::v3::Config {
        on_request_headers: vec![
            shared_state(LOCAL_IP, "%REQ(:AUTHORITY)%", ""),
            shared_state(matcher::AUTHORITY, "%REQ(:AUTHORITY)%", factory),
            shared_state(remote, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", ""),
            shared_state(
                "io.istio.peer_principal",
                "%DOWNSTREAM_PEER_URI_SAN%",
                factory,
            ),
            shared_state(
                "io.istio.local_principal",
                "%DOWNSTREAM_LOCAL_URI_SAN%",
                factory,
            ),
        ],
        ..Default::default()
    };
    http_filter("connect_authority", &config)
}

/// What opened the tunnel, as it says. One that says nothing is a dash, which means nobody.
fn request_source(strings: StringFactory) -> hcm::HttpFilter {
    let format = "%REQ(x-istio-source)%";
    let config = http_filters::set_filter_state::v3::Config {
        on_request_headers: vec![shared_state(matcher::SOURCE, format, factory(strings))],
        ..Default::default()
    };
    http_filter("request_source", &config)
}

fn factory(strings: StringFactory) -> &'static str {
    match strings {
        StringFactory::EnvoyHashable => "envoy.hashable_string",
        StringFactory::IstioHashable => "istio.hashable_string",
        StringFactory::EnvoyPlain => "envoy.string",
    }
}

/// An internal listener that leads to the cluster of its name by the destination that the endpoint
/// of the connection has, in a tunnel for that authority or as it is.
fn by_destination(name: &str, authority: Option<&str>) -> listener::Listener {
    let proxy = tcp_proxy(name, name, authority);
    listener::Listener {
        name: name.into(),
        filter_chains: vec![listener::FilterChain {
            filters: vec![proxy],
            ..Default::default()
        }],
        use_original_dst: Some(BoolValue { value: false }),
        listener_filters: vec![original_dst()],
        listener_specifier: Some(internal()),
        ..Default::default()
    }
}

fn internal() -> listener::listener::ListenerSpecifier {
    use listener::listener::{InternalListenerConfig, ListenerSpecifier};
    ListenerSpecifier::InternalListener(InternalListenerConfig {})
}

/// The head is encoded as a message; the service chains follow as the bytes they already
/// are, which for a repeated field is the same message.
fn main_internal(ir: &MainIr) -> Vec<u8> {
    let head = listener::Listener {
        name: MAIN_INTERNAL.to_string(),
        filter_chain_matcher: Some(matcher::tree(&ir.authorities, &ir.ranges)),
        listener_filters: listener_filters(ir),
        traffic_direction: core::TrafficDirection::Inbound as i32,
        listener_specifier: Some(internal()),
        ..Default::default()
    };
    let form = if ir.istio {
        super::istio_chain
    } else {
        super::chain
    };
    let direct = ir
        .direct
        .iter()
        .flat_map(|direct| [&direct.tcp, &direct.http]);
    let mut direct: Vec<Vec<u8>> = direct.map(form).collect();
    if ir.direct.is_none() && ir.chains.is_empty() {
        direct.push(form(&blackhole()));
    }
    let chains = ir
        .chains
        .iter()
        .map(|chain| &chain[..])
        .chain(direct.iter().map(|c| &c[..]));
    let mut out = canonical(&head);
    for chain in chains {
        encode_key(FILTER_CHAINS, WireType::LengthDelimited, &mut out);
        encode_varint(chain.len() as u64, &mut out);
        out.extend_from_slice(chain);
    }
    out
}

/// A listener has some chain; nothing leads to this one.
fn blackhole() -> ChainIr {
    ChainIr {
        name: arcstr::literal!("virtualInbound-blackhole"),
        port: 0,
        filters: Vec::new(),
        body: ChainBody::Tcp(TcpIr::to(BLACK_HOLE)),
        republish_destination: false,
        outbound: BTreeSet::new(),
    }
}

fn listener_filters(ir: &MainIr) -> Vec<listener::ListenerFilter> {
    let http = listener_filters::http_inspector::v3::HttpInspector {};
    let mut out = vec![
        original_dst(),
        inspector(
            "envoy.filters.listener.http_inspector",
            &http,
            &ir.http_inspector,
        ),
    ];
    if !ir.tls_inspector.is_empty() {
        let tls = listener_filters::tls_inspector::v3::TlsInspector {
            initial_read_buffer_size: Some(uint32(512)),
            ..Default::default()
        };
        let ports = Inspected::Ports(ir.tls_inspector.clone());
        out.push(inspector(
            "envoy.filters.listener.tls_inspector",
            &tls,
            &ports,
        ));
    }
    out
}

fn original_dst() -> listener::ListenerFilter {
    let config = listener_filters::original_dst::v3::OriginalDst {};
    inspector(
        "envoy.filters.listener.original_dst",
        &config,
        &Inspected::Everywhere,
    )
}

/// A listener filter that is off everywhere but on some ports.
pub(super) fn inspector<M: Message + Name>(
    name: &str,
    config: &M,
    on: &Inspected,
) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.into(),
        filter_disabled: match on {
            Inspected::Everywhere => None,
            Inspected::Ports(ports) => Some(predicate(except(ports))),
        },
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(
            config,
        ))),
    }
}

/// What holds on all ports but these.
fn except(ports: &BTreeSet<u16>) -> Rule {
    let port = |port: &u16| {
        let start = i32::from(*port);
        predicate(Rule::DestinationPortRange(Int32Range {
            start,
            end: start + 1,
        }))
    };
    let mut rules: Vec<_> = ports.iter().map(port).collect();
    // A set of alternatives needs two members.
    let one = match rules.len() {
        0 | 1 => rules.pop(),
        _ => Some(predicate(Rule::OrMatch(MatchSet { rules }))),
    };
    one.map_or(Rule::AnyMatch(true), |one| Rule::NotMatch(Box::new(one)))
}

fn predicate(rule: Rule) -> listener::ListenerFilterChainMatchPredicate {
    listener::ListenerFilterChainMatchPredicate { rule: Some(rule) }
}
