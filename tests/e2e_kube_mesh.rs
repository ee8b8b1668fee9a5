//! A mesh on two nodes in a real cluster, with ambientd where istiod would be.
//!
//! With `ZTUNNEL_BIN`, real ztunnels carry the traffic, also through a waypoint; without, the test
//! says that they did not run, and the rest is tested: the waypoint then gets all that it needs, and
//! nobody's requests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;
#[path = "kube/load.rs"]
mod load;
#[path = "kube/waypoint.rs"]
mod waypoint;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::ensure;
use proto::workload::{TunnelProtocol, WorkloadStatus};
use serde_json::Value;
use testkit::ads::ztunnel_node;
use testkit::cluster::Cluster;
use testkit::ztunnel::{MeshState, Ztunnel};

use common::{
    APP, DEPLOYMENTS, SOON, SYSTEM, cluster, get, install, manifest, nothing_was_refused,
    rolled_out, service, token, until, xds,
};
use load::Load;

/// Names the ztunnel under test.
const ZTUNNEL_VAR: &str = "ZTUNNEL_BIN";

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_on_two_nodes_follows_its_pods_and_lets_through_what_it_should() -> anyhow::Result<()>
{
    let ztunnel = std::env::var(ZTUNNEL_VAR).ok();
    let images = ztunnel
        .iter()
        .map(|path| ("ztunnel".to_owned(), path.clone()))
        .chain([waypoint::image()?]);
    let cluster = cluster(2, images).await?;
    install(&cluster)?;
    cluster.kubectl(&["apply", "-k", &manifest("samples/bookinfo")])?;
    for name in DEPLOYMENTS {
        rolled_out(&cluster, APP, &format!("deployment/{name}"))?;
    }
    pods_are_on_both_nodes(&cluster)?;
    for pod in pods_of(&cluster, "client")? {
        let (code, _) = ask(&cluster, &pod, "http://productpage:9080/");
        ensure!(code == "200", "{pod}: {code}");
    }
    if ztunnel.is_some() {
        cluster.kubectl(&["apply", "-k", &manifest("ztunnel")])?;
        rolled_out(&cluster, SYSTEM, "daemonset/ztunnel")?;
    } else {
        println!("{ZTUNNEL_VAR} is not set: that real ztunnels carry the traffic was NOT tested");
        cluster.kubectl(&["create", "serviceaccount", "ztunnel", "-n", SYSTEM])?;
    }
    let addr = service(&cluster, SYSTEM, "istiod", 15012)?;
    let target = xds(&cluster, addr, token(&cluster, SYSTEM, "ztunnel")?)?;
    let client = Ztunnel::start(target, ztunnel_node("node-a"));
    client.wait_synced(1, SOON).await?;

    same_as_the_cluster(&cluster, &client).await?;
    pods_come_and_go(&cluster, &client).await?;
    waypoint::joins(&cluster).await?;
    same_as_the_cluster(&cluster, &client).await?;
    if ztunnel.is_some() {
        waypoint::enforces(&cluster).await?;
    }
    waypoint::leaves(&cluster).await?;
    if ztunnel.is_some() {
        traffic_is_tunnelled(&cluster).await?;
        policies_are_enforced(&cluster).await?;
        strict_refuses_plain_text(&cluster).await?;
        pods_come_and_go_under_load(&cluster).await?;
        ztunnels_come_and_go_under_load(&cluster).await?;
        same_as_the_cluster(&cluster, &client).await?;
    }
    nothing_was_refused(&cluster)
}

