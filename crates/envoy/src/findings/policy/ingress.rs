//! Whether traffic from ingress gateways goes round the waypoint of a policy. What gateways do is
//! judged by the routes alone. Source: spec/policy-and-traffic.md §10.1.

use flow::Reads;
use model::input::{Action, RouteRef};
use model::{GatewayController, ObjectKey, ServiceRow, Severity};

use super::{Reached, Report};
use crate::index::{RouteByBackend, RouteByBackendHost, Target, TargetKind};
use crate::ingress::waypoint::vip;

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
            // Without an address the waypoint cannot be asked for it.
            let is_headless = vip(service).is_none();
            if (service.ingress_use_waypoint && !is_headless) || told.contains(&at.as_str()) {
                continue;
            }
            let Some(target) = Target::of_service(service) else {
                continue;
            };
            let parents = self.leading_to(reads, &target, service);
            let Some(gateway) = self.ingress_of(reads, &parents) else {
                continue;
            };
            told.push(at);
            let what = format!(
                "Requests that gateway {gateway} routes to {} go to the pods and not through waypoint {}; this policy does not see them",
                service.key.hostname, bound.key
            );
            let fix = if is_headless {
                "Give the Service an address and label it istio.io/ingress-use-waypoint: \"true\", or have a policy of the gateway say the same"
            } else {
                "Label the Service istio.io/ingress-use-waypoint: \"true\""
            };
            self.push("authz-ingress-bypass", Severity::Warning, at, what, fix);
        }
    }

    /// Parents of routes of every kind that lead to a service.
    fn leading_to(
        &self,
        reads: &mut Reads,
        target: &Target,
        service: &ServiceRow,
    ) -> Vec<RouteRef> {
        let host = service.key.hostname.as_str();
        let mut out = Vec::new();
        for routes in [self.view.http_routes, self.view.grpc_routes] {
            let found = routes.by::<RouteByBackend>(reads, target);
            let found: Vec<_> = found.map(|(_, row)| row).collect();
            let by_host = routes.by::<RouteByBackendHost>(reads, host);
            let all = found.into_iter().chain(by_host.map(|(_, row)| row));
            out.extend(
                all.filter_map(|row| row.ok())
                    .flat_map(|route| route.parents.clone()),
            );
        }
        for routes in [self.view.tcp_routes, self.view.tls_routes] {
            let found = routes.by::<RouteByBackend>(reads, target);
            let found: Vec<_> = found.map(|(_, row)| row).collect();
            let by_host = routes.by::<RouteByBackendHost>(reads, host);
            let all = found.into_iter().chain(by_host.map(|(_, row)| row));
            out.extend(
                all.filter_map(|row| row.ok())
                    .flat_map(|route| route.parents.clone()),
            );
        }
        out
    }

    /// The first Gateway of these that lets requests into the mesh.
    fn ingress_of(&self, reads: &mut Reads, parents: &[RouteRef]) -> Option<ObjectKey> {
        let gateways = parents.iter().filter(|parent| {
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
