//! Which services a workload belongs to, and on which ports.
//!
//! Source: spec/workload-discovery.md §2.9.

use flow::Reads;
pub(super) use model::derived::Memberships;
use model::derived::{PortMap, PortRow};
use model::input::{Pod, TargetPort, Transport, WorkloadEntry};
use model::{Kind, Labels, ServiceRow, Str};

use crate::selector;
use crate::service::{ServiceTable, ServicesBySelector};

/// Services of a namespace whose selector is not empty and selects these labels. `kinds` says of
/// which kinds of objects (a Service or a ServiceEntry).
pub(super) fn selecting<'t>(
    services: ServiceTable<'t>,
    reads: &mut Reads,
    ns: &Str,
    labels: &Labels,
    kinds: impl Fn(Kind) -> bool,
) -> Vec<&'t ServiceRow> {
    let is_wanted = |row: &&ServiceRow| {
        let is_entry = row.source.kind == Kind::ServiceEntry.as_str();
        kinds(if is_entry {
            Kind::ServiceEntry
        } else {
            Kind::Service
        })
    };
    let mut found = Vec::new();
    for at in selector::places(ns, labels).filter(|at| at.1.is_some()) {
        let rows = services
            .by::<ServicesBySelector>(reads, &at)
            .map(|(_, row)| row.as_ref());
        found.extend(rows.filter(is_wanted).filter(|row| {
            let selector = row.selector.as_ref();
            selector.is_some_and(|selector| selector::selects(selector, labels))
        }));
    }
    found
}

/// The ports of a service, on targets that the workload knows; the others are left out, and so is
/// UDP or SCTP on the number of a TCP port: ztunnel keeps one target for a number and takes TCP only.
pub(super) fn ports(
    row: &ServiceRow,
    target: impl Fn(&ServiceRow, &PortRow) -> Option<u16>,
) -> Vec<PortMap> {
    let is_tcp = |port: &PortRow| port.transport == Transport::Tcp;
    let shadows = |tcp: &PortRow, port: &PortRow| is_tcp(tcp) && tcp.port == port.port;
    let usable = (row.ports.iter())
        .filter(|port| is_tcp(port) || !row.ports.iter().any(|tcp| shadows(tcp, port)));
    let mapped = usable.filter_map(|port| {
        Some(PortMap {
            service_port: port.port,
            target_port: target(row, port)?,
        })
    });
    mapped.collect()
}

/// Target on a pod.
pub(super) fn pod_target(pod: &Pod, row: &ServiceRow, port: &PortRow) -> Option<u16> {
    let named = |name: &Str| pod.tcp_ports.get(name).copied();
    if row.source.kind == Kind::ServiceEntry.as_str() {
        return named(&port.name).or_else(|| number(port));
    }
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Named(name) => named(name),
    }
}

/// Target on a WorkloadEntry or an endpoint of a ServiceEntry.
pub(super) fn entry_target(entry: &WorkloadEntry, port: &PortRow) -> Option<u16> {
    match &port.target {
        TargetPort::Named(name) => entry.ports.get(name).copied(),
        TargetPort::Number(_) => entry
            .ports
            .get(&port.name)
            .copied()
            .or_else(|| number(port)),
    }
}

/// A numeric target, the port itself for 0.
fn number(port: &PortRow) -> Option<u16> {
    match port.target {
        TargetPort::Number(0) => Some(port.port),
        TargetPort::Number(number) => Some(number),
        TargetPort::Named(_) => None,
    }
}
