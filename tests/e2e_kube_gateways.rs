//! The gateway guides in a real cluster: ambientd deploys what each Gateway asks for, stock Envoy
//! under its agent comes up and is configured, status says where, and clients outside are answered.
//!
//! The worlds live beside the checkout, or where `AMBIENTD_GUIDES` says. No ztunnel runs here, so
//! workloads are reached in plain text; gateways and waypoints speak HBONE with each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;
#[path = "kube/guides.rs"]
mod guides;
#[path = "kube/outside.rs"]
mod outside;

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use http::Method;
use rcgen::CertifiedKey;
use serde_json::{Value, json};
use testkit::cluster::Cluster;
use testkit::http_client::HttpResponse;
use testkit::wait;

use common::{SOON, SYSTEM, cluster, conditions, get, install, nothing_was_refused, until};
use guides::{GATEWAY_NAME, own};
use outside::Outside;

/// What pods of gateways have besides ambientd, by the name of Envoy's own image.
const ENVOY: &str = "envoy";
/// A gRPC server and the way to it, which no guide has at an ingress Gateway.
const CALLS: &str = "
- {apiVersion: v1, kind: Service, metadata: {name: calls, namespace: bookinfo-18}, spec: {selector: {app: ratings}, ports: [{name: grpc, port: 9080}]}}
- apiVersion: gateway.networking.k8s.io/v1
  kind: GRPCRoute
  metadata: {name: calls, namespace: bookinfo-18}
  spec:
    parentRefs: [{name: bookinfo-gateway, sectionName: http}]
    hostnames: [calls.example.com]
    rules: [{matches: [{method: {service: shop.Till, method: Ring}}], backendRefs: [{name: calls, port: 9080}]}]
";

#[tokio::test(flavor = "multi_thread")]
async fn gateways_of_the_guides_run_and_answer_who_is_outside() -> anyhow::Result<()> {
    let Some(guides) = guides::guides() else {
        let line =
            "no guides beside this checkout and AMBIENTD_GUIDES is not set: nothing was checked";
        assert!(std::env::var_os("CI").is_none(), "{line}");
        println!("{line}");
        return Ok(());
    };
    let envoy = testkit::envoy::binary()?.display().to_string();
    let cluster = cluster(2, [(ENVOY.to_owned(), envoy)]).await?;
    install(&cluster)?;
    let numbers = guides::with_ingress(&guides)?;
    ensure!(
        numbers == ["18", "19", "23", "24", "25", "30", "35", "39"],
        "{numbers:?}"
    );
    let mut objects: Vec<Value> = serde_saphyr::from_str(CALLS)?;
    for number in &numbers {
        objects.extend(guides::objects(&guides, number)?);
    }
    apply(&cluster, objects)?;

    let ran = Box::pin(everything_answers(&cluster)).await;
    if let Err(error) = ran {
        return Err(error.context(state(&cluster)));
    }
    nothing_stays(&cluster).await?;
    nothing_was_refused(&cluster)
}

async fn everything_answers(cluster: &Cluster) -> anyhow::Result<()> {
    all_are_programmed(cluster).await?;
    Box::pin(http_and_grpc(cluster)).await?;
    Box::pin(https_with_a_secret_that_changes(cluster)).await?;
    Box::pin(passed_through(cluster)).await?;
    Box::pin(plain_connections(cluster)).await?;
    Box::pin(through_the_waypoint(cluster)).await?;
    Box::pin(only_what_is_granted(cluster)).await?;
    Box::pin(other_guides(cluster)).await?;
    all_is_managed_stock_envoy(cluster)?;
    nothing_was_nacked(cluster)
}

/// Namespaces first, for the rest is in them.
fn apply(cluster: &Cluster, objects: Vec<Value>) -> anyhow::Result<()> {
    let (first, rest): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| object["kind"] == "Namespace");
    for items in [first, rest] {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        cluster.kubectl_with(&["apply", "-f", "-"], &list.to_string())?;
    }
    Ok(())
}

