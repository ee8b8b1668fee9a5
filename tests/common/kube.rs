//! ambientd in a test cluster as its manifests have it, and what the API server saw of it.

#![allow(dead_code, unused_imports, reason = "every test uses its part")]

mod audit;
pub(crate) mod relay;
pub(crate) mod replica;
pub(crate) mod streams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use testkit::ads::XdsTarget;
use testkit::cluster::{Cluster, Options};
use testkit::wait;

pub(crate) use audit::{Asked, Write, asked, nothing_was_refused, settled, writes};
pub(crate) use replica::ACCOUNT;

/// More than anything needs, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Where ambientd is.
pub(crate) const SYSTEM: &str = "istio-system";
/// Namespace of the sample.
pub(crate) const APP: &str = "bookinfo";
/// The Deployments of the sample.
pub(crate) const DEPLOYMENTS: [&str; 7] = [
    "client",
    "details-v1",
    "productpage-v1",
    "ratings-v1",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
];

/// A directory or file of the manifests.
pub(crate) fn manifest(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("manifests")
        .join(path);
    path.to_str().unwrap().to_owned()
}

/// A cluster without nodes.
pub(crate) async fn control_plane() -> anyhow::Result<Cluster> {
    Cluster::start(Options::control_plane()).await
}

/// A cluster without nodes that has the definitions and ambientd's account, for replicas that run
/// elsewhere.
pub(crate) async fn prepared() -> anyhow::Result<Cluster> {
    let cluster = control_plane().await?;
    apply_definitions(&cluster)?;
    apply_account(&cluster)?;
    Ok(cluster)
}

/// Writes a status as somebody else who takes over what is in his way.
pub(crate) fn overwrite_status(cluster: &Cluster, object: &str) -> anyhow::Result<()> {
    let args = ["apply", "--server-side", "--force-conflicts"];
    let whose = ["--subresource=status", "--field-manager=auditor", "-f", "-"];
    let written = cluster.kubectl_with(&[&args[..], &whose].concat(), object);
    written.map(drop)
}

/// A cluster whose image `ambientd` is the binary under test.
pub(crate) async fn cluster(
    nodes: usize,
    images: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<Cluster> {
    let own = env!("CARGO_BIN_EXE_ambientd").to_owned();
    let mut all = BTreeMap::from([("ambientd".to_owned(), own)]);
    all.extend(images);
    let options = Options {
        nodes,
        images: all,
        ..Options::default()
    };
    Cluster::start(options).await
}

/// Installs the definitions and ambientd, and waits until it is ready.
pub(crate) fn install(cluster: &Cluster) -> anyhow::Result<()> {
    apply_manifests(cluster)?;
    rolled_out(cluster, SYSTEM, "deployment/istiod")
}

/// The same without waiting.
pub(crate) fn apply_manifests(cluster: &Cluster) -> anyhow::Result<()> {
    apply_definitions(cluster)?;
    cluster.kubectl(&["apply", "-k", &manifest("overlays/test")])?;
    Ok(())
}

/// Defines the kinds of Istio and of the Gateway API, and waits until they may be used.
pub(crate) fn apply_definitions(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&["apply", "--server-side", "-k", &manifest("crds")])?;
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    cluster.kubectl(&[&established[..], &["--timeout=60s"]].concat())?;
    Ok(())
}

/// The account of ambientd and what it may do, for replicas that run elsewhere.
pub(crate) fn apply_account(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&["create", "namespace", SYSTEM])?;
    for file in ["service-account.yaml", "role.yaml", "cluster-role.yaml"] {
        let path = manifest(&format!("base/{file}"));
        cluster.kubectl(&["apply", "-n", SYSTEM, "-f", &path])?;
    }
    Ok(())
}

/// Waits until a claim holds; says after how long it did.
pub(crate) async fn until(
    claim: &str,
    mut holds: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    wait::until(claim, SOON, || std::future::ready(holds())).await?;
    println!("{claim}: after {:?}", began.elapsed());
    Ok(())
}

/// Waits until all replicas are there and ready.
pub(crate) fn rolled_out(cluster: &Cluster, ns: &str, what: &str) -> anyhow::Result<()> {
    let args = ["-n", ns, "rollout", "status", what, "--timeout=90s"];
    let Err(error) = cluster.kubectl(&args) else {
        return Ok(());
    };
    let pods = cluster.kubectl(&["-n", ns, "describe", "pods"]);
    let logs = cluster.kubectl(&["-n", ns, "logs", what, "--tail=40"]);
    Err(error.context(format!(
        "{}\n{}",
        pods.unwrap_or_default(),
        logs.unwrap_or_default()
    )))
}

/// An object, or a list of them, as JSON.
pub(crate) fn get(cluster: &Cluster, ns: &str, args: &[&str]) -> anyhow::Result<Value> {
    let args = [&["get", "-o", "json", "-n", ns], args].concat();
    Ok(serde_json::from_str(&cluster.kubectl(&args)?)?)
}

/// `type=status/reason` of each condition, sorted.
pub(crate) fn conditions(object: &Value) -> Vec<String> {
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let list = object["status"]["conditions"].as_array();
    let one = |it: &Value| {
        let (name, status) = (text(it, "type"), text(it, "status"));
        format!("{name}={status}/{}", text(it, "reason"))
    };
    let mut all: Vec<String> = list.into_iter().flatten().map(one).collect();
    all.sort();
    all
}

/// A token of an account, for the control plane.
pub(crate) fn token(cluster: &Cluster, ns: &str, account: &str) -> anyhow::Result<String> {
    token_with(cluster, ns, account, &[])
}

/// The same with more flags of `kubectl create token`.
pub(crate) fn token_with(
    cluster: &Cluster,
    ns: &str,
    account: &str,
    more: &[&str],
) -> anyhow::Result<String> {
    let args = ["create", "token", account, "-n", ns, "--audience=istio-ca"];
    let args = [&args, more].concat();
    Ok(cluster.kubectl(&args)?.trim().to_owned())
}

/// Where istiod serves xDS, for who shows this token.
pub(crate) fn xds(cluster: &Cluster, addr: SocketAddr, token: String) -> anyhow::Result<XdsTarget> {
    let map = get(cluster, SYSTEM, &["configmap", "istio-ca-root-cert"])?;
    let root = map["data"]["root-cert.pem"].as_str().context("no root")?;
    Ok(XdsTarget::Anonymous {
        addr,
        server_name: "istiod.istio-system.svc".to_owned(),
        root_pem: root.to_owned(),
        token: Some(token),
    })
}

/// A port of a Service's own address.
pub(crate) fn service(
    cluster: &Cluster,
    ns: &str,
    name: &str,
    port: u16,
) -> anyhow::Result<SocketAddr> {
    let found = get(cluster, ns, &["service", name])?;
    let ip = found["spec"]["clusterIP"].as_str().context("no address")?;
    Ok(SocketAddr::new(ip.parse()?, port))
}
