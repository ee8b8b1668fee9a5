//! Claims that are edits of a world, and what must change with them.

use std::collections::BTreeSet;

use serde_json::json;
use snapshot::ResourceType;

use crate::status::{BOUND, BY_WAYPOINT, all};
use crate::world::{World, pairs, vip};

const USE_WAYPOINT: &str = "istio.io/use-waypoint";

/// Names of the addresses in which two worlds differ.
fn differing<'w>(one: &'w World, other: &'w World) -> BTreeSet<&'w str> {
    let [one, other] = [one, other].map(|world| World::of(&world.ztunnel, ResourceType::Address));
    let names = one.keys().chain(other.keys());
    names
        .filter(|name| one.get(*name) != other.get(*name))
        .map(String::as_str)
        .collect()
}

#[test]
fn guide_01_claim_2_the_annotation_alone_makes_the_pod_tunnelled() {
    let Some(before) = World::numbered("01") else {
        return;
    };
    let after = World::edited("01", |objects| {
        let pod = objects.object("Pod", "shop", "late-joiner");
        pod["metadata"]["annotations"] = json!({ "ambient.istio.io/redirection": "enabled" });
    })
    .unwrap();
    let pod = "Kubernetes//Pod/shop/late-joiner";
    assert_eq!(differing(&before, &after), BTreeSet::from([pod]));
    assert!(after.tunnelled().contains(&"shop/late-joiner".to_owned()));
}

#[test]
fn guide_05_claim_4_pod_and_service_do_not_contend() {
    let Some(world) = World::edited("05", |objects| {
        objects.unlabel(("Pod", "bookinfo", "ratings"), USE_WAYPOINT);
        let service = objects.object("Service", "bookinfo", "ratings");
        service["metadata"]["labels"] = json!({ USE_WAYPOINT: "none" });
    }) else {
        return;
    };
    assert_eq!(
        World::bound(world.workloads()).get("bookinfo/ratings"),
        Some(&"bookinfo/bookinfo-waypoint".to_owned()),
        "the pod follows the namespace"
    );
    let of_service = World::bound(world.services());
    assert!(
        !of_service.contains_key("bookinfo/ratings"),
        "{of_service:?}"
    );
}

#[test]
fn guide_06_claim_1_of_pods_and_namespaces() {
    let all_traffic = |objects: &mut crate::world::Objects| {
        objects.label(
            ("Gateway", "demo", "waypoint"),
            "istio.io/waypoint-for",
            "all",
        );
    };
    let Some(world) = World::edited("06", |objects| {
        all_traffic(objects);
        objects.label(("Pod", "demo", "client"), USE_WAYPOINT, "#none");
        objects.label(("Pod", "demo", "named"), USE_WAYPOINT, "none");
    }) else {
        return;
    };
    let bound = World::bound(world.workloads());
    let pods = ["dotted", "hash-none", "plain-none", "slashed", "two-labels"];
    let want = pods.map(|name| (format!("demo/{name}"), "demo/waypoint".to_owned()));
    assert_eq!(
        bound,
        want.into_iter().collect(),
        "but for client and named"
    );
    for word in ["none", "#none"] {
        let world = World::edited("06", |objects| {
            all_traffic(objects);
            objects.unlabel(("Service", "demo", "hash-none"), USE_WAYPOINT);
            objects.label(("Namespace", "", "demo"), USE_WAYPOINT, word);
        })
        .unwrap();
        assert_eq!(World::bound(world.workloads()), pairs(&[]), "{word}");
        let services = [
            ("demo/named", "demo/waypoint"),
            ("demo/two-labels", "infra/edge"),
        ];
        assert_eq!(World::bound(world.services()), pairs(&services), "{word}");
        assert!(!world.has_code("wp-missing"), "{word}");
    }
}

