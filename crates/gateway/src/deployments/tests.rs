#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use model::ownership::MyTags;
use serde_json::Value;

use super::*;
use crate::testworld::{Running, World};

/// A Gateway `gw` of class `istio` in `shop`: metadata and spec beside that.
fn gateway(metadata: &str, spec: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: shop, uid: u-1{metadata}}}
spec: {{gatewayClassName: istio, listeners: [{{name: http, port: 80, protocol: HTTP}}]{spec}}}
"
    )
}

/// What of deployments a world says: `code field` of its findings.
fn notes(world: &World) -> Vec<String> {
    let notes = world.deployments.notes();
    let notes = notes.flat_map(|(_, notes)| notes);
    notes
        .map(|note| {
            format!("{} {}", note.code, note.field)
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn row(world: &World) -> Option<Arc<DeploymentRow>> {
    let mut rows = world.deployments.table().iter();
    rows.next().map(|(_, row)| Arc::clone(row))
}

/// Kinds of its objects.
fn made(world: &World) -> Vec<&'static str> {
    let row = row(world);
    let objects = row.iter().flat_map(|row| &row.objects);
    objects.map(|object| object.kind).collect()
}

fn labels(world: &World, kind: &str) -> Value {
    let row = row(world).unwrap();
    let mut objects = row.objects.iter();
    let object = objects.find(|object| object.kind == kind).unwrap();
    object.body["metadata"]["labels"].clone()
}

const USUAL: [&str; 3] = ["ServiceAccount", "Deployment", "Service"];

#[test]
fn case_22_the_version_on_the_gateway_decides() {
    for (version, claim) in [
        (None, Some(true)),
        (Some("4"), Some(true)),
        (Some("5"), Some(false)),
    ] {
        let metadata = version.map_or(String::new(), |version| {
            format!(", annotations: {{gateway.istio.io/controller-version: \"{version}\"}}")
        });
        let world = World::new(&gateway(&metadata, ""));
        assert_eq!(row(&world).map(|row| row.claim), claim, "{version:?}");
        assert_eq!(made(&world), USUAL);
        assert_eq!(notes(&world), [""; 0]);
    }
    for version in ["6", "abc", ""] {
        let metadata =
            format!(", annotations: {{gateway.istio.io/controller-version: \"{version}\"}}");
        let world = World::new(&gateway(&metadata, ""));
        assert_eq!(row(&world), None, "{version}");
        let at = "gw-deployment-left metadata.annotations[gateway.istio.io/controller-version]";
        assert_eq!(notes(&world), [at]);
    }
}

#[test]
fn case_4_and_23_what_is_not_ours_has_no_row_and_no_words() {
    let class = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: example.com/other}
";
    let foreign = World::new(&(gateway("", "") + class));
    let revisions = || {
        Revisions::Of(MyTags {
            revision: "default".into(),
            is_default: true,
            ..MyTags::default()
        })
    };
    let running = || Running {
        revisions: revisions(),
        ..Running::default()
    };
    let canary = gateway(", labels: {istio.io/rev: canary}", "");
    let canary = World::with(&canary, running());
    let manual = gateway("", ", addresses: [{type: Hostname, value: x}]");
    let manual = World::new(&manual);
    let remote = gateway("", "").replace("Name: istio", "Name: istio-remote");
    let remote = World::new(&remote);
    let ending = gateway(", deletionTimestamp: \"2026-01-01T00:00:00Z\"", "");
    let ending = World::new(&ending);
    let namespace = "
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, deletionTimestamp: \"2026-01-01T00:00:00Z\"}
";
    let in_ending = World::new(&(gateway("", "") + namespace));
    for world in [foreign, canary, manual, remote, ending, in_ending] {
        assert_eq!(row(&world), None);
        assert_eq!(notes(&world), [""; 0]);
    }
    let ours = World::with(&gateway("", ""), running());
    assert_eq!(made(&ours), USUAL);
}

/// Two ConfigMaps with defaults and one of the Gateway.
const OVERLAYS: &str = r#"
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: b
  namespace: istio-system
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels: {gateway.istio.io/defaults-for-class: istio}
data: {deployment: "metadata: {labels: {from: older, both: older}}"}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  namespace: istio-system
  creationTimestamp: "2026-01-02T00:00:00Z"
  labels: {gateway.istio.io/defaults-for-class: istio}
data: {deployment: "metadata: {labels: {from: newer, both: newer}}"}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: of-another-class
  namespace: istio-system
  labels: {gateway.istio.io/defaults-for-class: istio-waypoint}
data: {deployment: "metadata: {labels: {from: waypoint}}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: own, namespace: shop, labels: {gateway.istio.io/defaults-for-class: istio}}
data:
  deployment: "metadata: {labels: {both: own}}"
  podDisruptionBudget: "spec: {minAvailable: 1}"
"#;

const OWN: &str = r#", infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: own}}"#;

#[test]
fn case_19_defaults_of_the_class_come_before_what_the_gateway_says() {
    let world = World::new(&(gateway("", "") + OVERLAYS));
    let all = labels(&world, "Deployment");
    assert_eq!(
        (&all["from"], &all["both"]),
        (&"older".into(), &"older".into())
    );
    assert_eq!(made(&world), USUAL);
    let world = World::new(&(gateway("", OWN) + OVERLAYS));
    let all = labels(&world, "Deployment");
    assert_eq!(
        (&all["from"], &all["both"]),
        (&"older".into(), &"own".into())
    );
    assert_eq!(
        made(&world),
        [&USUAL[..], &["PodDisruptionBudget"]].concat()
    );
}

#[test]
fn case_14_16_and_18_what_cannot_be_rendered_makes_nothing_and_is_told_once() {
    let missing = World::new(&gateway("", OWN));
    assert_eq!(made(&missing), [""; 0]);
    assert_eq!(row(&missing).unwrap().uid, "u-1");
    // The stage of Gateways tells of it.
    assert_eq!(notes(&missing), [""; 0]);
    for data in [
        "daemonset: \"spec: {}\"",
        "service: \"metadata: {name: other}\"",
        "service: \"[1]\"",
    ] {
        let map = format!(
            "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: own, namespace: shop}}\ndata: {{{data}}}\n"
        );
        let world = World::new(&(gateway("", OWN) + &map));
        assert_eq!(made(&world), [""; 0], "{data}");
        assert_eq!(notes(&world), ["gw-deployment-render"], "{data}");
    }
    let form = gateway(", annotations: {ambientd.io/proxy: other}", "");
    let at = "gw-deployment-render metadata.annotations[ambientd.io/proxy]";
    assert_eq!(notes(&World::new(&form)), [at]);
}

#[test]
fn what_the_form_of_pods_does_not_know_is_told_of_the_gateway_and_of_mesh_config() {
    let annotations = ", annotations: {ambientd.io/proxy: stock, sidecar.istio.io/proxyImage: x}";
    let config = "
---
kind: MeshConfig
defaultConfig: {statNameLength: 100, concurrency: 2}
";
    let world = World::new(&(gateway(annotations, "") + config));
    assert_eq!(made(&world), USUAL);
    let mut all = notes(&world);
    all.sort();
    assert_eq!(
        all,
        [
            "gw-deployment-ignored defaultConfig.statNameLength",
            "gw-deployment-ignored metadata.annotations[sidecar.istio.io/proxyImage]",
        ]
    );
    let row = row(&world).unwrap();
    let text = row.objects[1].body.to_string();
    assert!(text.contains("statNameLength"), "{text}");
}

#[test]
fn the_last_user_of_a_range_is_the_proxys() {
    for (range, last) in [
        ("1000620000/10000", Some(1_000_629_999)),
        ("1000-1999", Some(1999)),
        ("5/0", None),
        ("x/1", None),
        ("", None),
    ] {
        assert_eq!(last_of(range), last, "{range}");
    }
}
