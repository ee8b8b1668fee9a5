//! Whether the instances of a Gateway can be reached, and where.
//! Source: spec/gateway-api.md §3.3.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use flow::Reads;
use model::input::{GatewayStatusAddress, Service};
use model::labels::LABEL_GATEWAY_MANAGED;
use model::status::Condition;
use model::{GatewayRow, Kind, NamespacedHostname, Parsed, ServiceRow, Str};

use super::StatusTables;
use super::gateway::address;
use crate::index::{ServiceByHostname, WorkloadByService};

/// What is looked for.
pub(super) struct Site<'a> {
    /// The Gateway whose instances it is about.
    pub(super) row: &'a GatewayRow,
    /// Ports that listeners ask for.
    pub(super) ports: BTreeSet<u16>,
    /// Which of its addresses the Gateway is to show, if it says.
    pub(super) address_type: Option<&'a Str>,
}

/// What was found behind the Services of a Gateway.
#[derive(Default)]
pub(super) struct Programmed {
    has_target: bool,
    /// `host:port` where there are ready instances.
    assigned: BTreeSet<String>,
    hosts: BTreeSet<Str>,
    /// Hosts whose load balancer has no address yet.
    pending: BTreeSet<Str>,
    ips: BTreeSet<String>,
    /// Where they are reached from outside.
    external: BTreeSet<Str>,
    warnings: BTreeSet<String>,
    /// Something will not mend by waiting.
    unusable: bool,
}

// === impl Programmed ===

impl Programmed {
    /// Looks for ready instances on each port of each Service.
    pub(super) fn of(site: &Site<'_>, tables: &StatusTables<'_>, reads: &mut Reads) -> Self {
        let targets = &site.row.targets;
        let mut out = Self {
            has_target: !targets.is_empty(),
            ..Self::default()
        };
        for target in targets {
            match tables.services.get(reads, target) {
                Some(service) => out.service(service, site, tables, reads),
                None => out.missing(site, target, tables, reads),
            }
        }
        out
    }

    fn missing(
        &mut self,
        site: &Site<'_>,
        target: &NamespacedHostname,
        tables: &StatusTables<'_>,
        reads: &mut Reads,
    ) {
        let host = &target.hostname;
        let all = tables.services.by::<ServiceByHostname>(reads, host);
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
            site.row.key.ns
        ));
    }

    fn service(
        &mut self,
        service: &ServiceRow,
        site: &Site<'_>,
        tables: &StatusTables<'_>,
        reads: &mut Reads,
    ) {
        let host = &service.key.hostname;
        let object = object(service, tables, reads);
        // Service port → target ports of ready instances.
        let mut ready: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
        let members = tables
            .workloads
            .by::<WorkloadByService>(reads, &service.key);
        for (_, workload) in members.filter(|(_, workload)| workload.healthy) {
            for map in workload.services.get(&service.key).into_iter().flatten() {
                ready
                    .entry(map.service_port)
                    .or_default()
                    .insert(map.target_port);
            }
        }
        for port in &site.ports {
            if ready.contains_key(port) {
                self.assigned.insert(format!("{host}:{port}"));
                self.reached(service, object);
            } else if ready.is_empty() {
                let warning = format!("Service {host} has no ready instance");
                self.warnings.insert(warning);
            } else if let Some(hint) = behind(&ready, *port) {
                self.unusable = true;
                self.warnings.insert(format!(
                    "{port} is no port of Service {host}; did you mean {hint}, which leads to it"
                ));
            } else if !(is_managed(object) && lists(service, *port)) {
                self.unusable = true;
                let warning = format!("Service {host} has no port {port}");
                self.warnings.insert(warning);
            }
        }
    }

    /// Takes up where a Service with ready instances is reached.
    fn reached(&mut self, service: &ServiceRow, object: Option<&Parsed<Service>>) {
        let host = &service.key.hostname;
        self.hosts.insert(host.clone());
        let own = service.vips.iter().filter(|vip| vip.prefix.is_none());
        self.ips.extend(own.map(|vip| vip.ip.to_string()));
        let Some(object) = object.and_then(Parsed::ok) else {
            return;
        };
        self.external.extend(object.external.iter().cloned());
        if object.load_balancer && object.external.is_empty() {
            self.pending.insert(host.clone());
            let warning = format!("Service {host} waits for an address of its load balancer");
            self.warnings.insert(warning);
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

    /// Where it is reached, IP addresses first: from outside if it is, else within the cluster.
    /// What a Gateway had is kept as long as nothing else is known: who is bound to it is not let
    /// go.
    pub(super) fn addresses(
        &self,
        site: &Site<'_>,
        before: &[GatewayStatusAddress],
    ) -> Vec<GatewayStatusAddress> {
        let mut out: Vec<_> = self.external.iter().map(address).collect();
        if out.is_empty() {
            let usual = site.row.controller.address_types();
            let (ips, hosts) = match site.address_type.map(Str::as_str) {
                Some("IPAddress") => (true, false),
                Some("Hostname") => (false, true),
                _ => (usual.ips, usual.hostnames),
            };
            if ips {
                let ips = self.ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
                out.extend(ips.map(GatewayStatusAddress::Ip));
            }
            if hosts {
                let hosts = self.hosts.difference(&self.pending).cloned();
                out.extend(hosts.map(GatewayStatusAddress::Hostname));
            }
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

/// A Service as it is written; none behind hosts of ServiceEntries.
fn object<'t>(
    service: &ServiceRow,
    tables: &StatusTables<'t>,
    reads: &mut Reads,
) -> Option<&'t Parsed<Service>> {
    if service.source.kind != Kind::Service.as_str() {
        return None;
    }
    let object = tables.service_objects.get(reads, &service.source.key)?;
    Some(&**object)
}

fn is_managed(object: Option<&Parsed<Service>>) -> bool {
    object.is_some_and(|object| object.meta.label(LABEL_GATEWAY_MANAGED).is_some())
}
