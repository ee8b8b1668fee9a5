//! IR to Envoy messages to canonical bytes. Nothing here decides anything: two IR rows that
//! are equal give equal bytes, and every choice is already in the IR.

mod chain;
mod cluster;
mod endpoint;
mod filter;
mod format;
mod ingress;
mod istio;
mod listener;
mod matcher;
mod metadata;
mod origin;
mod rbac;
mod route;
mod secret;
mod tls;
mod wire;

use bytes::Bytes;
use model::Str;

pub use secret::{tls_secret, validation_secret};

use crate::ir::{
    ChainIr, ClusterIr, EncodedRoutes, EndpointsIr, ListenerIr, RouteIr, RoutesIr, StaticClusterIr,
};
pub(crate) use secret::{authority, certificate};

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
pub fn chain(chain: &ChainIr) -> Vec<u8> {
    wire::encode(&chain::message(chain))
}

/// The same in the form of Istio's proxy.
pub fn istio_chain(chain: &ChainIr) -> Vec<u8> {
    wire::encode(&istio::dress(chain::message(chain)))
}

/// A cluster of a service.
pub fn cluster(cluster: &ClusterIr) -> Resource {
    let bytes = wire::encode(&cluster::service(cluster));
    Resource {
        name: cluster.name.clone(),
        type_url: proto::type_url::CLUSTER,
        bytes,
    }
}

/// A cluster that every waypoint has.
pub fn static_cluster(cluster: &StaticClusterIr) -> Resource {
    let message = cluster::fixed(cluster);
    let name = Str::from(message.name.as_str());
    Resource {
        name,
        type_url: proto::type_url::CLUSTER,
        bytes: wire::encode(&message),
    }
}

/// The endpoints of a cluster.
pub fn endpoints(endpoints: &EndpointsIr) -> Resource {
    let bytes = wire::encode(&endpoint::assignment(endpoints));
    Resource {
        name: endpoints.name.clone(),
        type_url: proto::type_url::ENDPOINT,
        bytes,
    }
}

/// The route configuration of a chain.
pub fn routes(routes: &RoutesIr) -> Resource {
    let bytes = wire::encode(&route::configuration(routes));
    Resource {
        name: routes.name.clone(),
        type_url: proto::type_url::ROUTE,
        bytes,
    }
}

/// An entry of a route configuration.
pub(crate) fn route_entry(route: &RouteIr) -> Bytes {
    wire::encode(&route::message(route)).into()
}

/// A virtual host of a gateway for one domain, its entries in order.
pub(crate) fn virtual_host<'b>(
    name: String,
    domain: &Str,
    entries: impl Iterator<Item = &'b Bytes>,
) -> Bytes {
    ingress::virtual_host(name, domain, entries).into()
}

/// The route configuration of a gateway with these virtual hosts.
pub(crate) fn route_configuration<'b>(name: &Str, hosts: impl Iterator<Item = &'b Bytes>) -> Bytes {
    ingress::configuration(name, hosts).into()
}

/// A route configuration of a gateway as proxies receive it.
pub fn encoded_routes(routes: &EncodedRoutes) -> Resource {
    Resource {
        name: routes.name.clone(),
        type_url: proto::type_url::ROUTE,
        bytes: routes.bytes.to_vec(),
    }
}

/// A listener.
pub fn listener(listener: &ListenerIr) -> Resource {
    let (name, bytes) = listener::encode(listener);
    Resource {
        name,
        type_url: proto::type_url::LISTENER,
        bytes,
    }
}