/// Names of an application's pods that are there to stay.
fn pods_of(cluster: &Cluster, app: &str) -> anyhow::Result<Vec<String>> {
    let ns = if app == "ztunnel" { SYSTEM } else { APP };
    let list = get(cluster, ns, &["pods", "-l", &format!("app={app}")])?;
    let alive = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    Ok(items(&list).filter(alive).map(name).collect())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// A request from inside a pod: its status, and what was answered or said of the failure.
fn ask(cluster: &Cluster, pod: &str, url: &str) -> (String, String) {
    let (ns, pod) = pod.split_once('/').unwrap_or((APP, pod));
    let script = format!("curl -sS -m 5 -w '\\n%{{http_code}}' {url} 2>&1; true");
    let args = ["-n", ns, "exec", pod, "--", "sh", "-c", &script];
    let text = cluster
        .kubectl(&args)
        .unwrap_or_else(|error| format!("{error:#}\n000"));
    let (body, code) = text
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", text.trim_end()));
    // A failure is said after the code.
    let code = if code.len() == 3 { code } else { "000" };
    (code.to_owned(), body.to_owned())
}

async fn answered(cluster: &Cluster, pod: &str, url: &str, wanted: &str) -> anyhow::Result<()> {
    until(&format!("{wanted} of {url} for {pod}"), || {
        let (code, body) = ask(cluster, pod, url);
        ensure!(code == wanted, "{code}: {body}");
        Ok(())
    })
    .await
}

fn pods_are_on_both_nodes(cluster: &Cluster) -> anyhow::Result<()> {
    for app in ["client", "details", "productpage", "ratings", "reviews"] {
        let list = get(cluster, APP, &["pods", "-l", &format!("app={app}")])?;
        let nodes: BTreeSet<&str> = items(&list)
            .filter_map(|pod| pod["spec"]["nodeName"].as_str())
            .collect();
        ensure!(nodes.len() == 2, "{app} is on {nodes:?}");
    }
    Ok(())
}

/// What a ztunnel should know of a pod.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    addresses: Vec<String>,
    node: String,
    account: String,
    is_tunnelled: bool,
    is_healthy: bool,
}

/// The pods of the cluster by uid of their workload.
fn pods(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Facts>> {
    let list: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "pods", "-A", "-o", "json"])?)?;
    let mut all = BTreeMap::new();
    for pod in items(&list) {
        let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ips = status["podIPs"].as_array().into_iter().flatten();
        let mut addresses: Vec<String> = ips.map(|ip| text(&ip["ip"])).collect();
        addresses.sort();
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|it| it["type"] == "Ready");
        let facts = Facts {
            addresses,
            node: text(&spec["nodeName"]),
            account: text(&spec["serviceAccountName"]),
            is_tunnelled: metadata["annotations"]["ambient.istio.io/redirection"] == "enabled",
            is_healthy: ready.all(|it| it["status"] == "True"),
        };
        let (ns, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        all.insert(format!("Kubernetes//Pod/{ns}/{name}"), facts);
    }
    Ok(all)
}

fn known(state: &MeshState) -> BTreeMap<String, Facts> {
    let address = |bytes: &bytes::Bytes| match bytes.len() {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(&bytes[..]).unwrap()).to_string(),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(&bytes[..]).unwrap()).to_string(),
    };
    let of_pods = state
        .workloads
        .iter()
        .filter(|(uid, _)| uid.contains("//Pod/"));
    of_pods
        .map(|(uid, workload)| {
            let mut addresses: Vec<String> = workload.addresses.iter().map(address).collect();
            addresses.sort();
            let account = match workload.service_account.as_str() {
                "" => "default",
                account => account,
            };
            let facts = Facts {
                addresses,
                node: workload.node.clone(),
                account: account.to_owned(),
                is_tunnelled: workload.tunnel_protocol() == TunnelProtocol::Hbone,
                is_healthy: workload.status() == WorkloadStatus::Healthy,
            };
            (uid.clone(), facts)
        })
        .collect()
}

fn services(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let list: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "services", "-A", "-o", "json"])?)?;
    let name = |it: &Value| {
        let (ns, name) = (&it["metadata"]["namespace"], &it["metadata"]["name"]);
        let (ns, name) = (ns.as_str().unwrap(), name.as_str().unwrap());
        format!("{ns}/{name}.{ns}.svc.cluster.local")
    };
    Ok(items(&list).map(name).collect())
}

/// A client knows exactly the pods and services that there are.
async fn same_as_the_cluster(cluster: &Cluster, client: &Ztunnel) -> anyhow::Result<()> {
    until("the client to know what there is", || {
        let (pods, services) = (pods(cluster)?, services(cluster)?);
        let state = client.state();
        let known = known(&state);
        for (uid, facts) in &pods {
            ensure!(
                known.get(uid) == Some(facts),
                "{uid}: {facts:?}, known: {:?}",
                known.get(uid)
            );
        }
        ensure!(
            known.len() == pods.len(),
            "known and not there: {:?}",
            known.keys()
        );
        let names: BTreeSet<String> = state.services.keys().cloned().collect();
        ensure!(names == services, "{names:?} instead of {services:?}");
        Ok(())
    })
    .await?;
    let state = client.state();
    let tunnelled = known(&state)
        .values()
        .filter(|facts| facts.is_tunnelled)
        .count();
    println!(
        "{} workloads ({tunnelled} over HBONE), {} services, {} policies are known as they are",
        state.workloads.len(),
        state.services.len(),
        state.policies.len()
    );
    Ok(())
}

