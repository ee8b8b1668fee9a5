//! What Gateways run as, at a real API server: who makes it, who does not, and what becomes of it
//! when somebody edits or deletes. Numbers are those of spec/gateway-api.md §9.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testkit::cluster::Cluster;

use common::replica::Replica;
use common::{SOON, prepared, until};

const GATEWAYS: &str = include_str!("e2e_kube_deployments/gateways.yaml");
/// Another replica goes on soon.
const LEASE: [&str; 2] = ["--lease-duration", "6s"];
/// No write for this long.
const QUIET: Duration = Duration::from_secs(4);

fn get(cluster: &Cluster, what: &str) -> anyhow::Result<Value> {
    common::get(cluster, "shop", &[what])
}

fn is_there(cluster: &Cluster, what: &str) -> bool {
    get(cluster, what).is_ok()
}

/// ServiceAccount, Deployment and Service of these names are there.
fn runs(cluster: &Cluster, account: &str, name: &str) -> anyhow::Result<()> {
    get(cluster, &format!("serviceaccount/{account}"))?;
    get(cluster, &format!("deployment/{name}"))?;
    get(cluster, &format!("service/{name}")).map(drop)
}

/// `verb resource/subresource ns/name code` of the writes of deployments.
async fn writes(cluster: &Cluster) -> anyhow::Result<Vec<common::Write>> {
    let mut all = common::settled(cluster, QUIET).await?;
    let kinds = [
        "gateways/ ",
        "serviceaccounts/ ",
        "deployments/ ",
        "services/ ",
        "horizontalpodautoscalers/ ",
        "poddisruptionbudgets/ ",
    ];
    // A conflict is an object that changed meanwhile, as Deployments do: it is judged anew.
    all.retain(|write| {
        let is_it = kinds.iter().any(|kind| write.text.contains(kind));
        is_it && !write.text.ends_with(" 409")
    });
    Ok(all)
}

fn texts(all: &[common::Write]) -> Vec<&str> {
    all.iter().map(|write| write.text.as_str()).collect()
}

/// Severity, code and Gateway of findings that are about deployments.
async fn findings(replica: &Replica) -> anyhow::Result<Vec<String>> {
    let all: Value = serde_json::from_str(&replica.page("/debug/findings").await?)?;
    let all = all.as_array().context("no list")?.iter();
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<String> = all
        .filter(|it| text(it, "code").starts_with("gw-deployment"))
        .map(|it| {
            let (severity, code) = (text(it, "severity"), text(it, "code"));
            format!("{severity} {code} {}", text(it, "name"))
        })
        .collect();
    all.sort();
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_run_as_what_they_ask_for_and_only_that() -> anyhow::Result<()> {
    let cluster = prepared().await?;
    until("objects are taken", || cluster.apply(GATEWAYS).map(drop)).await?;
    two_defaults(&cluster).await?;
    let mut a = Replica::start(&cluster, "a", &LEASE)?;
    a.wait_well(SOON).await?;

    everything_is_made(&cluster).await?;
    others_are_left_alone(&cluster, &a).await?;
    shapes(&cluster)?;
    what_is_edited_comes_back(&cluster).await?;
    overlays_that_end_leave_what_they_made(&cluster).await?;
    one_writes_and_a_restart_writes_nothing(&cluster, &mut a).await?;
    gateways_take_all_with_them(&cluster).await
}

/// What is printed of files has no owner, for a Gateway of files has no uid.
#[test]
fn what_a_gateway_of_files_would_run_as_is_printed() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("gateways.yaml"), GATEWAYS)?;
    let render = |gateway: &str, more: &[&str]| -> anyhow::Result<Value> {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ambientd"))
            .args(["render", "--config-dir"])
            .arg(dir.path())
            .args(["--for", &format!("deployment/shop/{gateway}")])
            .args(more)
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let list = render("scaled", &["--gateway-agent-image=mine:1"])?;
    let items = list["items"].as_array().context("no list")?;
    let kinds: Vec<&str> = items.iter().filter_map(|it| it["kind"].as_str()).collect();
    let wanted = [
        "ServiceAccount",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    ];
    ensure!(kinds == wanted, "{kinds:?}");
    ensure!(
        items
            .iter()
            .all(|it| it["metadata"]["ownerReferences"].is_null())
    );
    let pod = &items[1]["spec"]["template"]["spec"];
    ensure!(pod["initContainers"][0]["image"] == "mine:1", "{pod}");
    let istio = render("scaled", &["--gateway-proxy=istio"])?;
    let pod = &istio["items"][1]["spec"]["template"]["spec"];
    ensure!(pod["initContainers"].is_null(), "{pod}");
    for gateway in ["newer", "manual", "foreign"] {
        let none = render(gateway, &[])?;
        ensure!(none["items"] == json!([]), "{gateway} {none}");
    }
    ensure!(render("nowhere", &[]).is_err());
    Ok(())
}

