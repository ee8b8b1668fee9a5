//! `/debug/ambientz`: what ztunnels are told, one list per kind.
//!
//! Proto-JSON, except that the bytes of addresses are first turned into their text form, and
//! then, as bytes fields are, into base64 (`MTAuMC4wLjE=` is `10.0.0.1`).
//! Source: spec/control-plane.md §6.2.

use std::net::IpAddr;

use anyhow::Context as _;
use model::derived::{InboundBinding, WaypointFor};
use model::input::{AllowedNamespaces, LabelSelector};
use model::{GatewayAddress, WaypointRow, defaults};
use prost::Message;
use prost::bytes::Bytes;
use proto::workload::{address, gateway_address};
use proto::{security, workload as wds};
use serde_json::{Map, Value, json};
use snapshot::Snapshot;

/// Everything, each list sorted by resource name.
///
/// # Errors
/// When a resource does not decode as its own type (a defect of ambientd).
pub fn view(snapshot: &Snapshot) -> anyhow::Result<Value> {
    let (mut workloads, mut services, mut policies) = (Vec::new(), Vec::new(), Vec::new());
    for resource in snapshot.addresses.iter() {
        let message = wds::Address::decode(resource.payload())
            .with_context(|| resource.name().to_string())?;
        match message.r#type {
            Some(address::Type::Workload(mut workload)) => {
                readable_workload(&mut workload);
                workloads.push(to_json("istio.workload.Workload", &workload)?);
            }
            Some(address::Type::Service(mut service)) => {
                readable_service(&mut service);
                services.push(to_json("istio.workload.Service", &service)?);
            }
            None => {}
        }
    }
    for resource in snapshot.authorizations.iter() {
        let mut policy = security::Authorization::decode(resource.payload())
            .with_context(|| resource.name().to_string())?;
        readable_policy(&mut policy);
        policies.push(to_json("istio.security.Authorization", &policy)?);
    }
    let ready = snapshot.waypoints.values().filter(|row| row.ready);
    let waypoints: Vec<Value> = ready.map(|row| waypoint(row)).collect::<Result<_, _>>()?;
    Ok(json!({
        "workloads": workloads,
        "services": services,
        "policies": policies,
        "waypoints": waypoints,
    }))
}

fn to_json(name: &str, message: &impl Message) -> anyhow::Result<Value> {
    proto::json::to_json(name, &message.encode_to_vec()).with_context(|| name.to_owned())
}

/// The bytes of an address as those of its text; what is no address stays.
fn readable(bytes: &mut Bytes) {
    let ip = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes.as_ref()).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes.as_ref()).ok().map(IpAddr::from),
        _ => None,
    };
    if let Some(ip) = ip {
        *bytes = ip.to_string().into();
    }
}

fn readable_gateway(gateway: Option<&mut wds::GatewayAddress>) {
    if let Some(gateway) = gateway
        && let Some(gateway_address::Destination::Address(address)) = &mut gateway.destination
    {
        readable(&mut address.address);
    }
}

fn readable_workload(workload: &mut wds::Workload) {
    workload.addresses.iter_mut().for_each(readable);
    readable_gateway(workload.waypoint.as_mut());
    readable_gateway(workload.network_gateway.as_mut());
}

fn readable_service(service: &mut wds::Service) {
    for address in &mut service.addresses {
        readable(&mut address.address);
    }
    readable_gateway(service.waypoint.as_mut());
    for weighted in &mut service.weighted_waypoints {
        readable_gateway(weighted.destination.as_mut());
    }
}

fn readable_policy(policy: &mut security::Authorization) {
    let rules = policy.groups.iter_mut().flat_map(|group| &mut group.rules);
    for one in rules.flat_map(|rule| &mut rule.matches) {
        let lists = [
            &mut one.source_ips,
            &mut one.not_source_ips,
            &mut one.destination_ips,
            &mut one.not_destination_ips,
        ];
        for address in lists.into_iter().flatten() {
            readable(&mut address.address);
        }
    }
}

fn waypoint(row: &WaypointRow) -> anyhow::Result<Value> {
    let serves = match row.serves {
        WaypointFor::Service => "service",
        WaypointFor::Workload => "workload",
        WaypointFor::All => "all",
        WaypointFor::None => "none",
    };
    let accounts: Vec<&str> = row.service_accounts.iter().map(|s| s.as_str()).collect();
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("key", row.key.to_string().into());
    if let Some(address) = &row.address {
        let address = gateway(address);
        put(
            "address",
            to_json("istio.workload.GatewayAddress", &address)?,
        );
    }
    put("trafficType", serves.into());
    put("serviceAccounts", accounts.into());
    put("allowedNamespaces", allowed(&row.allowed));
    if let Some(InboundBinding { proxy, port }) = row.binding {
        let protocol = if proxy { "PROXY" } else { "NONE" };
        put(
            "inboundBinding",
            json!({"protocol": protocol, "port": port}),
        );
    }
    Ok(Value::Object(out))
}

fn gateway(address: &GatewayAddress) -> wds::GatewayAddress {
    use gateway_address::Destination;
    let destination = match address {
        GatewayAddress::Hostname(host) => Destination::Hostname(wds::NamespacedHostname {
            namespace: host.ns.to_string(),
            hostname: host.hostname.to_string(),
        }),
        GatewayAddress::Ip { network, ip } => Destination::Address(wds::NetworkAddress {
            network: network.to_string(),
            address: ip.to_string().into(),
            length: None,
        }),
    };
    wds::GatewayAddress {
        destination: Some(destination),
        hbone_mtls_port: u32::from(defaults::HBONE_PORT),
    }
}

/// `Same`, `All`, `None`, or the selector.
fn allowed(allowed: &AllowedNamespaces) -> Value {
    let LabelSelector {
        match_labels,
        match_expressions,
    } = match allowed {
        AllowedNamespaces::Same => return "Same".into(),
        AllowedNamespaces::All => return "All".into(),
        AllowedNamespaces::None => return "None".into(),
        AllowedNamespaces::Selector(selector) => selector,
    };
    let labels: Map<String, Value> = match_labels
        .iter()
        .map(|(key, value)| (key.to_string(), value.as_str().into()))
        .collect();
    let expressions: Vec<Value> = match_expressions
        .iter()
        .map(|(key, operator, values)| {
            let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
            json!({"key": key.as_str(), "operator": operator.as_str(), "values": values})
        })
        .collect();
    json!({"matchLabels": labels, "matchExpressions": expressions})
}

#[cfg(test)]
mod tests;
