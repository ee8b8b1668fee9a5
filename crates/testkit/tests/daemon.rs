//! The plain ADS client against the real `ambientd` over the demo's manifests.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;
use std::time::Duration;

use proto::type_url::{ADDRESS, CLUSTER, LISTENER};
use testkit::ads::{DeltaClient, SotwClient, waypoint_node, ztunnel_node};
use testkit::daemon::Daemon;

const LIMIT: Duration = Duration::from_secs(10);

async fn daemon(dir: &Path) -> Daemon {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/demo");
    Daemon::start(&manifests, &dir.join("state")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_client_gets_the_mesh_once_and_nothing_after_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(dir.path()).await;
    let target = daemon.xds_as("istio-system", "ztunnel").unwrap();
    let mut client = DeltaClient::connect(&target, ztunnel_node("node-a"))
        .await
        .unwrap();
    client.subscribe(ADDRESS, &[]).await.unwrap();
    let first = client.next_response(LIMIT).await.unwrap();
    let mut names: Vec<&str> = first.resources.iter().map(|r| r.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "Kubernetes//Pod/bookinfo/productpage-0",
            "Kubernetes//Pod/bookinfo/ratings-0",
            "Kubernetes//Pod/bookinfo/reviews-v1-0",
            "Kubernetes//Pod/bookinfo/reviews-v2-0",
            "Kubernetes//Pod/bookinfo/waypoint-0",
            "bookinfo/productpage.bookinfo.svc.cluster.local",
            "bookinfo/ratings.bookinfo.svc.cluster.local",
            "bookinfo/reviews-v1.bookinfo.svc.cluster.local",
            "bookinfo/reviews-v2.bookinfo.svc.cluster.local",
            "bookinfo/reviews.bookinfo.svc.cluster.local",
            "bookinfo/waypoint.bookinfo.svc.cluster.local",
        ]
    );
    client.nack(&first, "a test refuses").await.unwrap();
    client
        .expect_silence(Duration::from_millis(300))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_the_world_client_gets_a_waypoints_listeners() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(dir.path()).await;
    let target = daemon.xds_as("bookinfo", "waypoint").unwrap();
    let node = waypoint_node("bookinfo", "waypoint", "127.20.1.30");
    let mut client = SotwClient::connect(&target, node).await.unwrap();
    for (type_url, count) in [(CLUSTER, 6), (LISTENER, 3)] {
        client.subscribe(type_url, &[]).await.unwrap();
        let response = client.next_response(LIMIT).await.unwrap();
        assert_eq!(
            (response.type_url.as_str(), response.resources.len()),
            (type_url, count)
        );
        client.ack(&response).await.unwrap();
    }
}
