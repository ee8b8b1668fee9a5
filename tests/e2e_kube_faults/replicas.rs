//! Replicas that end and come back.

use std::time::Instant;

use anyhow::ensure;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{SOON, writes};
use crate::world::{World, entry, resource};

/// Objects that change while nobody looks.
const CHANGED: usize = 5_000;
/// Requests of the test at once.
const WORKERS: usize = 24;

impl World {
    /// `kill -9` and a new process with the same addresses.
    pub(super) async fn a_follower_dies(&mut self) -> anyhow::Result<()> {
        let at = 1 - self.leader().await?;
        let connections = self.clients[at].connection();
        self.replicas[at].kill()?;
        self.replicas[at].spawn()?;
        self.clients[at].wait_synced(connections + 1, SOON).await?;
        self.check("a follower died", &[]).await
    }

    pub(super) async fn the_leader_dies(&mut self) -> anyhow::Result<()> {
        let at = self.leader().await?;
        let connections = self.clients[at].connection();
        let began = Instant::now();
        self.replicas[at].kill()?;
        self.cluster.apply(&entry("orphan"))?;
        self.addresses_of("orphan").await?;
        println!("the next one wrote after {:?}", began.elapsed());
        ensure!(self.replicas[1 - at].leads().await?);
        self.replicas[at].spawn()?;
        self.clients[at].wait_synced(connections + 1, SOON).await?;
        let once = ["patch serviceentries/status shop/orphan 200"];
        self.check_told("the leader died", &once, &["orphan.example.com"])
            .await
    }

    /// As a clock jump would make it: it believes to lead when another does.
    pub(super) async fn the_leader_freezes_beyond_its_term(&mut self) -> anyhow::Result<()> {
        let at = self.leader().await?;
        let (frozen, other) = (&self.replicas[at], &self.replicas[1 - at]);
        frozen.freeze()?;
        self.cluster.apply(&entry("unseen"))?;
        self.addresses_of("unseen").await?;
        ensure!(other.leads().await?);
        let before = writes(&self.cluster)?.len();
        // Both have something to write now, and one of them has the right to.
        self.cluster.kubectl(&[
            "-n",
            "shop",
            "label",
            "service",
            "lost",
            "istio.io/use-waypoint-",
        ])?;
        frozen.thaw()?;
        let look = ["-n", "shop", "get", "service", "lost", "-o", "json"];
        self.cluster
            .wait_for(&look, SOON, |text| {
                let value: Value = serde_json::from_str(text)?;
                let all = value["status"]["conditions"].as_array().map_or(0, Vec::len);
                ensure!(all == 0, "{all} conditions");
                Ok(())
            })
            .await?;
        self.settled().await?;
        let all = writes(&self.cluster)?;
        let stale = all[before..]
            .iter()
            .filter(|write| write.credential == frozen.credential);
        let stale: Vec<_> = stale.collect();
        ensure!(
            stale.is_empty(),
            "{} wrote without the right to: {stale:?}",
            frozen.name
        );
        ensure!(other.leads().await? && !frozen.leads().await?);
        let wanted = [
            "patch serviceentries/status shop/unseen 200",
            "patch services/status shop/lost 200",
            "patch services/status shop/lost 200",
        ];
        self.check_told(
            "the leader froze",
            &wanted,
            &["unseen.example.com", "/lost."],
        )
        .await
    }

    pub(super) async fn much_changes_while_nobody_runs(&mut self) -> anyhow::Result<()> {
        let connections = [0, 1].map(|at| self.clients[at].connection());
        for replica in &mut self.replicas {
            replica.kill()?;
        }
        let began = Instant::now();
        let entries = Api::<DynamicObject>::namespaced_with(
            self.kube.clone(),
            "shop",
            &resource(
                "networking.istio.io",
                "v1",
                "WorkloadEntry",
                "workloadentries",
            ),
        );
        let mut tasks = JoinSet::new();
        for worker in 0..WORKERS {
            let entries = entries.clone();
            tasks.spawn(async move {
                for at in (worker..CHANGED).step_by(WORKERS) {
                    let object = serde_json::from_value(json!({
                        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
                        "metadata": {
                            "name": format!("vm-{at}"),
                            "labels": {"networking.istio.io/tunnel": "http"},
                        },
                        "spec": {
                            "address": format!("10.99.{}.{}", at / 250, at % 250 + 1),
                            "serviceAccount": "vm",
                        },
                    }))?;
                    entries.create(&PostParams::default(), &object).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        self.cluster
            .kubectl(&["-n", "shop", "delete", "serviceentry", "orphan"])?;
        println!("{CHANGED} objects made in {:?}", began.elapsed());
        for replica in &mut self.replicas {
            replica.spawn()?;
        }
        for at in [0, 1] {
            let client = &self.clients[at];
            client.wait_synced(connections[at] + 1, SOON).await?;
            let all = self.told(at);
            let vms = all.iter().filter(|name| name.contains("/vm-")).count();
            ensure!(vms == CHANGED, "{vms}");
            let other = |name: &&String| !name.contains("/vm-") && !name.contains("orphan");
            let other: Vec<_> = all.iter().filter(other).collect();
            ensure!(other.is_empty(), "{other:?}");
        }
        let names = ["/vm-", "orphan"];
        self.check_told("much changed while nobody ran", &[], &names)
            .await
    }
}
