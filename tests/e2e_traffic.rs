//! Real traffic: client, real Envoy as waypoint, HBONE server, workload.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::time::Duration;

use common::{Called, Held, Mesh, SOON, Traffic, healthy_endpoints};
use http::Method;
use testkit::hbone::HboneError;
use testkit::http_client;
use testkit::wait;
use testkit::ztunnel::{Route, route};

/// Standard deviation is 1.8 points with 500 requests at 20 %, 2.1 at 70 %: a false alarm is
/// rarer than one in a hundred thousand runs.
const TOLERANCE_POINTS: f64 = 10.0;
const SPLIT_REQUESTS: u32 = 500;
const DENIED: &str = "RBAC: access denied";

fn denied() -> Called {
    Called::Answered {
        status: 403,
        body: DENIED.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reach_the_right_workload_or_nobody() {
    let mesh = Mesh::start(1).await.unwrap();

    // Ten times, since chance would send half of them to v2 anyway.
    assert_eq!(mesh.shares("/only-v2", 10).await.unwrap(), (0, 10));

    // A path that no rule matches falls through to the service, whose endpoints take turns.
    let (v1, v2) = mesh.shares("/elsewhere", 20).await.unwrap();
    assert!(v1 > 0 && v2 > 0, "v1 {v1}, v2 {v2}");

    // Only GET, only client; whatever the path.
    for path in ["/only-v2", "/split", "/elsewhere"] {
        let post = mesh
            .call(&mesh.client, Method::POST, "web", path)
            .await
            .unwrap();
        assert_eq!(post, denied(), "POST {path}");
        let other = mesh
            .call(&mesh.other, Method::GET, "web", path)
            .await
            .unwrap();
        assert_eq!(other, denied(), "GET {path} as other");
    }
    // Both again, over the same tunnels: one caller's identity never becomes another's.
    for _ in 0..10 {
        mesh.get("web", "/only-v2")
            .await
            .unwrap()
            .version()
            .unwrap();
        let other = mesh
            .call(&mesh.other, Method::GET, "web", "/only-v2")
            .await
            .unwrap();
        assert_eq!(other, denied());
    }

    // The workloads were called by the waypoint and by nobody else.
    let waypoint = "spiffe://cluster.local/ns/shop/sa/gate";
    assert_eq!(mesh.peers().into_iter().collect::<Vec<_>>(), [waypoint]);
    // Past the waypoint there is no way in: web-v1 has none, and its policy refuses.
    let direct = mesh.get("web-v1", "/only-v2").await.unwrap_err();
    assert!(
        matches!(direct.downcast_ref(), Some(HboneError::Refused(status)) if *status == 401),
        "{direct:#}"
    );
    mesh.envoy.assert_no_nacks().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused_in_the_handshake() {
    let mesh = Mesh::start(2).await.unwrap();
    let refused = "listener.*ssl.fail_verify_error$";
    let count = async || -> u64 {
        mesh.envoy
            .stats(refused)
            .await
            .unwrap()
            .iter()
            .map(|(_, count)| count)
            .sum()
    };
    let before = count().await;
    let forged = mesh.forged_client().unwrap();
    let request = http_client::request(Method::GET, "web", "/only-v2").unwrap();
    let vip = mesh.net.vip("web").to_string();
    let answer = forged.request(mesh.net.waypoint(), &vip, request).await;
    assert!(
        matches!(answer, Err(HboneError::Transport(_))),
        "{answer:?}"
    );
    assert_eq!(count().await, before + 1, "{}", mesh.logs());
    mesh.get("web", "/only-v2")
        .await
        .unwrap()
        .version()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_hold_and_change_under_traffic_without_a_failed_request() {
    let mesh = Mesh::start(3).await.unwrap();
    assert_split(&mesh, 20.0).await;

    let traffic = [0, 1].map(|_| Traffic::start(&mesh.callers, "web", "/split"));
    // There is traffic before, during and after the change.
    mesh.shares("/split", 20).await.unwrap();
    mesh.set_split(30, 70).unwrap();
    mesh.wait_weight(70).await.unwrap();
    mesh.shares("/split", 20).await.unwrap();
    for traffic in traffic {
        let count = traffic.stop().await.unwrap();
        assert!(count > 20, "only {count} requests");
    }
    assert_split(&mesh, 70.0).await;
    mesh.envoy.assert_no_nacks().await.unwrap();
}

async fn assert_split(mesh: &Mesh, v2_percent: f64) {
    let (v1, v2) = mesh.shares("/split", SPLIT_REQUESTS).await.unwrap();
    let share = 100.0 * f64::from(v2) / f64::from(v1 + v2);
    assert!(
        (share - v2_percent).abs() <= TOLERANCE_POINTS,
        "v1 {v1}, v2 {v2}: {share:.1} % instead of {v2_percent} %"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_service_is_gone_from_the_waypoint_and_from_ztunnel() {
    remove_service(Mesh::start(4).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_the_world_waypoint_follows_edits_and_removals_too() {
    let mesh = Mesh::start_sotw(6).await.unwrap();
    mesh.set_split(30, 70).unwrap();
    mesh.wait_weight(70).await.unwrap();
    set_ready(&mesh, "21-pod-v2.yaml", false).await;
    assert_eq!(mesh.shares("/elsewhere", 40).await.unwrap(), (40, 0));
    remove_service(mesh).await;
}

async fn remove_service(mesh: Mesh) {
    mesh.get("extra", "/elsewhere")
        .await
        .unwrap()
        .version()
        .unwrap();
    let extra = async || -> Vec<String> {
        let held = Held::dumped(&mesh.envoy.config_dump().await.unwrap()).unwrap();
        let names = held.clusters.into_iter().chain(held.endpoints.into_keys());
        names
            .filter(|name| name.contains("extra.shop.svc"))
            .collect()
    };
    assert!(!extra().await.is_empty());

    std::fs::remove_file(mesh.file("11-extra.yaml")).unwrap();
    wait::until("the service to be gone", SOON, || async {
        let left = extra().await;
        anyhow::ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
    .await
    .unwrap();
    // A caller that has not heard of it yet is not served by anything else.
    let call = mesh.get_through_waypoint("extra", "/elsewhere").await;
    assert!(
        !matches!(
            call,
            Ok(Called::Served { .. } | Called::Answered { status: ..500, .. })
        ),
        "{call:?}"
    );
    let vip = mesh.net.vip("extra");
    mesh.ztunnel
        .wait(SOON, |state, _| {
            route(state, vip, 0) == Ok(Route::Passthrough(vip))
        })
        .await
        .unwrap();
    // What is left works as before.
    mesh.get("web", "/elsewhere")
        .await
        .unwrap()
        .version()
        .unwrap();
    mesh.envoy.assert_no_nacks().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_not_ready_gets_no_requests_until_it_is() {
    let mesh = Mesh::start(5).await.unwrap();
    let (v1, v2) = mesh.shares("/elsewhere", 20).await.unwrap();
    assert!(v1 > 0 && v2 > 0, "v1 {v1}, v2 {v2}");

    let file = "21-pod-v2.yaml";
    set_ready(&mesh, file, false).await;
    assert_eq!(mesh.shares("/elsewhere", 40).await.unwrap(), (40, 0));
    set_ready(&mesh, file, true).await;
    let (v1, v2) = mesh.shares("/elsewhere", 40).await.unwrap();
    assert!(v1 > 0 && v2 > 0, "v1 {v1}, v2 {v2}");
    mesh.envoy.assert_no_nacks().await.unwrap();
}

/// Changes the readiness of web-v2-0 and waits until Envoy and ztunnel know.
async fn set_ready(mesh: &Mesh, file: &str, ready: bool) {
    const CLUSTER: &str = "inbound-vip|80|http|web.shop.svc.cluster.local";
    let (from, to) = if ready {
        ("False", "True")
    } else {
        ("True", "False")
    };
    let condition = |status| format!("- type: Ready\n    status: \"{status}\"");
    mesh.edit(file, &condition(from), &condition(to)).unwrap();
    let want = if ready { 2 } else { 1 };
    wait::until("Envoy to see the pod's readiness", SOON, || async {
        let dump = mesh.envoy.config_dump().await?;
        let healthy = healthy_endpoints(&dump, CLUSTER);
        anyhow::ensure!(
            healthy == Some(want),
            "{healthy:?} healthy endpoints of {CLUSTER}"
        );
        Ok(())
    })
    .await
    .unwrap();
    wait::until(
        "ztunnel to see the pod's readiness",
        Duration::from_secs(5),
        || async {
            anyhow::ensure!(mesh.is_healthy("web-v2-0") == Some(ready));
            Ok(())
        },
    )
    .await
    .unwrap();
}
