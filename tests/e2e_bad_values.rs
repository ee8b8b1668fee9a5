//! Bad values in a live mesh: each costs its own rule, and what a proxy refuses all the same costs
//! one resource.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::struct_field_names
)]

mod common;

use std::time::Duration;

use anyhow::ensure;
use common::{Mesh, Net, SOON, Traffic, debug_json};
use http::Method;
use proto::discovery::DeltaDiscoveryResponse;
use proto::type_url::{CLUSTER, ROUTE};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::ads::{DeltaClient, waypoint_node};
use testkit::daemon::Daemon;
use testkit::http_client;
use testkit::wait;

/// Longest wait for ten thousand rules.
const LATER: Duration = Duration::from_secs(90);
const RULES_COUNT: usize = 10_000;
/// Most rules of a VirtualService.
const OF_VIRTUAL_SERVICE: usize = 1_000;
/// Most rules of an HTTPRoute.
const OF_ROUTE: usize = 16;

async fn findings(daemon: &Daemon) -> anyhow::Result<Vec<Value>> {
    let page = debug_json(daemon, "/debug/findings").await?;
    Ok(page.as_array().cloned().unwrap_or_default())
}

fn has(findings: &[Value], (code, kind, name, field): (&str, &str, &str, &str)) -> bool {
    findings
        .iter()
        .any(|f| f["code"] == code && f["kind"] == kind && f["name"] == name && f["field"] == field)
}

fn service(name: &str, vip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "labels": {"istio.io/use-waypoint": "gate"}},
        "spec": {
            "clusterIP": vip, "clusterIPs": [vip], "ipFamilies": ["IPv4"],
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

/// VirtualServices of one host with ten thousand rules; three of them are bad.
fn bulk() -> Vec<Value> {
    let rule = |i: usize| match i {
        10 => json!({
            "match": [{"uri": {"regex": "/r10(?=x)"}}, {"uri": {"exact": "/r10-other"}}],
            "directResponse": {"status": 418},
        }),
        20 => json!({
            "match": [{"uri": {"exact": "/r20"}}],
            "route": [
                {"destination": {"host": "web-v1"}, "weight": -1},
                {"destination": {"host": "web-v2"}, "weight": 1},
            ],
        }),
        30 => json!({
            "match": [{"uri": {"exact": "/r30"}}],
            "corsPolicy": {"allowOrigins": [{"exact": "a"}], "unmatchedPreflights": "MAYBE"},
            "route": [{"destination": {"host": "web-v1"}}],
        }),
        i if i + 1 == RULES_COUNT => json!({"route": [{"destination": {"host": "web-v2"}}]}),
        i => json!({
            "match": [{"uri": {"exact": format!("/r{i}")}}],
            "directResponse": {"status": 418},
        }),
    };
    let object = |n: usize| {
        let rules = (n * OF_VIRTUAL_SERVICE..).take(OF_VIRTUAL_SERVICE);
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": format!("bulk-{n}"), "namespace": "shop"},
            "spec": {"hosts": ["bulk"], "http": rules.map(rule).collect::<Vec<_>>()},
        })
    };
    (0..RULES_COUNT / OF_VIRTUAL_SERVICE).map(object).collect()
}

