//! IR to Envoy messages to canonical bytes.

use model::Str;

use crate::ir::{ChainIr, ClusterIr, EndpointsIr, ListenerIr, StaticClusterIr};

/// A resource as proxies receive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Resource name.
    pub name: Str,
    /// Type URL, with the `type.googleapis.com/` prefix.
    pub type_url: &'static str,
    /// Canonical encoding.
    pub bytes: Vec<u8>,
}

/// An Envoy `FilterChain`, encoded.
pub fn chain(_chain: &ChainIr) -> Vec<u8> {
    Vec::new()
}

/// A cluster of a service.
pub fn cluster(cluster: &ClusterIr) -> Resource {
    Resource { name: cluster.name.clone(), type_url: proto::type_url::CLUSTER, bytes: Vec::new() }
}

/// A cluster that every waypoint has.
pub fn static_cluster(_cluster: &StaticClusterIr) -> Resource {
    Resource { name: Str::new(), type_url: proto::type_url::CLUSTER, bytes: Vec::new() }
}

/// The endpoints of a cluster.
pub fn endpoints(endpoints: &EndpointsIr) -> Resource {
    Resource { name: endpoints.name.clone(), type_url: proto::type_url::ENDPOINT, bytes: Vec::new() }
}

/// A listener.
pub fn listener(_listener: &ListenerIr) -> Resource {
    Resource { name: Str::new(), type_url: proto::type_url::LISTENER, bytes: Vec::new() }
}
