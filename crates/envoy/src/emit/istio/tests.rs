#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::super::chain::{filter, http_filter, router, tcp_proxy};
use super::*;

fn names(chain: &listener::FilterChain) -> Vec<&str> {
    chain.filters.iter().map(|one| one.name.as_str()).collect()
}

fn structure_of(config: &Any) -> TypedStruct {
    assert_eq!(config.type_url, TypedStruct::type_url());
    TypedStruct::decode(config.value.as_slice()).unwrap()
}

fn chain_of(filters: Vec<listener::Filter>) -> listener::FilterChain {
    listener::FilterChain {
        name: "c".into(),
        filters,
        ..Default::default()
    }
}

#[test]
fn requests_are_measured_right_before_the_router() {
    let cors = envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors {};
    let manager = hcm::HttpConnectionManager {
        http_filters: vec![http_filter("cors", &cors), router()],
        ..Default::default()
    };
    let dressed = dress(chain_of(vec![filter("hcm", &manager)]));
    let Some(listener::filter::ConfigType::TypedConfig(config)) = &dressed.filters[0].config_type
    else {
        panic!("no config")
    };
    let manager = hcm::HttpConnectionManager::decode(config.value.as_slice()).unwrap();
    let filters: Vec<&str> = manager.http_filters.iter().map(|f| &*f.name).collect();
    let expected = [
        "cors",
        "waypoint_upstream_peer_metadata",
        "istio.stats",
        "envoy.filters.http.router",
    ];
    assert_eq!(filters, expected);
    let Some(hcm::http_filter::ConfigType::TypedConfig(stats)) =
        &manager.http_filters[2].config_type
    else {
        panic!("no config")
    };
    let stats = structure_of(stats);
    assert_eq!(stats.type_url, "type.googleapis.com/stats.PluginConfig");
    let reporter = &stats.value.unwrap().fields["reporter"];
    assert_eq!(
        reporter.kind,
        Some(Kind::StringValue("SERVER_GATEWAY".into()))
    );
}

#[test]
fn opaque_bytes_are_exchanged_first_and_measured_last() {
    let rbac = envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac::default();
    let set =
        envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3::Config::default(
        );
    let dressed = dress(chain_of(vec![
        filter("connect_authority", &set),
        filter("envoy.filters.network.rbac", &rbac),
        tcp_proxy("c", "c", None),
    ]));
    let expected = [
        "connect_authority",
        "istio.metadata_exchange",
        "envoy.filters.network.rbac",
        "istio.stats",
        "envoy.filters.network.tcp_proxy",
    ];
    assert_eq!(names(&dressed), expected);
    let bare = dress(chain_of(vec![tcp_proxy("c", "c", None)]));
    let expected = [
        "istio.metadata_exchange",
        "istio.stats",
        "envoy.filters.network.tcp_proxy",
    ];
    assert_eq!(names(&bare), expected);
}

#[test]
fn the_caller_is_looked_up_where_tunnels_end() {
    let filter = downstream();
    let Some(hcm::http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        panic!("no config")
    };
    let structure = structure_of(config);
    let of = "type.googleapis.com/io.istio.http.peer_metadata.Config";
    assert_eq!(
        (filter.name.as_str(), structure.type_url.as_str()),
        ("waypoint_downstream_peer_metadata", of)
    );
    let fields = structure.value.unwrap().fields;
    let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(keys, ["downstream_discovery", "shared_with_upstream"]);
}
