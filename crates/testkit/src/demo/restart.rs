//! The control plane killed and started again.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use proto::type_url::{ADDRESS, AUTHORIZATION};

use super::report::Report;
use super::traffic::{self, Stop};
use super::world::World;
use crate::envoy::Envoy;
use crate::wait;
use crate::ztunnel::NodeProxy;

/// Envoy waits up to 30 s before it tries again.
const RECONNECT_LIMIT: Duration = Duration::from_secs(45);
const DOWN: Duration = Duration::from_secs(1);
/// What Envoy counts when configuration really changes.
const CHANGES: &str = "(listener_manager.listener_(added|modified|removed)|\
    cluster_manager.cluster_(added|modified|removed)|\
    cluster_manager.update_out_of_merge_window|http.*.rds.*.config_reload)$";

pub(super) async fn show(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.heading("The control plane, killed and started again");
    let before: Vec<usize> = world
        .nodes
        .iter()
        .map(|n| n.ztunnel().connection())
        .collect();
    let changes_before = changes(&world.envoy).await?;
    let killed = Instant::now();
    serve_alone(world, report).await?;

    report.progress("starting it again on the same ports");
    let started = Instant::now();
    world.daemon.restart().await?;
    report.line(&format!(
        "     ready {} ms after its start; it was away for {:.1} s",
        started.elapsed().as_millis(),
        killed.elapsed().as_secs_f32()
    ));
    for (node, before) in world.nodes.iter().zip(before) {
        let synced = node
            .ztunnel()
            .wait_synced(before + 1, RECONNECT_LIMIT)
            .await;
        synced.with_context(|| world.daemon.log_tail())?;
        resent_nothing(node, before, report);
    }
    let envoy = &world.envoy;
    report.progress("waiting for Envoy to come back, which it does when it thinks fit");
    wait::until("Envoy's return", RECONNECT_LIMIT, || async {
        let state = envoy.stat("control_plane.connected_state").await?;
        anyhow::ensure!(state == 1, "not connected");
        Ok(())
    })
    .await?;
    let samples = traffic::burst(world, 50).await;
    let failed = traffic::failures(&samples);
    let changes_after = changes(envoy).await?;
    report.claim(
        changes_before > 0 && changes_before == changes_after,
        &format!(
            "Envoy is connected again and changed {} listeners and clusters",
            changes_after.abs_diff(changes_before)
        ),
    );
    report.claim(
        failed.is_empty(),
        &format!(
            "{} requests afterwards, {} failed",
            samples.len(),
            failed.len()
        ),
    );
    envoy.assert_no_nacks().await
}

/// Kills the control plane and sends requests without one.
async fn serve_alone(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.progress("killing ambientd");
    world.daemon.kill()?;
    let stop = Stop::default();
    let pause = async {
        tokio::time::sleep(DOWN).await;
        stop.stop();
    };
    let (samples, ()) = tokio::join!(traffic::until_stopped(world, &stop), pause);
    let failed = traffic::failures(&samples);
    report.claim(
        failed.is_empty() && !samples.is_empty(),
        &format!(
            "{} requests without a control plane, {} failed",
            samples.len(),
            failed.len()
        ),
    );
    Ok(())
}

/// What a ztunnel was sent on connections after number `before`.
fn resent_nothing(node: &NodeProxy, before: usize, report: &mut Report) {
    let received = node.ztunnel().received();
    let of = |type_url: &str| {
        let again = received
            .iter()
            .filter(|r| r.connection > before && r.type_url == type_url);
        again
            .map(|r| r.names.len() + r.removed.len())
            .sum::<usize>()
    };
    let pod = node.pods().next().map_or("?", |p| p.name.as_str());
    report.claim(
        of(ADDRESS) == 0 && of(AUTHORIZATION) == 0,
        &format!(
            "the ztunnel of {pod} received {} changed addresses and {} changed policies",
            of(ADDRESS),
            of(AUTHORIZATION)
        ),
    );
}

async fn changes(envoy: &Envoy) -> anyhow::Result<u64> {
    let stats = envoy.stats(&CHANGES.replace('|', "%7C")).await?;
    Ok(stats.iter().map(|(_, value)| value).sum())
}
