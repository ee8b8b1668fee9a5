//! Routes.

use serde_json::{Value, json};
use snapshot::ResourceType;

use crate::world::{World, vip};

#[test]
fn guide_20_canary_claims_2_to_7() {
    let Some(world) = World::numbered("20") else {
        return;
    };
    let waypoint = "bookinfo/reviews-waypoint";
    let outbound = |name: &str| format!("outbound|9080||{name}.bookinfo.svc.cluster.local");
    let [details, ratings, reviews] =
        ["details", "ratings", "reviews"].map(|name| vip(9080, "http", "bookinfo", name));
    let prefix = |prefix: &str| json!({ "pathSeparatedPrefix": prefix });
    let split = (
        prefix("/reviews"),
        json!([[outbound("reviews-v1"), 80], [outbound("reviews-v2"), 20]]),
    );
    let default = |chain: &str| (json!({ "prefix": "/" }), json!(chain));
    assert_eq!(
        world.service_chains(waypoint),
        [&details, &ratings, &reviews],
        "reviews-v1 is not bound"
    );
    assert_eq!(
        world.routes(waypoint, &reviews),
        [split.clone(), default(&reviews)]
    );
    assert_eq!(world.routes(waypoint, &ratings), [split, default(&ratings)]);
    let of_details = (
        prefix("/details"),
        json!([[details, 1], [outbound("details-v2"), 4]]),
    );
    assert_eq!(
        world.routes(waypoint, &details),
        [of_details],
        "no default: the Service is the parent"
    );
    assert!(!world.has_code("route-parent-waypoint"));
}

#[test]
fn guide_21_bypassed_canary_claims_2_4_and_7() {
    let Some(world) = World::numbered("21") else {
        return;
    };
    world.reports(&[
        ("wp-server-not-ambient", "Service half/cart", ""),
        ("wp-unused", "Gateway bookinfo/reviews-waypoint", ""),
        (
            "route-service-no-waypoint",
            "HTTPRoute bookinfo/ratings-header",
            "",
        ),
        (
            "route-hostnames-service-parent",
            "HTTPRoute bookinfo/ratings-header",
            "spec.hostnames",
        ),
    ]);
    let idle = world.findings.iter().filter(|finding| {
        finding.object.key.name == "reviews-split"
            || (finding.code == "wp-unused" && finding.message.contains("reviews-split"))
    });
    assert!(idle.count() > 0, "nothing says that reviews-split is idle");
    assert_eq!(world.service_chains("bookinfo/reviews-waypoint"), [""; 0]);
    let mut told = world.told();
    told.sort();
    let want = [
        "route-hostnames-service-parent HTTPRoute bookinfo/ratings-header",
        "route-parent-not-supported HTTPRoute bookinfo/group-forgotten",
        "route-parent-waypoint HTTPRoute bookinfo/reviews-split",
        "route-service-no-waypoint HTTPRoute bookinfo/ratings-header",
        "wp-server-not-ambient Service half/cart",
        "wp-unused Gateway bookinfo/reviews-waypoint",
    ];
    assert_eq!(told, want);
}

#[test]
fn guide_21_claim_8_once_the_service_is_labelled() {
    let reviews = ("Service", "bookinfo", "reviews");
    let Some(world) = World::edited("21", |objects| {
        let service = objects.object(reviews.0, reviews.1, reviews.2);
        service["metadata"]["labels"] = json!({ "istio.io/use-waypoint": "reviews-waypoint" });
    }) else {
        return;
    };
    assert!(!world.has_code("wp-unused") && !world.has_code("route-parent-waypoint"));
    let chain = vip(9080, "http", "bookinfo", "reviews");
    let routes = world.routes("bookinfo/reviews-waypoint", &chain);
    let to = |name: &str| format!("outbound|9080||{name}.bookinfo.svc.cluster.local");
    assert_eq!(
        routes[0].1,
        json!([[to("reviews-v1"), 80], [to("reviews-v2"), 20]])
    );
}

