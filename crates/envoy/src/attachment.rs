//! Stages `attachment` and `attachment::workload`: what a waypoint's matcher must know of
//! the services and workloads bound to it, and nothing more, so that other edits of them
//! do not touch the listener. Source: spec/envoy-config.md §1.3, §2.3.

use ipnet::IpNet;
use model::derived::{AppProtocol, PortRow};
use model::input::{Resolution, TargetPort, Transport};
use model::{
    Finding, MeshRow, NamespacedHostname, ObjectKey, ProxyClass, ProxyRole, ServiceRow, Str,
};

use std::sync::Arc;

use flow::{Output, Reads, View};

use crate::index::ClassByGateway;
use crate::ir::{AttachmentIr, DynamicHost, PortChains};

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct AttachmentView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
    /// Classes of connected proxies; index [`ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// The mesh row, or the defaults before there is one.
pub(crate) fn mesh_row(mesh: View<'_, (), MeshRow>, reads: &mut Reads) -> Arc<MeshRow> {
    mesh.get(reads, &()).cloned().unwrap_or_default()
}

/// Whether any proxy of a gateway is connected in a role.
pub(crate) fn is_wanted(
    proxies: View<'_, ProxyClass, ()>,
    reads: &mut Reads,
    role: ProxyRole,
    gateway: &ObjectKey,
) -> bool {
    proxies
        .by::<ClassByGateway>(reads, gateway)
        .any(|(class, _)| class.role == role)
}

/// The waypoints of a service, primary first and then its canary, as far as their proxies are
/// connected; none if the service cannot be served at all: of hosts resolved per request, only
/// wildcards outside the mesh can.
pub(crate) fn served_by<'s>(
    proxies: View<'_, ProxyClass, ()>,
    reads: &mut Reads,
    service: &'s ServiceRow,
) -> Vec<&'s ObjectKey> {
    if service.resolution == Resolution::DynamicDns && !is_dynamic(service) {
        return Vec::new();
    }
    waypoints_of(service)
        .filter(|waypoint| is_wanted(proxies, reads, ProxyRole::Waypoint, waypoint))
        .collect()
}

/// The waypoints that traffic of a service may pass, each once: the primary, then its canary.
pub(crate) fn waypoints_of(service: &ServiceRow) -> impl Iterator<Item = &ObjectKey> {
    let primary = service.waypoint.as_ref().map(|bound| &bound.key);
    let shares = service.weighted_waypoints.iter().map(|one| &one.bound.key);
    let canary = shares.filter(move |key| Some(*key) != primary);
    primary.into_iter().chain(canary)
}

/// The chains of a port; none for datagrams.
pub(crate) fn port_chains(port: &PortRow) -> Option<PortChains> {
    if port.transport != Transport::Tcp {
        return None;
    }
    match port.protocol {
        AppProtocol::Udp => None,
        AppProtocol::Unknown => Some(PortChains::Sniffed),
        AppProtocol::Tls | AppProtocol::Https => Some(PortChains::Tls),
        AppProtocol::Tcp => Some(PortChains::Tcp),
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc | AppProtocol::GrpcWeb => {
            Some(PortChains::Http)
        }
    }
}

/// Whether the hosts of a service are resolved per request: wildcards outside the mesh.
/// Source: spec/policy-and-traffic.md §8.2.
pub(crate) fn is_dynamic(service: &ServiceRow) -> bool {
    let host = service.key.hostname.strip_prefix("*.");
    service.resolution == Resolution::DynamicDns
        && service.external
        && host.is_some_and(|host| !host.is_empty())
}

/// The chains of a port of a service: as its protocol says, but hosts that are resolved per
/// request must be stated in requests.
pub(crate) fn chains_of(service: &ServiceRow, port: &PortRow) -> Option<PortChains> {
    let chains = port_chains(port)?;
    let has_host = chains == PortChains::Http && is_dynamic(service);
    (service.resolution != Resolution::DynamicDns || has_host).then_some(chains)
}

