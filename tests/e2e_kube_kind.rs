//! What people type: every kubectl step of `cargo xtask kind-up`, on a real cluster.
//!
//! The list of steps is one for kind and for here; only where definitions and the sample come
//! from differs. Each step has to show what it should, so a new one needs a row in [`STEPS`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::cluster::{self, Cluster};

use common::{
    APP, DEPLOYMENTS, SYSTEM, apply_definitions, cluster, get, manifest, nothing_was_refused,
    rolled_out, until,
};

/// Names the program behind `cargo xtask`.
const XTASK_VAR: &str = "AMBIENTD_XTASK";

/// The steps in their order: what each is called, and what kubectl says when it worked.
const STEPS: [(&str, &[&str]); 11] = [
    (
        "The Gateway API",
        &[
            "gateways.gateway.networking.k8s.io serverside-applied",
            "authorizationpolicies.security.istio.io serverside-applied",
        ],
    ),
    (
        "Wait until the API server knows it",
        &["gatewayclasses.gateway.networking.k8s.io condition met"],
    ),
    (
        "ambientd, where istiod would be",
        &["deployment.apps/istiod created", "service/istiod created"],
    ),
    (
        "Wait for ambientd",
        &["deployment \"istiod\" successfully rolled out"],
    ),
    (
        "Wait for the root certificate that ztunnel mounts",
        &["configmap/istio-ca-root-cert condition met"],
    ),
    (
        "A namespace for the sample",
        &["namespace/bookinfo created"],
    ),
    (
        "The sample",
        &[
            "deployment.apps/productpage-v1 created",
            "service/productpage created",
        ],
    ),
    (
        "Enrol the namespace: its pods need no restart",
        &["namespace/bookinfo"],
    ),
    (
        "Wait for the sample",
        &[
            "deployment.apps/productpage-v1 condition met",
            "deployment.apps/reviews-v3 condition met",
        ],
    ),
    (
        "What is there",
        &["deployment.apps/istiod", "pod/istiod-", "1/1", "Running"],
    ),
    (
        "What is wrong with the configuration, as Events",
        &["No resources found"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_step_of_kind_up_works_and_shows_what_it_should() -> anyhow::Result<()> {
    let cluster = cluster(2, []).await?;
    let shown = kind_up(&cluster, "first")?;
    println!("{shown}");
    steps_show_what_they_should(&shown)?;
    ambientd_is_in_place_of_istiod(&cluster)?;
    the_sample_is_enrolled_and_answers(&cluster)?;

    // Who runs it again, as after a failure half-way, disturbs nothing.
    let before = pods(&cluster)?;
    kind_up(&cluster, "again")?;
    ensure!(pods(&cluster)? == before, "pods were replaced");
    nothing_was_refused(&cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_the_ha_overlay_are_on_two_nodes_and_one_leads_after_another()
-> anyhow::Result<()> {
    let cluster = cluster(2, []).await?;
    apply_definitions(&cluster)?;
    for file in ["namespace.yaml", "default-validator.yaml"] {
        let path = manifest(&format!("overlays/test/{file}"));
        cluster.kubectl(&["apply", "-f", &path])?;
    }
    cluster.kubectl(&["apply", "-k", &manifest("overlays/ha")])?;
    // The least number of replicas is the autoscaler's to ask for, which needs no metrics.
    until("two nodes have a replica each, which is ready", || {
        let nodes = ready_replicas(&cluster)?;
        let count = nodes.iter().map(|(_, node)| node).collect::<BTreeSet<_>>();
        ensure!(nodes.len() == 2 && count.len() == 2, "{nodes:?}");
        Ok(())
    })
    .await?;
    rolled_out(&cluster, SYSTEM, "deployment/istiod")?;

    let mut leader = String::new();
    until("one of them leads", || {
        leader = holder(&cluster)?;
        let all = ready_replicas(&cluster)?;
        ensure!(all.iter().any(|(pod, _)| *pod == leader), "{leader:?}");
        Ok(())
    })
    .await?;
    // Without grace it is killed 50 ms after it is told.
    let delete = ["-n", SYSTEM, "delete", "pod", &leader];
    cluster.kubectl(&[&delete[..], &["--grace-period=0", "--force"]].concat())?;
    until("the other one leads, or the one in its place", || {
        let next = holder(&cluster)?;
        ensure!(!next.is_empty() && next != leader, "{next:?} leads");
        Ok(())
    })
    .await?;
    rolled_out(&cluster, SYSTEM, "deployment/istiod")?;
    cluster.kubectl(&["create", "namespace", APP])?;
    until("it writes", || {
        get(&cluster, APP, &["configmap", "istio-ca-root-cert"]).map(drop)
    })
    .await?;
    nothing_was_refused(&cluster)
}

/// The replicas that are ready, with their nodes.
fn ready_replicas(cluster: &Cluster) -> anyhow::Result<Vec<(String, String)>> {
    let list = get(cluster, SYSTEM, &["pods", "-l", "app=istiod"])?;
    let pods = list["items"].as_array().context("no list")?;
    let ready = pods
        .iter()
        .filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(ready
        .map(|pod| {
            (
                text(&pod["metadata"]["name"]),
                text(&pod["spec"]["nodeName"]),
            )
        })
        .collect())
}

/// Who holds the Lease.
fn holder(cluster: &Cluster) -> anyhow::Result<String> {
    let lease = get(cluster, SYSTEM, &["lease", "istio-status-leader"])?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    Ok(holder.unwrap_or_default().to_owned())
}

/// The one that runs the tests, or else what people type, which may have to wait for other builds.
fn xtask() -> Command {
    let mut command = if let Some(own) = std::env::var_os(XTASK_VAR) {
        Command::new(own)
    } else {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg("xtask");
        cargo
    };
    // It is that of the package under test, from which it would not find the repository.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs it as a person would; the answer is what it and kubectl print.
fn kind_up(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let output = cluster.dir().join(format!("kind-up-{name}.log"));
    let file = File::create(&output)?;
    let kubectl = format!("{} kubectl", cluster::binary()?.display());
    let status = xtask()
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["kind-up", "--only-kubectl", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .args(["--kubectl", &kubectl])
        .env("KUBECACHEDIR", cluster.dir().join("kubectl-cache"))
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .context("cargo xtask kind-up")?;
    let shown = fs::read_to_string(output)?;
    if status.success() {
        return Ok(shown);
    }
    let pods = cluster.kubectl(&["describe", "pods", "-A"]);
    let pods = pods.unwrap_or_else(|error| error.to_string());
    anyhow::bail!("kind-up ended with {status}:\n{shown}\n{pods}")
}

/// Each step's output is between its own heading and the next one's.
fn steps_show_what_they_should(shown: &str) -> anyhow::Result<()> {
    let count = STEPS.len();
    let mut rest = shown;
    for (at, (what, wanted)) in STEPS.iter().enumerate() {
        let heading = format!("[{}/{count}] {what}\n", at + 1);
        let (_, after) = rest
            .split_once(&heading)
            .with_context(|| format!("no step {heading:?}"))?;
        rest = after;
        let next = format!("\n[{}/{count}] ", at + 2);
        let output = after.split_once(&next).map_or(after, |(output, _)| output);
        // The command and what to expect of it are no output.
        let said = output
            .lines()
            .filter(|line| !line.starts_with("  $ ") && !line.starts_with("  expect: "));
        let said = said.collect::<Vec<_>>().join("\n");
        for text in *wanted {
            ensure!(said.contains(text), "{what}: no {text:?} in\n{said}");
        }
    }
    Ok(())
}

/// By the names by which istioctl, ztunnel and people look for it.
fn ambientd_is_in_place_of_istiod(cluster: &Cluster) -> anyhow::Result<()> {
    let list = get(cluster, SYSTEM, &["pods", "-l", "app=istiod"])?;
    let pods = list["items"].as_array().context("no list")?;
    ensure!(!pods.is_empty(), "no pods of istiod");
    for pod in pods {
        let container = &pod["status"]["containerStatuses"][0];
        ensure!(container["name"] == "discovery", "{container}");
        ensure!(container["ready"] == true, "{container}");
        ensure!(container["restartCount"] == 0, "{container}");
        let image = pod["spec"]["containers"][0]["image"].as_str();
        ensure!(image == Some("ambientd:dev"), "{image:?}");
    }
    // Where the README says that they are.
    let named = |kind: &str, query: &str, field: &str| -> anyhow::Result<BTreeSet<String>> {
        let path = format!("jsonpath={{.items[*].metadata.{field}}}");
        let list = cluster.kubectl(&["get", kind, "-A", "--field-selector", query, "-o", &path])?;
        Ok(list.split(' ').map(str::to_owned).collect())
    };
    let roots = named(
        "configmaps",
        "metadata.name=istio-ca-root-cert",
        "namespace",
    )?;
    let wanted = named(
        "namespaces",
        "metadata.name!=kube-public,metadata.name!=kube-node-lease",
        "name",
    )?;
    ensure!(roots == wanted, "{roots:?} instead of {wanted:?}");
    Ok(())
}

fn the_sample_is_enrolled_and_answers(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = get(cluster, APP, &["namespace", APP])?;
    let mode = &namespace["metadata"]["labels"]["istio.io/dataplane-mode"];
    ensure!(mode == "ambient", "{mode}");
    for name in DEPLOYMENTS {
        let status = &get(cluster, APP, &["deployment", name])?["status"];
        ensure!(
            status["readyReplicas"] == status["replicas"] && status["replicas"].as_u64() >= Some(1),
            "{name}: {status}"
        );
    }
    let ask = ["curl", "-sS", "-m", "10", "http://productpage:9080/"];
    let exec = ["-n", APP, "exec", "deploy/client", "--"];
    cluster.kubectl(&[&exec[..], &ask].concat()).map(drop)
}

/// Every pod that there is, by what tells it from one that took its place.
fn pods(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let list = get(cluster, SYSTEM, &["pods", "-A"])?;
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
    let all = list["items"].as_array().context("no list")?;
    all.iter().map(|pod| uid(pod).context("no uid")).collect()
}
