//! The test cluster itself: that it is a real Kubernetes, survives what tests do to it, and
//! leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use testkit::cluster::{Cluster, Options, Part};
use testkit::wait;

/// More than any controller needs, even on a busy machine.
const SOON: Duration = Duration::from_secs(60);

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: life}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: echo}}
      containers: [{name: echo, image: echo}]
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: life}
spec:
  selector: {app: echo}
  ports: [{port: 80, targetPort: 8080}]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_nodes_is_a_real_control_plane_and_leaves_nothing() -> anyhow::Result<()>
{
    let began = Instant::now();
    let cluster = Cluster::start(Options::control_plane()).await?;
    println!("up after {:?}: {:?}", began.elapsed(), cluster.startup());
    let client = cluster.client().await?;

    a_namespace_gets_its_account_and_root(&client).await?;
    a_deployment_makes_pods(&cluster, &client).await?;
    // Before anything is killed: an API server that has just started refuses everybody.
    every_request_is_in_the_audit_log(&cluster)?;
    what_was_written_outlives_a_kill(&cluster, &client).await?;
    a_deleted_namespace_ends(&client).await?;
    nothing_is_left_of(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_on_nodes_and_are_reached_by_their_service() -> anyhow::Result<()> {
    let began = Instant::now();
    let cluster = Cluster::start(Options::default()).await?;
    println!("up after {:?}: {:?}", began.elapsed(), cluster.startup());
    memory_of(&cluster)?;
    cluster.kubectl(&["create", "namespace", "life"])?;
    cluster.apply(DEPLOYMENT)?;
    let ready = [
        "-n",
        "life",
        "rollout",
        "status",
        "deployment/echo",
        "--timeout=60s",
    ];
    let rolled_out = cluster.kubectl(&ready);
    if rolled_out.is_err() {
        println!("{}", cluster.kubectl(&["-n", "life", "describe", "pods"])?);
    }
    rolled_out?;
    let pods = cluster.kubectl(&["-n", "life", "get", "pods", "-o", "wide"])?;
    ensure!(pods.contains("node-a") && pods.contains("node-b"), "{pods}");
    let address = cluster.kubectl(&[
        "-n",
        "life",
        "get",
        "service",
        "echo",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])?;
    wait::until("an answer of the service", SOON, || {
        let address = format!("{}:80", address.trim());
        async move { Ok(tokio::net::TcpStream::connect(address).await?) }
    })
    .await?;
    nothing_is_left_of(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_envtest_brings_take_the_place_of_those_built_in() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let assets = |names: &[&str]| -> anyhow::Result<Options> {
        for name in names {
            stand_for(&dir.path().join(name), name)?;
        }
        Ok(Options {
            assets: Some(dir.path().to_owned()),
            ..Options::control_plane()
        })
    };
    let Err(error) = Cluster::start(assets(&["etcd", "kubectl"])?).await else {
        anyhow::bail!("there is no API server in the directory");
    };
    let text = format!("{error:#}");
    ensure!(text.contains("which has no kube-apiserver"), "{text}");

    // Such a directory has these three; the controllers are ours.
    let cluster = Cluster::start(assets(&["kube-apiserver"])?).await?;
    let wanted = ["etcd", "kube-apiserver"];
    let programs = cluster.programs();
    ensure!(programs.keys().eq(wanted), "{programs:?}");
    for name in wanted {
        ensure!(programs[name] == dir.path().join(name), "{programs:?}");
        ensure!(
            was_started(&dir.path().join(name)),
            "{name} was not started"
        );
    }
    let client = cluster.client().await?;
    a_namespace_gets_its_account_and_root(&client).await?;
    a_deployment_makes_pods(&cluster, &client).await?;
    what_was_written_outlives_a_kill(&cluster, &client).await?;
    nothing_is_left_of(cluster)
}

/// Writes a program that is a part of Kubernetes and notes that it was started.
fn stand_for(path: &Path, part: &str) -> anyhow::Result<()> {
    let binary = testkit::cluster::binary()?;
    let text = format!(
        "#!/bin/sh\n: > \"$0.started\"\nexec '{}' {part} \"$@\"\n",
        binary.display()
    );
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn was_started(path: &Path) -> bool {
    path.with_extension("started").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_run_is_refused_before_anything_starts() -> anyhow::Result<()> {
    let says = "image ztunnel: stat /nowhere/ztunnel: no such file";
    let options = Options {
        images: [("ztunnel".to_owned(), "/nowhere/ztunnel".to_owned())].into(),
        ..Options::default()
    };
    let Err(error) = Cluster::start(options).await else {
        anyhow::bail!("there is no such program");
    };
    let text = format!("{error:#}");
    ensure!(text.contains(says), "{text}");
    // A slot, what parts are run with and what they say would all be in its directory.
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let output = Command::new(testkit::cluster::binary()?)
        .args(["run", "--image=ztunnel=/nowhere/ztunnel", "--state-dir"])
        .arg(&state)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.contains(says), "{text}");
    ensure!(!state.exists(), "something was started");
    Ok(())
}

/// Resident memory of each part.
fn memory_of(cluster: &Cluster) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(cluster.dir().join("pids"))? {
        let path = entry?.path();
        let id = std::fs::read_to_string(&path)?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", id.trim()))?;
        let resident = status.lines().find(|line| line.starts_with("RssAnon"));
        println!("{:?}: {resident:?}", path.file_name());
    }
    Ok(())
}

fn nothing_is_left_of(cluster: Cluster) -> anyhow::Result<()> {
    let dir = cluster.dir().to_owned();
    let fabric = cluster.fabric().to_owned();
    let pods = cluster.pod_cidr().to_owned();
    let began = Instant::now();
    drop(cluster);
    println!("gone after {:?}", began.elapsed());
    assert_eq!(traces(&dir, &fabric, &pods)?, Vec::<String>::new());
    Ok(())
}

async fn a_namespace_gets_its_account_and_root(client: &kube::Client) -> anyhow::Result<()> {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some("life".to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "life");
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "life");
    wait::until("the namespace's account and root", SOON, || async {
        accounts.get("default").await?;
        let root = maps.get("kube-root-ca.crt").await?;
        let data = root.data.context("no data")?;
        ensure!(data["ca.crt"].starts_with("-----BEGIN CERTIFICATE-----"));
        Ok(())
    })
    .await
}

async fn a_deployment_makes_pods(cluster: &Cluster, client: &kube::Client) -> anyhow::Result<()> {
    cluster.apply(DEPLOYMENT)?;
    let pods = Api::<Pod>::namespaced(client.clone(), "life");
    wait::until("two pods", SOON, || async {
        let pods = pods.list(&ListParams::default()).await?.items;
        ensure!(pods.len() == 2, "{} pods", pods.len());
        let owner = pods[0].metadata.owner_references.as_ref().unwrap();
        ensure!(owner[0].kind == "ReplicaSet", "{owner:?}");
        Ok(())
    })
    .await
}

async fn what_was_written_outlives_a_kill(
    cluster: &Cluster,
    client: &kube::Client,
) -> anyhow::Result<()> {
    let sets = Api::<ReplicaSet>::namespaced(client.clone(), "life");
    let before = sets.list(&ListParams::default()).await?.items;
    for part in [Part::ApiServer, Part::Etcd] {
        cluster.kill(&part)?;
        assert!(cluster.kill(&part).is_err(), "{part} is killed once");
        cluster.start_part(&part)?;
        cluster.wait_api(SOON).await?;
        let after = sets.list(&ListParams::default()).await?.items;
        assert_eq!(before.len(), 1);
        assert_eq!(before[0].metadata.uid, after[0].metadata.uid, "{part}");
    }
    Ok(())
}

async fn a_deleted_namespace_ends(client: &kube::Client) -> anyhow::Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.delete("life", &DeleteParams::default()).await?;
    wait::until("the end of the namespace", SOON, || async {
        let left = namespaces.get_opt("life").await?;
        ensure!(left.is_none(), "still there: {:?}", left.unwrap().status);
        Ok(())
    })
    .await
}

fn every_request_is_in_the_audit_log(cluster: &Cluster) -> anyhow::Result<()> {
    let created = cluster.audit()?.any(|event| {
        event["verb"] == "create"
            && event["objectRef"]["resource"] == "namespaces"
            && event["objectRef"]["name"] == "life"
            && event["user"]["username"] == "kubernetes-admin"
            && event["responseStatus"]["code"] == 201
    });
    ensure!(created, "the audit log does not name the namespace");
    let refused: Vec<_> = cluster
        .audit()?
        .filter(|event| event["responseStatus"]["code"] == 403)
        .map(|event| event["responseStatus"]["message"].clone())
        .collect();
    ensure!(refused.is_empty(), "refused: {refused:?}");
    Ok(())
}

/// What is still there of a cluster.
fn traces(dir: &Path, fabric: &str, pods: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for args in [["netns", "list"], ["link", "show"], ["route", "show"]] {
        let output = Command::new("ip").args(args).output()?;
        let text = String::from_utf8(output.stdout)?;
        let ours = |line: &&str| {
            line.split_whitespace().any(|word| {
                word == fabric
                    || word == pods
                    || word.starts_with(&format!("{fabric}-"))
                    || word.starts_with(&format!("{fabric}h"))
            })
        };
        found.extend(text.lines().filter(ours).map(ToOwned::to_owned));
    }
    let dir = dir.to_str().unwrap();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path().join("cmdline");
        let command = std::fs::read(path).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        if command.contains(dir) {
            found.push(command.replace('\0', " "));
        }
    }
    if Path::new(dir).exists() {
        found.push(dir.to_owned());
    }
    Ok(found)
}
