//! Policies without targets that mean a waypoint: none reads them.
//! Source: spec/policy-and-traffic.md §0.3, §10.1.

use std::sync::Arc;

use flow::Reads;
use model::census::CensusKey;
use model::labels::LABEL_GATEWAY_NAME;
use model::{Labels, ObjectKey, Severity, Str, WaypointRow};

use super::Report;
use crate::authz::{http_fields, usage};
use crate::index::{InstanceByNamespace, ServedByNamespace, WaypointByNamespace};

impl<'t> Report<'_, 't> {
    pub(super) fn untargeted(&mut self, reads: &mut Reads) {
        let selector = self
            .policy
            .selector
            .clone()
            .filter(|labels| !labels.is_empty());
        let mut rules = self.policy.rules.iter();
        let layer7 = rules.any(|rule| usage(rule).jwt || !http_fields(rule, None).is_empty());
        if selector.is_none() && !layer7 {
            return;
        }
        let waypoints = self.waypoints_in_range(reads);
        if waypoints.is_empty() {
            return;
        }
        let selector = selector.unwrap_or_default();
        let Some(waypoint) = self.meant(reads, &waypoints, &selector, layer7) else {
            return;
        };
        let what = format!(
            "Waypoints apply only policies with targetRefs, so waypoint {} does not enforce this one",
            waypoint.key
        );
        let at = if selector.is_empty() {
            "spec"
        } else {
            "spec.selector"
        };
        let fix = "Use targetRefs with the Gateway, a Service or the GatewayClass";
        self.push("authz-no-ref-waypoint", Severity::Error, at, what, fix);
    }

    /// Waypoints of the policy's namespace, or all for the root namespace.
    fn waypoints_in_range(&self, reads: &mut Reads) -> Vec<&'t Arc<WaypointRow>> {
        let (table, ns) = (self.view.waypoints, &self.key.ns);
        let is_mesh = |row: &&Arc<WaypointRow>| row.is_mesh_class();
        if *ns == self.mesh.root_namespace {
            return table
                .scan(reads)
                .map(|(_, row)| row)
                .filter(is_mesh)
                .collect();
        }
        let found = table.by::<WaypointByNamespace>(reads, ns);
        found.map(|(_, row)| row).filter(is_mesh).collect()
    }

    /// The waypoint that the policy must mean: one whose instances it selects and nothing
    /// else, or the first in range if it has HTTP conditions and selects nothing in the mesh.
    fn meant(
        &self,
        reads: &mut Reads,
        waypoints: &[&'t Arc<WaypointRow>],
        selector: &Labels,
        layer7: bool,
    ) -> Option<&'t Arc<WaypointRow>> {
        if let Some(name) = selector.get(LABEL_GATEWAY_NAME) {
            let named = waypoints.iter().find(|row| row.key.name == *name);
            if named.is_some() {
                return named.copied();
            }
        }
        let (table, is_root) = (self.view.workloads, self.key.ns == self.mesh.root_namespace);
        let ns = if is_root { "" } else { self.key.ns.as_str() };
        // Without a selector the instances say nothing about what is meant.
        let instances = table.by::<InstanceByNamespace>(reads, ns);
        let instance = instances
            .map(|(_, row)| row)
            .filter(|row| !selector.is_empty() && selects(selector, &row.labels))
            .find_map(|row| instance_of(&row.ns, &row.labels, waypoints));
        let meant = instance.or_else(|| waypoints.first().copied().filter(|_| layer7))?;
        let mut served = self.view.census.by::<ServedByNamespace>(reads, ns);
        let selects_others = served.any(|(key, _)| {
            let CensusKey::Served(served) = key else {
                return false;
            };
            selects(selector, &served.labels)
                && instance_of(&served.ns, &served.labels, waypoints).is_none()
        });
        (!selects_others).then_some(meant)
    }
}

fn selects(selector: &Labels, labels: &Labels) -> bool {
    let mut pairs = selector.iter();
    pairs.all(|(key, value)| labels.get(key) == Some(value))
}

/// The waypoint of which a workload with these labels is an instance.
fn instance_of<'t>(
    ns: &Str,
    labels: &Labels,
    waypoints: &[&'t Arc<WaypointRow>],
) -> Option<&'t Arc<WaypointRow>> {
    let name = labels.get(LABEL_GATEWAY_NAME)?;
    let key = ObjectKey::new(ns.clone(), name.clone());
    waypoints.iter().find(|row| row.key == key).copied()
}
