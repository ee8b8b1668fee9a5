//! Subsets that nothing leads to, or nothing stands behind; and whether routes lead anywhere.

use std::sync::Arc;

use flow::Reads;
use model::{ObjectKey, ServiceRow, Severity};

use super::Report;
use crate::index::{RouteByParent, Target, TargetKind, WorkloadByService};

impl Report<'_, '_> {
    /// Whether routes of a service decide where its requests go.
    pub(super) fn has_routes(
        &self,
        reads: &mut Reads,
        service: &ServiceRow,
        waypoint: &ObjectKey,
    ) -> bool {
        let routes = self.view.http_routes;
        let gateway = Target::new(TargetKind::Gateway, waypoint.clone());
        let targets = Target::of_service(service).into_iter().chain([gateway]);
        for target in targets {
            if routes.by::<RouteByParent>(reads, &target).next().is_some() {
                return true;
            }
        }
        !self.destinations(reads).is_empty()
    }

    pub(super) fn subsets(&mut self, reads: &mut Reads, services: &[&Arc<ServiceRow>]) {
        if self.rule.subsets.is_empty() {
            return;
        }
        let routed = self.destinations(reads);
        for (i, subset) in self.rule.subsets.iter().enumerate() {
            let at = format!("spec.subsets[{i}]");
            let name = &subset.name;
            if !routed.contains(name) {
                let what = format!("No VirtualService leads to subset {name}, so it has no effect");
                let fix = "Route to it, or remove it";
                self.push("dr-subset-unused", Severity::Warning, &at, what, fix);
                continue;
            }
            let mut is_empty = true;
            for service in services {
                let mut workloads = self
                    .view
                    .workloads
                    .by::<WorkloadByService>(reads, &service.key);
                is_empty &= !workloads.any(|(_, row)| {
                    let mut labels = subset.labels.iter();
                    !row.terminating
                        && (row.healthy || service.publish_not_ready)
                        && labels.all(|(key, value)| row.labels.get(key) == Some(value))
                });
            }
            if is_empty {
                let pairs = subset.labels.iter().map(|(k, v)| format!("{k}={v}"));
                let pairs: Vec<_> = pairs.collect();
                let what = format!(
                    "Subset {name} selects no ready endpoint ({}): requests routed to it get 503",
                    pairs.join(",")
                );
                let fix = "Correct the labels, or start what has them";
                self.push("dr-subset-empty", Severity::Error, &at, what, fix);
            }
        }
    }
}
