//! Revision tags: of which Gateways a replica may write the status.

use anyhow::ensure;
use pipeline::MeshDefaults;
use testkit::cluster::Cluster;

use super::common::{conditions, prepared, until};
use super::{Replica, get, settled};

/// Two waypoints without address, which is an error; one names the revision, of the other the
/// namespace names a tag.
const GATEWAYS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/rev: prod}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: own, namespace: shop, labels: {istio.io/rev: canary}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: tagged, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";

/// Gives the tag to a revision.
fn give_tag(cluster: &Cluster, revision: &str) -> anyhow::Result<()> {
    let text = r"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-revision-tag-prod, labels: {istio.io/tag: prod, istio.io/rev: REVISION}}
";
    cluster
        .apply(&text.replace("REVISION", revision))
        .map(|_| ())
}

/// Who writes the status of a Gateway: one what becomes of it, one the findings.
const WRITERS: usize = 2;

/// Waits until a Gateway says that it is not ready.
async fn is_told(cluster: &Cluster, name: &str, claim: &str) -> anyhow::Result<()> {
    let holds = || {
        ensure!(tells(cluster, name)?, "nothing is said of {name}");
        Ok(())
    };
    until(claim, holds).await
}

fn tells(cluster: &Cluster, name: &str) -> anyhow::Result<bool> {
    let gateway = get(cluster, &["gateway.gateway.networking.k8s.io", name])?;
    let told = "ambientd.io/Findings=True/WpNotReady".to_owned();
    Ok(conditions(&gateway).contains(&told))
}

/// Somebody takes all conditions away.
fn forget(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let patch = r#"[{"op": "replace", "path": "/status/conditions", "value": []}]"#;
    let gateway = ["patch", "gateway.gateway.networking.k8s.io", name];
    let how = [
        "-n",
        "shop",
        "--subresource=status",
        "--type=json",
        "-p",
        patch,
    ];
    cluster
        .kubectl(&[&gateway[..], &how[..]].concat())
        .map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_of_a_gateway_follows_the_tag_that_its_namespace_names() -> anyhow::Result<()> {
    let cluster = prepared().await?;
    until("objects are taken", || cluster.apply(GATEWAYS).map(|_| ())).await?;
    let defaults = MeshDefaults {
        revision: "canary".into(),
        is_alone: false,
        ..MeshDefaults::default()
    };
    let replica = Replica::start_with(&cluster, "a", defaults).await?;
    let sent = async |name: &str| -> anyhow::Result<usize> {
        let object = format!("gateways/status shop/{name} ");
        let all = settled(&cluster).await?;
        Ok(all.iter().filter(|text| text.contains(&object)).count())
    };

    is_told(&cluster, "own", "the revision is ours").await?;
    ensure!(sent("tagged").await? == 0, "nobody gave us the tag");

    give_tag(&cluster, "canary")?;
    is_told(&cluster, "tagged", "a tag is another name of it").await?;
    forget(&cluster, "tagged")?;
    is_told(&cluster, "tagged", "it is put back").await?;
    let written = sent("tagged").await?;
    ensure!(written == 2 * WRITERS, "{written} writes");

    give_tag(&cluster, "stable")?;
    ensure!(sent("tagged").await? == written, "it is written again");
    ensure!(tells(&cluster, "tagged")?, "what was written stays");
    forget(&cluster, "tagged")?;
    forget(&cluster, "own")?;
    is_told(&cluster, "own", "the revision is still ours").await?;
    ensure!(sent("tagged").await? == written, "the tag is another one's");
    ensure!(!tells(&cluster, "tagged")?);
    ensure!(sent("own").await? == 2 * WRITERS);

    give_tag(&cluster, "canary")?;
    is_told(&cluster, "tagged", "the tag comes back").await?;
    ensure!(sent("tagged").await? == written + WRITERS);
    replica.stop().await;
    Ok(())
}
