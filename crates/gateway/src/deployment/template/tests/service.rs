//! The Service.

use serde_json::{Value, json};

use super::east_west;
use crate::deployment::tests::World;

#[test]
fn the_service_prefers_what_is_near_for_waypoints() {
    const KEY: &str = "networking.istio.io/traffic-distribution";
    let value = |world: World| world.object("Service")["metadata"]["annotations"][KEY].clone();
    assert_eq!(value(World::waypoint("{}")), "PreferClose");
    assert_eq!(value(east_west("{}")), "PreferClose");
    assert_eq!(value(World::ingress("{}")), Value::Null);
    let own = "metadata: {annotations: {networking.istio.io/traffic-distribution: Any}}";
    assert_eq!(value(World::waypoint(own)), "Any");
    let account = World::waypoint("{}").object("ServiceAccount");
    assert!(account["metadata"].get("annotations").is_none());
}

#[test]
fn the_service_asks_for_both_families_and_the_address() {
    let text = "spec: {addresses: [{value: 192.0.2.1}]}";
    let spec = World::ingress(text).object("Service")["spec"].clone();
    assert_eq!(spec["ipFamilyPolicy"], "PreferDualStack");
    assert_eq!(
        spec["selector"],
        json!({"gateway.networking.k8s.io/gateway-name": "gw"})
    );
    assert_eq!(spec["loadBalancerIP"], "192.0.2.1");
    assert!(spec["ports"][0].get("targetPort").is_none());
    assert!(
        World::ingress("{}").object("Service")["spec"]
            .get("loadBalancerIP")
            .is_none()
    );
    assert!(
        World::waypoint(text).object("Service")["spec"]
            .get("loadBalancerIP")
            .is_none()
    );
}
