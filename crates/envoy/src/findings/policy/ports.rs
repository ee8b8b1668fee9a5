//! HTTP conditions on ports that are not HTTP. Source: spec/policy-and-traffic.md §1.5.

use std::collections::BTreeMap;

use model::derived::PortRow;
use model::input::Action;
use model::{ServiceRow, Severity};

use super::{Reached, Report};
use crate::attachment::port_chains;
use crate::authz::{http_fields, token_fields};

impl Report<'_, '_> {
    /// One finding per field with such a condition, naming the first port.
    pub(super) fn ports(&mut self, reached: &[Reached<'_>]) {
        let (code, effect, fix) = match self.policy.action {
            Action::Allow => (
                "authz-http-on-tcp-allow",
                "so the rule allows nothing there",
                "Set appProtocol of the port, or add a rule with ports and without HTTP conditions",
            ),
            Action::Deny | Action::Custom => (
                "authz-http-on-tcp-deny",
                "so the rule refuses there without this condition",
                "Set appProtocol of the port, or list only HTTP ports in the rule",
            ),
            Action::Audit => return,
        };
        let opaque: Vec<_> = reached
            .iter()
            .filter(|reached| reached.service.waypoint.is_some())
            .flat_map(|reached| opaque_ports(reached.service))
            .collect();
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        for (index, rule) in self.policy.rules.iter().enumerate() {
            for (service, port) in &opaque {
                let used = http_fields(rule, Some(port.port)).into_iter();
                for field in used.chain(token_fields(rule)) {
                    let what = format!(
                        "Port {} of {} is not HTTP, {effect}",
                        port.port, service.key.hostname
                    );
                    let at = format!("spec.rules[{index}].{field}");
                    fields.entry(at).or_insert(what);
                }
            }
        }
        for (at, what) in fields {
            self.push(code, Severity::Warning, &at, what, fix);
        }
    }
}

fn opaque_ports(service: &ServiceRow) -> impl Iterator<Item = (&ServiceRow, &PortRow)> {
    let ports = service.ports.iter();
    ports
        .filter(|port| port.protocol.is_tcp() && port_chains(port).is_some())
        .map(move |port| (service, port))
}