async fn pods_come_and_go(cluster: &Cluster, client: &Ztunnel) -> anyhow::Result<()> {
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl(&["-n", APP, "scale", "deployment/ratings-v1", &replicas])?;
        rolled_out(cluster, APP, "deployment/ratings-v1")
    };
    scale("4")?;
    same_as_the_cluster(cluster, client).await?;
    scale("1")?;
    cluster.kubectl(&["-n", APP, "delete", "pod", "-l", "app=reviews"])?;
    scale("2")?;
    for name in DEPLOYMENTS {
        rolled_out(cluster, APP, &format!("deployment/{name}"))?;
    }
    same_as_the_cluster(cluster, client).await
}

/// What all ztunnels said since they began.
fn said(cluster: &Cluster) -> anyhow::Result<String> {
    let mut all = String::new();
    for pod in pods_of(cluster, "ztunnel")? {
        all += &cluster.kubectl(&["-n", SYSTEM, "logs", &pod])?;
    }
    Ok(all)
}

/// From each node to the other, and seen on both sides with both identities.
async fn traffic_is_tunnelled(cluster: &Cluster) -> anyhow::Result<()> {
    let mut pairs = BTreeSet::new();
    for client in pods_of(cluster, "client")? {
        let node = get(cluster, APP, &["pod", &client])?["spec"]["nodeName"].to_string();
        until("answers of both nodes", || {
            let (code, body) = ask(cluster, &client, "http://productpage:9080/");
            ensure!(code == "200", "{code}: {body}");
            let answer: Value = serde_json::from_str(&body)?;
            pairs.insert((node.clone(), answer["node"].to_string()));
            let from_here = pairs.iter().filter(|(from, _)| *from == node).count();
            ensure!(from_here == 2, "{pairs:?}");
            Ok(())
        })
        .await?;
    }
    let log = said(cluster)?;
    for direction in ["inbound", "outbound"] {
        let seen = log.lines().filter(|line| {
            line.contains("src.identity=\"spiffe://cluster.local/ns/bookinfo/sa/client\"")
                && line.contains(
                    "dst.identity=\"spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage\"",
                )
                && line.contains("dst.hbone_addr=")
                && line.contains(&format!("direction=\"{direction}\""))
                && !line.contains("error=")
        });
        let count = seen.count();
        ensure!(count > 0, "no connection is {direction} over HBONE");
        println!("{count} connections {direction} over HBONE");
    }
    Ok(())
}

async fn policies_are_enforced(cluster: &Cluster) -> anyhow::Result<()> {
    let pod = |app: &str| anyhow::Ok(pods_of(cluster, app)?.remove(0));
    for (from, to, wanted) in [
        ("client", "productpage", "200"),
        ("client", "details", "000"),
        ("client", "ratings", "000"),
        ("productpage", "details", "200"),
        ("productpage", "reviews", "200"),
        ("productpage", "ratings", "000"),
        ("reviews", "ratings", "200"),
        ("ratings", "reviews", "000"),
    ] {
        answered(cluster, &pod(from)?, &format!("http://{to}:9080/"), wanted).await?;
    }
    ensure!(
        said(cluster)?.contains("policy rejection"),
        "no ztunnel has said why"
    );
    // A policy that goes lets in whom it kept out, one that comes keeps them out again.
    let url = "http://ratings:9080/";
    let client = pod("client")?;
    cluster.kubectl(&["-n", APP, "delete", "authorizationpolicy", "ratings"])?;
    answered(cluster, &client, url, "200").await?;
    cluster.kubectl(&["apply", "-k", &manifest("samples/bookinfo")])?;
    answered(cluster, &client, url, "000").await
}

