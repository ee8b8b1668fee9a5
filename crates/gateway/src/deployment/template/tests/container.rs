//! Arguments, ports, probes and the image.

use serde_json::Value;

use super::{east_west, stock};
use crate::deployment::ProxyConfigLayer;
use crate::deployment::tests::{World, yaml};

#[test]
fn istio_proxies_get_their_arguments() {
    let common = "[--proxyLogLevel, warning, --proxyComponentLogLevel, 'misc:error', --log_output_level, 'default:info']";
    let with = |head: &str| {
        let mut args = yaml(head).as_array().unwrap().clone();
        args.extend(yaml(common).as_array().unwrap().clone());
        Value::Array(args)
    };
    let ingress = with("[proxy, router, --domain, $(POD_NAMESPACE).svc.cluster.local]");
    assert_eq!(World::ingress("{}").container()["args"], ingress);
    let waypoint = with(
        "[proxy, waypoint, --domain, $(POD_NAMESPACE).svc.cluster.local, --serviceCluster, gw.$(POD_NAMESPACE)]",
    );
    assert_eq!(World::waypoint("{}").container()["args"], waypoint);
    assert_eq!(east_west("{}").container()["args"], waypoint);

    let levels = "
metadata:
  annotations:
    sidecar.istio.io/logLevel: debug
    sidecar.istio.io/componentLogLevel: rbac:trace
    sidecar.istio.io/agentLogLevel: default:debug
spec: {infrastructure: {annotations: {}}}
";
    let mut world = World::ingress(levels);
    world.settings.sts_port = 15463;
    world.settings.log.as_json = true;
    world.settings.outlier_log_path = "/dev/stdout".into();
    let args = world.container()["args"].as_array().unwrap()[4..].to_vec();
    assert_eq!(
        Value::Array(args),
        yaml(
            "[--proxyLogLevel, debug, --proxyComponentLogLevel, 'rbac:trace', --log_output_level, 'default:debug', --stsPort, '15463', --log_as_json]"
        )
    );
    let mut world = World::waypoint("{}");
    world.settings.sts_port = 15463;
    world.settings.outlier_log_path = "/dev/stdout".into();
    let args = world.container()["args"].as_array().unwrap().clone();
    assert_eq!(args[args.len() - 2..], ["--outlierLogPath", "/dev/stdout"]);
}

#[test]
fn ports_and_probes_are_the_same_in_every_form() {
    for world in [
        World::ingress("{}"),
        World::waypoint("{}"),
        stock(World::ingress("{}")),
        stock(World::waypoint("{}")),
        stock(east_west("{}")),
    ] {
        let container = world.container();
        assert_eq!(container["name"], "istio-proxy");
        assert_eq!(
            container["ports"],
            yaml(
                "[{name: metrics, containerPort: 15020, protocol: TCP}, {name: status-port, containerPort: 15021, protocol: TCP}, {name: http-envoy-prom, containerPort: 15090, protocol: TCP}]"
            )
        );
        let probe = "{httpGet: {path: /healthz/ready, port: 15021, scheme: HTTP}, successThreshold: 1, timeoutSeconds: 1, ";
        assert_eq!(
            container["startupProbe"],
            yaml(&format!(
                "{probe}failureThreshold: 30, initialDelaySeconds: 1, periodSeconds: 1}}"
            ))
        );
        assert_eq!(
            container["readinessProbe"],
            yaml(&format!(
                "{probe}failureThreshold: 4, initialDelaySeconds: 0, periodSeconds: 15}}"
            ))
        );
        assert!(container.get("livenessProbe").is_none());
    }
}

#[test]
fn images_come_from_annotations_then_proxy_config_then_settings() {
    let image = |annotations: &str, variant: &str, layer: Option<&str>| {
        let mut world = World::ingress(&format!(
            "{{metadata: {{annotations: {annotations}}}, spec: {{infrastructure: {{annotations: {{}}}}}}}}"
        ));
        world.settings.istio_image.variant = variant.into();
        world.proxy_configs.push(ProxyConfigLayer {
            image_type: layer.map(Into::into),
            ..ProxyConfigLayer::default()
        });
        world.container()["image"].as_str().unwrap().to_owned()
    };
    let base = "docker.io/istio/proxyv2:1.32.0";
    assert_eq!(image("{}", "", None), base);
    assert_eq!(
        image("{}", "distroless", None),
        format!("{base}-distroless")
    );
    assert_eq!(
        image("{}", "distroless", Some("debug")),
        format!("{base}-debug")
    );
    assert_eq!(image("{}", "distroless", Some("default")), base);
    let kind = "{sidecar.istio.io/proxyImageType: mine}";
    assert_eq!(
        image(kind, "distroless", Some("debug")),
        format!("{base}-mine")
    );
    let whole =
        "{sidecar.istio.io/proxyImage: 'example.com/p:1', sidecar.istio.io/proxyImageType: mine}";
    assert_eq!(image(whole, "", None), "example.com/p:1");
    let name = "{sidecar.istio.io/proxyImage: other}";
    assert_eq!(image(name, "", None), "docker.io/istio/other:1.32.0");
}