/// 19: the older ConfigMap with defaults counts, whatever they are called.
async fn two_defaults(cluster: &Cluster) -> anyhow::Result<()> {
    for (name, value) in [("z-older", "older"), ("a-newer", "newer")] {
        let deployment = json!({"metadata": {"labels": {"defaults": value, "both": "class"}}});
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name, "namespace": "istio-system",
                "labels": {"gateway.istio.io/defaults-for-class": "edge"},
            },
            "data": {"deployment": deployment.to_string()},
        });
        cluster.apply(&map.to_string())?;
        // Ages are in seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    Ok(())
}

async fn everything_is_made(cluster: &Cluster) -> anyhow::Result<()> {
    until("1, 3, 5, 6, 9, 11, 13: what Gateways run as", || {
        runs(cluster, "gw-istio", "gw-istio")?;
        runs(cluster, "g-edge", "g-edge")?;
        runs(cluster, "wp", "x")?;
        runs(cluster, "mine-istio", "mine-istio")?;
        runs(cluster, "scaled-istio", "scaled-istio")?;
        get(cluster, "hpa/scaled-istio")?;
        get(cluster, "pdb/scaled-istio")?;
        // Only these two are made for it.
        get(cluster, "serviceaccount/own-istio")?;
        get(cluster, "deployment/own-istio").map(drop)
    })
    .await?;
    until("22: the Gateway says who runs it", || {
        let gateway = get(cluster, "gateway.gateway.networking.k8s.io/gw")?;
        let version = &gateway["metadata"]["annotations"]["gateway.istio.io/controller-version"];
        ensure!(*version == "5", "{version}");
        Ok(())
    })
    .await
}

async fn others_are_left_alone(cluster: &Cluster, replica: &Replica) -> anyhow::Result<()> {
    writes(cluster).await?;
    for name in [
        "newer", "odd", "theirs", "foreign", "manual", "lost", "daemon", "renamed",
    ] {
        let class = if name == "foreign" { "other" } else { "istio" };
        for kind in ["serviceaccount", "deployment", "service"] {
            let what = format!("{kind}/{name}-{class}");
            ensure!(!is_there(cluster, &what), "{what} is there");
        }
    }
    // 7: without the label it is not touched.
    let own = get(cluster, "service/own-istio")?;
    ensure!(own["spec"]["ports"][0]["port"] == 7777, "{own}");
    ensure!(own["metadata"]["ownerReferences"].is_null(), "{own}");
    // 22: who is newer keeps its version.
    let newer = get(cluster, "gateway.gateway.networking.k8s.io/newer")?;
    let version = &newer["metadata"]["annotations"]["gateway.istio.io/controller-version"];
    ensure!(*version == "6", "{version}");
    let told = findings(replica).await?;
    let wanted = [
        "error gw-deployment-render daemon",
        "error gw-deployment-render renamed",
        "info gw-deployment-foreign own",
        "warning gw-deployment-left newer",
        "warning gw-deployment-left odd",
    ];
    ensure!(told == wanted, "{told:#?}");
    Ok(())
}

