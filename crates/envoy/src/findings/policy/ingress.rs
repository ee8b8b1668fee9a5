//! Whether traffic from ingress gateways goes round the waypoint of a policy. What gateways do is
//! judged by the routes alone. Source: spec/policy-and-traffic.md §10.1.

use flow::Reads;
use model::input::{Action, HttpRoute};
use model::{GatewayController, ObjectKey, Severity};

use super::{Reached, Report};
use crate::index::{RouteByBackend, Target, TargetKind};

impl Report<'_, '_> {
    /// One finding per target, naming the first service and gateway.
    pub(super) fn ingress(&mut self, reads: &mut Reads, reached: &[Reached<'_>]) {
        if self.policy.dry_run || self.policy.action == Action::Audit {
            return;
        }
        let mut told: Vec<&str> = Vec::new();
        for Reached { at, service } in reached {
            let Some(bound) = service.waypoint.as_ref() else {
                continue;
            };
            if service.ingress_use_waypoint || told.contains(&at.as_str()) {
                continue;
            }
            let Some(target) = Target::of_service(service) else {
                continue;
            };
            let routes = self.view.http_routes.by::<RouteByBackend>(reads, &target);
            let routes: Vec<_> = routes.filter_map(|(_, row)| row.ok()).collect();
            let gateway = routes
                .into_iter()
                .find_map(|route| self.ingress_of(reads, route));
            let Some(gateway) = gateway else {
                continue;
            };
            told.push(at);
            let what = format!(
                "Requests that gateway {gateway} routes to {} go to the pods and not through waypoint {}; this policy does not see them",
                service.key.hostname, bound.key
            );
            let fix = "Label the Service istio.io/ingress-use-waypoint: \"true\"";
            self.push("authz-ingress-bypass", Severity::Warning, at, what, fix);
        }
    }

    /// The first Gateway of a route that lets requests into the mesh.
    fn ingress_of(&self, reads: &mut Reads, route: &HttpRoute) -> Option<ObjectKey> {
        let gateways = route.parents.iter().filter(|parent| {
            TargetKind::of(&parent.group, &parent.kind) == Some(TargetKind::Gateway)
        });
        for parent in gateways {
            let key = ObjectKey::new(parent.ns.clone(), parent.name.clone());
            let row = self.view.waypoints.get(reads, &key);
            let is_ingress = row.is_some_and(|row| {
                // Those of others may well be ingresses.
                matches!(row.controller, None | Some(GatewayController::Ingress))
            });
            if is_ingress {
                return Some(key);
            }
        }
        None
    }
}
