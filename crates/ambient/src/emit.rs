//! Rows to WDS messages. Source: spec/workload-discovery.md §1.3 to §1.5.

mod authorization;
mod service;
mod workload;

use std::net::IpAddr;

use model::derived::{BoundWaypoint, GatewayAddress};
use model::{Str, defaults};
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

/// `None` for a waypoint without usable address: ztunnel refuses an address without destination.
fn gateway_address(waypoint: Option<&BoundWaypoint>) -> Option<wds::GatewayAddress> {
    use wds::gateway_address::Destination;

    let destination = match waypoint?.address.as_ref()? {
        GatewayAddress::Hostname(host) => Destination::Hostname(wds::NamespacedHostname {
            namespace: host.ns.to_string(),
            hostname: host.hostname.to_string(),
        }),
        GatewayAddress::Ip { network, ip } => {
            Destination::Address(network_address(network, *ip, None))
        }
    };
    Some(wds::GatewayAddress {
        destination: Some(destination),
        hbone_mtls_port: u32::from(defaults::HBONE_PORT),
    })
}
