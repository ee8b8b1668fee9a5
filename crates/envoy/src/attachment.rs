//! Stages `attachment` and `attachment::workload`: what a waypoint's matcher must know of
//! the services and workloads bound to it, and nothing more, so that other edits of them
//! do not touch the listener. Source: spec/envoy-config.md §1.3, §2.3.

use ipnet::IpNet;
use model::derived::{AppProtocol, PortRow};
use model::input::{Resolution, Transport};
use model::{Finding, MeshRow, NamespacedHostname, ObjectKey, ProxyClass, ServiceRow, Str};

use std::sync::Arc;

use flow::{Output, Reads, View};

use crate::index::ClassByGateway;
use crate::ir::{AttachmentIr, PortChains};

/// Primary: a service.
pub type P = NamespacedHostname;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct AttachmentView<'t> {
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Classes of connected proxies; index [`ClassByGateway`].
    pub proxies: View<'t, ProxyClass, ()>,
}

/// The mesh row, or the defaults before there is one.
pub(crate) fn mesh_row(mesh: View<'_, (), MeshRow>, reads: &mut Reads) -> Arc<MeshRow> {
    mesh.get(reads, &()).cloned().unwrap_or_default()
}

/// Whether any proxy of a gateway is connected.
pub(crate) fn is_wanted(
    proxies: View<'_, ProxyClass, ()>,
    reads: &mut Reads,
    gateway: &ObjectKey,
) -> bool {
    proxies
        .by::<ClassByGateway>(reads, gateway)
        .next()
        .is_some()
}

/// The waypoints of a service, primary first and then its canary, as far as their proxies are
/// connected; none if the service cannot be served at all (wildcard hosts resolved per request
/// cannot, yet).
pub(crate) fn served_by<'s>(
    proxies: View<'_, ProxyClass, ()>,
    reads: &mut Reads,
    service: &'s ServiceRow,
) -> Vec<&'s ObjectKey> {
    if service.resolution == Resolution::DynamicDns {
        return Vec::new();
    }
    waypoints_of(service)
        .filter(|waypoint| is_wanted(proxies, reads, waypoint))
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

/// Name of a chain and of its cluster.
pub(crate) fn inbound_name(port: u16, kind: &str, host: &str) -> Str {
    arcstr::format!("inbound-vip|{port}|{kind}|{host}")
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
    let vips = service.vips.iter().filter_map(|vip| {
        let full = if vip.ip.is_ipv4() { 32 } else { 128 };
        let net = IpNet::new(vip.ip, vip.prefix.unwrap_or(full)).ok()?;
        Some((vip.network.clone(), net.trunc()))
    });
    let ports = service.ports.iter().rev();
    let row = AttachmentIr {
        waypoints: waypoints.into_iter().cloned().collect(),
        created_s: service.created_s.unwrap_or(i64::MAX),
        host: p.hostname.clone(),
        vips: vips.collect(),
        ports: ports
            .filter_map(|port| Some((port.port, port_chains(port)?)))
            .collect(),
    };
    Output::one(p.clone(), row)
}

pub mod workload {
    //! Stage `attachment::workload`: addresses whose pod-IP traffic a waypoint receives.

    use flow::{Output, Reads, View};
    use model::{Finding, ProxyClass, WorkloadRow, WorkloadUid};

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
        if !is_wanted(view.proxies, reads, &bound.key) {
            return Output::none();
        }
        let row = DirectIr {
            waypoint: bound.key.clone(),
            ips: workload.addresses.clone(),
        };
        Output::one(p.clone(), row)
    }
}
