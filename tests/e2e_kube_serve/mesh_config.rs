//! What clients notice of the mesh config.

use anyhow::ensure;
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::wait;
use testkit::ztunnel::Ztunnel;

use crate::common::replica::Replica;
use crate::common::streams::{Seen, hold_sotw};
use crate::common::{SOON, SYSTEM};
use crate::world::{add_service, has_service, target, told};

fn set_mesh(cluster: &Cluster, mesh: &str) -> anyhow::Result<()> {
    let object: Value = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": SYSTEM}, "data": {"mesh": mesh},
    });
    cluster.apply(&object.to_string()).map(drop)
}

pub(super) async fn mesh_config_is_followed(
    cluster: &Cluster,
    replica: &Replica,
    client: &Ztunnel,
) -> anyhow::Result<()> {
    let mut waypoint = hold_sotw(&target(cluster, replica, "shop", "waypoint")?).await?;
    let has_alias = |seen: &Seen| seen.last.contains("old.example");
    let before = client.received().len();
    set_mesh(cluster, "trustDomainAliases: [old.example]")?;
    tokio::time::timeout(SOON, waypoint.wait_for(has_alias)).await??;
    // ztunnel is told identities as they are.
    ensure!(client.received().len() == before);

    let seen = "discoverySelectors: [{matchLabels: {seen: 'yes'}}]";
    let both = format!("trustDomainAliases: [old.example]\n{seen}");
    set_mesh(cluster, &both)?;
    client
        .wait(SOON, |state, _| !has_service(state, "dark", "lamp"))
        .await?;
    let state = client.state();
    ensure!(has_service(&state, "shop", "web") && has_alias(&waypoint.borrow()));

    // What cannot be read changes nothing but what is said of it.
    let before = client.received().len();
    set_mesh(cluster, "trustDomainAliases: [")?;
    let kept = "mesh-config-kept";
    wait::until("a finding", SOON, || async {
        let page = replica.page("/debug/findings").await?;
        ensure!(page.contains(kept), "{page}");
        Ok(())
    })
    .await?;
    add_service(cluster, "later")?;
    client
        .wait(SOON, |state, _| has_service(state, "shop", "later"))
        .await?;
    let all = told(client, before);
    let is_later = |name: &String| name.starts_with("shop/later.");
    ensure!(all.iter().all(is_later), "{all:?}");
    ensure!(has_alias(&waypoint.borrow()));

    set_mesh(cluster, seen)?;
    let no_alias = waypoint.wait_for(|seen| !has_alias(seen));
    tokio::time::timeout(SOON, no_alias).await??;
    set_mesh(cluster, "{}")?;
    client
        .wait(SOON, |state, _| has_service(state, "dark", "lamp"))
        .await?;
    let page = replica.page("/debug/findings").await?;
    ensure!(!page.contains(kept), "{page}");
    ensure!(waypoint.borrow().end.is_none());
    Ok(())
}
