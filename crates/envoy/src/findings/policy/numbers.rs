//! Values that look right and match nothing at a waypoint: ports of pods, hosts without port;
//! and policies that are only tried out. Source: spec/policy-and-traffic.md §10.1.

use flow::Reads;
use model::input::TargetPort;
use model::labels::ANNOTATION_DRY_RUN;
use model::{ObjectKey, ServiceRow, Severity};

use super::{Reached, Report};
use crate::index::{PolicyByTarget, Target, TargetKind};

impl Report<'_, '_> {
    /// Ports that only the pods have, where a waypoint knows those of services.
    pub(super) fn pod_ports(&mut self, reached: &[Reached<'_>]) {
        let policy = self.policy;
        let mut written = Vec::new();
        for (r, rule) in policy.rules.iter().enumerate() {
            for (i, to) in rule.to.iter().enumerate() {
                let at = format!("spec.rules[{r}].to[{i}].operation.");
                written.push((format!("{at}ports"), &to.ports.values));
                written.push((format!("{at}notPorts"), &to.ports.not_values));
            }
            for (i, (key, values)) in rule.when.iter().enumerate() {
                if key == "destination.port" {
                    let at = format!("spec.rules[{r}].when[{i}].");
                    written.push((format!("{at}values"), &values.values));
                    written.push((format!("{at}notValues"), &values.not_values));
                }
            }
        }
        let services = || {
            let bound = reached.iter().map(|reached| reached.service);
            bound.filter(|service| service.waypoint.is_some())
        };
        for (at, values) in written {
            for (i, text) in values.iter().enumerate() {
                let Ok(number) = text.parse::<u16>() else {
                    continue;
                };
                if services().any(|service| service.ports.iter().any(|port| port.port == number)) {
                    continue;
                }
                let Some((service, port)) = services().find_map(|service| {
                    service_port_of(service, number).map(|port| (service, port))
                }) else {
                    continue;
                };
                let what = format!(
                    "{number} is the port of the pods; at the waypoint the port of {} is {port}, so the value never matches",
                    service.key.hostname
                );
                let fix = format!("Write {port}");
                let at = format!("{at}[{i}]");
                self.push("authz-port-kind", Severity::Error, &at, what, &fix);
            }
        }
    }

    /// Hosts without port on ports that clients write behind the host.
    pub(super) fn hosts_without_port(&mut self, reached: &[Reached<'_>]) {
        let policy = self.policy;
        let bound = reached.iter().map(|reached| reached.service);
        let mut ports = bound
            .filter(|service| service.waypoint.is_some())
            .flat_map(|service| service.ports.iter().map(move |port| (service, port)));
        let unusual =
            ports.find(|(_, port)| port.protocol.is_http() && !matches!(port.port, 80 | 443));
        let Some((service, port)) = unusual else {
            return;
        };
        for (r, rule) in policy.rules.iter().enumerate() {
            for (i, to) in rule.to.iter().enumerate() {
                let lists = [
                    ("hosts", &to.hosts.values),
                    ("notHosts", &to.hosts.not_values),
                ];
                for (name, hosts) in lists {
                    for (k, host) in hosts.iter().enumerate() {
                        if host.contains(['*', ':']) {
                            continue;
                        }
                        let what = format!(
                            "{host} does not match {host}:{}, as clients of {} write it",
                            port.port, service.key.hostname
                        );
                        let fix = format!("Add \"{host}:*\"");
                        let at = format!("spec.rules[{r}].to[{i}].operation.{name}[{k}]");
                        self.push("authz-host-port", Severity::Warning, &at, what, &fix);
                    }
                }
            }
        }
    }

    /// A policy that is tried out and stands alone on its target.
    pub(super) fn tried_out(&mut self, reads: &mut Reads) {
        if !self.policy.dry_run {
            return;
        }
        let lone = self.policy.targets.iter().find(|target| {
            let Some(kind) = TargetKind::of(&target.group, &target.kind) else {
                return false;
            };
            let object = ObjectKey::new(self.key.ns.clone(), target.name.clone());
            let at = Target::new(kind, object);
            let mut others = self.view.policies.by::<PolicyByTarget>(reads, &at);
            !others.any(|(_, row)| row.ok().is_some_and(|policy| !policy.dry_run))
        });
        let Some(target) = lone else { return };
        let what = format!(
            "Only policies in dry run target {} {}; nothing is enforced there",
            target.kind, target.name
        );
        let at = format!("metadata.annotations[{ANNOTATION_DRY_RUN}]");
        let fix = "Remove the annotation when the policy does what it should";
        self.push("authz-dryrun-left-on", Severity::Warning, &at, what, fix);
    }
}

/// The port of a service whose pods serve it on this number.
fn service_port_of(service: &ServiceRow, number: u16) -> Option<u16> {
    let mut ports = service.ports.iter();
    let port = ports.find(|port| port.target == TargetPort::Number(number))?;
    Some(port.port)
}
