//! Rows of spec/gateway-api.md §9 that do not need a cluster, by their number.

use super::*;

fn names(world: &World) -> (Value, Value, Value) {
    let name = |kind| world.object(kind)["metadata"]["name"].clone();
    (name("ServiceAccount"), name("Deployment"), name("Service"))
}

#[test]
fn case_3_and_5_names_come_from_the_gateway_and_for_ingress_from_the_class() {
    let same = |name: &str| (json!(name), json!(name), json!(name));
    assert_eq!(names(&World::new("edge", "{}")), same("gw-edge"));
    let ingress = World::ingress("{}");
    assert_eq!(names(&ingress), same("gw-istio"));
    assert_eq!(ingress.object("Service")["spec"]["type"], "LoadBalancer");
    let waypoint = World::waypoint("{}");
    assert_eq!(names(&waypoint), same("gw"));
    assert_eq!(waypoint.object("Service")["spec"]["type"], "ClusterIP");
    for class in ["istio-east-west", "istio-eastwest"] {
        let east_west = World::new(class, "{}");
        assert_eq!(names(&east_west), same("gw"));
        assert_eq!(east_west.object("Service")["spec"]["type"], "LoadBalancer");
    }
}

#[test]
fn case_4_and_23_are_left_to_others() {
    let question = Question {
        controller: None,
        is_our_revision: true,
        is_managed: true,
        version: None,
    };
    assert_eq!(decide(question), Decision::Leave(Why::ForeignClass));
    let canary = Question {
        controller: Some(GatewayController::Ingress),
        is_our_revision: false,
        ..question
    };
    assert_eq!(decide(canary), Decision::Leave(Why::OtherRevision));
}

#[test]
fn case_6_another_name_is_not_that_of_the_service_account() {
    let text = "metadata: {annotations: {gateway.istio.io/name-override: x}}";
    let world = World::waypoint(text);
    assert_eq!(names(&world), (json!("gw"), json!("x"), json!("x")));
    let text = "metadata: {annotations: {gateway.istio.io/service-account: sa}}";
    let world = World::waypoint(text);
    assert_eq!(names(&world), (json!("sa"), json!("gw"), json!("gw")));
    assert_eq!(world.pod()["spec"]["serviceAccountName"], "sa");
    assert!(
        world.object("Service")["metadata"]
            .get("annotations")
            .is_some_and(|a| { a.get("gateway.istio.io/service-account").is_none() })
    );
}

#[test]
fn case_9_the_type_of_the_service_is_an_annotation() {
    let text = "metadata: {annotations: {networking.istio.io/service-type: ClusterIP}}";
    let service = World::ingress(text).object("Service");
    assert_eq!(service["spec"]["type"], "ClusterIP");
}

#[test]
fn case_11_infrastructure_replaces_what_is_copied() {
    let text = r#"
metadata: {labels: {own: "1"}, annotations: {note: "1"}}
spec:
  infrastructure:
    labels: {infra: "2", gateway.networking.k8s.io/x: "3", gateway.networking.k8s.io/gateway-name: other}
"#;
    for kind in ["ServiceAccount", "Deployment", "Service"] {
        let metadata = World::ingress(text).object(kind)["metadata"].clone();
        assert_eq!(
            metadata["labels"],
            json!({
                "infra": "2",
                "istio.io/dataplane-mode": "none",
                "gateway.networking.k8s.io/gateway-name": "gw",
                "gateway.networking.k8s.io/gateway-class-name": "istio",
                "gateway.istio.io/managed": "istio.io-gateway-controller",
            })
        );
        // Annotations are judged alone.
        assert_eq!(metadata["annotations"], json!({"note": "1"}));
    }
    let text = "{metadata: {annotations: {note: '1'}}, spec: {infrastructure: {annotations: {}}}}";
    let metadata = World::ingress(text).object("Service")["metadata"].clone();
    assert!(metadata.get("annotations").is_none());
}

#[test]
fn case_12_and_13_ingress_gateways_are_not_captured_unless_asked() {
    let mode = |text: &str| {
        World::ingress(text).pod()["metadata"]["labels"]["istio.io/dataplane-mode"].clone()
    };
    assert_eq!(mode("{}"), "none");
    assert_eq!(
        mode("metadata: {labels: {istio.io/dataplane-mode: ambient}}"),
        "ambient"
    );
    let given = "spec: {infrastructure: {labels: {istio.io/dataplane-mode: ambient}}}";
    assert_eq!(mode(given), "ambient");
    // The label of the Gateway counts even where it is not copied.
    let both = "{metadata: {labels: {istio.io/dataplane-mode: ambient}}, spec: {infrastructure: {labels: {}}}}";
    assert_eq!(mode(both), Value::Null);
    let mut world = World::ingress("{}");
    world.settings.is_ambient = false;
    assert!(
        world.object("Service")["metadata"]["labels"]
            .get("istio.io/dataplane-mode")
            .is_none()
    );
}

#[test]
fn case_16_an_unknown_key_costs_everything() {
    let data = json!({"service": "{}", "daemonset": "{}"});
    let error = overlay(data).unwrap_err();
    assert_eq!(error.field, "data[daemonset]");
}

