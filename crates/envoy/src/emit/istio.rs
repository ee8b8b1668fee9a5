//! What Istio's own proxy gets beside what stock Envoy does: filters that only it knows, in the
//! places where it expects them. Their configurations are structures with the name of their
//! type, for nobody but that proxy has the types.
//! Source: spec/envoy-config.md §0.2, §2.1, §2.4, §2.5; spec/policy-and-traffic.md §0.2, §4.

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use proto::{Struct, Value, value::Kind};

use super::wire::any;

/// `xds.type.v3.TypedStruct`, which the bindings lack.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TypedStruct {
    /// The type that the structure stands for.
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    /// Its fields, as proto-JSON names them.
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Struct>,
}

impl Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";

    fn type_url() -> String {
        "type.googleapis.com/xds.type.v3.TypedStruct".to_owned()
    }
}

/// Network filters that end a chain of opaque bytes; the metrics stand before them.
const LAST_OF_TCP: [&str; 3] = [
    "envoy.filters.network.sni_dynamic_forward_proxy",
    "envoy.filters.network.mongo_proxy",
    "envoy.filters.network.tcp_proxy",
];
/// Name of the network filter that puts the original destination into place.
const SETS_DESTINATION: [&str; 2] = ["set_dst_address", "connect_authority"];

/// The first HTTP filter of `connect_terminate`: who called, for telemetry of the inner chains.
pub(super) fn downstream() -> hcm::HttpFilter {
    let found = list("workload_discovery");
    let fields = [
        ("downstream_discovery", found),
        ("shared_with_upstream", yes()),
    ];
    http(
        "waypoint_downstream_peer_metadata",
        "io.istio.http.peer_metadata.Config",
        fields,
    )
}

/// A chain of stock Envoy with the filters of Istio's proxy.
pub(super) fn dress(mut chain: listener::FilterChain) -> listener::FilterChain {
    if chain.filters.iter_mut().any(dress_manager) {
        return chain;
    }
    let filters = &mut chain.filters;
    let place = |names: &'static [&'static str]| {
        move |filter: &listener::Filter| names.contains(&filter.name.as_str())
    };
    let end = filters.iter().position(place(&LAST_OF_TCP));
    filters.insert(end.unwrap_or(filters.len()), stats_of_tcp());
    let after = filters.iter().rposition(place(&SETS_DESTINATION));
    filters.insert(after.map_or(0, |index| index + 1), exchange());
    chain
}

/// Adds to an HTTP connection manager; false when the filter is none.
fn dress_manager(filter: &mut listener::Filter) -> bool {
    use listener::filter::ConfigType;
    let Some(ConfigType::TypedConfig(config)) = &mut filter.config_type else {
        return false;
    };
    if config.type_url != hcm::HttpConnectionManager::type_url() {
        return false;
    }
    let Ok(mut manager) = hcm::HttpConnectionManager::decode(config.value.as_slice()) else {
        return false;
    };
    // The router is the last.
    let end = manager.http_filters.len().saturating_sub(1);
    manager.http_filters.splice(end..end, [upstream(), stats()]);
    *config = any(&manager);
    true
}

fn upstream() -> hcm::HttpFilter {
    http(
        "waypoint_upstream_peer_metadata",
        "io.istio.http.peer_metadata.Config",
        [("upstream_discovery", list("workload_discovery"))],
    )
}

fn stats() -> hcm::HttpFilter {
    http("istio.stats", "stats.PluginConfig", reporter())
}

fn stats_of_tcp() -> listener::Filter {
    network("istio.stats", "stats.PluginConfig", reporter())
}

fn reporter() -> [(&'static str, Kind); 2] {
    let waypoint = Kind::StringValue("SERVER_GATEWAY".to_owned());
    [
        ("disable_host_header_fallback", yes()),
        ("reporter", waypoint),
    ]
}

fn exchange() -> listener::Filter {
    let protocol = Kind::StringValue("istio-peer-exchange".to_owned());
    network(
        "istio.metadata_exchange",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        [("protocol", protocol), ("enable_discovery", yes())],
    )
}

fn http<const N: usize>(name: &str, of: &str, fields: [(&str, Kind); N]) -> hcm::HttpFilter {
    let config = hcm::http_filter::ConfigType::TypedConfig(structure(of, fields));
    hcm::HttpFilter {
        name: name.into(),
        config_type: Some(config),
        ..Default::default()
    }
}

fn network<const N: usize>(name: &str, of: &str, fields: [(&str, Kind); N]) -> listener::Filter {
    let config = listener::filter::ConfigType::TypedConfig(structure(of, fields));
    listener::Filter {
        name: name.into(),
        config_type: Some(config),
    }
}

fn structure<const N: usize>(of: &str, fields: [(&str, Kind); N]) -> Any {
    any(&TypedStruct {
        type_url: format!("type.googleapis.com/{of}"),
        value: Some(object(fields)),
    })
}

fn object<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    let field = |(name, kind): (&str, Kind)| (name.to_owned(), Value { kind: Some(kind) });
    Struct {
        fields: fields.into_iter().map(field).collect(),
    }
}

fn yes() -> Kind {
    Kind::BoolValue(true)
}

/// `[{<name>: {}}]`.
fn list(name: &str) -> Kind {
    let empty = Kind::StructValue(Struct::default());
    let one = Kind::StructValue(object([(name, empty)]));
    Kind::ListValue(proto::ListValue {
        values: vec![Value { kind: Some(one) }],
    })
}

#[cfg(test)]
mod tests;
