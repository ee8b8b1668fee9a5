//! What a real API server is told of Gateways, their classes and their routes: by the leader
//! alone, once, with what others say left as it is.
//! Source: spec/gateway-api.md §1.2, §1.3, §3.10, §4.5.

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
use testkit::wait;

use common::replica::Replica;
use common::{SOON, conditions, nothing_was_refused, prepared, settled, until};

const NS: &str = "shop";
const OURS: &str = "istio.io/gateway-controller";
const THEIRS: &str = "example.com/other";
/// A lease that does not last long after its holder.
const FLAGS: [&str; 1] = ["--lease-duration=6s"];
const QUIET: Duration = Duration::from_secs(6);

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  gatewayClassName: istio
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: theirs, namespace: shop}
spec:
  gatewayClassName: other
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec:
  parentRef: {name: door}
  listeners: [{name: more, port: 81, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: theirs}, {name: door}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: bytes, namespace: shop}
spec:
  parentRefs: [{name: door}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: sealed, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  hostnames: [web.shop.svc.cluster.local]
  rules: [{backendRefs: [{name: web, port: 80}]}]
"#;

fn get(cluster: &Cluster, what: &str) -> anyhow::Result<Value> {
    common::get(cluster, NS, &[what])
}

fn patch(cluster: &Cluster, what: &str, patch: &Value) -> anyhow::Result<()> {
    let patch = patch.to_string();
    let args = ["-n", NS, "patch", what, "--type=merge", "-p", &patch];
    cluster.kubectl(&args).map(drop)
}

/// Writes a status as anybody may who has the right to.
fn patch_status(cluster: &Cluster, what: &str, status: &Value) -> anyhow::Result<()> {
    let patch = json!({"status": status}).to_string();
    let args = ["-n", NS, "patch", what, "--subresource=status"];
    let args = [&args[..], &["--type=merge", "-p", &patch]].concat();
    cluster.kubectl(&args).map(drop)
}

/// `parent[/section] controller type=status/reason …` of each entry, in order.
fn parents(object: &Value) -> Vec<String> {
    let list = object["status"]["parents"].as_array();
    let one = |it: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut name = text(&it["parentRef"]["name"]);
        if let Some(section) = it["parentRef"]["sectionName"].as_str() {
            name = format!("{name}/{section}");
        }
        let said = conditions(&json!({"status": it}));
        let said: Vec<_> = said
            .into_iter()
            .filter(|it| !it.starts_with("Resolved"))
            .collect();
        format!("{name} {} {}", text(&it["controllerName"]), said.join(" "))
    };
    list.into_iter().flatten().map(one).collect()
}

async fn parents_are(cluster: &Cluster, what: &str, wanted: &[&str]) -> anyhow::Result<Value> {
    until(&format!("parents of {what} {wanted:?}"), || {
        let all = parents(&get(cluster, what)?);
        ensure!(all == wanted, "{all:?}");
        Ok(())
    })
    .await?;
    get(cluster, what)
}

fn theirs() -> Value {
    json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "theirs"},
        "controllerName": THEIRS,
        "conditions": [{"type": "Accepted", "status": "False", "reason": "Pending", "message": "m",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    })
}

