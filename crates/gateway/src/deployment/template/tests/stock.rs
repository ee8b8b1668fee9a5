//! Pods of stock Envoy, and which are.

use serde_json::{Value, json};

use super::{east_west, stock, text, volumes};
use crate::deployment::PodForm;
use crate::deployment::settings::PodForms;
use crate::deployment::tests::{World, yaml};

#[test]
fn stock_pods_run_the_agent() {
    let world = stock(World::waypoint("{}"));
    let pod = world.pod()["spec"].clone();
    let install = &pod["initContainers"][0];
    assert_eq!(install["name"], "agent-install");
    assert_eq!(install["image"], "ambientd:latest");
    assert_eq!(install["args"], json!(["agent-install", "/agent"]));
    assert_eq!(
        install["volumeMounts"],
        json!([{"name": "agent-bin", "mountPath": "/agent"}])
    );
    assert_eq!(
        install["securityContext"],
        world.container()["securityContext"]
    );
    let container = world.container();
    assert_eq!(
        container["image"],
        "docker.io/envoyproxy/envoy:distroless-v1.40.0"
    );
    assert_eq!(container["command"], json!(["/agent/ambientd"]));
    let istio = World::waypoint("{}").container();
    for same in ["args", "env"] {
        assert_eq!(container[same], istio[same], "{same}");
    }
    let mounts = container["volumeMounts"].as_array().unwrap();
    let agent = mounts
        .iter()
        .find(|mount| mount["name"] == "agent-bin")
        .unwrap();
    assert_eq!(agent["readOnly"], true);
    let role = |world: World| stock(world).container()["args"][1].clone();
    assert_eq!(role(World::ingress("{}")), "router");
    assert_eq!(role(World::waypoint("{}")), "waypoint");
    assert_eq!(role(east_west("{}")), "waypoint");
}

#[test]
fn stock_pods_of_one_image_install_nothing() {
    let mut world = stock(World::ingress("{}"));
    world.settings.stock_image.agent = None;
    assert!(world.pod()["spec"].get("initContainers").is_none());
    assert!(!volumes(&world).contains(&"agent-bin".to_owned()));
    assert_eq!(
        world.container()["command"],
        json!(["/usr/local/bin/ambientd"])
    );
}

#[test]
fn stock_pods_do_of_the_proxy_configuration_what_they_can_and_say_the_rest() {
    let gateway = "
metadata:
  annotations: {sidecar.istio.io/proxyImage: x/y:1, sidecar.istio.io/logLevel: debug}
spec: {infrastructure: {annotations: {}}}
";
    let mut world = stock(World::ingress(gateway));
    let config = &mut world.settings.proxy_config;
    config.insert("terminationDrainDuration".into(), json!("20s"));
    config.insert("drainDuration".into(), json!("30s"));
    config.insert("concurrency".into(), json!(3));
    config.insert("discoveryAddress".into(), json!("cp.example:15012"));
    config.insert("statNameLength".into(), json!(100));
    config.insert(
        "proxyMetadata".into(),
        json!({"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "true"}),
    );
    config.insert("gatewayTopology".into(), json!({"numTrustedProxies": 1}));
    world.settings.sts_port = 15463;
    assert_eq!(
        world.container()["args"],
        yaml(
            "[proxy, router, --domain, $(POD_NAMESPACE).svc.cluster.local, --proxyLogLevel, debug, --proxyComponentLogLevel, 'misc:error', --log_output_level, 'default:info']"
        )
    );
    let config: Value = serde_json::from_str(&text(&world, "PROXY_CONFIG").unwrap()).unwrap();
    assert_eq!(config["concurrency"], 3);
    assert_eq!(text_of(&world), Some("true".to_owned()));
    let ignored = world.with(&[]).unwrap().ignored;
    let fields: Vec<&str> = ignored.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "metadata.annotations[sidecar.istio.io/proxyImage]",
            "defaultConfig.statNameLength",
            "global.sts.servicePort"
        ]
    );
    world.settings.forms = PodForms::all(PodForm::Istio);
    assert!(world.with(&[]).unwrap().ignored.is_empty());
}

fn text_of(world: &World) -> Option<String> {
    text(world, "EXIT_ON_ZERO_ACTIVE_CONNECTIONS")
}

#[test]
fn the_form_is_chosen_by_gateway_then_by_class() {
    let is_stock = |world: &World| world.container().get("command").is_some();
    let mut world = World::waypoint("metadata: {annotations: {ambientd.io/proxy: stock}}");
    assert!(is_stock(&world));
    world.settings.forms = PodForms::all(PodForm::Stock);
    assert!(is_stock(&world));
    let istio = stock(World::waypoint(
        "metadata: {annotations: {ambientd.io/proxy: istio}}",
    ));
    assert!(!is_stock(&istio));
    let forms = PodForms {
        ingress: PodForm::Stock,
        ..PodForms::all(PodForm::Istio)
    };
    for (mut world, expect) in [
        (World::ingress("{}"), true),
        (World::waypoint("{}"), false),
        (east_west("{}"), false),
    ] {
        world.settings.forms = forms;
        assert_eq!(is_stock(&world), expect);
    }
    let error = World::waypoint("metadata: {annotations: {ambientd.io/proxy: nginx}}");
    let error = error.with(&[]).unwrap_err();
    assert_eq!(error.field, "metadata.annotations[ambientd.io/proxy]");
}
