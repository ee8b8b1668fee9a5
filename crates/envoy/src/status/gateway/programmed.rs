//! Whether the instances of a Gateway can be reached, and where.
//! Source: spec/gateway-api.md §3.3.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flow::Reads;
use model::input::GatewayStatusAddress;
use model::labels::LABEL_GATEWAY_MANAGED;
use model::status::Condition;
use model::{Kind, Meta, NamespacedHostname, ServiceRow, Str};

use super::GatewayStatusView;
use crate::index::{ServiceByHostname, WorkloadByService};

/// Which of its addresses a Gateway shows.
const ANNOTATION_ADDRESS_TYPE: &str = "networking.istio.io/address-type";

/// What was found behind the Services of a Gateway.
#[derive(Default)]
pub(super) struct Programmed {
    has_target: bool,
    /// `host:port` where there are ready instances.
    assigned: BTreeSet<String>,
    hosts: BTreeSet<Str>,
    ips: BTreeSet<String>,
    warnings: BTreeSet<String>,
    /// Something will not mend by waiting.
    unusable: bool,
}

impl Programmed {
    /// Looks for ready instances on each port of each Service.
    pub(super) fn of(
        meta: &Meta,
        targets: &[NamespacedHostname],
        ports: &BTreeSet<u16>,
        view: &GatewayStatusView<'_>,
        reads: &mut Reads,
    ) -> Self {
        let mut out = Self {
            has_target: !targets.is_empty(),
            ..Self::default()
        };
        for target in targets {
            match view.tables.services.get(reads, target) {
                Some(service) => out.service(service, ports, view, reads),
                None => out.missing(meta, target, view, reads),
            }
        }
        out
    }

    fn missing(
        &mut self,
        meta: &Meta,
        target: &NamespacedHostname,
        view: &GatewayStatusView<'_>,
        reads: &mut Reads,
    ) {
        let host = &target.hostname;
        let all = view.tables.services.by::<ServiceByHostname>(reads, host);
        let others: BTreeSet<&str> = all.map(|(key, _)| key.ns.as_str()).collect();
        let hint = if others.is_empty() {
            String::new()
        } else {
            let others: Vec<&str> = others.into_iter().collect();
            format!("; it exists in namespace {}", others.join(", "))
        };
        self.unusable = true;
        self.warnings.insert(format!(
            "Service {host} does not exist in namespace {}{hint}",
            meta.key.ns
        ));
    }

    fn service(
        &mut self,
        service: &ServiceRow,
        ports: &BTreeSet<u16>,
        view: &GatewayStatusView<'_>,
        reads: &mut Reads,
    ) {
        let host = &service.key.hostname;
        // Service port → target ports of ready instances.
        let mut ready: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
        let members = view.workloads.by::<WorkloadByService>(reads, &service.key);
        for (_, workload) in members.filter(|(_, workload)| workload.healthy) {
            for map in workload.services.get(&service.key).into_iter().flatten() {
                ready
                    .entry(map.service_port)
                    .or_default()
                    .insert(map.target_port);
            }
        }
        for port in ports {
            if ready.contains_key(port) {
                self.assigned.insert(format!("{host}:{port}"));
                self.hosts.insert(host.clone());
                let own = service.vips.iter().filter(|vip| vip.prefix.is_none());
                self.ips.extend(own.map(|vip| vip.ip.to_string()));
            } else if ready.is_empty() {
                let warning = format!("Service {host} has no ready instance");
                self.warnings.insert(warning);
            } else if let Some(hint) = behind(&ready, *port) {
                self.unusable = true;
                self.warnings.insert(format!(
                    "{port} is no port of Service {host}; did you mean {hint}, which leads to it"
                ));
            } else if !(is_managed(service, view, reads) && lists(service, *port)) {
                self.unusable = true;
                let warning = format!("Service {host} has no port {port}");
                self.warnings.insert(warning);
            }
        }
    }

    /// The condition.
    pub(super) fn condition(&self, ty: &'static str, generation: i64) -> Condition {
        let assigned: Vec<&str> = self.assigned.iter().map(String::as_str).collect();
        let assigned = if assigned.is_empty() {
            String::new()
        } else {
            format!("Assigned to {}", assigned.join(" and "))
        };
        let reason = if !self.has_target {
            "UnsupportedAddress"
        } else if self.warnings.is_empty() {
            let message = if assigned.is_empty() {
                "No listener asks for a port".to_owned()
            } else {
                assigned
            };
            return Condition::new(ty, true, "Programmed", message, generation);
        } else if self.unusable {
            "AddressNotUsable"
        } else {
            "AddressNotAssigned"
        };
        let mut parts: Vec<&str> = self.warnings.iter().map(String::as_str).collect();
        if !self.has_target {
            parts.push("No address in spec.addresses names a Service");
        }
        if !assigned.is_empty() {
            parts.insert(0, &assigned);
        }
        Condition::new(ty, false, reason, parts.join("; "), generation)
    }

    /// Where it is reached, IP addresses first. What a Gateway had is kept as long as nothing
    /// else is known: who is bound to it is not let go.
    pub(super) fn addresses(
        &self,
        meta: &Meta,
        before: &[GatewayStatusAddress],
    ) -> Vec<GatewayStatusAddress> {
        let wanted = meta.annotation(ANNOTATION_ADDRESS_TYPE).map(Str::as_str);
        let mut out = Vec::new();
        if wanted != Some("Hostname") {
            let ips = self.ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
            out.extend(ips.map(GatewayStatusAddress::Ip));
        }
        if wanted != Some("IPAddress") {
            let hosts = self.hosts.iter().cloned();
            out.extend(hosts.map(GatewayStatusAddress::Hostname));
        }
        if out.is_empty() { before.to_vec() } else { out }
    }
}

/// The port of the Service that leads to instances at this target port.
fn behind(ready: &BTreeMap<u16, BTreeSet<u16>>, target: u16) -> Option<u16> {
    let mut ports = ready.iter();
    ports
        .find(|(_, targets)| targets.contains(&target))
        .map(|(port, _)| *port)
}

fn lists(service: &ServiceRow, port: u16) -> bool {
    service.ports.iter().any(|row| row.port == port)
}

fn is_managed(service: &ServiceRow, view: &GatewayStatusView<'_>, reads: &mut Reads) -> bool {
    service.source.kind == Kind::Service.as_str()
        && view
            .service_objects
            .get(reads, &service.source.key)
            .is_some_and(|object| object.meta.label(LABEL_GATEWAY_MANAGED).is_some())
}
