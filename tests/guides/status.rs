//! Claims tagged status.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::world::World;

pub(crate) const BOUND: &str = "istio.io/WaypointBound";
pub(crate) const BY_ZTUNNEL: &str = "ZtunnelAccepted";
pub(crate) const BY_WAYPOINT: &str = "WaypointAccepted";

/// Each of the objects with the same outcome.
pub(crate) fn all(outcome: &str, objects: &[&str]) -> BTreeMap<String, String> {
    let objects = objects.iter();
    objects
        .map(|name| ((*name).to_owned(), outcome.to_owned()))
        .collect()
}

#[test]
fn guide_03_status_claim_8_of_the_services() {
    let Some(world) = World::numbered("03") else {
        return;
    };
    let services = [
        "Service bookinfo/productpage",
        "Service bookinfo/ratings",
        "Service bookinfo/reviews",
        "Service bookinfo/reviews-v1",
        "Service bookinfo/reviews-v2",
    ];
    let want = all("True/WaypointAccepted", &services);
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_04_status_claim_6() {
    let Some(world) = World::numbered("04") else {
        return;
    };
    let want = all("True/WaypointAccepted", &["Service bookinfo/reviews"]);
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_05_status_claim_7() {
    let Some(world) = World::numbered("05") else {
        return;
    };
    let services = [
        "Service bookinfo/productpage",
        "Service bookinfo/reviews",
        "Service bookinfo/ratings",
        "Service tenant/api",
    ];
    let want = all("True/WaypointAccepted", &services);
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_06_status_claim_5() {
    let Some(world) = World::numbered("06") else {
        return;
    };
    let mut want = all(
        "False/WaypointIsNotReady",
        &["Service demo/slashed", "Service demo/dotted"],
    );
    let bound = ["Service demo/named", "Service demo/two-labels"];
    want.extend(all("True/WaypointAccepted", &bound));
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_07_status_claims_1_2_3_and_5() {
    let Some(world) = World::numbered("07") else {
        return;
    };
    let mut want = all(
        "False/WaypointIsNotReady",
        &["Service bookinfo/reviews", "Service bookinfo/details"],
    );
    let mismatched = ["Service bookinfo/ratings", "Service bookinfo/productpage"];
    want.extend(all("False/UnsupportedTrafficType", &mismatched));
    want.extend(all("False/AttachmentDenied", &["Service guest/cart"]));
    assert_eq!(world.conditions(BOUND), want);
}

#[test]
fn guide_09_status_claim_8() {
    let Some(world) = World::numbered("09") else {
        return;
    };
    let policies = [
        "AuthorizationPolicy shop/deny-all",
        "AuthorizationPolicy shop/orders-allow-web",
    ];
    let want = all("True/Accepted", &policies);
    assert_eq!(world.conditions(BY_ZTUNNEL), want);
}

#[test]
fn guide_10_status_claim_8() {
    let Some(world) = World::numbered("10") else {
        return;
    };
    let want = all("True/Accepted", &["AuthorizationPolicy shop/stock-l7"]);
    assert_eq!(world.conditions(BY_WAYPOINT), want);
}

#[test]
fn guide_12_status_claim_9() {
    let Some(world) = World::numbered("12") else {
        return;
    };
    let (kind, name) = ("AuthorizationPolicy", "reviews-read-only");
    let policy = format!("{kind} bookinfo/{name}");
    let want = all("True/Accepted", &[&policy]);
    assert_eq!(world.conditions(BY_WAYPOINT), want);
    assert_eq!(world.conditions(BY_ZTUNNEL), BTreeMap::new());
    let message = world.message(kind, "bookinfo", name, BY_WAYPOINT);
    assert!(message.contains("bookinfo/reviews-waypoint"), "{message}");
}

#[test]
fn guide_13_status_claim_7() {
    let Some(world) = World::numbered("13") else {
        return;
    };
    let mut want = all(
        "True/Accepted",
        &[
            "AuthorizationPolicy shop/orders-l7",
            "AuthorizationPolicy default/productpage-viewer",
        ],
    );
    let lost = [
        "AuthorizationPolicy shop/typo",
        "AuthorizationPolicy shop/elsewhere",
    ];
    want.extend(all("False/TargetNotFound", &lost));
    let bare = ["AuthorizationPolicy other/no-waypoint"];
    want.extend(all("False/AncestorNotBound", &bare));
    assert_eq!(world.conditions(BY_WAYPOINT), want);
}

#[test]
fn guide_14_status_claim_10() {
    let Some(world) = World::numbered("14") else {
        return;
    };
    let conditions = world.conditions(BY_ZTUNNEL);
    for (name, field) in [
        ("ratings-get-only", "methods"),
        ("details-no-delete", "methods"),
        ("productpage-no-admin-port", "paths"),
    ] {
        let outcome = &conditions[&format!("AuthorizationPolicy bookinfo/{name}")];
        assert_eq!(outcome, "True/UnsupportedValue", "{name}");
        let message = world.message("AuthorizationPolicy", "bookinfo", name, BY_ZTUNNEL);
        assert!(message.contains(field), "{name}: {message}");
    }
}

#[test]
fn guide_19_status_claim_7() {
    let Some(world) = World::numbered("19") else {
        return;
    };
    let message = |name| world.message("Service", "bookinfo", name, BOUND);
    let said = "Traffic of ingress gateways goes through waypoint bookinfo/reviews-waypoint";
    assert!(message("ratings").contains(said));
    assert!(!message("reviews").contains("ingress"));
}

#[test]
fn guide_40_status_claim_5_without_the_gateway() {
    let Some(world) = World::numbered("40") else {
        return;
    };
    let service = "Service bookinfo/reviews";
    assert_eq!(
        world.conditions(BOUND),
        all("True/WaypointAccepted", &[service])
    );
    let policy = "AuthorizationPolicy bookinfo/reviews-read-only";
    assert_eq!(
        world.conditions(BY_WAYPOINT),
        all("True/Accepted", &[policy])
    );
}

#[test]
fn guide_39_status_claim_7_of_the_service() {
    let Some(world) = World::numbered("39") else {
        return;
    };
    let service = "Service example-api/example-api";
    assert_eq!(
        world.conditions(BOUND),
        all("True/WaypointAccepted", &[service])
    );
}

/// `status/reason` by type of a list of conditions.
fn outcomes(conditions: &Value) -> BTreeMap<&str, String> {
    let text = |condition: &'_ Value, key: &str| condition[key].as_str().unwrap().to_owned();
    let all = conditions.as_array().unwrap().iter();
    all.map(|one| {
        let outcome = format!("{}/{}", text(one, "status"), text(one, "reason"));
        (one["type"].as_str().unwrap(), outcome)
    })
    .collect()
}

fn of_all(pairs: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    pairs
        .iter()
        .map(|(ty, outcome)| (*ty, (*outcome).to_owned()))
        .collect()
}

/// The status of one object; null without any.
fn status_of<'w>(world: &'w World, (kind, ns, name): (&str, &str, &str)) -> &'w Value {
    let mut objects = world.status.as_array().unwrap().iter();
    let found =
        objects.find(|one| one["kind"] == kind && one["namespace"] == ns && one["name"] == name);
    found.unwrap_or(&Value::Null)
}

/// Kind and name of each parent of a route with its outcomes.
fn parents<'w>(
    world: &'w World,
    route: (&str, &str, &str),
) -> Vec<(String, BTreeMap<&'w str, String>)> {
    let parents = status_of(world, route)["parents"].as_array();
    let parents = parents.into_iter().flatten();
    parents
        .map(|entry| {
            assert_eq!(entry["controllerName"], "istio.io/gateway-controller");
            let parent = &entry["parentRef"];
            let kind = parent["kind"].as_str().unwrap_or("Gateway");
            let name = format!("{kind} {}", parent["name"].as_str().unwrap());
            (name, outcomes(&entry["conditions"]))
        })
        .collect()
}

const ACCEPTED: (&str, &str) = ("Accepted", "True/Accepted");
const REFS: (&str, &str) = ("ResolvedRefs", "True/ResolvedRefs");
const WAYPOINTS: (&str, &str) = ("ResolvedWaypoints", "True/ResolvedWaypoints");
const PROGRAMMED: (&str, &str) = ("Programmed", "True/Programmed");

#[test]
fn guide_03_status_claim_8_of_the_gateway() {
    let Some(world) = World::numbered("03") else {
        return;
    };
    let gateway = status_of(&world, ("Gateway", "bookinfo", "bookinfo-waypoint"));
    let want = of_all(&[ACCEPTED, PROGRAMMED, REFS]);
    assert_eq!(outcomes(&gateway["conditions"]), want);
    assert_eq!(
        gateway["addresses"],
        json!([
            {"type": "IPAddress", "value": "10.96.8.16"},
            {"type": "Hostname", "value": "bookinfo-waypoint.bookinfo.svc.cluster.local"},
        ])
    );
    assert_eq!(gateway["listeners"][0]["attachedRoutes"], 0);
}

#[test]
fn guide_07_status_claim_6_waypoints_that_nobody_uses_stay_programmed() {
    let Some(world) = World::numbered("07") else {
        return;
    };
    for name in ["reviews", "pods", "idle", "private"] {
        let name = format!("{name}-waypoint");
        let gateway = status_of(&world, ("Gateway", "bookinfo", &name));
        let outcomes = outcomes(&gateway["conditions"]);
        assert_eq!(outcomes["Programmed"], "True/Programmed", "{name}");
    }
}

#[test]
fn guide_40_status_claim_5_of_the_gateway() {
    let Some(world) = World::numbered("40") else {
        return;
    };
    let gateway = status_of(&world, ("Gateway", "bookinfo", "reviews-waypoint"));
    let want = of_all(&[ACCEPTED, PROGRAMMED, REFS]);
    assert_eq!(outcomes(&gateway["conditions"]), want);
}

#[test]
fn guide_20_status_claim_8() {
    let Some(world) = World::numbered("20") else {
        return;
    };
    let all = of_all(&[ACCEPTED, REFS, WAYPOINTS]);
    assert_eq!(
        parents(&world, ("HTTPRoute", "bookinfo", "reviews-split")),
        [("Gateway reviews-waypoint".to_owned(), all.clone())]
    );
    assert_eq!(
        parents(&world, ("HTTPRoute", "bookinfo", "details-split")),
        [("Service details".to_owned(), all)]
    );
    let gateway = status_of(&world, ("Gateway", "bookinfo", "reviews-waypoint"));
    assert_eq!(gateway["listeners"][0]["name"], "mesh");
    assert_eq!(gateway["listeners"][0]["attachedRoutes"], 1);
}

#[test]
fn guide_21_status_claims_5_and_6() {
    let Some(world) = World::numbered("21") else {
        return;
    };
    let header = ("HTTPRoute", "bookinfo", "ratings-header");
    let entries = parents(&world, header);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].1, of_all(&[ACCEPTED, REFS, WAYPOINTS]));
    let entry = &status_of(&world, header)["parents"][0];
    let conditions = entry["conditions"].as_array().unwrap().iter();
    let said = conditions
        .filter(|one| one["type"] == "ResolvedWaypoints")
        .map(|one| one["message"].as_str().unwrap())
        .next()
        .unwrap();
    assert!(said.contains("istio.io/use-waypoint is missing"), "{said}");
    let forgotten = ("HTTPRoute", "bookinfo", "group-forgotten");
    assert_eq!(parents(&world, forgotten), []);
}

