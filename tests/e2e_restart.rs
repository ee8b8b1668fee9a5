//! The control plane dies and comes back: traffic goes on, nothing is sent twice.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Held, Mesh, SOON, Traffic};
use serde_json::Value;
use testkit::wait;

/// Envoy may wait up to 30 s before it tries again.
const RECONNECT: Duration = Duration::from_secs(45);
/// What Envoy and ztunnel ask for.
const TYPES: [&str; 6] = ["cds", "eds", "lds", "rds", "wads", "wds"];
const NOTHING: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_control_plane_costs_no_request_and_no_resource() {
    let mut mesh = Mesh::start(20).await.unwrap();
    let before = mesh.envoy.config_dump().await.unwrap();
    let connections = mesh.ztunnel.connection();
    let traffic = [0, 1].map(|_| Traffic::start(&mesh.callers, "web", "/split"));

    mesh.daemon.kill().unwrap();
    wait::until("Envoy to notice", SOON, || connected(&mesh, 0))
        .await
        .unwrap();
    mesh.shares("/elsewhere", 50).await.unwrap();
    mesh.daemon.restart().await.unwrap();
    mesh.ztunnel
        .wait_synced(connections + 1, RECONNECT)
        .await
        .unwrap();
    wait::until("Envoy to come back", RECONNECT, || connected(&mesh, 1))
        .await
        .unwrap();
    wait::until("all to be in sync", SOON, || in_sync(&mesh))
        .await
        .unwrap();
    for traffic in traffic {
        let count = traffic.stop().await.unwrap();
        assert!(count > 50, "only {count} requests");
    }

    // The control plane has answered every type of both clients, with nothing in it.
    assert_eq!(not_empty(&mesh).await, NOTHING);
    // The clients say the same.
    let again = mesh.ztunnel.received();
    for received in again
        .iter()
        .filter(|received| received.connection > connections)
    {
        assert!(
            received.names.is_empty() && received.removed.is_empty(),
            "{received:?}"
        );
    }
    let after = mesh.envoy.config_dump().await.unwrap();
    assert_eq!(held(&before), held(&after));
    assert_eq!(updates(&before), updates(&after), "Envoy changed something");

    // And life goes on: edits reach both.
    mesh.set_split(30, 70).unwrap();
    mesh.wait_weight(70).await.unwrap();
    mesh.edit("21-pod-v2.yaml", "status: \"True\"", "status: \"False\"")
        .unwrap();
    wait::until("ztunnel to see the edit", SOON, || async {
        anyhow::ensure!(mesh.is_healthy("web-v2-0") == Some(false));
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(
        mesh.ztunnel.connection(),
        connections + 1,
        "one reconnect was enough"
    );
    mesh.envoy.assert_no_nacks().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_it_was_away_is_all_that_is_sent() {
    let mut mesh = Mesh::start(21).await.unwrap();
    let connections = mesh.ztunnel.connection();
    mesh.daemon.kill().unwrap();
    mesh.edit("21-pod-v2.yaml", "status: \"True\"", "status: \"False\"")
        .unwrap();
    mesh.daemon.restart().await.unwrap();
    mesh.ztunnel
        .wait_synced(connections + 1, RECONNECT)
        .await
        .unwrap();
    wait::until("both to be in sync", RECONNECT, || in_sync(&mesh))
        .await
        .unwrap();
    // Endpoints for Envoy, one workload for ztunnel.
    assert_eq!(not_empty(&mesh).await, ["eds", "wds"]);
    let again = mesh.ztunnel.received();
    let names: Vec<String> = again
        .into_iter()
        .filter(|received| received.connection > connections)
        .flat_map(|received| received.names.into_iter().chain(received.removed))
        .collect();
    assert_eq!(names, ["Kubernetes//Pod/shop/web-v2-0"]);
    assert_eq!(mesh.shares("/elsewhere", 40).await.unwrap(), (40, 0));
}

/// Types of which the control plane has sent resources since its start; it must have
/// answered all types of both clients.
async fn not_empty(mesh: &Mesh) -> Vec<String> {
    let metrics = mesh.daemon.debug("/metrics").await.unwrap();
    let sent: BTreeMap<String, f64> = common::series(&metrics, "ambientd_xds_resources_sent")
        .into_iter()
        .map(|(labels, value)| (labels.split('"').nth(1).unwrap().to_owned(), value))
        .collect();
    assert!(sent.keys().eq(TYPES), "{sent:?}");
    let sent = sent.into_iter().filter(|(_, count)| *count > 0.0);
    sent.map(|(ty, _)| ty).collect()
}

/// What Envoy holds, without the hosts that it finds by itself while it forwards.
fn held(dump: &Value) -> Held {
    let mut held = Held::dumped(dump).unwrap();
    held.endpoints
        .retain(|cluster, _| cluster != "connect_originate");
    held
}

/// That both clients have asked for all their types and accepted the answers.
async fn in_sync(mesh: &Mesh) -> anyhow::Result<()> {
    common::in_sync(&mesh.daemon, 2).await?;
    let page = common::debug_json(&mesh.daemon, "/debug/syncz").await?;
    let proxies = page.as_array().into_iter().flatten();
    let types: usize = proxies
        .filter_map(|p| p["resources"].as_object())
        .map(|r| r.len())
        .sum();
    anyhow::ensure!(types == TYPES.len(), "{types} types are subscribed");
    Ok(())
}

async fn connected(mesh: &Mesh, state: u64) -> anyhow::Result<()> {
    let is = mesh.envoy.stat("control_plane.connected_state").await?;
    anyhow::ensure!(is == state, "control_plane.connected_state is {is}");
    Ok(())
}

/// When Envoy last took over each resource that came over ADS.
fn updates(dump: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for config in dump["configs"].as_array().unwrap() {
        for cluster in config["dynamic_active_clusters"]
            .as_array()
            .into_iter()
            .flatten()
        {
            out.insert(
                cluster["cluster"]["name"].to_string(),
                cluster["last_updated"].to_string(),
            );
        }
        for listener in config["dynamic_listeners"].as_array().into_iter().flatten() {
            let at = &listener["active_state"]["last_updated"];
            out.insert(listener["name"].to_string(), at.to_string());
        }
    }
    assert!(
        out.len() > 5 && out.values().all(|at| at.starts_with("\"20")),
        "{out:?}"
    );
    out
}
