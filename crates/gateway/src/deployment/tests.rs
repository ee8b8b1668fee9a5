#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use serde_json::{Value, json};

use model::Parsed;
use model::gateway::{Defect, GatewayController};
use model::object::Object;
use model::parse::{Recognised, recognise};
use model::secret::ConfigMap;

use super::*;
use crate::testworld;

mod edge_cases;

/// A Gateway, what was made of it, and settings.
pub(super) struct World {
    pub(super) gateway: Arc<Parsed<Gateway>>,
    pub(super) row: GatewayRow,
    pub(super) settings: Settings,
    pub(super) proxy_configs: Vec<ProxyConfigLayer>,
    pub(super) proxy_user: Option<i64>,
}

pub(super) fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn object(value: &Value) -> Object {
    match recognise(value, "test") {
        Recognised::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

pub(super) fn config_map(name: &str, created: &str, data: Value) -> Arc<Parsed<ConfigMap>> {
    let value = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
        "data": data,
    });
    match object(&value) {
        Object::ConfigMap(map) => map,
        other => panic!("{other:?}"),
    }
}

pub(super) fn overlay(data: Value) -> Result<Overlay, RenderError> {
    Overlay::of(&config_map("parameters", "2026-01-01T00:00:00Z", data))
}

// === impl World ===

impl World {
    /// A Gateway `gw` in `ns`; `text` holds the rest of `metadata` and its `spec`.
    pub(super) fn new(class: &str, text: &str) -> Self {
        let mut value = yaml(text);
        value["apiVersion"] = json!("gateway.networking.k8s.io/v1");
        value["kind"] = json!("Gateway");
        let metadata = &mut value["metadata"];
        metadata["name"] = json!("gw");
        metadata["namespace"] = json!("ns");
        metadata["uid"] = json!("u-1");
        value["spec"]["gatewayClassName"] = json!(class);
        if value["spec"].get("listeners").is_none() {
            value["spec"]["listeners"] =
                json!([{"name": "mesh", "port": 15008, "protocol": "HBONE"}]);
        }
        let Object::Gateway(gateway) = object(&value) else {
            panic!("{value}");
        };
        let controller = GatewayController::built_in(class).unwrap_or(GatewayController::Ingress);
        let class = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": class},
            "spec": {"controllerName": controller.name()},
        });
        let derived = testworld::World::new(&format!("{value}\n---\n{class}"));
        Self {
            row: GatewayRow::clone(&derived.row()),
            gateway,
            settings: Settings::default(),
            proxy_configs: Vec::new(),
            proxy_user: None,
        }
    }

    pub(super) fn ingress(text: &str) -> Self {
        Self::new("istio", text)
    }

    pub(super) fn waypoint(text: &str) -> Self {
        Self::new("istio-waypoint", text)
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            meta: &self.gateway.meta,
            row: &self.row,
            gateway: self.gateway.body.as_ref().unwrap(),
            proxy_configs: &self.proxy_configs,
            proxy_user: self.proxy_user,
        }
    }

    pub(super) fn with(&self, overlays: &[&Overlay]) -> Result<Rendered, RenderError> {
        render(&self.subject(), &self.settings, overlays)
    }

    /// The object of a kind.
    pub(super) fn object(&self, kind: &str) -> Value {
        let rendered = self.with(&[]).unwrap();
        find(&rendered, kind).unwrap()
    }

    pub(super) fn pod(&self) -> Value {
        self.object("Deployment")["spec"]["template"].clone()
    }

    pub(super) fn container(&self) -> Value {
        self.pod()["spec"]["containers"][0].clone()
    }
}

pub(super) fn find(rendered: &Rendered, kind: &str) -> Option<Value> {
    let found = rendered.objects.iter().find(|object| object.kind == kind);
    found.map(|object| object.body.clone())
}

#[test]
fn who_makes_a_deployment_is_decided_in_order() {
    use Decision::{Leave, Make};
    let ours = Question {
        controller: Some(GatewayController::Waypoint),
        is_our_revision: true,
        is_managed: true,
        version: Some("5"),
    };
    let version = |version| Question {
        version: Some(version),
        ..ours
    };
    let cases = [
        (ours, Make { claim: false }),
        (
            Question {
                version: None,
                ..ours
            },
            Make { claim: true },
        ),
        (version("4"), Make { claim: true }),
        (version("-1"), Make { claim: true }),
        (version("6"), Leave(Why::NewerController)),
        (version("abc"), Leave(Why::UnreadableVersion)),
        (version(""), Leave(Why::UnreadableVersion)),
        (version("5.0"), Leave(Why::UnreadableVersion)),
        (
            Question {
                is_managed: false,
                ..version("abc")
            },
            Leave(Why::Manual),
        ),
        (
            Question {
                controller: Some(GatewayController::Remote),
                is_managed: false,
                ..ours
            },
            Leave(Why::NoTemplate),
        ),
        (
            Question {
                controller: Some(GatewayController::Remote),
                is_our_revision: false,
                ..ours
            },
            Leave(Why::OtherRevision),
        ),
        (
            Question {
                controller: None,
                is_our_revision: false,
                ..ours
            },
            Leave(Why::ForeignClass),
        ),
    ];
    for (question, decision) in cases {
        assert_eq!(decide(question), decision, "{question:?}");
    }
}

