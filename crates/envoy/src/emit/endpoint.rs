//! Endpoints. Source: spec/envoy-config.md §4.1, §4.4.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;

use model::defaults::HBONE_PORT;

use super::cluster::{ORIGINAL_DST, text_struct};
use super::wire::{internal, ip_port, socket, uint32};
use crate::east_west::FORWARD_INNER_CONNECT;
use crate::ir::{Direction, EndpointGroup, EndpointIr, EndpointsIr, Health};
use crate::listeners::CONNECT_ORIGINATE;

/// An endpoint at an address, nothing else said.
pub(super) fn at(address: core::Address) -> endpoint::LbEndpoint {
    let endpoint = endpoint::Endpoint {
        address: Some(address),
        ..Default::default()
    };
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    }
}

/// The endpoints of a cluster.
pub(super) fn assignment(ir: &EndpointsIr) -> endpoint::ClusterLoadAssignment {
    let group = |group: &EndpointGroup| {
        let list = &group.endpoints;
        let sum = || {
            list.iter()
                .fold(0_u32, |sum, row| sum.saturating_add(row.weight))
        };
        let weight = group.weight.unwrap_or_else(sum);
        let locality = &group.locality;
        endpoint::LocalityLbEndpoints {
            priority: group.priority,
            locality: Some(core::Locality {
                region: locality.region.to_string(),
                zone: locality.zone.to_string(),
                sub_zone: locality.subzone.to_string(),
            }),
            lb_endpoints: list
                .iter()
                .map(|row| lb_endpoint(row, ir.direction))
                .collect(),
            load_balancing_weight: Some(uint32(weight)),
            ..Default::default()
        }
    };
    endpoint::ClusterLoadAssignment {
        cluster_name: ir.name.to_string(),
        endpoints: ir.groups.iter().map(group).collect(),
        ..Default::default()
    }
}

fn lb_endpoint(ir: &EndpointIr, direction: Direction) -> endpoint::LbEndpoint {
    let target = ip_port(ir.ip, ir.port);
    let mut metadata = core::Metadata::default();
    let mut set = |key: &str, fields: &[(&str, &str)]| {
        metadata
            .filter_metadata
            .insert(key.to_owned(), text_struct(fields));
    };
    set("istio", &[("workload", &ir.workload)]);
    let address = if ir.tunnel {
        let waypoint = ir.waypoint.map(|ip| ip_port(ip, HBONE_PORT));
        match &waypoint {
            None => set(ORIGINAL_DST, &[("local", &target)]),
            Some(via) => set(ORIGINAL_DST, &[("local", &target), ("waypoint", via)]),
        }
        if direction == Direction::Outbound {
            set("envoy.transport_socket_match", &[("tunnel", "http")]);
        }
        let listener = if direction == Direction::Crossing {
            FORWARD_INNER_CONNECT
        } else {
            CONNECT_ORIGINATE
        };
        internal(&listener, waypoint.unwrap_or(target))
    } else {
        socket(&ir.ip.to_string(), ir.port)
    };
    let more = ir
        .more
        .iter()
        .map(|ip| endpoint::endpoint::AdditionalAddress {
            address: Some(socket(&ip.to_string(), ir.port)),
        });
    let health = match ir.health {
        Health::Healthy => core::HealthStatus::Healthy,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
        Health::Draining => core::HealthStatus::Draining,
    };
    let host = endpoint::Endpoint {
        address: Some(address),
        additional_addresses: more.collect(),
        ..Default::default()
    };
    endpoint::LbEndpoint {
        health_status: health as i32,
        metadata: Some(metadata),
        load_balancing_weight: Some(uint32(ir.weight)),
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
    }
}