async fn strict_refuses_plain_text(cluster: &Cluster) -> anyhow::Result<()> {
    let outside = [
        "run",
        "outsider",
        "-n",
        "default",
        "--image=client",
        "--restart=Never",
    ];
    cluster.kubectl(&outside)?;
    let ready = [
        "wait",
        "pod/outsider",
        "-n",
        "default",
        "--for=condition=Ready",
        "--timeout=60s",
    ];
    cluster.kubectl(&ready)?;
    let url = "http://details.bookinfo:9080/";
    let inside = pods_of(cluster, "productpage")?.remove(0);
    answered(cluster, "default/outsider", url, "000").await?;
    // Without its policy, anybody may, also in plain text; until the namespace is STRICT.
    cluster.kubectl(&["-n", APP, "delete", "authorizationpolicy", "details"])?;
    answered(cluster, "default/outsider", url, "200").await?;
    cluster.apply(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {name: default, namespace: bookinfo}\nspec: {mtls: {mode: STRICT}}\n",
    )?;
    answered(cluster, "default/outsider", url, "000").await?;
    answered(cluster, &inside, url, "200").await?;
    // Pods of another namespace are in the mesh once it is enrolled.
    let enrol = |label| cluster.kubectl(&["label", "namespace", "default", label]);
    enrol("istio.io/dataplane-mode=ambient")?;
    answered(cluster, "default/outsider", url, "200").await?;
    enrol("istio.io/dataplane-mode-")?;
    answered(cluster, "default/outsider", url, "000").await?;
    cluster.kubectl(&["-n", APP, "delete", "peerauthentication", "default"])?;
    cluster.kubectl(&["apply", "-k", &manifest("samples/bookinfo")])?;
    Ok(())
}

/// Pods that end serve on for some seconds, so nothing fails.
async fn pods_come_and_go_under_load(cluster: &Cluster) -> anyhow::Result<()> {
    let load = Load::start(
        cluster,
        APP,
        pods_of(cluster, "client")?,
        "http://productpage:9080/",
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let deployment = "deployment/productpage-v1";
    cluster.kubectl(&["-n", APP, "rollout", "restart", deployment])?;
    rolled_out(cluster, APP, deployment)?;
    for replicas in ["4", "2"] {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl(&["-n", APP, "scale", deployment, &replicas])?;
        rolled_out(cluster, APP, deployment)?;
    }
    gone(cluster, "productpage", 2).await?;
    let told = load.stop().await?;
    println!("productpage restarted, 2 → 4 → 2 pods: {told:?}");
    ensure!(told.keys().all(|it| it == "200"), "failed: {told:?}");
    ensure!(told["200"] > 50, "hardly any load: {told:?}");
    Ok(())
}

/// Waits until only so many pods are left, those that end included.
async fn gone(cluster: &Cluster, app: &str, left: usize) -> anyhow::Result<()> {
    until(&format!("{left} pods of {app}"), || {
        let ns = if app == "ztunnel" { SYSTEM } else { APP };
        let list = get(cluster, ns, &["pods", "-l", &format!("app={app}")])?;
        let count = items(&list).count();
        ensure!(count == left, "{count} pods");
        Ok(())
    })
    .await
}

async fn ztunnels_come_and_go_under_load(cluster: &Cluster) -> anyhow::Result<()> {
    let url = "http://productpage:9080/";
    let clients = pods_of(cluster, "client")?;
    // One after the other, the new one first: nobody notices.
    let load = Load::start(cluster, APP, clients.clone(), url);
    cluster.kubectl(&["-n", SYSTEM, "rollout", "restart", "daemonset/ztunnel"])?;
    rolled_out(cluster, SYSTEM, "daemonset/ztunnel")?;
    let told = load.stop().await?;
    println!("both ztunnels replaced: {told:?}");
    ensure!(told.keys().all(|it| it == "200"), "failed: {told:?}");

    // One that is killed takes its connections along; then all goes on.
    gone(cluster, "ztunnel", 2).await?;
    let load = Load::start(cluster, APP, clients.clone(), url);
    let victim = pods_of(cluster, "ztunnel")?.remove(0);
    let args = [
        "-n",
        SYSTEM,
        "delete",
        "pod",
        &victim,
        "--grace-period=0",
        "--force",
    ];
    cluster.kubectl(&args)?;
    rolled_out(cluster, SYSTEM, "daemonset/ztunnel")?;
    for client in &clients {
        answered(cluster, client, url, "200").await?;
    }
    println!(
        "a ztunnel killed and started again: {:?}",
        load.stop().await?
    );
    let load = Load::start(cluster, APP, clients, url);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = load.stop().await?;
    ensure!(
        told.keys().all(|it| it == "200"),
        "failed after that: {told:?}"
    );
    Ok(())
}
