//! Services.

use model::derived::{Distribution, PortRow, Visibility, WdsProtocol};
use model::input::TargetPort;
use model::{ServiceRow, Str, defaults};
use proto::workload as wds;

use super::{gateway_address, network_address, waypoint_address};
use crate::service::allows_all_health;

/// The message of a service.
pub fn address_of_service(row: &ServiceRow) -> wds::Address {
    let service = wds::Service {
        name: row.name.to_string(),
        namespace: row.key.ns.to_string(),
        hostname: row.key.hostname.to_string(),
        addresses: (row.vips.iter())
            .map(|vip| network_address(&vip.network, vip.ip, vip.prefix))
            .collect(),
        ports: row.ports.iter().map(port).collect(),
        subject_alt_names: row.subject_alt_names.iter().map(Str::to_string).collect(),
        waypoint: waypoint_address(row.waypoint.as_ref(), row.blocked.as_ref()),
        load_balancing: load_balancing(row),
        ip_families: ip_families(&row.ip_families).into(),
        extensions: Vec::new(),
        canonical: row.canonical,
        ingress_use_waypoint: row.ingress_use_waypoint,
        weighted_waypoints: weighted_waypoints(row),
        visibility: visibility(row.visibility).into(),
    };
    wds::Address {
        r#type: Some(wds::address::Type::Service(service)),
    }
}

/// The shares of primary and canary. ztunnel refuses an entry without destination, so rows with
/// shares have addresses in both.
fn weighted_waypoints(row: &ServiceRow) -> Vec<wds::WeightedWaypoint> {
    let shares = row.weighted_waypoints.iter().filter_map(|share| {
        let address = share.bound.address.as_ref()?;
        Some(wds::WeightedWaypoint {
            destination: Some(gateway_address(address, u32::from(defaults::HBONE_PORT))),
            weight: share.weight,
        })
    });
    shares.collect()
}

/// Other names of a service: `network/ip`, with `/length` for a CIDR, for each address.
pub fn service_aliases(row: &ServiceRow) -> Vec<Str> {
    let alias = |vip: &model::derived::Vip| match vip.prefix {
        None => Str::from(format!("{}/{}", vip.network, vip.ip)),
        Some(prefix) => Str::from(format!("{}/{}/{prefix}", vip.network, vip.ip)),
    };
    row.vips.iter().map(alias).collect()
}

fn port(port: &PortRow) -> wds::Port {
    let target_port = match port.target {
        TargetPort::Number(number) => u32::from(number),
        TargetPort::Named(_) => 0,
    };
    let app_protocol = match port.wds_protocol {
        WdsProtocol::Unknown => wds::AppProtocol::Unknown,
        WdsProtocol::Http11 => wds::AppProtocol::Http11,
        WdsProtocol::Http2 => wds::AppProtocol::Http2,
        WdsProtocol::Grpc => wds::AppProtocol::Grpc,
        WdsProtocol::Tcp => wds::AppProtocol::Tcp,
        WdsProtocol::Tls => wds::AppProtocol::Tls,
    };
    wds::Port {
        service_port: u32::from(port.port),
        target_port,
        app_protocol: app_protocol.into(),
    }
}

fn load_balancing(row: &ServiceRow) -> Option<wds::LoadBalancing> {
    use wds::load_balancing::{HealthPolicy, Mode, Scope};

    let (mode, scopes): (Mode, &[Scope]) = match row.distribution {
        Distribution::Any => (Mode::UnspecifiedMode, &[]),
        Distribution::Zone => (
            Mode::Failover,
            &[Scope::Network, Scope::Region, Scope::Zone],
        ),
        Distribution::Node => (
            Mode::Failover,
            &[
                Scope::Network,
                Scope::Region,
                Scope::Zone,
                Scope::Subzone,
                Scope::Node,
            ],
        ),
        Distribution::NodeStrict => (Mode::Strict, &[Scope::Node]),
        Distribution::Passthrough => (Mode::Passthrough, &[]),
    };
    let health = if allows_all_health(row) {
        HealthPolicy::AllowAll
    } else {
        HealthPolicy::OnlyHealthy
    };
    let message = wds::LoadBalancing {
        routing_preference: scopes.iter().map(|scope| i32::from(*scope)).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    };
    Some(message).filter(|message| *message != wds::LoadBalancing::default())
}

/// A service that nobody sees is not sent; were it, it should be seen by few.
fn visibility(visibility: Visibility) -> wds::service::Visibility {
    match visibility {
        Visibility::Public => wds::service::Visibility::Public,
        Visibility::Namespace | Visibility::None => wds::service::Visibility::Namespace,
    }
}

fn ip_families(families: &[Str]) -> wds::IpFamilies {
    match families {
        [] => wds::IpFamilies::Automatic,
        [one] if one == "IPv6" => wds::IpFamilies::Ipv6Only,
        [_] => wds::IpFamilies::Ipv4Only,
        _ => wds::IpFamilies::Dual,
    }
}
