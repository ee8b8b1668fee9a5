//! How it ends, and what clients notice of that.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use testkit::ads::ztunnel_node;
use testkit::cluster::{Cluster, Part};
use testkit::wait;
use testkit::ztunnel::Ztunnel;
use tokio::net::TcpStream;
use tonic::Code;

use crate::common::relay::Relay;
use crate::common::replica::{self, Replica};
use crate::common::streams::{Held, Seen, hold_delta, hold_sotw};
use crate::common::{SOON, SYSTEM, writes};
use crate::world::{
    add_service, believed, has_service, holder, roots, sign, signs, start_leader, target, token_of,
    world,
};

/// Longer than a test.
const LONG: &str = "--shutdown-duration=10m";
/// Clients that are sent away one after the other.
const CLIENTS: usize = 8;

// === Ends ===

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_sends_clients_away_by_and_by_and_hands_over() -> anyhow::Result<()> {
    let cluster = world().await?;
    let flags = ["--lease-duration=40s", "--shutdown-duration=30s"];
    let mut one = start_leader(&cluster, "one", &flags).await?;
    let two = Replica::start(&cluster, "two", &flags)?;
    two.wait_well(SOON).await?;
    for replica in [&one, &two] {
        signs(&cluster, replica, "shop", "web").await?;
    }
    let ztunnels = [&one, &two].map(|to| target(&cluster, to, SYSTEM, "ztunnel").unwrap());
    let waypoint = target(&cluster, &one, "shop", "waypoint")?;
    let mut held = Vec::new();
    for at in 0..CLIENTS {
        held.push(match at % 4 {
            3 => hold_sotw(&waypoint).await?,
            _ => hold_delta(&ztunnels[0]).await?,
        });
    }
    // One that goes where it is served.
    let (dialled, targets) = (AtomicUsize::new(0), ztunnels.clone());
    let dial = move || Ok(targets[dialled.fetch_add(1, Ordering::Relaxed).min(1)].clone());
    let mover = Ztunnel::start_with(dial, ztunnel_node("n2"));
    mover.wait_synced(1, SOON).await?;

    one.terminate()?;
    any("the first to be sent away", &held, |seen| {
        seen.end.is_some()
    })
    .await?;
    nobody_new_is_let_in(&one).await?;
    let (status, text) = one.ready().await?;
    ensure!(status == 503 && text.contains("[-] stopping"), "{text}");
    add_service(&cluster, "edited")?;
    let is_edit = |name: &String| name.starts_with("shop/edited.");
    any("one that stays to be told of an edit", &held, |seen| {
        seen.names.iter().any(is_edit)
    })
    .await?;
    for one in &mut held {
        let ended = one.wait_for(|seen| seen.end.is_some());
        let end = tokio::time::timeout(SOON, ended).await??.end;
        ensure!(end == Some(Code::Unavailable), "{end:?}");
    }
    let status = one.ended(SOON).await?;
    ensure!(status.success(), "{status}: {}", one.log());
    let now = holder(&cluster)?;
    ensure!(now.is_empty() || now == two.name, "{now} leads");

    // What it holds already is not sent again.
    mover.wait_synced(2, SOON).await?;
    mover
        .wait(SOON, |state, _| has_service(state, "shop", "edited"))
        .await?;
    for one in mover.received().iter().filter(|one| one.connection > 1) {
        ensure!(one.names.iter().all(is_edit), "{one:?}");
        ensure!(one.removed.is_empty(), "{one:?}");
    }
    the_other_goes_on(&cluster, &one, &two).await
}

/// That one replica wrote all there was, and the next does so now.
async fn the_other_goes_on(cluster: &Cluster, one: &Replica, two: &Replica) -> anyhow::Result<()> {
    let all = writes(cluster)?;
    let ends = all.iter().rposition(|it| it.credential == one.credential);
    let begins = all.iter().position(|it| it.credential == two.credential);
    let ends = ends.context("the leader wrote nothing")?;
    ensure!(begins.is_none_or(|begins| begins > ends), "{all:#?}");
    cluster.kubectl(&["create", "namespace", "new"])?;
    let map = ["-n", "new", "get", "configmap", "istio-ca-root-cert"];
    cluster.wait_for(&map, SOON, |_| Ok(())).await?;
    ensure!(two.leads().await?, "who wrote?");
    signs(cluster, two, "shop", "web").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_well_whenever_it_is_asked_to() -> anyhow::Result<()> {
    let cluster = world().await?;
    before_it_is_ready(&cluster).await?;
    when_asked_twice(&cluster).await?;
    while_it_answers(&cluster).await?;
    while_the_api_server_is_silent(&cluster).await?;
    while_the_api_server_is_away(&cluster).await
}

async fn ends_well(replica: &mut Replica) -> anyhow::Result<()> {
    let status = replica.ended(SOON).await?;
    ensure!(status.success(), "{status}: {}", replica.log());
    Ok(())
}

async fn is_stopping(replica: &Replica) -> anyhow::Result<()> {
    wait::until("readiness to end", SOON, || async {
        let (status, text) = replica.ready().await?;
        ensure!(status == 503 && text.contains("[-] stopping"), "{text}");
        Ok(())
    })
    .await
}

async fn before_it_is_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let relay = Relay::start(cluster, false).await?;
    let token = replica::token(cluster, &[])?;
    let via = Some(relay.address());
    let mut replica = Replica::start_as(cluster, "early", &token, via, &[LONG])?;
    wait::until("it to wait", SOON, || async {
        let (status, text) = replica.ready().await?;
        ensure!(status == 503 && text.contains("[-] snapshot"), "{text}");
        Ok(())
    })
    .await?;
    replica.terminate()?;
    ends_well(&mut replica).await
}