/// The wildcard host of a port whose requests are resolved; only plain HTTP is.
pub(crate) fn dynamic_host(service: &ServiceRow, port: &PortRow) -> Option<DynamicHost> {
    if !is_dynamic(service) || port.protocol != AppProtocol::Http {
        return None;
    }
    let target = match &port.target {
        TargetPort::Number(number) => *number,
        TargetPort::Named(_) => port.port,
    };
    Some(DynamicHost {
        host: service.key.hostname.clone(),
        port: target,
    })
}

/// Name of the cluster of a service port, or of a subset of it, that is not behind the
/// waypoint.
pub(crate) fn outbound_name(port: u16, subset: &str, host: &str) -> Str {
    arcstr::format!("outbound|{port}|{subset}|{host}")
}

/// Name of a chain and of its cluster.
pub(crate) fn inbound_name(port: u16, kind: &str, host: &str) -> Str {
    arcstr::format!("inbound-vip|{port}|{kind}|{host}")
}

/// The addresses of a service, with the network that each lives on.
pub(crate) fn networks_of(service: &ServiceRow) -> Vec<(Str, IpNet)> {
    let vips = service.vips.iter().filter_map(|vip| {
        let full = if vip.ip.is_ipv4() { 32 } else { 128 };
        let net = IpNet::new(vip.ip, vip.prefix.unwrap_or(full)).ok()?;
        Some((vip.network.clone(), net.trunc()))
    });
    vips.collect()
}

/// One row per service that is bound to a waypoint with connected proxies.
pub fn derive(
    p: &P,
    view: &AttachmentView<'_>,
    reads: &mut Reads,
) -> Output<NamespacedHostname, AttachmentIr, Finding> {
    let Some(service) = view.services.get(reads, p) else {
        return Output::gone();
    };
    let waypoints = served_by(view.proxies, reads, service);
    if waypoints.is_empty() {
        return Output::none();
    }
    let mesh = mesh_row(view.mesh, reads);
    let is_named = mesh.features.multi_network && service.first_of_host;
    let ports = service.ports.iter().rev();
    let row = AttachmentIr {
        waypoints: waypoints.into_iter().cloned().collect(),
        created_s: service.created_s.unwrap_or(i64::MAX),
        host: service.wire_host(),
        authority: is_named.then(|| service.key.hostname.clone()),
        vips: networks_of(service),
        ports: ports
            .filter_map(|port| Some((port.port, chains_of(service, port)?)))
            .collect(),
    };
    Output::one(p.clone(), row)
}

pub mod workload {
    //! Stage `attachment::workload`: addresses whose pod-IP traffic a waypoint receives.

    use flow::{Output, Reads, View};
    use model::{Finding, ProxyClass, ProxyRole, WorkloadRow, WorkloadUid};

    use super::is_wanted;
    use crate::ir::DirectIr;

    /// Primary: a workload.
    pub type P = WorkloadUid;

    /// What the stage reads.
    #[derive(Clone, Copy)]
    pub struct DirectView<'t> {
        /// Workloads.
        pub workloads: View<'t, WorkloadUid, WorkloadRow>,
        /// Classes of connected proxies; index [`crate::index::ClassByGateway`].
        pub proxies: View<'t, ProxyClass, ()>,
    }

    /// One row per workload with addresses that is bound to a waypoint with connected proxies.
    pub fn derive(
        p: &P,
        view: &DirectView<'_>,
        reads: &mut Reads,
    ) -> Output<WorkloadUid, DirectIr, Finding> {
        let Some(workload) = view.workloads.get(reads, p) else {
            return Output::gone();
        };
        let Some(bound) = workload
            .waypoint
            .as_ref()
            .filter(|_| !workload.addresses.is_empty())
        else {
            return Output::none();
        };
        if !is_wanted(view.proxies, reads, ProxyRole::Waypoint, &bound.key) {
            return Output::none();
        }
        let row = DirectIr {
            waypoint: bound.key.clone(),
            ips: workload.addresses.clone(),
        };
        Output::one(p.clone(), row)
    }
}
