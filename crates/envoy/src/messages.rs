//! Resources taken apart again: what generating them costs is held against encoding them.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::{Filter, Listener, filter::ConfigType};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use prost::{DecodeError, Message};

/// A message that can be encoded.
pub trait Encode: Send {
    /// Its bytes.
    fn encode(&self) -> Vec<u8>;
}

impl<M: Message> Encode for M {
    fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// The messages that a resource is made of: itself and, of a listener, the HTTP connection
/// managers inside, which are encoded before it. Nothing of a type that is none of ours.
///
/// # Errors
/// When the bytes are no message of that type.
pub fn messages(type_url: &str, bytes: &[u8]) -> Result<Vec<Box<dyn Encode>>, DecodeError> {
    let name = type_url.rsplit('.').next().unwrap_or_default();
    let mut out: Vec<Box<dyn Encode>> = Vec::new();
    match name {
        "Cluster" => out.push(Box::new(Cluster::decode(bytes)?)),
        "ClusterLoadAssignment" => out.push(Box::new(ClusterLoadAssignment::decode(bytes)?)),
        "RouteConfiguration" => out.push(Box::new(RouteConfiguration::decode(bytes)?)),
        "Listener" => {
            let listener = Listener::decode(bytes)?;
            for manager in managers(&listener) {
                out.push(Box::new(HttpConnectionManager::decode(manager)?));
            }
            out.push(Box::new(listener));
        }
        _ => {}
    }
    Ok(out)
}

fn managers(listener: &Listener) -> impl Iterator<Item = &[u8]> {
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let filters = chains.flat_map(|chain| &chain.filters);
    filters.filter_map(|filter: &Filter| match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) if any.type_url.ends_with(".HttpConnectionManager") => {
            Some(any.value.as_slice())
        }
        _ => None,
    })
}