async fn start(cluster: &Cluster, name: &str) -> anyhow::Result<Replica> {
    let replica = Replica::start(cluster, name, &FLAGS)?;
    replica.wait_well(SOON).await?;
    Ok(replica)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_says_once_what_becomes_of_gateways_and_routes() -> anyhow::Result<()> {
    let cluster = prepared().await?;
    until("objects are taken", || cluster.apply(OBJECTS).map(drop)).await?;
    let a = start(&cluster, "a").await?;
    everything_is_said(&cluster).await?;
    foreign_entries_stay(&cluster).await?;
    what_is_overwritten_is_mended(&cluster).await?;
    parents_come_and_go(&cluster).await?;
    long_names_are_written(&cluster).await?;

    // Nobody writes what is there, and who does not lead writes nothing.
    let before = statuses(&cluster).await?;
    let versions = versions(&cluster)?;
    let b = start(&cluster, "b").await?;
    let after = statuses(&cluster).await?;
    ensure!(after.len() == before.len(), "{:#?}", &after[before.len()..]);
    ensure!(
        self::versions(&cluster)? == versions,
        "something was written"
    );
    let strange = after.iter().find(|it| it.credential != a.credential);
    ensure!(strange.is_none(), "{strange:?}");
    drop(a);
    patch(
        &cluster,
        "tcproute/bytes",
        &json!({"spec": {"parentRefs": []}}),
    )?;
    parents_are(&cluster, "tcproute/bytes", &[]).await?;
    let all = statuses(&cluster).await?;
    let new: Vec<_> = all[after.len()..].iter().collect();
    ensure!(!new.is_empty(), "written by nobody");
    ensure!(
        new.iter().all(|it| it.credential == b.credential),
        "{new:?}"
    );
    let of_routes = new
        .iter()
        .filter(|it| it.text.ends_with("routes/status shop/bytes 200"));
    ensure!(of_routes.count() == 1, "{new:?}");
    nothing_was_refused(&cluster)
}

async fn everything_is_said(cluster: &Cluster) -> anyhow::Result<()> {
    until("the Gateway is accepted, with its listener", || {
        let gateway = get(cluster, "gateway.gateway.networking.k8s.io/door")?;
        let all = conditions(&gateway);
        for wanted in ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"] {
            ensure!(all.iter().any(|it| it == wanted), "{all:?}");
        }
        ensure!(
            all.iter()
                .any(|it| it.starts_with("Programmed=False/Address")),
            "{all:?}"
        );
        let listener = &gateway["status"]["listeners"][0];
        ensure!(
            listener["name"] == "http" && listener["attachedRoutes"] == 1,
            "{listener}"
        );
        let kinds = listener["supportedKinds"].to_string();
        ensure!(
            kinds.contains("HTTPRoute") && kinds.contains("GRPCRoute"),
            "{kinds}"
        );
        let said = conditions(&json!({"status": listener}));
        let wanted = [
            "Accepted=True/Accepted",
            "Conflicted=False/NoConflicts",
            "Programmed=True/Programmed",
            "ResolvedRefs=True/ResolvedRefs",
        ];
        ensure!(said == wanted, "{said:?}");
        ensure!(
            gateway["status"]["attachedListenerSets"] == 0,
            "{}",
            gateway["status"]
        );
        Ok(())
    })
    .await?;
    until("the ListenerSet is not allowed", || {
        let all = conditions(&get(cluster, "listenerset/more")?);
        ensure!(
            all == ["Accepted=False/NotAllowed", "Programmed=False/NotAllowed"],
            "{all:?}"
        );
        Ok(())
    })
    .await?;
    let accepted = |name: &str| format!("{name} {OURS} Accepted=True/Accepted");
    for (route, parent) in [
        ("httproute/web", "door"),
        ("grpcroute/calls", "web"),
        ("tlsroute/sealed", "web"),
    ] {
        parents_are(cluster, route, &[&accepted(parent)]).await?;
    }
    // TCP does not go where HTTP is spoken.
    let refused = format!("door {OURS} Accepted=False/NotAllowedByListeners");
    parents_are(cluster, "tcproute/bytes", &[&refused]).await?;
    // Of a class of somebody else nothing is said.
    let other = conditions(&get(cluster, "gateway.gateway.networking.k8s.io/theirs")?);
    ensure!(
        other.iter().all(|it| it.ends_with("=Unknown/Pending")),
        "{other:?}"
    );
    Ok(())
}

/// Another controller writes its entry into the list that we share.
async fn foreign_entries_stay(cluster: &Cluster) -> anyhow::Result<()> {
    let route = get(cluster, "httproute/web")?;
    let ours = route["status"]["parents"][0].clone();
    patch_status(
        cluster,
        "httproute/web",
        &json!({"parents": [theirs(), ours]}),
    )?;
    patch(
        cluster,
        "httproute/web",
        &json!({"spec": {"hostnames": ["web.example.com"]}}),
    )?;
    until("the entry follows the generation", || {
        let route = get(cluster, "httproute/web")?;
        let all = route["status"]["parents"].as_array().context("none")?;
        ensure!(all.len() == 2 && all[0] == theirs(), "{all:?}");
        let was = &ours["conditions"][0];
        let is = &all[1]["conditions"][0];
        ensure!(is["observedGeneration"] == 2, "{is}");
        // It holds since the first time.
        ensure!(
            is["lastTransitionTime"] == was["lastTransitionTime"],
            "{is} {was}"
        );
        Ok(())
    })
    .await
}

