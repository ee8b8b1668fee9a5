//! Conditions on who the client is, where clients are let in whose certificates nobody vouches
//! for. Source: spec/envoy-config.md §6.5; spec/policy-and-traffic.md §1.5.

use std::sync::Arc;

use flow::Reads;
use model::gateway::ListenerRow;
use model::input::Action;
use model::{GatewayRow, ObjectKey, Severity};

use super::Report;
use crate::authz::peer_fields;
use crate::findings::selected::IngressTables;
use crate::index::TargetKind;

/// A listener that lets in any certificate.
fn open(gateway: &GatewayRow) -> Option<&ListenerRow> {
    let mut listeners = gateway.listeners.iter();
    listeners.find(|one| {
        let tls = one.tls.as_ref();
        one.is_served && tls.is_some_and(|tls| tls.accepts_untrusted)
    })
}

impl<'t> Report<'_, 't> {
    /// One finding per rule, naming the first field and the first listener.
    pub(super) fn unverified(&mut self, reads: &mut Reads) {
        let rules = self.policy.rules.iter().map(peer_fields);
        let fields: Vec<(usize, String)> = rules
            .enumerate()
            .filter_map(|(index, fields)| Some((index, fields.into_iter().next()?)))
            .collect();
        if fields.is_empty() {
            return;
        }
        let gateways = self.applying(reads);
        let found = gateways.iter().find_map(|row| Some((row, open(row)?)));
        let Some((gateway, listener)) = found else {
            return;
        };
        let effect = if self.policy.action == Action::Allow {
            "the rule allows nothing there"
        } else {
            "the rule applies there without that condition"
        };
        let what = format!(
            "Listener {} of gateway {} lets in clients whose certificates nobody vouches for (AllowInsecureFallback), so who a client is is not known: {effect}",
            listener.name, gateway.key
        );
        let fix = "Have the gateway validate its clients (AllowValidOnly), or write the rule without identities, namespaces and service accounts";
        for (index, field) in fields {
            let at = format!("spec.rules[{index}].{field}");
            let code = "authz-peer-unverified";
            self.push(code, Severity::Error, &at, what.clone(), fix);
        }
    }

    /// Gateways that apply the policy and let in any certificate.
    fn applying(&self, reads: &mut Reads) -> Vec<&'t Arc<GatewayRow>> {
        let policy = self.policy;
        if policy.targets.is_empty() {
            let tables = IngressTables {
                gateways: self.view.gateways,
                waypoints: self.view.waypoints,
                workloads: self.view.workloads,
            };
            let of = (&self.key.ns, policy.selector.as_ref());
            return tables.selected(reads, self.mesh, of, |row| open(row).is_some());
        }
        let gateways = policy.targets.iter().filter(|target| {
            TargetKind::of(&target.group, &target.kind) == Some(TargetKind::Gateway)
        });
        let keys = gateways.map(|target| ObjectKey::new(self.key.ns.clone(), target.name.clone()));
        keys.filter_map(|key| self.view.gateways.get(reads, &key))
            .collect()
    }
}
