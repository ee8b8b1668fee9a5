//! Workloads.

use model::derived::{InboundBinding, Locality, PortMap};
use model::{Str, WorkloadRow};
use proto::workload as wds;

use super::{gateway_address, ip_bytes, waypoint_address};

/// The message of a workload.
pub fn address_of_workload(row: &WorkloadRow) -> wds::Address {
    use wds::{NetworkMode, TunnelProtocol, WorkloadStatus, WorkloadType};

    let workload = wds::Workload {
        name: row.name.to_string(),
        namespace: row.ns.to_string(),
        addresses: row.addresses.iter().map(|ip| ip_bytes(*ip)).collect(),
        network: row.network.to_string(),
        tunnel_protocol: if row.hbone {
            TunnelProtocol::Hbone
        } else {
            TunnelProtocol::None
        }
        .into(),
        trust_domain: row.trust_domain.to_string(),
        service_account: row.service_account.to_string(),
        waypoint: waypoint_address(row.waypoint.as_deref(), row.blocked.as_ref()),
        node: row.node.to_string(),
        canonical_name: row.canonical_name.to_string(),
        canonical_revision: row.canonical_revision.to_string(),
        workload_type: if row.is_slice_endpoint {
            WorkloadType::Deployment
        } else {
            WorkloadType::Pod
        }
        .into(),
        workload_name: row.workload_name.to_string(),
        native_tunnel: row.native_tunnel,
        authorization_policies: row.policies.iter().map(Str::to_string).collect(),
        status: if row.healthy {
            WorkloadStatus::Healthy
        } else {
            WorkloadStatus::Unhealthy
        }
        .into(),
        cluster_id: row.cluster_id.to_string(),
        network_gateway: (row.network_gateway.as_ref())
            .map(|gateway| gateway_address(&gateway.address, u32::from(gateway.port))),
        uid: row.uid.to_string(),
        hostname: row.hostname.to_string(),
        services: row
            .services
            .iter()
            .map(|(key, map)| (key.to_string(), ports(map)))
            .collect(),
        application_tunnel: row.application_tunnel.map(application_tunnel),
        locality: locality(&row.locality),
        network_mode: if row.host_network {
            NetworkMode::HostNetwork
        } else {
            NetworkMode::Standard
        }
        .into(),
        extensions: Vec::new(),
        capacity: Some(row.capacity).filter(|capacity| *capacity > 0),
    };
    wds::Address {
        r#type: Some(wds::address::Type::Workload(workload)),
    }
}

/// Other names of a workload: `network/ip` for each address.
pub fn workload_aliases(row: &WorkloadRow) -> Vec<Str> {
    row.addresses
        .iter()
        .map(|ip| Str::from(format!("{}/{ip}", row.network)))
        .collect()
}

fn ports(map: &[PortMap]) -> wds::PortList {
    let ports = map.iter().map(|port| wds::Port {
        service_port: u32::from(port.service_port),
        target_port: u32::from(port.target_port),
        app_protocol: wds::AppProtocol::Unknown.into(),
    });
    wds::PortList {
        ports: ports.collect(),
    }
}

fn application_tunnel(binding: InboundBinding) -> wds::ApplicationTunnel {
    use wds::application_tunnel::Protocol;

    wds::ApplicationTunnel {
        protocol: if binding.proxy {
            Protocol::Proxy
        } else {
            Protocol::None
        }
        .into(),
        port: u32::from(binding.port),
    }
}

fn locality(row: &Locality) -> Option<wds::Locality> {
    let locality = wds::Locality {
        region: row.region.to_string(),
        zone: row.zone.to_string(),
        subzone: row.subzone.to_string(),
    };
    Some(locality).filter(|locality| *locality != wds::Locality::default())
}