/// Somebody writes over what is ours: it comes back, after what is theirs.
async fn what_is_overwritten_is_mended(cluster: &Cluster) -> anyhow::Result<()> {
    patch_status(cluster, "httproute/web", &json!({"parents": [theirs()]}))?;
    let both = [
        format!("theirs {THEIRS} Accepted=False/Pending"),
        format!("door {OURS} Accepted=True/Accepted"),
    ];
    let both = [both[0].as_str(), both[1].as_str()];
    parents_are(cluster, "httproute/web", &both).await?;
    let gateway = "gateway.gateway.networking.k8s.io/door";
    let cost = json!({"type": "example.com/Cost", "status": "True", "reason": "High",
        "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let wrong = json!({"type": "Accepted", "status": "False", "reason": "Invalid",
        "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let listener = json!({"name": "gone", "attachedRoutes": 7, "conditions": []});
    let status = json!({"conditions": [cost, wrong], "listeners": [listener]});
    patch_status(cluster, gateway, &status)?;
    until("the Gateway says the truth again, and what it cost", || {
        let gateway = get(cluster, gateway)?;
        let all = conditions(&gateway);
        let has = |what: &str| all.iter().any(|it| it.starts_with(what));
        ensure!(
            has("Accepted=True/Accepted") && has("Programmed=False"),
            "{all:?}"
        );
        ensure!(
            gateway["status"]["conditions"][0] == cost,
            "{}",
            gateway["status"]
        );
        let listeners = gateway["status"]["listeners"].as_array().context("none")?;
        let names: Vec<_> = listeners.iter().map(|it| &it["name"]).collect();
        ensure!(names == ["http"], "{names:?}");
        Ok(())
    })
    .await
}

async fn parents_come_and_go(cluster: &Cluster) -> anyhow::Result<()> {
    let others = format!("theirs {THEIRS} Accepted=False/Pending");
    let door = format!("door {OURS} Accepted=True/Accepted");
    let missing = format!("door/none {OURS} Accepted=False/NoMatchingParent");
    let set = |parents: Value| {
        patch(
            cluster,
            "httproute/web",
            &json!({"spec": {"parentRefs": parents}}),
        )
    };
    set(json!([{"name": "theirs"}, {"name": "door"}, {"name": "door", "sectionName": "none"}]))?;
    parents_are(cluster, "httproute/web", &[&others, &door, &missing]).await?;
    set(json!([{"name": "theirs"}, {"name": "door", "sectionName": "none"}]))?;
    parents_are(cluster, "httproute/web", &[&others, &missing]).await?;
    set(json!([{"name": "theirs"}]))?;
    let route = parents_are(cluster, "httproute/web", &[&others]).await?;
    ensure!(
        route["status"]["parents"][0] == theirs(),
        "{}",
        route["status"]
    );
    until("the listener has no route", || {
        let gateway = get(cluster, "gateway.gateway.networking.k8s.io/door")?;
        let listener = &gateway["status"]["listeners"][0];
        ensure!(listener["attachedRoutes"] == 0, "{listener}");
        Ok(())
    })
    .await
}

/// Whatever else cannot be made for a Gateway of such a name.
async fn long_names_are_written(cluster: &Cluster) -> anyhow::Result<()> {
    let name = vec!["n".repeat(63); 4].join(".")[..253].to_owned();
    let text = OBJECTS.replace("name: door", &format!("name: {name}"));
    let objects = text.split("---").filter(|it| {
        it.contains("kind: HTTPRoute") || (it.contains("kind: Gateway\n") && it.contains(&name))
    });
    let objects: Vec<_> = objects
        .map(|it| {
            it.replace(
                "metadata: {name: web,",
                &format!("metadata: {{name: {name},"),
            )
        })
        .collect();
    cluster.apply(&objects.join("---"))?;
    let accepted = format!("{name} {OURS} Accepted=True/Accepted");
    parents_are(cluster, &format!("httproute/{name}"), &[&accepted]).await?;
    until("a Gateway with a long name is accepted", || {
        let gateway = format!("gateway.gateway.networking.k8s.io/{name}");
        let all = conditions(&get(cluster, &gateway)?);
        ensure!(
            all.iter().any(|it| it == "Accepted=True/Accepted"),
            "{all:?}"
        );
        Ok(())
    })
    .await
}

/// Writes of statuses so far, once no more of them come.
async fn statuses(cluster: &Cluster) -> anyhow::Result<Vec<common::Write>> {
    let all = settled(cluster, QUIET).await?;
    let of_statuses = all.into_iter().filter(|it| it.text.contains("/status "));
    Ok(of_statuses.collect())
}

/// The versions of all objects of the Gateway API in the namespace.
fn versions(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let kinds =
        "gateways.gateway.networking.k8s.io,listenersets,httproutes,grpcroutes,tcproutes,tlsroutes";
    let all = common::get(cluster, NS, &[kinds])?;
    let all = all["items"].as_array().context("no list")?;
    let version = |it: &Value| {
        format!(
            "{} {}",
            it["metadata"]["uid"], it["metadata"]["resourceVersion"]
        )
    };
    Ok(all.iter().map(version).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_are_there_and_those_of_others_are_left_alone() -> anyhow::Result<()> {
    let cluster = prepared().await?;
    let class = |name: &str| common::get(&cluster, "", &["gatewayclass", name]);
    let is_accepted = |name: &str, generation: i64| -> anyhow::Result<()> {
        let class = class(name)?;
        let all = conditions(&class);
        ensure!(all == ["Accepted=True/Accepted"], "{all:?}");
        let condition = &class["status"]["conditions"][0];
        ensure!(condition["observedGeneration"] == generation, "{condition}");
        Ok(())
    };
    let of = |name: &str, controller: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": name}, "spec": {"controllerName": controller}})
    };
    // One of our controller under another name, one of ours under theirs.
    cluster.apply(&of("edge", OURS).to_string())?;
    cluster.apply(&of("istio-remote", THEIRS).to_string())?;
    let (a, b) = (start(&cluster, "a").await?, start(&cluster, "b").await?);
    until("classes that say that they are ours", || {
        for name in ["istio", "istio-waypoint", "edge"] {
            is_accepted(name, 1)?;
        }
        let waypoint = class("istio-waypoint")?;
        ensure!(
            waypoint["spec"]["controllerName"] == "istio.io/mesh-controller",
            "{waypoint}"
        );
        Ok(())
    })
    .await?;
    cluster.kubectl(&["delete", "gatewayclass", "istio-waypoint"])?;
    until("a deleted class comes back", || {
        is_accepted("istio-waypoint", 1)
    })
    .await?;
    patch(
        &cluster,
        "gatewayclass/istio",
        &json!({"spec": {"description": "mine"}}),
    )?;
    until("the generation is followed", || is_accepted("istio", 2)).await?;
    settled(&cluster, QUIET).await?;
    ensure!(
        class("istio")?["spec"]["description"] == "mine",
        "written over"
    );
    let remote = class("istio-remote")?;
    ensure!(remote["spec"]["controllerName"] == THEIRS, "{remote}");
    ensure!(
        conditions(&remote) == ["Accepted=Unknown/Pending"],
        "{remote}"
    );
    // Of one network there are no gateways between networks.
    ensure!(class("istio-east-west").is_err(), "there is one");
    drop((a, b));

    let more = [&FLAGS[..], &["--multi-network=true"]].concat();
    let c = Replica::start(&cluster, "c", &more)?;
    until("the class of gateways between networks", || {
        is_accepted("istio-east-west", 1)
    })
    .await?;
    drop(c);
    cluster.kubectl(&["delete", "gatewayclass", "istio"])?;
    let none = [
        "--create-gateway-classes=false",
        "--write-gateway-api-status=false",
    ];
    let d = Replica::start(&cluster, "d", &[&FLAGS[..], &none].concat())?;
    d.wait_well(SOON).await?;
    wait::until("d to lead", SOON, || async {
        ensure!(d.leads().await?, "not yet");
        Ok(())
    })
    .await?;
    let before = settled(&cluster, QUIET).await?;
    patch(
        &cluster,
        "gatewayclass/edge",
        &json!({"spec": {"description": "mine"}}),
    )?;
    let after = settled(&cluster, QUIET).await?;
    ensure!(after.len() == before.len(), "{:#?}", &after[before.len()..]);
    ensure!(class("istio").is_err(), "created");
    is_accepted("edge", 1)
}
