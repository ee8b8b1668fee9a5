//! Gateways between networks.

use serde_json::json;
use snapshot::ResourceType;

use crate::world::World;

const GATE: &str = "istio-eastwest/istio-eastwestgateway";

fn object<'w>(world: &'w World, kind: &str, name: &str) -> Option<&'w serde_json::Value> {
    let mut all = world.status.as_array().unwrap().iter();
    all.find(|one| one["kind"] == kind && one["name"] == name)
}

#[test]
fn guide_26_claims_1_to_3() {
    let Some(world) = World::with_networks("26") else {
        return;
    };
    let gate = object(&world, "Gateway", "istio-eastwestgateway").unwrap();
    for ty in ["Accepted", "Programmed"] {
        let mut conditions = gate["conditions"].as_array().unwrap().iter();
        let condition = conditions.find(|one| one["type"] == ty).unwrap();
        assert_eq!(condition["status"], "True", "{condition}");
    }
    let listener = &gate["listeners"][0];
    let mut conditions = listener["conditions"].as_array().unwrap().iter();
    let accepted = conditions.find(|one| one["type"] == "Accepted").unwrap();
    assert_eq!(accepted["status"], "True", "{accepted}");
    assert_eq!(listener["attachedRoutes"], 0);
    let route = object(&world, "HTTPRoute", "pointless").unwrap();
    for parent in route["parents"].as_array().unwrap() {
        let mut conditions = parent["conditions"].as_array().unwrap().iter();
        let accepted = conditions.find(|one| one["type"] == "Accepted").unwrap();
        assert_eq!(accepted["status"], "False", "{accepted}");
    }
    assert!(world.names(GATE, ResourceType::Route).is_empty());
    world.reports(&[("route-parent-waypoint", "HTTPRoute bookinfo/pointless", "")]);
}

#[test]
fn guide_26_claim_4() {
    let Some(world) = World::with_networks("26") else {
        return;
    };
    let chains = world.chains(GATE);
    for (name, chain) in &chains {
        assert!(name.contains("|tcp|"), "{name}");
        assert!(
            !chain.to_string().contains("http_connection_manager"),
            "{name}"
        );
    }
    let reviews = "inbound-vip|9080|tcp|reviews.bookinfo.svc.cluster.local";
    assert!(chains.contains_key(reviews));
    let waypoint = "inbound-vip|15008|tcp|reviews-waypoint.bookinfo.svc.cluster.local";
    let matcher = &world.listener(GATE, "main_internal")["filterChainMatcher"];
    let map = &matcher["matcherTree"]["exactMatchMap"]["map"];
    let way = &map["reviews.bookinfo.svc.cluster.local:9080"]["matcher"];
    assert_eq!(way["onNoMatch"]["action"]["name"], waypoint);
    assert_eq!(
        world.names(GATE, ResourceType::Listener),
        [
            "connect_originate",
            "connect_terminate",
            "forward_inner_connect",
            "main_internal"
        ]
    );
}

#[test]
fn guide_26_claims_5_and_7() {
    let (Some(with), Some(without)) = (World::with_networks("26"), World::numbered("26")) else {
        return;
    };
    for world in [&with, &without] {
        let peer = world.workload("NetworkGateway/net-2/10.70.0.20/15008");
        assert_eq!(peer["network"], "net-2");
        assert_eq!(peer["serviceAccount"], "peer-net-2-istio-remote");
        assert_eq!(peer["namespace"], "istio-eastwest");
        assert_eq!(world.workload("bookinfo/reviews")["network"], "net-1");
        assert_eq!(
            world.services()["bookinfo/reviews"]["waypoint"]["hostname"]["hostname"],
            json!("reviews-waypoint.bookinfo.svc.cluster.local")
        );
    }
    assert!(!with.has_code("gw-class-inactive"));
    let gate = "Gateway istio-eastwest/istio-eastwestgateway";
    without.reports(&[("gw-class-inactive", gate, "spec.gatewayClassName")]);
    let rest = |world: &World| world.ztunnel.clone();
    assert_eq!(rest(&with), rest(&without));
}