/// Everything that somebody needs who looks for the reason of a failure.
fn state(cluster: &Cluster) -> String {
    let ask = |args: &[&str]| {
        cluster
            .kubectl(args)
            .unwrap_or_else(|error| format!("{error:#}"))
    };
    let mut text = ask(&[
        "get",
        "pods,deployments,services,gateways",
        "-A",
        "-o",
        "wide",
    ]);
    text += &ask(&["get", "events", "-A", "--field-selector=type=Warning"]);
    text += &ask(&["-n", SYSTEM, "logs", "deployment/istiod", "--tail=40"]);
    let list = ask(&["get", "pods", "-A", "-l", GATEWAY_NAME, "-o", "json"]);
    let list: Value = serde_json::from_str(&list).unwrap_or_default();
    for pod in items(&list) {
        if pod["status"]["containerStatuses"][0]["ready"] == true {
            continue;
        }
        let text_of = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let (ns, name) = (text_of("namespace"), text_of("name"));
        text.extend(["\n", ns, "/", name, "\n"]);
        text += &ask(&["-n", ns, "logs", name, "--all-containers", "--tail=20"]);
    }
    text
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// Waits for an answer from outside.
async fn answered<F>(what: &str, look: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let began = std::time::Instant::now();
    wait::until(what, SOON, look).await?;
    println!("{what}: after {:?}", began.elapsed());
    Ok(())
}

fn is_from(answer: &HttpResponse, pod: &str) -> anyhow::Result<()> {
    let text = answer.text();
    ensure!(answer.status == 200, "{}: {text}", answer.status);
    ensure!(answer.json()?["pod"] == pod, "{text}");
    Ok(())
}

/// Every Gateway is programmed and has an address, save the one that is broken.
async fn all_are_programmed(cluster: &Cluster) -> anyhow::Result<()> {
    until("all Gateways are programmed", || {
        let list = get(cluster, "", &["gateways", "-A"])?;
        let mut count = 0;
        for gateway in items(&list) {
            let name = gateway["metadata"]["name"].as_str().unwrap_or_default();
            let said = conditions(gateway);
            let has = |wanted: &str| said.iter().any(|one| one == wanted);
            if name == "broken-gateway" {
                ensure!(has("Accepted=False/ListenersNotValid"), "{name}: {said:?}");
                continue;
            }
            ensure!(has("Programmed=True/Programmed"), "{name}: {said:?}");
            let addresses = gateway["status"]["addresses"].as_array();
            ensure!(
                addresses.is_some_and(|all| !all.is_empty()),
                "{name}: no address"
            );
            count += 1;
        }
        ensure!(count == 15, "{count} Gateways");
        Ok(())
    })
    .await
}

async fn http_and_grpc(cluster: &Cluster) -> anyhow::Result<()> {
    let gateway = Outside::of(cluster, &own("bookinfo", "18"), "bookinfo-gateway")?;
    let host = "bookinfo.example.com";
    answered("HTTP", || async {
        is_from(&gateway.get(host, "/productpage").await?, "productpage")
    })
    .await?;
    is_from(&gateway.get(host, "/productpage/x").await?, "productpage")?;
    for (host, path) in [
        (host, "/productpages"),
        (host, "/"),
        ("other.example.com", "/productpage"),
    ] {
        let answer = gateway.get(host, path).await?;
        ensure!(answer.status == 404, "{host}{path}: {}", answer.status);
    }
    answered("gRPC", || async {
        let (answer, trailers) = gateway.call("calls.example.com", "/shop.Till/Ring").await?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(trailers["grpc-status"] == "0", "{trailers:?}");
        ensure!(answer.headers["x-pod"] == "ratings", "{answer:?}");
        Ok(())
    })
    .await
}

/// The Secret's own certificate is shown, and its successor without a restart.
async fn https_with_a_secret_that_changes(cluster: &Cluster) -> anyhow::Result<()> {
    let ns = own("bookinfo", "18");
    let gateway = Outside::of(cluster, &ns, "bookinfo-gateway")?;
    let host = "bookinfo.example.com";
    let secret = get(cluster, &ns, &["secret", "bookinfo-tls"])?;
    let pem = secret["data"]["tls.crt"].as_str();
    let pem = String::from_utf8(base64_decoded(pem.context("no certificate")?)?)?;
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let old = base64_decoded(&lines.collect::<String>())?;
    let pods_before = proxies(cluster, &ns)?;
    answered("HTTPS", || async {
        let (answer, shown) = gateway.get_tls(host, "/productpage").await?;
        is_from(&answer, "productpage")?;
        ensure!(*shown == *old, "another certificate");
        Ok(())
    })
    .await?;
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([host.to_owned()])?;
    let new = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bookinfo-tls", "namespace": ns},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": cert.pem(), "tls.key": signing_key.serialize_pem()},
    });
    cluster.kubectl_with(&["apply", "-f", "-"], &new.to_string())?;
    answered("HTTPS with the new Secret", || async {
        let (answer, shown) = gateway.get_tls(host, "/productpage").await?;
        is_from(&answer, "productpage")?;
        ensure!(shown == *cert.der(), "the old certificate");
        Ok(())
    })
    .await?;
    let pods = proxies(cluster, &ns)?;
    ensure!(pods == pods_before, "{pods:?} instead of {pods_before:?}");
    Ok(())
}