async fn when_asked_twice(cluster: &Cluster) -> anyhow::Result<()> {
    let mut replica = start_leader(cluster, "asked", &["--lease-duration=6s", LONG]).await?;
    let ztunnel = target(cluster, &replica, SYSTEM, "ztunnel")?;
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        held.push(hold_delta(&ztunnel).await?);
    }
    replica.terminate()?;
    is_stopping(&replica).await?;
    // Whoever is next need not wait for those who leave.
    wait::until("the lease to be let go", SOON, || {
        let holder = holder(cluster);
        async {
            ensure!(holder?.is_empty(), "held");
            Ok(())
        }
    })
    .await?;
    any("one to be still there", &held, |seen| seen.end.is_none()).await?;
    replica.terminate()?;
    ends_well(&mut replica).await
}

async fn while_it_answers(cluster: &Cluster) -> anyhow::Result<()> {
    let flags = ["--lease-duration=6s", "--shutdown-duration=20s"];
    let mut replica = start_leader(cluster, "answering", &flags).await?;
    let web = target(cluster, &replica, "shop", "web")?;
    let channel = web.channel().await?;
    let roots = roots(cluster)?;
    let reviews = reviews(&replica).await?;
    // What the token is worth nobody says as long as the API server stands still.
    cluster.stop_part(&Part::ApiServer)?;
    let asked = {
        let web = web.clone();
        tokio::spawn(async move { sign(channel, token_of(&web)).await })
    };
    let stopped = async {
        review_began(&replica, reviews).await?;
        replica.terminate()?;
        is_stopping(&replica).await?;
        ensure!(!asked.is_finished(), "it was answered by nobody");
        Ok(())
    };
    let stopped = stopped.await;
    cluster.cont(&Part::ApiServer)?;
    stopped?;
    let id = believed(&roots, &asked.await??)?;
    ensure!(id == "spiffe://cluster.local/ns/shop/sa/web", "{id}");
    ends_well(&mut replica).await
}

/// How many tokens it has had reviewed, or is having reviewed.
async fn reviews(replica: &Replica) -> anyhow::Result<u64> {
    replica.metric("ambientd_token_reviews").await
}

async fn review_began(replica: &Replica, before: u64) -> anyhow::Result<()> {
    wait::until("the token to be asked about", SOON, || async {
        ensure!(reviews(replica).await? > before, "it is not");
        Ok(())
    })
    .await
}

async fn nobody_new_is_let_in(replica: &Replica) -> anyhow::Result<()> {
    wait::until("nobody new to be let in", SOON, || async {
        ensure!(TcpStream::connect(replica.secure).await.is_err(), "let in");
        Ok(())
    })
    .await
}

async fn while_the_api_server_is_silent(cluster: &Cluster) -> anyhow::Result<()> {
    let flags = ["--lease-duration=6s", "--shutdown-duration=5s"];
    let mut replica = start_leader(cluster, "unheard", &flags).await?;
    cluster.stop_part(&Part::ApiServer)?;
    replica.terminate()?;
    let ended = ends_well(&mut replica).await;
    cluster.cont(&Part::ApiServer)?;
    ended
}

async fn while_the_api_server_is_away(cluster: &Cluster) -> anyhow::Result<()> {
    let flags = ["--lease-duration=6s", "--shutdown-duration=5s"];
    let mut replica = start_leader(cluster, "alone", &flags).await?;
    let ztunnel = target(cluster, &replica, SYSTEM, "ztunnel")?;
    let mut held = hold_delta(&ztunnel).await?;
    cluster.kill(&Part::ApiServer)?;
    replica.outage_is_told().await?;
    replica.terminate()?;
    ends_well(&mut replica).await?;
    let ended = held.wait_for(|seen| seen.end.is_some());
    let end = tokio::time::timeout(SOON, ended).await??.end;
    ensure!(end == Some(Code::Unavailable), "{end:?}");
    Ok(())
}

/// Waits for something that is true of one of them.
async fn any(what: &str, all: &[Held], is_so: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
    wait::until(what, SOON, || {
        let found = all.iter().any(|held| is_so(&held.borrow()));
        async move {
            ensure!(found, "none");
            Ok(())
        }
    })
    .await
}