/// As many rules in HTTPRoutes; the first rule of three of them is bad.
fn wide() -> Vec<Value> {
    let route = |n: usize| {
        let rule = |i: usize| {
            let path = json!({"type": "Exact", "value": format!("/w{n}-{i}")});
            let other = json!({"type": "Exact", "value": format!("/w{n}-{i}-other")});
            let backend = |weight: i64| json!([{"name": "web-v2", "port": 80, "weight": weight}]);
            match (n, i) {
                (1, 0) => json!({
                    "matches": [
                        {"path": {"type": "RegularExpression", "value": "/w1-0(?=x)"}},
                        {"path": other},
                    ],
                    "backendRefs": backend(1),
                }),
                (2, 0) => json!({"matches": [{"path": path}], "backendRefs": backend(-1)}),
                (3, 0) => json!({
                    "matches": [{"path": path, "method": "FETCH"}],
                    "backendRefs": backend(1),
                }),
                _ => json!({"matches": [{"path": path}], "backendRefs": backend(1)}),
            }
        };
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": format!("wide-{n}"), "namespace": "shop"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "wide"}],
                "rules": (0..OF_ROUTE).map(rule).collect::<Vec<_>>(),
            },
        })
    };
    (0..RULES_COUNT / OF_ROUTE).map(route).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_values_among_ten_thousand_rules_cost_themselves_alone() {
    let net = 36;
    let mesh = Mesh::start(net).await.unwrap();
    let traffic = Traffic::start(&mesh.callers, "web", "/elsewhere");
    let vip = |host: u8| format!("10.98.{net}.{host}");
    let mut objects = vec![service("bulk", &vip(20)), service("wide", &vip(21))];
    objects.extend(bulk());
    objects.extend(wide());
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    // Routes of the waypoint would decide in the place of the VirtualService.
    mesh.replace("40-split.yaml", "# No route of the waypoint.\n")
        .unwrap();
    mesh.replace("60-many.yaml", &text.join("\n---\n")).unwrap();

    let status = async |host: u8, path: &str| -> anyhow::Result<u16> {
        let request = http_client::request(Method::GET, "x", path)?;
        let to = format!("{}:80", vip(host));
        let answer = Box::pin(mesh.client.request(mesh.net.waypoint(), &to, request)).await?;
        Ok(answer.status.as_u16())
    };
    wait::until("the last rules to be in force", LATER, || async {
        let last = status(20, &format!("/r{}", RULES_COUNT - 2)).await?;
        ensure!(last == 418, "{last}");
        let last = status(21, &format!("/w{}-15", RULES_COUNT / OF_ROUTE - 1)).await?;
        ensure!(last == 200, "{last}");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", mesh.logs()));
    for (host, path, expected) in [
        // The bad match alone is missing, so the last rule takes its requests.
        (20, "/r10x", 200),
        (20, "/r10-other", 418),
        (20, "/r20", 500),
        (20, "/r30", 500),
        (20, "/r31", 418),
        (20, "/nothing", 200),
        (21, "/w1-0x", 404),
        (21, "/w1-0-other", 200),
        (21, "/w2-0", 500),
        (21, "/w3-0", 404),
        (21, "/w3-1", 200),
    ] {
        assert_eq!(status(host, path).await.unwrap(), expected, "{path}");
    }

    let found = findings(&mesh.daemon).await.unwrap();
    for expected in [
        (
            "vs-regex-invalid",
            "VirtualService",
            "bulk-0",
            "spec.http[10].match[0].uri.regex",
        ),
        (
            "vs-rule-invalid",
            "VirtualService",
            "bulk-0",
            "spec.http[20].route[0].weight",
        ),
        (
            "vs-rule-invalid",
            "VirtualService",
            "bulk-0",
            "spec.http[30].corsPolicy.unmatchedPreflights",
        ),
        (
            "route-match-invalid",
            "HTTPRoute",
            "wide-1",
            "spec.rules[0].matches[0].path",
        ),
        (
            "route-value-invalid",
            "HTTPRoute",
            "wide-2",
            "spec.rules[0].backendRefs[0].weight",
        ),
        (
            "route-match-invalid",
            "HTTPRoute",
            "wide-3",
            "spec.rules[0].matches[0].method",
        ),
    ] {
        assert!(has(&found, expected), "{expected:?} in {found:#?}");
    }
    assert!(
        found.iter().all(|f| f["code"] != "xds-rejected"),
        "{found:#?}"
    );

    // An edit of one rule among them is felt, and nobody else ever noticed.
    let all = std::fs::read_to_string(mesh.file("60-many.yaml")).unwrap();
    mesh.replace("60-many.yaml", &all.replace("/r31\"", "/r31-now\""))
        .unwrap();
    wait::until("the edit", LATER, || async {
        let now = status(20, "/r31-now").await?;
        ensure!(now == 418, "{now}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(traffic.stop().await.unwrap() > 20);
    mesh.envoy.assert_no_nacks().await.unwrap();
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|r| r.name.as_str()).collect()
}

/// What the findings about refused resources are about.
async fn refused(daemon: &Daemon) -> anyhow::Result<Vec<String>> {
    let all = findings(daemon).await?;
    let mut out: Vec<String> = all
        .iter()
        .filter(|f| f["code"] == "xds-rejected")
        .inspect(|f| {
            let message = f["message"].as_str().unwrap();
            assert!(
                message.contains(WEB) && message.contains("no such thing"),
                "{message}"
            );
        })
        .map(|f| {
            format!(
                "{} {}",
                f["kind"].as_str().unwrap(),
                f["name"].as_str().unwrap()
            )
        })
        .collect();
    out.sort();
    Ok(out)
}

const WEB: &str = "inbound-vip|80|http|web.shop.svc.cluster.local";
const EXTRA: &str = "inbound-vip|80|http|extra.shop.svc.cluster.local";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_refused_response_only_the_bad_resource_is_held_back() {
    let net = Net(37);
    let dir = TempDir::with_prefix("ambientd-e2e-").unwrap();
    let config = dir.path().join("config");
    net.write(&config).unwrap();
    let daemon = Daemon::start(&config, &dir.path().join("state"))
        .await
        .unwrap();
    let target = daemon.xds_as("shop", "gate").unwrap();
    let node = waypoint_node("shop", "gate", &net.pod(30).to_string());
    let mut client = DeltaClient::connect(&target, node).await.unwrap();
    client.subscribe(CLUSTER, &["*"]).await.unwrap();
    let clusters = client.next_response(SOON).await.unwrap();
    client.ack(&clusters).await.unwrap();

    client.subscribe(ROUTE, &[WEB, EXTRA]).await.unwrap();
    let both = client.next_response(SOON).await.unwrap();
    assert_eq!(names(&both), [EXTRA, WEB]);
    client.nack(&both, "no such thing").await.unwrap();
    // Each comes once more, alone.
    for expected in [EXTRA, WEB] {
        let one = client.next_response(SOON).await.unwrap();
        assert_eq!(names(&one), [expected]);
        if expected == WEB {
            client.nack(&one, "no such thing").await.unwrap();
        } else {
            client.ack(&one).await.unwrap();
        }
    }
    wait::until("the refusal to be told", SOON, || async {
        let objects = refused(&daemon).await?;
        ensure!(
            objects == ["Gateway gate", "HTTPRoute split"],
            "{objects:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
    // The same bytes are never sent again.
    client.expect_silence(Duration::from_secs(1)).await.unwrap();

    // Mended: both change, both are sent, and nothing is left to tell.
    let split = config.join("40-split.yaml");
    let text = std::fs::read_to_string(&split).unwrap();
    let draft = dir.path().join("draft");
    std::fs::write(&draft, text.replace("weight: 80", "weight: 70")).unwrap();
    std::fs::rename(&draft, &split).unwrap();
    let mended = client.next_response(SOON).await.unwrap();
    assert_eq!(names(&mended), [EXTRA, WEB]);
    client.ack(&mended).await.unwrap();
    wait::until("the finding to go", SOON, || async {
        let objects = refused(&daemon).await?;
        ensure!(objects.is_empty(), "{objects:?}");
        Ok(())
    })
    .await
    .unwrap();
}