fn shapes(cluster: &Cluster) -> anyhow::Result<()> {
    let uid = |what: &str| -> anyhow::Result<Value> {
        Ok(get(cluster, what)?["metadata"]["uid"].clone())
    };
    let gw = uid("gateway.gateway.networking.k8s.io/gw")?;
    for kind in ["serviceaccount", "deployment", "service"] {
        let what = format!("{kind}/gw-istio");
        let object = common::get(cluster, "shop", &[&what, "--show-managed-fields"])?;
        let owners = &object["metadata"]["ownerReferences"];
        let owner = json!([{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "name": "gw", "uid": gw,
        }]);
        ensure!(*owners == owner, "{owners}");
        // 11 and 12
        let labels = &object["metadata"]["labels"];
        let wanted = json!({
            "team": "red",
            "istio.io/dataplane-mode": "none",
            "gateway.networking.k8s.io/gateway-name": "gw",
            "gateway.networking.k8s.io/gateway-class-name": "istio",
            "gateway.istio.io/managed": "istio.io-gateway-controller",
        });
        ensure!(*labels == wanted, "{kind} {labels}");
        let managers = object["metadata"]["managedFields"].as_array();
        let mut managers = managers.into_iter().flatten();
        ensure!(managers.any(|it| it["manager"] == "istio.io/gateway-controller"));
    }
    // 20, 21
    let ports = |service: &str| -> anyhow::Result<Vec<String>> {
        let service = get(cluster, &format!("service/{service}"))?;
        let ports = service["spec"]["ports"].as_array().context("none")?.clone();
        let text = |port: &Value| format!("{} {}", port["name"], port["port"]).replace('"', "");
        Ok(ports.iter().map(text).collect())
    };
    let all = ports("gw-istio")?;
    ensure!(
        all == ["status-port 15021", "a 80", "secure 443"],
        "{all:?}"
    );
    let all = ports("mine-istio")?;
    ensure!(
        all == ["status-port 15021", "a-b 80", "a-b-81 81"],
        "{all:?}"
    );
    let all = ports("x")?;
    ensure!(all == ["status-port 15021", "mesh 15008"], "{all:?}");
    // 5, 9
    for (service, ty) in [
        ("gw-istio", "LoadBalancer"),
        ("x", "ClusterIP"),
        ("mine-istio", "ClusterIP"),
    ] {
        let object = get(cluster, &format!("service/{service}"))?;
        ensure!(object["spec"]["type"] == ty, "{service} {}", object["spec"]);
    }
    // 13
    let mine = get(cluster, "deployment/mine-istio")?;
    let mode = &mine["spec"]["template"]["metadata"]["labels"]["istio.io/dataplane-mode"];
    ensure!(*mode == "ambient", "{mode}");
    // 19
    let edge = get(cluster, "deployment/g-edge")?;
    let labels = &edge["metadata"]["labels"];
    ensure!(
        labels["defaults"] == "older" && labels["both"] == "gateway",
        "{labels}"
    );
    // 17
    let scaled = get(cluster, "hpa/scaled-istio")?;
    ensure!(scaled["spec"]["maxReplicas"] == 4, "{scaled}");
    ensure!(
        scaled["spec"]["scaleTargetRef"]["name"] == "scaled-istio",
        "{scaled}"
    );
    let budget = get(cluster, "pdb/scaled-istio")?;
    let selector = &budget["spec"]["selector"]["matchLabels"];
    ensure!(
        *selector == json!({"gateway.networking.k8s.io/gateway-name": "scaled"}),
        "{budget}"
    );
    Ok(())
}

/// 8
async fn what_is_edited_comes_back(cluster: &Cluster) -> anyhow::Result<()> {
    let image = |object: &Value| {
        let containers = &object["spec"]["template"]["spec"]["containers"];
        containers[0]["image"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let before = image(&get(cluster, "deployment/gw-istio")?);
    let patch = json!({
        "metadata": {"labels": {"theirs": "kept", "team": "blue"}},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [
            {"name": "istio-proxy", "image": "example.com/other:1"},
            {"name": "helper", "image": "example.com/helper:1"},
        ]}}},
    });
    let patch = patch.to_string();
    cluster.kubectl(&["-n", "shop", "patch", "deployment/gw-istio", "-p", &patch])?;
    until(
        "what is edited is put right, and what is of others stays",
        || {
            let now = get(cluster, "deployment/gw-istio")?;
            ensure!(image(&now) == before, "{}", image(&now));
            ensure!(
                now["metadata"]["labels"]["team"] == "red",
                "{}",
                now["metadata"]
            );
            ensure!(
                now["metadata"]["labels"]["theirs"] == "kept",
                "{}",
                now["metadata"]
            );
            ensure!(now["spec"]["replicas"] == 3, "{}", now["spec"]["replicas"]);
            let containers = &now["spec"]["template"]["spec"]["containers"];
            ensure!(containers[1]["name"] == "helper", "{containers}");
            Ok(())
        },
    )
    .await?;
    for what in [
        "service/gw-istio",
        "serviceaccount/gw-istio",
        "hpa/scaled-istio",
    ] {
        let old = get(cluster, what)?["metadata"]["uid"].clone();
        cluster.kubectl(&["-n", "shop", "delete", what])?;
        until(&format!("{what} comes back"), || {
            let uid = &get(cluster, what)?["metadata"]["uid"];
            ensure!(*uid != old, "the old one");
            Ok(())
        })
        .await?;
    }
    // Who takes the label away takes the object.
    let label = "gateway.istio.io/managed-";
    cluster.kubectl(&["-n", "shop", "label", "service/g-edge", label])?;
    let patch = json!({"spec": {"type": "NodePort"}}).to_string();
    cluster.kubectl(&["-n", "shop", "patch", "service/g-edge", "-p", &patch])?;
    writes(cluster).await?;
    let service = get(cluster, "service/g-edge")?;
    ensure!(service["spec"]["type"] == "NodePort", "{service}");
    let label = "gateway.istio.io/managed=again";
    cluster.kubectl(&["-n", "shop", "label", "service/g-edge", label])?;
    until("with the label it is ours again", || {
        let service = get(cluster, "service/g-edge")?;
        ensure!(
            service["spec"]["type"] == "LoadBalancer",
            "{}",
            service["spec"]
        );
        let label = &service["metadata"]["labels"]["gateway.istio.io/managed"];
        ensure!(*label == "istio.io-gateway-controller", "{label}");
        Ok(())
    })
    .await
}