#[test]
fn guide_22_status_claim_7() {
    let Some(world) = World::numbered("22") else {
        return;
    };
    let all = of_all(&[ACCEPTED, REFS, WAYPOINTS]);
    assert_eq!(
        parents(&world, ("GRPCRoute", "bookinfo", "reviews-grpc")),
        [("Gateway reviews-waypoint".to_owned(), all)]
    );
    let gateway = status_of(&world, ("Gateway", "bookinfo", "reviews-waypoint"));
    assert_eq!(gateway["listeners"][0]["attachedRoutes"], 1);
}

#[test]
fn guide_25_status_claim_4_of_the_route_at_the_waypoint() {
    let Some(world) = World::numbered("25") else {
        return;
    };
    let entries = parents(&world, ("HTTPRoute", "bookinfo", "east-west-traffic"));
    assert_eq!(entries.len(), 1);
    let refused = ("ResolvedRefs", "False/RefNotPermitted");
    assert_eq!(entries[0].1, of_all(&[ACCEPTED, refused, WAYPOINTS]));
}

#[test]
fn guide_30_status_claim_5() {
    let Some(world) = World::numbered("30") else {
        return;
    };
    let routes = world.status.as_array().unwrap().iter();
    let route = routes
        .filter(|one| one["kind"] == "HTTPRoute" && one["name"] == "orders-all-v2")
        .map(|one| outcomes(&one["parents"][0]["conditions"]))
        .next()
        .unwrap();
    assert_eq!(route["Accepted"], "True/Accepted");
}
