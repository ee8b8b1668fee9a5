//! Claims tagged status.

use std::collections::BTreeMap;

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
