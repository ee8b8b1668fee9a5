//! The API server, etcd, the way to them, and tokens.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::cluster::Part;
use testkit::wait;
use testkit::ztunnel::Received;

use crate::common::relay::Relay;
use crate::common::replica::{self, Replica};
use crate::common::{SOON, SYSTEM};
use crate::world::{Aside, NO_LEASE, World, subscribe};

impl World {
    pub(super) async fn the_api_server_dies(&mut self) -> anyhow::Result<()> {
        self.cluster.kill(&Part::ApiServer)?;
        for replica in &self.replicas {
            outage_is_told(replica).await?;
        }
        self.cluster.start_part(&Part::ApiServer)?;
        self.cluster.wait_api(SOON).await?;
        self.leader().await?;
        self.check("the API server died", &[]).await?;
        self.probe_all("the API server died").await
    }

    pub(super) async fn etcd_dies(&mut self) -> anyhow::Result<()> {
        self.cluster.kill(&Part::Etcd)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.cluster.start_part(&Part::Etcd)?;
        // An API server may have given up without its store.
        let _ = self.cluster.start_part(&Part::ApiServer);
        self.cluster.wait_api(SOON).await?;
        self.leader().await?;
        self.check("etcd died", &[]).await?;
        self.probe_all("etcd died").await
    }

    /// One whose connections go through our hands, with short patience.
    pub(super) async fn start_behind_relay(&self) -> anyhow::Result<Aside> {
        let relay = Relay::start(&self.cluster, true).await?;
        let token = replica::token(&self.cluster, &[])?;
        let flags = [
            NO_LEASE,
            "--api-idle-timeout=5s",
            "--api-request-timeout=3s",
        ];
        let replica = Replica::start_as(
            &self.cluster,
            "silent",
            &token,
            Some(relay.address()),
            &flags,
        )?;
        replica.wait_well(SOON).await?;
        let client = subscribe(&self.cluster, &replica)?;
        client.wait_synced(1, SOON).await?;
        Ok(Aside {
            replica,
            client,
            relay: Some(relay),
        })
    }

    pub(super) async fn watches_fall_silent(&mut self, aside: &Aside) -> anyhow::Result<()> {
        let relay = aside.relay.as_ref().context("a relay")?;
        let before = aside.client.received().len();
        relay.swallow();
        self.probe_silent(aside).await?;
        told_of_probes_alone(&aside.client.received()[before..])?;
        self.check_told("watches fell silent", &[], &["/probe."])
            .await
    }

    pub(super) async fn probe_silent(&self, aside: &Aside) -> anyhow::Result<()> {
        self.probe(&[&aside.client, &self.clients[0], &self.clients[1]])
            .await
    }

    pub(super) async fn the_api_server_freezes(&mut self, aside: Aside) -> anyhow::Result<()> {
        let before = aside.client.received().len();
        self.cluster.stop_part(&Part::ApiServer)?;
        let told = outage_is_told(&aside.replica).await;
        self.cluster.cont(&Part::ApiServer)?;
        told?;
        self.cluster.wait_api(SOON).await?;
        self.leader().await?;
        self.check("the API server froze", &[]).await?;
        self.probe_silent(&aside).await?;
        self.is_as_fresh_too("the API server froze", &aside).await?;
        told_of_probes_alone(&aside.client.received()[before..])?;
        self.mark();
        Ok(())
    }

    /// One whose token ends, and whose file gets another in time.
    pub(super) async fn start_rotated(&self) -> anyhow::Result<Aside> {
        let cluster = &self.cluster;
        cluster.kubectl(&["-n", SYSTEM, "create", "secret", "generic", "binding"])?;
        let bound = ["--bound-object-kind=Secret", "--bound-object-name=binding"];
        let token = replica::token(cluster, &bound)?;
        let replica = Replica::start_as(cluster, "rotated", &token, None, &[NO_LEASE])?;
        replica.wait_well(SOON).await?;
        let client = subscribe(&self.cluster, &replica)?;
        client.wait_synced(1, SOON).await?;
        let file = cluster.dir().join("rotated.token");
        std::fs::write(file, replica::token(cluster, &[])?)?;
        cluster.kubectl(&["-n", SYSTEM, "delete", "secret", "binding"])?;
        Ok(Aside {
            replica,
            client,
            relay: None,
        })
    }

    pub(super) async fn a_token_was_rotated(&mut self, aside: Aside) -> anyhow::Result<()> {
        // Its watches broke with the API server, more than once.
        aside.replica.wait_well(Duration::from_secs(90)).await?;
        self.probe_silent(&aside).await?;
        self.is_as_fresh_too("a token was rotated", &aside).await?;
        self.check_told("a token was rotated", &[], &["/probe."])
            .await
    }

    /// One that finds no API server.
    pub(super) async fn start_without_server(&self) -> anyhow::Result<Aside> {
        let relay = Relay::start(&self.cluster, false).await?;
        let token = replica::token(&self.cluster, &[])?;
        let via = Some(relay.address());
        let replica = Replica::start_as(&self.cluster, "late", &token, via, &[NO_LEASE])?;
        let client = subscribe(&self.cluster, &replica)?;
        Ok(Aside {
            replica,
            client,
            relay: Some(relay),
        })
    }

    pub(super) async fn a_server_that_appears_is_served(
        &mut self,
        aside: Aside,
    ) -> anyhow::Result<()> {
        wait::until("the wait to be told", SOON, || async {
            let (status, text) = aside.replica.ready().await?;
            ensure!(status == 503, "{status}");
            ensure!(
                text.contains("[-] snapshot") && text.contains("unreachable"),
                "{text}"
            );
            Ok(())
        })
        .await?;
        aside.relay.as_ref().context("a relay")?.open();
        aside.replica.wait_well(SOON).await?;
        aside.client.wait_synced(1, SOON).await?;
        self.is_as_fresh_too("a server appeared", &aside).await?;
        self.check("a server appeared", &[]).await
    }
}

/// That it serves on, and says that it hears nothing new.
async fn outage_is_told(replica: &Replica) -> anyhow::Result<()> {
    wait::until("the outage to be told", SOON, || async {
        let (status, text) = replica.ready().await?;
        ensure!(
            status == 200 && text.contains("unreachable"),
            "{status} {text}"
        );
        Ok(())
    })
    .await
}

fn told_of_probes_alone(received: &[Received]) -> anyhow::Result<()> {
    let mut names = received
        .iter()
        .flat_map(|one| one.names.iter().chain(&one.removed));
    ensure!(names.all(|name| name.contains("/probe.")), "{received:?}");
    Ok(())
}
