//! A waypoint that ambientd deploys: stock Envoy under `ambientd agent`.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::cluster::Cluster;

use crate::common::{ACCOUNT, SYSTEM, asked, conditions, get, manifest, rolled_out, until};
use crate::load::Load;
use crate::{APP, answered, ask, items, pods_of, said};

const NAME: &str = "waypoint";
const SELECTOR: &str = "gateway.networking.k8s.io/gateway-name=waypoint";
const IDENTITY: &str = "spiffe://cluster.local/ns/bookinfo/sa/waypoint";
/// What nothing but the waypoint answers.
const REFUSAL: &str = "RBAC: access denied";
const DETAILS: &str = "http://details:9080/";

/// The image of its pods, besides ambientd's own.
pub(crate) fn image() -> anyhow::Result<(String, String)> {
    let envoy = testkit::envoy::binary()?;
    Ok(("envoy".to_owned(), envoy.display().to_string()))
}

/// Its pod gets a certificate with its token and its configuration from ambientd, and takes all
/// of it.
pub(crate) async fn joins(cluster: &Cluster) -> anyhow::Result<()> {
    let reviews_before = token_reviews(cluster)?;
    cluster.kubectl(&["apply", "-k", &manifest("samples/waypoint")])?;
    until("a Deployment for it", || {
        get(cluster, APP, &["deployment", NAME]).map(drop)
    })
    .await?;
    rolled_out(cluster, APP, "deployment/waypoint")?;
    until("the review of its token", || {
        let count = token_reviews(cluster)?;
        ensure!(count > reviews_before, "{count} reviews");
        Ok(())
    })
    .await?;
    let pod = pod(cluster)?;
    for port in [15020, 15021] {
        let (code, body) = ask(cluster, &pod, &local(port, "healthz/ready"));
        ensure!(code == "200", "{port}: {code}: {body}");
    }
    let certificates = admin(cluster, &pod, "certs")?;
    ensure!(certificates.contains(IDENTITY), "{certificates}");

    until("its address", || {
        let gateway = get(cluster, APP, &["gateway", NAME])?;
        let said = conditions(&gateway);
        let is_programmed = said.iter().any(|it| it == "Programmed=True/Programmed");
        ensure!(is_programmed, "{said:?}");
        let addresses = gateway["status"]["addresses"].to_string();
        ensure!(
            addresses.contains("waypoint.bookinfo.svc.cluster.local"),
            "{addresses}"
        );
        Ok(())
    })
    .await?;
    use_waypoint(cluster, "istio.io/use-waypoint=waypoint")?;
    until("no finding that it is not ready", || {
        let found = debug(cluster, "findings")?;
        ensure!(!found.contains("wp-not-ready"), "{found}");
        Ok(())
    })
    .await?;
    takes_all(cluster, &pod).await
}

/// Its clients go through it, and it enforces what asks for HTTP.
pub(crate) async fn enforces(cluster: &Cluster) -> anyhow::Result<()> {
    let clients = pods_of(cluster, "client")?;
    let post = format!("-X POST {DETAILS}");
    for client in &clients {
        answered(cluster, client, DETAILS, "200").await?;
        refused(cluster, client, &post).await?;
    }
    let stranger = pods_of(cluster, "reviews")?.remove(0);
    refused(cluster, &stranger, DETAILS).await?;
    // Nobody goes past it.
    let list = get(cluster, APP, &["pods", "-l", "app=details"])?;
    for pod in items(&list) {
        let ip = pod["status"]["podIP"].as_str().context("no address")?;
        let url = format!("http://{ip}:9080/");
        answered(cluster, &clients[0], &url, "000").await?;
    }
    let load = Load::start(cluster, APP, clients, DETAILS);
    cluster.kubectl(&["-n", APP, "rollout", "restart", "deployment/waypoint"])?;
    rolled_out(cluster, APP, "deployment/waypoint")?;
    only_one_is_left(cluster).await?;
    let told = load.stop().await?;
    println!("waypoint replaced: {told:?}");
    ensure!(told.keys().all(|it| it == "200"), "failed: {told:?}");
    // Said when they end; it keeps those to pods, and its end has ended them.
    for side in ["src", "dst"] {
        let identity = format!("{side}.identity=\"{IDENTITY}\"");
        until(&format!("connections with it as {side}"), || {
            let log = said(cluster)?;
            let count = log.lines().filter(|line| line.contains(&identity)).count();
            ensure!(count > 0, "no connection");
            println!("{count} connections have the waypoint as {side}");
            Ok(())
        })
        .await?;
    }
    takes_all(cluster, &pod(cluster)?).await
}

