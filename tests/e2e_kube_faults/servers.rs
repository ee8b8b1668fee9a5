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
        self.server_goes()?;
        self.cluster.kill(&Part::ApiServer)?;
        for replica in &self.replicas {
            replica.outage_is_told().await?;
        }
        self.cluster.start_part(&Part::ApiServer)?;
        self.server_is_back().await?;
        self.check("the API server died", &[]).await?;
        self.probe_all("the API server died").await
    }

    pub(super) async fn etcd_dies(&mut self) -> anyhow::Result<()> {
        self.server_goes()?;
        self.cluster.kill(&Part::Etcd)?;
        let etcd_is_away = self.clients_are_served_without_etcd().await;
        self.cluster.start_part(&Part::Etcd)?;
        // An API server may have given up without its store.
        let _ = self.cluster.start_part(&Part::ApiServer);
        etcd_is_away?;
        self.server_is_back().await?;
        self.check("etcd died", &[]).await?;
        self.probe_all("etcd died").await
    }

    /// That nobody can renew the right to write, and that clients which come are served all the
    /// same.
    async fn clients_are_served_without_etcd(&self) -> anyhow::Result<()> {
        wait::until("nobody to lead", SOON, || async {
            for replica in &self.replicas {
                ensure!(!replica.leads().await?, "{} leads", replica.name);
            }
            Ok(())
        })
        .await?;
        for (replica, client) in self.replicas.iter().zip(&self.clients) {
            let new = replica.subscribe();
            new.wait_synced(1, SOON).await?;
            ensure!(new.state() == client.state(), "another state");
        }
        Ok(())
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
        self.server_goes()?;
        self.cluster.stop_part(&Part::ApiServer)?;
        let told = aside.replica.outage_is_told().await;
        self.cluster.cont(&Part::ApiServer)?;
        told?;
        self.server_is_back().await?;
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

fn told_of_probes_alone(received: &[Received]) -> anyhow::Result<()> {
    let mut names = received
        .iter()
        .flat_map(|one| one.names.iter().chain(&one.removed));
    ensure!(names.all(|name| name.contains("/probe.")), "{received:?}");
    Ok(())
}
