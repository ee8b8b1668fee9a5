//! What clients notice of an outage of the API server.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use testkit::ads::{XdsTarget, ztunnel_node};
use testkit::cluster::{Cluster, Part};
use testkit::hbone::Identity;
use testkit::ztunnel::Ztunnel;
use tonic::Code;

use crate::common::replica::Replica;
use crate::common::streams::{code, hold_delta, hold_sotw};
use crate::common::{SOON, SYSTEM, xds};
use crate::world::{add_service, has_service, roots, sign, signs, target, token_of, told};

/// How long the API server is away, as the metrics have it.
async fn outage_seconds(replica: &Replica) -> anyhow::Result<u64> {
    replica
        .metric("ambientd_kubernetes_api_outage_seconds")
        .await
}

pub(super) async fn others_tokens_are_worth_nothing(
    cluster: &Cluster,
    replica: &Replica,
) -> anyhow::Result<()> {
    let create = ["create", "token", "ztunnel", "-n", SYSTEM];
    let other = cluster.kubectl(&[&create[..], &["--audience=vault"]].concat())?;
    let api = cluster.kubectl(&create)?;
    for token in [other.trim(), api.trim()] {
        let target = xds(cluster, replica.secure, token.to_owned())?;
        let signed = sign(target.channel().await?, Some(token)).await;
        let refused = signed.err().map(|status| status.code());
        ensure!(refused == Some(Code::Unauthenticated), "{refused:?}");
        let stream = hold_delta(&target).await;
        let refused = stream.err().context("it is served")?;
        ensure!(code(&refused) == Code::Unauthenticated, "{refused:#}");
    }
    Ok(())
}

pub(super) async fn an_outage_is_not_noticed(
    cluster: &Cluster,
    replica: &Replica,
    client: &Ztunnel,
) -> anyhow::Result<()> {
    let signed = signs(cluster, replica, SYSTEM, "ztunnel").await?;
    let known = Identity::from_pem(&signed.chain.concat(), &signed.key, &roots(cluster)?)?;
    let known = XdsTarget::Tls {
        addr: replica.secure,
        server_name: "istiod.istio-system.svc".to_owned(),
        identity: Arc::new(known),
    };
    let unknown = target(cluster, replica, SYSTEM, "ztunnel")?;
    let waypoint = hold_sotw(&target(cluster, replica, "shop", "waypoint")?).await?;
    ensure!(outage_seconds(replica).await? == 0);
    let before = (client.received().len(), waypoint.borrow().responses);

    cluster.kill(&Part::ApiServer)?;
    replica.outage_is_told().await?;
    ensure!(outage_seconds(replica).await? > 0);
    // Whoever has a certificate is served; of a token nobody says what it is worth.
    let other = Ztunnel::start(known.clone(), ztunnel_node("n2"));
    other.wait_synced(1, SOON).await?;
    ensure!(other.state() == client.state());
    sign(known.channel().await?, None).await?;
    let refused = sign(unknown.channel().await?, token_of(&unknown)).await;
    let refused = refused.err().map(|status| status.code());
    ensure!(refused == Some(Code::Unauthenticated), "{refused:?}");

    cluster.start_part(&Part::ApiServer)?;
    cluster.wait_api(SOON).await?;
    replica.wait_well(SOON).await?;
    add_service(cluster, "edited")?;
    client
        .wait(SOON, |state, _| has_service(state, "shop", "edited"))
        .await?;
    let told = told(client, before.0);
    let is_edit = |name: &String| name.starts_with("shop/edited.");
    ensure!(told.iter().all(is_edit), "{told:?}");
    let seen = waypoint.borrow();
    ensure!(seen.end.is_none() && seen.responses == before.1, "a push");
    drop(seen);
    ensure!(outage_seconds(replica).await? == 0);
    for says in ["the API server cannot be reached", "the API server is back"] {
        ensure!(replica.log().contains(says), "{says}");
    }
    Ok(())
}