fn base64_decoded(text: &str) -> anyhow::Result<Vec<u8>> {
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
}

/// Pods of gateways with how often they were restarted.
fn proxies(cluster: &Cluster, ns: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let list = get(cluster, ns, &["pods", "-l", GATEWAY_NAME])?;
    let pod = |pod: &Value| {
        let uid = pod["metadata"]["uid"].as_str()?.to_owned();
        Some((
            uid,
            pod["status"]["containerStatuses"][0]["restartCount"].as_u64()?,
        ))
    };
    items(&list)
        .map(|it| pod(it).context("no status"))
        .collect()
}

/// By its name in the greeting alone: the gateway has no certificate for it.
async fn passed_through(cluster: &Cluster) -> anyhow::Result<()> {
    let gateway = Outside::of(cluster, &own("bookinfo", "23"), "bookinfo-gateway")?;
    answered("TLS passed through", || async {
        let (answer, shown) = gateway.get_tls("secure-api.example.com", "/").await?;
        is_from(&answer, "secure-api")?;
        let is_its_own = shown.windows(10).any(|part| part == b"secure-api");
        ensure!(is_its_own, "not the certificate of the pod");
        Ok(())
    })
    .await?;
    let other = gateway.tls("other-api.example.com").await;
    ensure!(other.is_err(), "nobody has this name");
    Ok(())
}

/// Nine of ten connections go to one of two servers, which speak first.
async fn plain_connections(cluster: &Cluster) -> anyhow::Result<()> {
    let gateway = Outside::of(cluster, "data", "db-gateway")?;
    answered("TCP", || async { gateway.first_line(5432).await.map(drop) }).await?;
    let mut shares = BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        *shares.entry(gateway.first_line(5432).await?).or_default() += 1;
    }
    println!("TCP: {shares:?}");
    let share = |pod: &str| shares.get(pod).copied().unwrap_or_default();
    ensure!(
        share("postgres") + share("postgres-new") == 200,
        "{shares:?}"
    );
    ensure!((160..=198).contains(&share("postgres")), "{shares:?}");
    Ok(())
}

/// Where a Service asks for it, its waypoint enforces what it has; else it is walked around.
async fn through_the_waypoint(cluster: &Cluster) -> anyhow::Result<()> {
    let gateway = Outside::of(cluster, &own("bookinfo", "19"), "bookinfo-gateway")?;
    let host = "bookinfo.example.com";
    answered("HTTP through the waypoint", || async {
        is_from(&gateway.get(host, "/ratings/1").await?, "ratings")
    })
    .await?;
    answered("the waypoint's refusal", || async {
        let answer = gateway.ask(Method::POST, host, "/ratings/1").await?;
        ensure!(answer.status == 403, "{}", answer.status);
        Ok(())
    })
    .await?;
    let answer = gateway.ask(Method::POST, host, "/reviews/1").await?;
    ensure!(answer.status == 200, "{}", answer.status);
    Ok(())
}

