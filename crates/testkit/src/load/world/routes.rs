//! Waypoints, the routes of services behind them, and policies.

use serde_json::{Value, json};

use super::World;

const CREATED: &str = "2026-01-01T00:00:00Z";

impl World {
    pub(super) fn gateway(&self, waypoint: usize) -> Value {
        let (ns, name) = self.waypoint_name(waypoint);
        let host = format!("{name}.{ns}.svc.cluster.local");
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {
                "name": name, "namespace": ns, "creationTimestamp": CREATED, "generation": 1,
                "labels": {"istio.io/waypoint-for": "service"},
            },
            "spec": {
                "gatewayClassName": "istio-waypoint",
                "listeners": [{
                    "name": "mesh", "port": 15008, "protocol": "HBONE",
                    "allowedRoutes": {"namespaces": {"from": "All"}},
                }],
            },
            "status": {"addresses": [{"type": "Hostname", "value": host}]},
        })
    }

    pub(super) fn route(&self, at: usize) -> Value {
        let service = self.service_of_route(at);
        let name = format!("service-{service}");
        let path = json!({"type": "PathPrefix", "value": format!("/route-{at}")});
        let backends = json!([{"name": name, "port": 80, "weight": 1}]);
        let answer = json!([{
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [
                {"name": "x-route", "value": format!("route-{at}")},
                {"name": "x-revision", "value": self.route_revision(at).to_string()},
            ]},
        }]);
        let canary = json!([{"name": "x-canary", "value": "always"}]);
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {
                "name": format!("route-{at}"),
                "namespace": self.namespace_name(self.namespace_of_service(service)),
                "creationTimestamp": CREATED,
                "generation": self.route_revision(at) + 1,
                "labels": {"app": name},
            },
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": name, "port": 80}],
                "rules": [
                    {
                        "matches": [{"path": path, "headers": canary}],
                        "filters": answer,
                        "timeouts": {"request": "10s"},
                        "backendRefs": backends,
                    },
                    {"matches": [{"path": path}], "filters": answer, "backendRefs": backends},
                ],
            },
        })
    }

    /// Three of four are for ztunnels, by labels of pods or for a whole namespace; the fourth
    /// is for the waypoint of its service, if that has one.
    pub(super) fn policy(&self, at: usize) -> Value {
        let (count, namespaces) = (self.spec.services, self.spec.namespaces);
        let ns = at % namespaces;
        let first = (ns * count).div_ceil(namespaces);
        let service = (first + at / namespaces).min(count - 1);
        let ns = self.namespace_of_service(service);
        let name = format!("service-{service}");
        let callers: Vec<String> = (1..4)
            .map(|n| {
                let other = (service + 7 * n) % count;
                let ns = self.namespace_name(self.namespace_of_service(other));
                format!("cluster.local/ns/{ns}/sa/service-{other}")
            })
            .collect();
        let own = self.namespace_name(ns);
        let spec = match (at % 4, self.waypoint_of_service(service)) {
            (0, _) => json!({
                "selector": {"matchLabels": {"app": name}},
                "action": "ALLOW",
                "rules": [{
                    "from": [{"source": {"principals": callers}}],
                    "to": [{"operation": {"ports": ["8080", "9000"]}}],
                }],
            }),
            (1, _) => json!({
                "selector": {"matchLabels": {"app": name}},
                "action": "DENY",
                "rules": [{
                    "from": [{"source": {"notNamespaces": [own, "istio-system"]}}],
                    "to": [{"operation": {"ports": ["9090"]}}],
                }],
            }),
            (3, Some(_)) => json!({
                "targetRefs": [{"group": "", "kind": "Service", "name": name}],
                "action": "ALLOW",
                "rules": [{
                    "from": [{"source": {"principals": callers}}],
                    "to": [{"operation": {"methods": ["GET", "POST"], "paths": ["/api/*"]}}],
                }],
            }),
            _ => json!({
                "action": "DENY",
                "rules": [{
                    "from": [{"source": {"ipBlocks": [format!("203.0.113.{}", at % 256)]}}],
                }],
            }),
        };
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {
                "name": format!("policy-{at}"), "namespace": own,
                "creationTimestamp": CREATED, "generation": 1,
            },
            "spec": spec,
        })
    }
}