#[test]
fn guide_07_claim_8_once_the_label_is_corrected() {
    let reviews = ("Service", "bookinfo", "reviews");
    let Some(world) = World::edited("07", |objects| {
        objects.label(reviews, USE_WAYPOINT, "reviews-waypoint");
    }) else {
        return;
    };
    assert!(!world.has_code("wp-missing"));
    let of_service = world.codes_of("Service", "bookinfo", "reviews");
    assert!(of_service.is_empty(), "{of_service:?}");
    let of_gateway = world.codes_of("Gateway", "bookinfo", "reviews-waypoint");
    assert!(of_gateway.is_empty(), "{of_gateway:?}");
    assert_eq!(
        world.conditions(BOUND)["Service bookinfo/reviews"],
        "True/WaypointAccepted"
    );
    let chain = vip(9080, "http", "bookinfo", "reviews");
    let rules = world.rbac("bookinfo/reviews-waypoint", &chain);
    assert_eq!(rules.len(), 1, "POST is refused there");
    assert!(
        rules[0].to_string().contains(r#"{"exact":"GET"}"#),
        "{rules:?}"
    );
}

#[test]
fn guide_33_claim_9_a_group_alone_produces_nothing() {
    let Some(before) = World::numbered("33") else {
        return;
    };
    let after = World::edited("33", |objects| {
        objects.remove("WorkloadGroup", "billing", "billing-group");
    })
    .unwrap();
    assert_eq!(before.ztunnel, after.ztunnel);
    assert_eq!(before.waypoints, after.waypoints);
}

#[test]
fn guide_33_claim_8_without_the_policy_nobody_asks_who_the_machine_is() {
    let Some(world) = World::edited("33", |objects| {
        objects.remove("AuthorizationPolicy", "billing", "pod-allows-vm");
    }) else {
        return;
    };
    assert!(!world.has_code("we-no-service-account"));
}

#[test]
fn guide_38_claim_8_were_they_bound_to_the_service_waypoint() {
    let Some(world) = World::edited("38", |objects| {
        for name in ["fraud-score-0", "fraud-score-1"] {
            objects.label(("Pod", "payments", name), USE_WAYPOINT, "waypoint");
        }
    }) else {
        return;
    };
    world.reports(&[
        ("wp-for-mismatch", "Pod payments/fraud-score-0", ""),
        ("wp-for-mismatch", "Pod payments/fraud-score-1", ""),
    ]);
    assert_eq!(World::bound(world.workloads()), pairs(&[]));
}

#[test]
fn guide_39_claims_4_and_8_a_policy_added_and_a_gateway_missing() {
    let Some(world) = World::edited("39", |objects| {
        objects.add(json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": { "name": "get-only", "namespace": "example-api" },
            "spec": {
                "targetRefs": [{ "group": "", "kind": "Service", "name": "example-api" }],
                "rules": [{ "to": [{ "operation": { "methods": ["GET"] } }] }],
            },
        }));
    }) else {
        return;
    };
    let policy = "AuthorizationPolicy example-api/get-only";
    world.reports(&[("authz-ingress-bypass", policy, "")]);
    let world = World::edited("39", |objects| {
        objects.remove("Gateway", "example-api", "example-api-waypoint");
    })
    .unwrap();
    world.reports(&[("wp-missing", "Service example-api/example-api", "")]);
    let world = World::numbered("39").unwrap();
    assert!(!world.has_code("wp-missing") && !world.has_code("authz-ingress-bypass"));
}

#[test]
fn guide_40_claim_6_after_the_label_and_the_annotations_appear() {
    let Some(world) = World::edited("40", |objects| {
        let namespace = objects.object("Namespace", "", "bookinfo");
        namespace["metadata"]["labels"]["istio.io/dataplane-mode"] = json!("ambient");
        objects.capture("bookinfo");
    }) else {
        return;
    };
    let captured = ["productpage", "ratings", "reviews-v1", "reviews-v2"];
    assert_eq!(
        world.tunnelled(),
        captured.map(|name| format!("bookinfo/{name}"))
    );
    assert_eq!(world.told(), [""; 0]);
    let policy = "AuthorizationPolicy bookinfo/reviews-read-only";
    assert_eq!(
        world.conditions(BY_WAYPOINT),
        all("True/Accepted", &[policy])
    );
    let chain = vip(9080, "http", "bookinfo", "reviews");
    let rules = world.rbac("bookinfo/reviews-waypoint", &chain);
    assert!(
        rules[0].to_string().contains(r#"{"exact":"GET"}"#),
        "{rules:?}"
    );
}
