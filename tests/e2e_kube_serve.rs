//! `ambientd serve` of a cluster as a whole, with clients that stay: how it ends, what they notice
//! of an outage, of the mesh config, and of another replica.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;
#[path = "e2e_kube_serve/ends.rs"]
mod ends;
#[path = "e2e_kube_serve/mesh_config.rs"]
mod mesh_config;
#[path = "e2e_kube_serve/outage.rs"]
mod outage;
#[path = "e2e_kube_serve/world.rs"]
mod world;

use anyhow::ensure;
use testkit::ads::ztunnel_node;
use testkit::ztunnel::Ztunnel;

use common::{SOON, SYSTEM};
use mesh_config::mesh_config_is_followed;
use outage::{an_outage_is_not_noticed, others_tokens_are_worth_nothing};
use world::{start_leader, target, world};

#[tokio::test(flavor = "multi_thread")]
async fn clients_notice_nothing_of_an_outage_and_what_mesh_config_says_at_once()
-> anyhow::Result<()> {
    let cluster = world().await?;
    let replica = start_leader(&cluster, "one", &["--lease-duration=6s"]).await?;
    others_tokens_are_worth_nothing(&cluster, &replica).await?;
    let ztunnel = target(&cluster, &replica, SYSTEM, "ztunnel")?;
    let client = Ztunnel::start(ztunnel, ztunnel_node("n1"));
    client.wait_synced(1, SOON).await?;
    an_outage_is_not_noticed(&cluster, &replica, &client).await?;
    mesh_config_is_followed(&cluster, &replica, &client).await?;
    ensure!(client.connection() == 1, "{}", client.connection());
    let refused = client.received().into_iter().filter_map(|it| it.refused);
    ensure!(refused.count() == 0, "a response was refused");
    Ok(())
}