#[test]
fn guide_22_grpc_claims_5_6_and_the_policy_of_claim_4() {
    let Some(world) = World::numbered("22") else {
        return;
    };
    assert_eq!(
        world.services()["bookinfo/reviews"]["ports"][0]["appProtocol"],
        "GRPC"
    );
    let chains = world.service_chains("bookinfo/reviews-waypoint");
    let denied = chains
        .iter()
        .flat_map(|chain| world.rbac("bookinfo/reviews-waypoint", chain));
    let denied: Vec<_> = denied
        .map(|rules| (rules["action"].clone(), rules["policies"].to_string()))
        .collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0].0, "DENY");
    assert!(
        denied[0]
            .1
            .contains(r#"{"prefix":"/reviews.v1.ReviewsService/Delete"}"#),
        "{}",
        denied[0].1
    );
    let waypoint = "bookinfo/reviews-waypoint";
    let chain = vip(9080, "http", "bookinfo", "reviews");
    let routed = "outbound|9080||reviews-v1.bookinfo.svc.cluster.local";
    let want = [
        (
            json!({ "path": "/reviews.v1.ReviewsService/GetReview" }),
            json!(routed),
        ),
        (json!({ "prefix": "/" }), json!(chain)),
    ];
    assert_eq!(world.routes(waypoint, &chain), want);
    let clusters = World::of(&world.waypoints[waypoint], ResourceType::Cluster);
    for name in [routed, &chain] {
        let options = clusters[name]["typedExtensionProtocolOptions"]
            .as_object()
            .unwrap();
        let http = options.values().next().unwrap();
        assert!(
            http["explicitHttpConfig"]["http2ProtocolOptions"].is_object(),
            "{name}: {http}"
        );
    }
}

#[test]
fn guide_25_grants_claims_5_to_7() {
    let Some(world) = World::numbered("25") else {
        return;
    };
    let reviews = vip(9080, "http", "bookinfo", "reviews");
    let prefix = |prefix: &str| json!({ "pathSeparatedPrefix": prefix });
    let routes = world.routes("bookinfo/reviews-waypoint", &reviews);
    let to = |found: Value| {
        routes
            .iter()
            .find(|route| route.0 == found)
            .map(|route| &route.1)
    };
    assert_eq!(
        to(prefix("/granted")),
        Some(&json!("outbound|80||api.granted.svc.cluster.local"))
    );
    let refused = to(prefix("/closed")).unwrap();
    assert!(
        *refused == json!("UnknownService") || *refused == json!(500),
        "{refused}"
    );
    assert_eq!(
        routes.last(),
        Some(&(json!({ "prefix": "/" }), json!(reviews)))
    );
    world.reports(&[
        (
            "route-backend-no-grant",
            "HTTPRoute bookinfo/east-west-traffic",
            "spec.rules[0].backendRefs[0]",
        ),
        (
            "route-backend-no-grant",
            "HTTPRoute bookinfo/half",
            "spec.rules[0].backendRefs[1]",
        ),
        (
            "route-backend-no-grant",
            "HTTPRoute bookinfo/to-closed",
            "spec.rules[0].backendRefs[0]",
        ),
    ]);
}

#[test]
fn guide_25_claim_8_grants_that_go_and_come() {
    let refused = |world: &World| {
        let all = world
            .findings
            .iter()
            .filter(|one| one.code == "route-backend-no-grant");
        all.map(|one| format!("{} {}", one.object.key.name, one.field))
            .collect::<Vec<_>>()
    };
    let backend =
        |rule: usize, backend: usize| format!("spec.rules[{rule}].backendRefs[{backend}]");
    let Some(without) = World::edited("25", |objects| {
        objects.remove("ReferenceGrant", "granted", "from-bookinfo");
    }) else {
        return;
    };
    let want = [
        format!("east-west-traffic {}", backend(0, 0)),
        format!("east-west-traffic {}", backend(1, 0)),
        format!("half {}", backend(0, 0)),
        format!("half {}", backend(0, 1)),
        format!("to-closed {}", backend(0, 0)),
        format!("to-granted {}", backend(0, 0)),
    ];
    assert_eq!(refused(&without), want);
    let repaired = World::edited("25", |objects| {
        objects.add(json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": { "name": "from-bookinfo", "namespace": "closed" },
            "spec": {
                "from": [{
                    "group": "gateway.networking.k8s.io",
                    "kind": "HTTPRoute",
                    "namespace": "bookinfo",
                }],
                "to": [{ "group": "", "kind": "Service" }],
            },
        }));
    })
    .unwrap();
    assert_eq!(refused(&repaired), [""; 0]);
}