#[test]
fn objects_come_in_the_order_in_which_they_are_applied() {
    let both =
        overlay(json!({"podDisruptionBudget": "", "horizontalPodAutoscaler": "{}"})).unwrap();
    let rendered = World::ingress("{}").with(&[&both]).unwrap();
    let kinds: Vec<_> = rendered
        .objects
        .iter()
        .map(|object| (object.api_version, object.kind, object.name.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("v1", "ServiceAccount", "gw-istio"),
            ("apps/v1", "Deployment", "gw-istio"),
            ("v1", "Service", "gw-istio"),
            ("autoscaling/v2", "HorizontalPodAutoscaler", "gw-istio"),
            ("policy/v1", "PodDisruptionBudget", "gw-istio"),
        ]
    );
    for object in &rendered.objects {
        assert_eq!(object.ns, "ns");
        assert_eq!(object.body["apiVersion"], object.api_version);
        assert_eq!(object.body["kind"], object.kind);
        assert_eq!(object.body["metadata"]["name"], object.name.as_str());
        assert_eq!(object.body["metadata"]["namespace"], "ns");
    }
    let autoscaler = find(&rendered, "HorizontalPodAutoscaler").unwrap();
    assert_eq!(
        autoscaler["spec"],
        json!({
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gw-istio"},
            "maxReplicas": 1,
        })
    );
    let budget = find(&rendered, "PodDisruptionBudget").unwrap();
    assert_eq!(
        budget["spec"]["selector"]["matchLabels"],
        json!({"gateway.networking.k8s.io/gateway-name": "gw"})
    );
    let alone = World::ingress("{}").with(&[]).unwrap();
    assert_eq!(alone.objects.len(), 3);
}

#[test]
fn the_overlay_of_the_gateway_comes_after_that_of_the_class() {
    let class = overlay(json!({"deployment": "spec: {replicas: 2, minReadySeconds: 3}"})).unwrap();
    let own = overlay(json!({"deployment": "spec: {replicas: 4}"})).unwrap();
    let rendered = World::waypoint("{}").with(&[&class, &own]).unwrap();
    let deployment = find(&rendered, "Deployment").unwrap();
    assert_eq!(deployment["spec"]["replicas"], 4);
    assert_eq!(deployment["spec"]["minReadySeconds"], 3);
}

#[test]
fn overlays_that_cannot_be_applied_leave_nothing() {
    let deep = format!("{}1{}", "[".repeat(80), "]".repeat(80));
    for (key, text, field) in [
        ("daemonset", "{}", "data[daemonset]"),
        ("deployment", "[]", "data[deployment]"),
        ("deployment", "a: [", "data[deployment]"),
        ("service", "a", "data[service]"),
        ("service", &deep, "data[service]"),
        (
            "service",
            &format!("a: {}", "x".repeat(300_000)),
            "data[service]",
        ),
    ] {
        let error = overlay(json!({key: text})).unwrap_err();
        assert_eq!(error.field, field, "{text:.40}");
        assert_eq!(error.object.kind, "ConfigMap");
        assert!(error.to_string().len() < 500, "{error}");
    }
    let forbidden = [
        ("metadata: {name: x}", "metadata.name"),
        ("metadata: {name: null}", "metadata.name"),
        ("metadata: {generateName: x}", "metadata.generateName"),
        ("metadata: {namespace: x}", "metadata.namespace"),
        ("metadata: {uid: x}", "metadata.uid"),
        (
            "metadata: {resourceVersion: '1'}",
            "metadata.resourceVersion",
        ),
        ("metadata: {generation: 1}", "metadata.generation"),
        (
            "metadata: {creationTimestamp: x}",
            "metadata.creationTimestamp",
        ),
        (
            "metadata: {deletionTimestamp: x}",
            "metadata.deletionTimestamp",
        ),
        (
            "metadata: {deletionGracePeriodSeconds: 1}",
            "metadata.deletionGracePeriodSeconds",
        ),
        (
            "metadata: {ownerReferences: [{uid: x}]}",
            "metadata.ownerReferences",
        ),
        (
            "metadata: {ownerReferences: null}",
            "metadata.ownerReferences",
        ),
        ("metadata: {finalizers: [x]}", "metadata.finalizers"),
        ("metadata: {managedFields: []}", "metadata.managedFields"),
        ("metadata: {$patch: replace, labels: {}}", "metadata.name"),
        ("kind: DaemonSet", "kind"),
        ("apiVersion: v2", "apiVersion"),
        ("$patch: delete", "apiVersion"),
    ];
    for kind in OverlayKind::ALL {
        for (text, field) in forbidden {
            let overlay = overlay(json!({kind.key(): text})).unwrap();
            let error = World::ingress("{}").with(&[&overlay]).unwrap_err();
            assert_eq!(
                error.field,
                format!("data[{}].{field}", kind.key()),
                "{text}"
            );
        }
    }
    let bad =
        overlay(json!({"deployment": "spec: {template: {spec: {containers: [{}]}}}"})).unwrap();
    let error = World::ingress("{}").with(&[&bad]).unwrap_err();
    assert!(
        error.problem.starts_with("spec.template.spec.containers: "),
        "{error}"
    );
    // The same values as before are no change.
    let same = overlay(json!({"service": "metadata: {name: gw-istio, namespace: ns}"})).unwrap();
    assert!(World::ingress("{}").with(&[&same]).is_ok());
}

