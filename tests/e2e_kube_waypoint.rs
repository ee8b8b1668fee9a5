//! What `istioctl waypoint apply`, `status`, `list` and `delete` do at a real API server, and what
//! they find there. Source: spec/gateway-api.md §5.1, §5.5, §5.7.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;

use anyhow::ensure;
use serde_json::{Value, json};
use testkit::cluster::Cluster;

use common::replica::Replica;
use common::{SOON, conditions, nothing_was_refused, prepared, until};

const NS: &str = "shop";
const GATEWAY: &str = "gateway.gateway.networking.k8s.io/waypoint";

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
";

/// An instance, as it would be on a node.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: by-hand
  namespace: shop
  labels: {gateway.networking.k8s.io/gateway-name: waypoint, gateway.istio.io/managed: istio.io-mesh-controller}
spec:
  serviceAccountName: waypoint
  automountServiceAccountToken: false
  containers: [{name: istio-proxy, image: proxy}]
";

/// What `istioctl waypoint generate` prints; `labels` are those of `--for` and `--revision`.
fn waypoint(labels: &Value, from: &str) -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "waypoint", "namespace": NS, "labels": labels},
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{
                "name": "mesh", "port": 15008, "protocol": "HBONE",
                "allowedRoutes": {"namespaces": {"from": from}},
            }],
        },
    })
    .to_string()
}

/// Server-side apply without force, as `istioctl` writes.
fn apply(cluster: &Cluster, object: &str) -> anyhow::Result<()> {
    let args = [
        "apply",
        "--server-side",
        "--field-manager=istioctl",
        "-f",
        "-",
    ];
    cluster.kubectl_with(&args, object).map(drop)
}

fn get(cluster: &Cluster, what: &str) -> anyhow::Result<Value> {
    common::get(cluster, NS, &[what])
}

async fn bound(cluster: &Cluster, wanted: &str) -> anyhow::Result<()> {
    until("the Service says what it is bound to", || {
        let all = conditions(&get(cluster, "service/web")?);
        let wanted = format!("istio.io/WaypointBound={wanted}");
        ensure!(all.contains(&wanted), "{all:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn istioctl_finds_what_it_waits_for_and_may_write_again() -> anyhow::Result<()> {
    let cluster = prepared().await?;
    until("objects are taken", || cluster.apply(OBJECTS).map(drop)).await?;
    let replica = Replica::start(&cluster, "a", &["--lease-duration=6s"])?;
    replica.wait_well(SOON).await?;

    // `waypoint apply --enroll-namespace`.
    until("the waypoint is taken", || {
        apply(&cluster, &waypoint(&json!({}), "Same"))
    })
    .await?;
    let label = ["label", "namespace", NS, "istio.io/use-waypoint=waypoint"];
    cluster.kubectl(&label)?;
    bound(&cluster, "False/WaypointIsNotReady").await?;
    until("its Service and Deployment are there", || {
        for what in [
            "service/waypoint",
            "deployment/waypoint",
            "serviceaccount/waypoint",
        ] {
            get(&cluster, what)?;
        }
        Ok(())
    })
    .await?;
    let all = conditions(&get(&cluster, GATEWAY)?);
    ensure!(
        all.iter()
            .any(|it| it.starts_with("Programmed=False/Address")),
        "{all:?}"
    );

    // `--wait`, and what `waypoint status` prints.
    cluster.apply(POD)?;
    let status = json!({"status": {
        "phase": "Running", "podIP": "10.1.0.9", "podIPs": [{"ip": "10.1.0.9"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    let status = status.to_string();
    let patch = ["-n", NS, "patch", "pod/by-hand", "--subresource=status"];
    cluster.kubectl(&[&patch[..], &["--type=merge", "-p", &status]].concat())?;
    let wait = ["-n", NS, "wait", "--for=condition=Programmed", GATEWAY];
    cluster.kubectl(&[&wait[..], &["--timeout=60s"]].concat())?;
    bound(&cluster, "True/WaypointAccepted").await?;

    // Whoever applies again, with other options, meets nobody who holds his fields.
    let labels = json!({"istio.io/waypoint-for": "all"});
    apply(&cluster, &waypoint(&labels, "All"))?;
    until("the status is about what was written", || {
        let gateway = get(&cluster, GATEWAY)?;
        let generation = &gateway["metadata"]["generation"];
        ensure!(*generation == 2, "{generation}");
        for ty in ["Accepted", "Programmed", "ResolvedRefs"] {
            let mut all = gateway["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            let found = all.find(|it| it["type"] == ty);
            let found = found.map(|it| &it["observedGeneration"]);
            ensure!(found == Some(generation), "{ty}: {found:?}");
        }
        Ok(())
    })
    .await?;
    // What `waypoint list` shows: labels are the user's, and nobody adds to them.
    let gateway = get(&cluster, GATEWAY)?;
    ensure!(gateway["metadata"]["labels"] == labels, "{gateway}");

    // `waypoint delete`.
    cluster.kubectl(&["-n", NS, "delete", GATEWAY])?;
    bound(&cluster, "False/WaypointIsNotReady").await?;
    nothing_was_refused(&cluster)
}
