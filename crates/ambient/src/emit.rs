//! Rows to WDS messages. Source: spec/workload-discovery.md §1.3 to §1.5.

mod authorization;
mod service;
mod workload;

use std::net::IpAddr;

use model::derived::{BoundWaypoint, GatewayAddress};
use model::{NamespacedHostname, Str, defaults};
use prost::bytes::Bytes;
use proto::workload as wds;

pub use authorization::authorization;
pub use service::{address_of_service, service_aliases};
pub use workload::{address_of_workload, workload_aliases};

/// 4 or 16 bytes in network order.
fn ip_bytes(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn network_address(network: &Str, ip: IpAddr, prefix: Option<u8>) -> wds::NetworkAddress {
    wds::NetworkAddress {
        network: network.to_string(),
        address: ip_bytes(ip),
        length: prefix.map(u32::from),
    }
}

/// Where the waypoint of an object is reached. `blocked` stands in for one that cannot be used
/// and whose traffic shall be refused: ztunnel does not find it and refuses the connection.
///
/// `None` for a waypoint without usable address: ztunnel refuses an address without destination.
fn waypoint_address(
    waypoint: Option<&BoundWaypoint>,
    blocked: Option<&NamespacedHostname>,
) -> Option<wds::GatewayAddress> {
    let reached = waypoint.and_then(|bound| bound.address.as_ref());
    let port = u32::from(defaults::HBONE_PORT);
    match (reached, blocked) {
        (Some(address), _) => Some(gateway_address(address, port)),
        (None, Some(nowhere)) => Some(wds::GatewayAddress {
            destination: Some(by_hostname(nowhere)),
            hbone_mtls_port: port,
        }),
        (None, None) => None,
    }
}

fn gateway_address(address: &GatewayAddress, hbone_port: u32) -> wds::GatewayAddress {
    let destination = match address {
        GatewayAddress::Hostname(host) => by_hostname(host),
        GatewayAddress::Ip { network, ip } => {
            wds::gateway_address::Destination::Address(network_address(network, *ip, None))
        }
    };
    wds::GatewayAddress {
        destination: Some(destination),
        hbone_mtls_port: hbone_port,
    }
}

fn by_hostname(host: &NamespacedHostname) -> wds::gateway_address::Destination {
    wds::gateway_address::Destination::Hostname(wds::NamespacedHostname {
        namespace: host.ns.to_string(),
        hostname: host.hostname.to_string(),
    })
}