async fn only_what_is_granted(cluster: &Cluster) -> anyhow::Result<()> {
    let gateway = Outside::of(cluster, &own("bookinfo", "25"), "bookinfo-gateway")?;
    answered("what is granted", || async {
        is_from(&gateway.get("granted.example.com", "/").await?, "api")
    })
    .await?;
    let answer = gateway.get("closed.example.com", "/").await?;
    ensure!(answer.status == 500, "{}", answer.status);
    let mut good = 0;
    for _ in 0..100 {
        let answer = gateway.get("half.example.com", "/").await?;
        ensure!(
            [200, 500].contains(&answer.status.as_u16()),
            "{}",
            answer.status
        );
        good += u32::from(answer.status == 200);
    }
    ensure!((30..=70).contains(&good), "{good} of 100 were answered");
    Ok(())
}

async fn other_guides(cluster: &Cluster) -> anyhow::Result<()> {
    let public = Outside::of(cluster, "istio-ingress", "public")?;
    for (host, pod) in [
        ("api.example.com", "example-api"),
        ("worker.example.com", "example-worker"),
    ] {
        answered(host, || async {
            is_from(&public.get(host, "/").await?, pod)
        })
        .await?;
    }
    for host in ["admin.example.com", "kiali.example.com"] {
        let answer = public.get(host, "/").await?;
        ensure!(answer.status == 404, "{host}: {}", answer.status);
    }
    // A VirtualService is nothing to a Gateway of the Gateway API.
    let shop = Outside::of(cluster, &own("shop", "30"), "shop-gateway")?;
    let answer = shop.get("shop.example.com", "/").await?;
    ensure!(answer.status == 404, "{}", answer.status);
    let shop = Outside::of(cluster, &own("shop", "35"), "shop-gateway")?;
    answered("the shop", || async {
        let answer = shop.get("anything.example.com", "/").await?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    })
    .await
}

/// Each pod is of a Deployment that belongs to its Gateway, and runs what it should as who it
/// should.
fn all_is_managed_stock_envoy(cluster: &Cluster) -> anyhow::Result<()> {
    let list = get(cluster, "", &["deployments", "-A", "-l", GATEWAY_NAME])?;
    let mut count = 0;
    for deployment in items(&list) {
        let owner = &deployment["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "Gateway", "{owner}");
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        ensure!(
            container["command"] == json!(["/agent/ambientd"]),
            "{container}"
        );
        let image = container["image"].as_str().unwrap_or_default();
        ensure!(image.contains("envoyproxy/envoy:"), "{image}");
        ensure!(pod["initContainers"][0]["name"] == "agent-install", "{pod}");
        count += 1;
    }
    ensure!(count == 16, "{count} Deployments");
    Ok(())
}

/// No proxy has refused anything, as ambientd says.
fn nothing_was_nacked(cluster: &Cluster) -> anyhow::Result<()> {
    let url = "http://127.0.0.1:15014/debug/syncz";
    let exec = ["-n", SYSTEM, "exec", "deployment/istiod", "--"];
    let text = cluster.kubectl(&[&exec[..], &["curl", "-sS", "-m", "10", url]].concat())?;
    let page: Value = serde_json::from_str(&text)?;
    let proxies = page.as_array().context("no list")?;
    ensure!(proxies.len() >= 16, "{} proxies", proxies.len());
    for proxy in proxies {
        for (url, one) in proxy["resources"].as_object().into_iter().flatten() {
            ensure!(
                one["lastError"].is_null(),
                "{}: {url}: {one}",
                proxy["proxy"]
            );
        }
    }
    Ok(())
}

/// When the Gateways are gone, so is all that was made for them.
async fn nothing_stays(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl(&["delete", "gateways", "-A", "--all"])?;
    let kinds = "deployments,services,serviceaccounts,pods,endpointslices,horizontalpodautoscalers,poddisruptionbudgets";
    until("nothing is left of Gateways", || {
        let list = get(cluster, "", &[kinds, "-A", "-l", GATEWAY_NAME])?;
        let left: Vec<String> = items(&list)
            .map(|one| format!("{} {}", one["kind"], one["metadata"]["name"]))
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}