/// Takes it away.
pub(crate) async fn leaves(cluster: &Cluster) -> anyhow::Result<()> {
    use_waypoint(cluster, "istio.io/use-waypoint-")?;
    cluster.kubectl(&["delete", "-k", &manifest("samples/waypoint")])?;
    until("no waypoint", || {
        let list = get(cluster, APP, &["pods", "-l", SELECTOR])?;
        ensure!(items(&list).count() == 0, "there is one");
        Ok(())
    })
    .await
}

fn use_waypoint(cluster: &Cluster, label: &str) -> anyhow::Result<String> {
    cluster.kubectl(&["label", "service", "details", "-n", APP, label])
}

async fn refused(cluster: &Cluster, pod: &str, url: &str) -> anyhow::Result<()> {
    until(&format!("a refusal of {url} for {pod}"), || {
        let (code, body) = ask(cluster, pod, url);
        ensure!(code == "403" && body == REFUSAL, "{code}: {body}");
        Ok(())
    })
    .await
}

/// Reviews of tokens that ambientd has asked for.
fn token_reviews(cluster: &Cluster) -> anyhow::Result<usize> {
    let all = asked(cluster, ACCOUNT)?;
    let of_tokens = all.iter().filter(|it| it.resource == "tokenreviews");
    Ok(of_tokens.filter(|it| it.code == 201).count())
}

/// Its only pod that is there to stay.
fn pod(cluster: &Cluster) -> anyhow::Result<String> {
    let list = get(cluster, APP, &["pods", "-l", SELECTOR])?;
    let mut alive = items(&list).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let name = alive.next().context("no waypoint")?["metadata"]["name"].as_str();
    ensure!(alive.next().is_none(), "more than one waypoint");
    Ok(name.context("no name")?.to_owned())
}

async fn only_one_is_left(cluster: &Cluster) -> anyhow::Result<()> {
    until("only the new waypoint", || {
        let list = get(cluster, APP, &["pods", "-l", SELECTOR])?;
        let count = items(&list).count();
        ensure!(count == 1, "{count} pods");
        Ok(())
    })
    .await
}

fn local(port: u16, path: &str) -> String {
    format!("http://127.0.0.1:{port}/{path}")
}

/// A page of Envoy's admin interface.
fn admin(cluster: &Cluster, pod: &str, path: &str) -> anyhow::Result<String> {
    let (code, body) = ask(cluster, pod, &local(15000, path));
    ensure!(code == "200", "{path}: {code}: {body}");
    Ok(body)
}

/// A debug page of ambientd.
fn debug(cluster: &Cluster, page: &str) -> anyhow::Result<String> {
    let pods = get(cluster, SYSTEM, &["pods", "-l", "app=istiod"])?;
    let pod = &items(&pods).next().context("no istiod")?["metadata"]["name"];
    let pod = format!("{SYSTEM}/{}", pod.as_str().context("no name")?);
    let (code, body) = ask(cluster, &pod, &local(15014, &format!("debug/{page}")));
    ensure!(code == "200", "{page}: {code}: {body}");
    Ok(body)
}

/// Envoy has what the service behind it needs, and has refused nothing; ambientd says the same.
async fn takes_all(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    until("all of its configuration", || {
        let page: Value = serde_json::from_str(&debug(cluster, "syncz")?)?;
        let mut proxies = page.as_array().into_iter().flatten();
        let named = |it: &&Value| it["proxy"].as_str().is_some_and(|it| it.contains(pod));
        let proxy = proxies.find(named).with_context(|| format!("{page:#}"))?;
        let types = proxy["resources"].as_object().context("no types")?;
        for short in ["Cluster", "Listener"] {
            let asked = types.keys().any(|it| it.ends_with(&format!(".{short}")));
            ensure!(asked, "{short} was not asked for: {proxy:#}");
        }
        for (url, it) in types {
            ensure!(it["lastError"].is_null(), "{url}: {it}");
            ensure!(it["sent"] == it["acked"], "{url}: {it}");
        }
        let clusters = admin(cluster, pod, "clusters")?;
        ensure!(clusters.contains("details.bookinfo.svc"), "{clusters}");
        Ok(())
    })
    .await?;
    let rejected = admin(cluster, pod, "stats?filter=update_rejected")?;
    let counts: Vec<&str> = rejected
        .lines()
        .filter_map(|line| Some(line.rsplit_once(": ")?.1))
        .collect();
    ensure!(
        counts.len() > 1 && counts.iter().all(|it| *it == "0"),
        "{rejected}"
    );
    let names = |page: &str| anyhow::Ok(admin(cluster, pod, page)?.lines().count());
    println!(
        "Envoy has taken {} listeners, and says {} lines of its clusters",
        names("listeners")?,
        names("clusters")?
    );
    Ok(())
}