/// 14, 17, 18
async fn overlays_that_end_leave_what_they_made(cluster: &Cluster) -> anyhow::Result<()> {
    let map = [
        "-n",
        "shop",
        "patch",
        "configmap/scaled",
        "--type=merge",
        "-p",
    ];
    let patch = json!({"data": {
        "horizontalPodAutoscaler": null,
        "deployment": json!({"spec": {"minReadySeconds": 7}}).to_string(),
    }});
    cluster.kubectl(&[&map[..], &[&patch.to_string()]].concat())?;
    until("the overlay that is new has its effect", || {
        let now = get(cluster, "deployment/scaled-istio")?;
        ensure!(now["spec"]["minReadySeconds"] == 7, "{}", now["spec"]);
        Ok(())
    })
    .await?;
    writes(cluster).await?;
    get(cluster, "hpa/scaled-istio").context("17: it remains")?;
    cluster.kubectl(&["-n", "shop", "delete", "configmap/scaled"])?;
    writes(cluster).await?;
    let now = get(cluster, "deployment/scaled-istio")?;
    ensure!(now["spec"]["minReadySeconds"] == 7, "14: {}", now["spec"]);
    Ok(())
}

async fn one_writes_and_a_restart_writes_nothing(
    cluster: &Cluster,
    a: &mut Replica,
) -> anyhow::Result<()> {
    let mut b = Replica::start(cluster, "b", &LEASE)?;
    b.wait_well(SOON).await?;
    let before = writes(cluster).await?;
    let gateway = "gateway.gateway.networking.k8s.io/mine";
    let patch = json!({"spec": {"infrastructure": {"labels": {"new": "1"}}}}).to_string();
    cluster.kubectl(&["-n", "shop", "patch", gateway, "--type=merge", "-p", &patch])?;
    until("a label goes everywhere", || {
        let service = get(cluster, "service/mine-istio")?;
        ensure!(service["metadata"]["labels"]["new"] == "1", "{service}");
        Ok(())
    })
    .await?;
    let after = writes(cluster).await?;
    let new = &after[before.len()..];
    ensure!(new.len() == 3, "{:#?}", texts(new));
    ensure!(
        new.iter().all(|write| write.credential == a.credential),
        "b writes too"
    );

    // The next leader, and one that is started anew, find everything as it should be.
    a.kill()?;
    until("b leads", || {
        let lease = common::get(cluster, common::SYSTEM, &["lease/istio-status-leader"])?;
        ensure!(lease["spec"]["holderIdentity"] == "b", "{}", lease["spec"]);
        Ok(())
    })
    .await?;
    b.kill()?;
    a.spawn()?;
    a.wait_well(SOON).await?;
    until("a leads", || {
        let lease = common::get(cluster, common::SYSTEM, &["lease/istio-status-leader"])?;
        ensure!(lease["spec"]["holderIdentity"] == "a", "{}", lease["spec"]);
        Ok(())
    })
    .await?;
    let last = writes(cluster).await?;
    ensure!(
        last.len() == after.len(),
        "{:#?}",
        texts(&last[after.len()..])
    );
    Ok(())
}

/// 24
async fn gateways_take_all_with_them(cluster: &Cluster) -> anyhow::Result<()> {
    let before = writes(cluster).await?;
    let all = ["delete", "gateways.gateway.networking.k8s.io", "--all"];
    cluster.kubectl(&[&["-n", "shop"], &all[..]].concat())?;
    until("nothing is left", || {
        let kinds = "deployments,services,serviceaccounts,hpa,pdb";
        let left = common::get(
            cluster,
            "shop",
            &[kinds, "-l", "gateway.networking.k8s.io/gateway-name"],
        )?;
        let left = left["items"].as_array().context("no list")?;
        let names: Vec<&Value> = left.iter().map(|it| &it["metadata"]["name"]).collect();
        ensure!(names.is_empty(), "{names:?}");
        Ok(())
    })
    .await?;
    let after = writes(cluster).await?;
    ensure!(
        after.len() == before.len(),
        "{:#?}",
        texts(&after[before.len()..])
    );
    ensure!(
        is_there(cluster, "service/own-istio"),
        "it is the user's own"
    );
    Ok(())
}
