//! The listeners of a class of gateways between networks. Source: spec/envoy-config.md §6.7.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Output, Reads};
use ipnet::IpNet;
use model::defaults::HBONE_PORT;
use model::gateway::ListenerProtocol;
use model::{Finding, NamespacedHostname, ProxyClass, Str};

use super::index::AllCrossings;
use super::{FORWARD_INNER_CONNECT, active, crossing_name};
use crate::attachment::mesh_row;
use crate::authz;
use crate::index::EncodedByWaypoint;
use crate::ingress::listeners::opened;
use crate::ir::{
    ClassResource, CrossingIr, Inspected, ListenerIr, MainIr, PortTarget, RangeIr, RangeTarget,
};
use crate::listeners::{
    CONNECT_ORIGINATE, CONNECT_TERMINATE, ListenerView, MAIN_INTERNAL, authorities, bind, tls,
};

/// What ends outer tunnels, what tells services apart, what hands inner tunnels on, and a
/// listener for each port of TLS that routes lead on.
pub(crate) fn derive(
    class: &ProxyClass,
    view: &ListenerView<'_>,
    reads: &mut Reads,
) -> Output<ClassResource, ListenerIr, Finding> {
    let Some(gateway) = active(view.ingress.gateways, reads, &class.gateway) else {
        return Output::none();
    };
    let Some(row) = view.waypoints.get(reads, &class.gateway) else {
        return Output::none();
    };
    let mesh = &*mesh_row(view.mesh, reads);
    let key = |name: Str| ClassResource::new(class.clone(), name);
    let mut rows = Vec::new();
    let is_hbone = |one: &&model::gateway::ListenerRow| {
        one.is_served && one.port == HBONE_PORT && one.protocol == ListenerProtocol::Hbone
    };
    if gateway.listeners.iter().any(|one| is_hbone(&one)) {
        let terminate = ListenerIr::ConnectTerminate {
            bind: bind(class),
            tls: tls(class, mesh),
            strings: class.strings,
            istio: false,
            tells_source: true,
        };
        let network = if class.network.is_empty() {
            &mesh.network
        } else {
            &class.network
        };
        let main = main_internal(class, network, view, reads);
        rows.push((key(CONNECT_TERMINATE), terminate));
        rows.push((key(MAIN_INTERNAL), ListenerIr::Main(Box::new(main))));
        rows.push((key(FORWARD_INNER_CONNECT), ListenerIr::ForwardInnerConnect));
    }
    // Routes of connections, and who is asked about them, may lead to captured pods.
    rows.push((key(CONNECT_ORIGINATE), ListenerIr::ConnectOriginate));
    let attached = authz::attached(&view.policies, reads, mesh, row, None);
    let of_routes = opened(class, gateway, (mesh, &attached), &view.ingress, reads);
    rows.extend(of_routes.into_iter().map(|mut listener| {
        listener.is_inbound = true;
        let name = listener.name.clone();
        (key(name), ListenerIr::Gateway(Box::new(listener)))
    }));
    Output::from(rows)
}

fn main_internal(
    class: &ProxyClass,
    network: &Str,
    view: &ListenerView<'_>,
    reads: &mut Reads,
) -> MainIr {
    let mut services: Vec<(&NamespacedHostname, &Arc<CrossingIr>)> =
        view.crossings.by::<AllCrossings>(reads, "").collect();
    services.sort_by_key(|(key, row)| (row.created_s, *key));
    let chains = view.encoded.by::<EncodedByWaypoint>(reads, &class.gateway);
    let chains: Vec<_> = chains.map(|(_, row)| row.bytes.clone()).collect();
    let names: BTreeSet<Str> = services
        .iter()
        .flat_map(|(_, row)| row.ports.iter().map(|port| crossing_name(*port, row)))
        .collect();
    let here: Vec<Here<'_>> = services
        .into_iter()
        .filter_map(|(_, row)| here(row, network, &names))
        .collect();
    let named = here.iter().filter_map(|one| {
        let authority = one.row.authority.as_ref()?;
        Some((authority, &one.ports))
    });
    MainIr {
        authorities: authorities(named),
        ranges: here
            .iter()
            .map(|one| RangeIr {
                ranges: one.ranges.clone(),
                target: RangeTarget::Service(one.ports.clone()),
            })
            .collect(),
        http_inspector: Inspected::Ports(BTreeSet::new()),
        tls_inspector: BTreeSet::new(),
        chains,
        direct: None,
        istio: false,
    }
}

/// A service with addresses on this network, and where its ports lead.
struct Here<'r> {
    row: &'r CrossingIr,
    ranges: Vec<IpNet>,
    ports: BTreeMap<u16, PortTarget>,
}

/// A service without address is not to be reached by its name either.
fn here<'r>(row: &'r CrossingIr, network: &Str, names: &BTreeSet<Str>) -> Option<Here<'r>> {
    let own = row.vips.iter();
    let own = own.filter(|(on, _)| on.is_empty() || on == network);
    let ranges: BTreeSet<IpNet> = own.map(|(_, net)| *net).collect();
    let ports = row.ports.iter();
    let ports: BTreeMap<u16, PortTarget> = ports
        .map(|port| (*port, target(crossing_name(*port, row), row, names)))
        .collect();
    (!ranges.is_empty() && !ports.is_empty()).then(|| Here {
        row,
        ranges: ranges.into_iter().collect(),
        ports,
    })
}

/// Where a port leads: by who opened the outer tunnel, where the service has a waypoint.
fn target(own: Str, row: &CrossingIr, names: &BTreeSet<Str>) -> PortTarget {
    let Some(detour) = &row.detour else {
        return PortTarget::Chain(own);
    };
    let waypoint = detour.chain.clone().filter(|name| names.contains(name));
    PortTarget::BySource {
        of_gateways: if detour.for_ingress {
            waypoint.clone()
        } else {
            Some(own.clone())
        },
        of_others: waypoint,
        of_waypoints: own,
    }
}
