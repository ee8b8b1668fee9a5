//! Faults of real servers and of ambientd itself. After each, ambientd says what one that has
//! just started says; what did not change was written by nobody and sent to nobody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;
#[path = "e2e_kube_faults/fresh.rs"]
mod fresh;
#[path = "e2e_kube_faults/others.rs"]
mod others;
#[path = "e2e_kube_faults/refused.rs"]
mod refused;
#[path = "e2e_kube_faults/replicas.rs"]
mod replicas;
#[path = "e2e_kube_faults/servers.rs"]
mod servers;
#[path = "e2e_kube_faults/waypoint.rs"]
mod waypoint;
#[path = "e2e_kube_faults/world.rs"]
mod world;

use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn after_faults_of_servers_all_is_as_after_a_fresh_start() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let rotated = world.start_rotated().await?;
    let late = world.start_without_server().await?;
    world.the_api_server_dies().await?;
    world.a_server_that_appears_is_served(late).await?;
    world.etcd_dies().await?;
    let silent = world.start_behind_relay().await?;
    world.watches_fall_silent(&silent).await?;
    world.the_api_server_freezes(silent).await?;
    world.a_token_was_rotated(rotated).await?;
    world.nobody_was_refused().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_faults_of_replicas_all_is_as_after_a_fresh_start() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.a_follower_dies().await?;
    world.the_leader_dies().await?;
    world.clocks_decide_nothing().await?;
    world.the_leader_freezes_beyond_its_term().await?;
    world.much_changes_while_nobody_runs().await?;
    world.nobody_was_refused().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_what_others_do_all_is_as_after_a_fresh_start() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.others_overwrite().await?;
    world.definitions_go_and_come().await?;
    world.a_namespace_goes_while_pods_drain().await?;
    world.nobody_was_refused().await
}