#[test]
fn overlays_are_read_as_kubernetes_reads_yaml() {
    let text = "spec: {template: {spec: {volumes: [{name: istio-podinfo, downwardAPI: {defaultMode: 0644}}]}}}";
    let overlay = overlay(json!({"deployment": text})).unwrap();
    let rendered = World::ingress("{}").with(&[&overlay]).unwrap();
    let deployment = find(&rendered, "Deployment").unwrap();
    let volumes = deployment["spec"]["template"]["spec"]["volumes"]
        .as_array()
        .unwrap();
    let podinfo = volumes
        .iter()
        .find(|v| v["name"] == "istio-podinfo")
        .unwrap();
    assert_eq!(podinfo["downwardAPI"]["defaultMode"], 0o644);
}

#[test]
fn scalars_are_those_of_kubernetes() {
    // What `kubectl patch` of Kubernetes 1.35 makes of the same text.
    let text = "{a: y, b: yes, c: on, d: off, e: n, f: Y, g: True, h: 0644, i: 1_000, j: 0x10, \
                k: 0o10, l: ~, m: 1e3, o: .5, p: '12:30', q: 2026-01-01, r: NO, s: 1h, t: 5%}";
    let read = overlay::parse_text(text).unwrap();
    let expect = json!({
        "a": true, "b": true, "c": true, "d": false, "e": false, "f": true, "g": true, "h": 420,
        "i": 1000, "j": 16, "k": 8, "l": null, "m": 1000.0, "o": 0.5, "p": "12:30",
        "q": "2026-01-01", "r": false, "s": "1h", "t": "5%",
    });
    assert_eq!(read, expect);
}

#[test]
fn labels_may_change_but_not_whose_an_object_is() {
    for text in [
        "metadata: {labels: {gateway.istio.io/managed: null, a: b}, annotations: {c: d}}",
        "metadata: {labels: {gateway.istio.io/managed: mine, a: b}, annotations: {c: d}}",
        "metadata: {labels: {$patch: replace, a: b}, annotations: {c: d}}",
    ] {
        let overlay = overlay(json!({"service": text})).unwrap();
        let rendered = World::ingress("{}").with(&[&overlay]).unwrap();
        let service = find(&rendered, "Service").unwrap();
        let labels = &service["metadata"]["labels"];
        assert_eq!(
            labels["gateway.istio.io/managed"],
            "istio.io-gateway-controller"
        );
        assert_eq!(labels["a"], "b");
        assert_eq!(service["metadata"]["annotations"]["c"], "d");
    }
    let without = overlay(json!({"service": "metadata: {labels: null}"})).unwrap();
    let rendered = World::ingress("{}").with(&[&without]).unwrap();
    assert_eq!(
        find(&rendered, "Service").unwrap()["metadata"]["labels"],
        json!({"gateway.istio.io/managed": "istio.io-gateway-controller"})
    );
}

#[test]
fn parameters_that_cannot_be_leave_everything_as_it_is() {
    let mut world = World::ingress("{}");
    world.row.parameters_defect = Some(Defect::new("InvalidParameters", "ConfigMap x is missing"));
    let error = world.with(&[]).unwrap_err();
    assert_eq!(error.object.kind, "Gateway");
    assert_eq!(error.field, "spec.infrastructure.parametersRef");
    assert_eq!(error.problem, "ConfigMap x is missing");
}

#[test]
fn equal_input_gives_equal_bytes() {
    let text = r#"
metadata: {labels: {b: "1", a: "2"}, annotations: {y: "1", x: "2"}}
spec: {listeners: [{name: h, port: 80, protocol: HTTP}]}
"#;
    let other = r#"
spec: {listeners: [{protocol: HTTP, port: 80, name: h}]}
metadata: {annotations: {x: "2", y: "1"}, labels: {a: "2", b: "1"}}
"#;
    let bytes = |world: World| {
        let objects = world.with(&[]).unwrap().objects;
        let bodies: Vec<_> = objects
            .iter()
            .map(|object| object.body.to_string())
            .collect();
        bodies.join("\n")
    };
    assert_eq!(bytes(World::ingress(text)), bytes(World::ingress(other)));
}
