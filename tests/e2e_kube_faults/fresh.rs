//! What a replica says that has just started.

use anyhow::ensure;
use serde_json::Value;
use testkit::wait;
use testkit::ztunnel::Ztunnel;

use crate::common::SOON;
use crate::common::replica::Replica;
use crate::waypoint::Waypoint;
use crate::world::{Aside, NO_LEASE, World, subscribe, subscribe_waypoint};

impl World {
    /// That clients and pages say what those of a replica say that has just started.
    pub(super) async fn is_as_fresh(&mut self, what: &str) -> anyhow::Result<()> {
        let [one, two] = [0, 1].map(|at| {
            let waypoint = Some(&self.waypoints[at]);
            (&self.replicas[at], &self.clients[at], waypoint)
        });
        self.are_as_fresh(what, &[one, two], self.checks).await?;
        self.checks += 1;
        Ok(())
    }

    /// The same of one that is there for the sake of a fault.
    pub(super) async fn is_as_fresh_too(
        &mut self,
        what: &str,
        aside: &Aside,
    ) -> anyhow::Result<()> {
        let pair = (&aside.replica, &aside.client, None);
        self.are_as_fresh(what, &[pair], self.checks).await?;
        self.checks += 1;
        println!("{:?}: {what}: as after a fresh start", self.began.elapsed());
        Ok(())
    }

    async fn are_as_fresh(
        &self,
        what: &str,
        pairs: &[(&Replica, &Ztunnel, Option<&Waypoint>)],
        number: usize,
    ) -> anyhow::Result<()> {
        let name = format!("fresh-{number}");
        let fresh = Replica::start(&self.cluster, &name, &[NO_LEASE])?;
        fresh.wait_well(SOON).await?;
        let client = subscribe(&self.cluster, &fresh)?;
        client.wait_synced(1, SOON).await?;
        let fresh_waypoint = subscribe_waypoint(&self.cluster, &fresh)?;
        fresh_waypoint.wait_synced(1, SOON).await?;
        for (replica, held, waypoint) in pairs {
            let claim = format!("{what}: the state of a fresh start");
            wait::until(&claim, SOON, || async {
                let (held, fresh_held) = (held.state(), client.state());
                ensure!(
                    held == fresh_held,
                    "{} and {} workloads, {} and {} services",
                    held.workloads.len(),
                    fresh_held.workloads.len(),
                    held.services.len(),
                    fresh_held.services.len()
                );
                if let Some(waypoint) = waypoint {
                    let (held, fresh_held) = (waypoint.held(), fresh_waypoint.held());
                    ensure!(held == fresh_held, "{held:#?} and {fresh_held:#?}");
                }
                for path in ["/debug/ambientz", "/debug/findings"] {
                    let (ours, other) = (replica.page(path).await?, fresh.page(path).await?);
                    let [ours, other] = [told_by_all(&ours)?, told_by_all(&other)?];
                    ensure!(ours == other, "{path}: {}", difference(&ours, &other));
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// That replicas which start now, and lead, find nothing to write and tell nobody anything.
    pub(super) async fn fresh_leaders_write_nothing(&mut self, what: &str) -> anyhow::Result<()> {
        let connections = [0, 1].map(|at| self.connections(at));
        for replica in &mut self.replicas {
            replica.kill()?;
        }
        for replica in &mut self.replicas {
            replica.spawn()?;
        }
        for (at, before) in connections.into_iter().enumerate() {
            self.wait_joined(at, before).await?;
        }
        self.leader().await?;
        self.check(&format!("{what}, then all started anew"), &[])
            .await
    }
}

/// A page without what only the leader can know: what became of its writes for Gateways.
fn told_by_all(page: &str) -> anyhow::Result<String> {
    let mut page: Value = serde_json::from_str(page)?;
    if let Some(findings) = page.as_array_mut() {
        findings.retain(|one| {
            let code = one["code"].as_str().unwrap_or_default();
            !code.starts_with("gw-deployment-")
        });
    }
    Ok(serde_json::to_string_pretty(&page)?)
}

/// The first lines that differ.
fn difference(ours: &str, other: &str) -> String {
    let lines = ours.lines().zip(other.lines());
    let different = lines.filter(|(ours, other)| ours != other);
    let shown = different
        .take(5)
        .map(|(ours, other)| format!("{ours} / {other}"));
    let mut text: Vec<String> = shown.collect();
    text.push(format!("{} and {} bytes", ours.len(), other.len()));
    text.join("\n")
}