#[test]
fn case_17_an_autoscaler_needs_an_overlay_and_replicas_stay_out() {
    let text = "spec: {maxReplicas: 5, metrics: [{type: Resource}]}";
    let overlay = overlay(json!({"horizontalPodAutoscaler": text})).unwrap();
    let rendered = World::ingress("{}").with(&[&overlay]).unwrap();
    let autoscaler = find(&rendered, "HorizontalPodAutoscaler").unwrap();
    assert_eq!(autoscaler["spec"]["maxReplicas"], 5);
    assert_eq!(autoscaler["spec"]["scaleTargetRef"]["name"], "gw-istio");
    let deployment = find(&rendered, "Deployment").unwrap();
    assert!(deployment["spec"].get("replicas").is_none());
    assert!(find(&rendered, "PodDisruptionBudget").is_none());
}

#[test]
fn case_18_another_name_costs_everything() {
    let overlay = overlay(json!({"service": "metadata: {name: other}"})).unwrap();
    let error = World::ingress("{}").with(&[&overlay]).unwrap_err();
    assert_eq!(error.field, "data[service].metadata.name");
}

#[test]
fn case_19_the_oldest_defaults_of_a_class_count() {
    let maps = [
        config_map("b", "2026-01-02T00:00:00Z", json!({})),
        config_map("c", "2026-01-01T00:00:00Z", json!({})),
        config_map("a", "2026-01-02T00:00:00Z", json!({})),
    ];
    let oldest =
        |maps: &[Arc<Parsed<ConfigMap>>]| Overlay::oldest(maps).unwrap().key().name.clone();
    assert_eq!(oldest(&maps), "c");
    assert_eq!(oldest(&[maps[0].clone(), maps[2].clone()]), "a");
    assert!(Overlay::oldest(&[]).is_none());
}

#[test]
fn case_20_listeners_share_ports() {
    let text = "
spec:
  listeners:
  - {name: a, port: 80, protocol: HTTP, hostname: a.com}
  - {name: b, port: 80, protocol: HTTP, hostname: b.com}
  - {name: c, port: 443, protocol: HTTPS}
";
    assert_eq!(
        World::ingress(text).object("Service")["spec"]["ports"],
        json!([
            {"name": "status-port", "port": 15021, "protocol": "TCP", "appProtocol": "tcp"},
            {"name": "a", "port": 80, "protocol": "TCP", "appProtocol": "http"},
            {"name": "c", "port": 443, "protocol": "TCP", "appProtocol": "https"},
        ])
    );
}

#[test]
fn case_21_names_of_ports_are_distinct() {
    let names = |listeners: &[(&str, u16)]| -> Vec<String> {
        let listeners: Vec<Value> = listeners
            .iter()
            .map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"}))
            .collect();
        let text = json!({"spec": {"listeners": listeners}}).to_string();
        let service = World::ingress(&text).object("Service");
        let ports = service["spec"]["ports"].as_array().unwrap();
        let names = ports.iter().skip(1);
        names
            .map(|port| port["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&[("a.b", 80), ("a-b", 81)]), ["a-b", "a-b-81"]);
    assert_eq!(
        names(&[("a-81", 80), ("a", 82), ("a.81", 81), ("a-81-81", 83)]),
        ["a-81", "a", "a-81-81", "a-81-81-83"]
    );
    assert_eq!(
        names(&[("a-83", 80), ("a", 81), ("a", 83), ("a-83x", 84)]),
        ["a-83", "a", "a-83x", "a-83x-84"]
    );
    assert_eq!(names(&[("status-port", 80)]), ["status-port-80"]);
    // What readiness has cannot be given away.
    assert_eq!(names(&[("x", 15021), ("y", 80)]), ["y"]);
    let (long, cut) = ("a".repeat(80), "a".repeat(63));
    assert_eq!(
        names(&[(&long, 80), (&long, 8080)]),
        [cut.clone(), format!("{}-8080", &cut[..58])]
    );
    let dotted = format!("{}.b", "a".repeat(62));
    assert_eq!(names(&[(&dotted, 80)]), ["a".repeat(62)]);
}

#[test]
fn case_22_a_newer_or_unreadable_version_is_somebody_elses() {
    let version = |version| {
        decide(Question {
            controller: Some(GatewayController::Ingress),
            is_our_revision: true,
            is_managed: true,
            version,
        })
    };
    assert_eq!(version(Some("6")), Decision::Leave(Why::NewerController));
    assert_eq!(
        version(Some("abc")),
        Decision::Leave(Why::UnreadableVersion)
    );
    assert_eq!(version(None), Decision::Make { claim: true });
}

#[test]
fn case_24_everything_goes_with_its_gateway() {
    let overlay =
        overlay(json!({"horizontalPodAutoscaler": "", "podDisruptionBudget": ""})).unwrap();
    let mut world = World::waypoint("{}");
    let owner = json!([{
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "name": "gw",
        "uid": "u-1",
    }]);
    for object in world.with(&[&overlay]).unwrap().objects {
        assert_eq!(
            object.body["metadata"]["ownerReferences"], owner,
            "{}",
            object.kind
        );
    }
    world.settings.owns_service_accounts = false;
    let account = world.object("ServiceAccount");
    assert!(account["metadata"].get("ownerReferences").is_none());
    assert_eq!(
        world.object("Service")["metadata"]["ownerReferences"],
        owner
    );
}

#[test]
fn case_69_a_waypoint_opens_the_ports_of_its_other_listeners() {
    let text = "
spec:
  listeners:
  - {name: mesh, port: 15008, protocol: HBONE}
  - {name: http, port: 80, protocol: HTTP}
";
    assert_eq!(
        World::waypoint(text).object("Service")["spec"]["ports"],
        json!([
            {"name": "status-port", "port": 15021, "protocol": "TCP", "appProtocol": "tcp"},
            {"name": "mesh", "port": 15008, "protocol": "TCP", "appProtocol": "hbone"},
            {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http"},
        ])
    );
}
