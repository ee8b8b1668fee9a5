//! Variables.

use serde_json::{Value, json};

use super::{stock, text, variable};
use crate::deployment::ProxyConfigLayer;
use crate::deployment::proxy_config::selects;
use crate::deployment::tests::{World, yaml};

#[test]
fn variables_say_who_and_where_a_proxy_is() {
    let world = World::ingress("{}");
    for (name, path) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("INSTANCE_IP", "status.podIP"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ("HOST_IP", "status.hostIP"),
        ("ISTIO_META_NODE_NAME", "spec.nodeName"),
    ] {
        let found = variable(&world, name).unwrap();
        assert_eq!(found["fieldRef"]["fieldPath"], path, "{name}");
    }
    for (name, resource) in [
        ("ISTIO_CPU_LIMIT", "limits.cpu"),
        ("GOMEMLIMIT", "limits.memory"),
    ] {
        let found = variable(&world, name).unwrap();
        assert_eq!(found["resourceFieldRef"]["resource"], resource, "{name}");
    }
    for (name, value) in [
        ("PILOT_CERT_PROVIDER", "istiod"),
        ("CA_ADDR", "istiod.istio-system.svc:15012"),
        ("TRUST_DOMAIN", "cluster.local"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        ("ISTIO_META_WORKLOAD_NAME", "gw-istio"),
        (
            "ISTIO_META_OWNER",
            "kubernetes://apis/apps/v1/namespaces/ns/deployments/gw-istio",
        ),
        ("ISTIO_META_MESH_ID", "cluster.local"),
        ("ISTIO_META_POD_PORTS", "[]"),
        ("ISTIO_META_APP_CONTAINERS", ""),
        (
            "PROXY_CONFIG",
            r#"{"discoveryAddress":"istiod.istio-system.svc:15012"}"#,
        ),
    ] {
        assert_eq!(text(&world, name).as_deref(), Some(value), "{name}");
    }
    assert!(variable(&world, "ISTIO_META_SERVICE_ACCOUNT").is_none());
    let waypoint = World::waypoint("{}");
    assert!(variable(&waypoint, "ISTIO_META_SERVICE_ACCOUNT").is_some());
    for name in ["ISTIO_META_POD_PORTS", "ISTIO_META_APP_CONTAINERS"] {
        assert!(variable(&waypoint, name).is_none(), "{name}");
    }
}

#[test]
fn settings_reach_the_variables() {
    let mut world = World::ingress("{}");
    world.settings.revision = "canary".into();
    world.settings.system_namespace = "mesh".into();
    world.settings.cluster_id = "own".into();
    world.settings.mesh_id = "m".into();
    world.settings.trust_domain = "td".into();
    let check = |world: &World, expect: [(&str, &str); 5]| {
        for (name, value) in expect {
            assert_eq!(text(world, name).as_deref(), Some(value), "{name}");
        }
    };
    check(
        &world,
        [
            ("CA_ADDR", "istiod-canary.mesh.svc:15012"),
            ("ISTIO_META_CLUSTER_ID", "own"),
            ("ISTIO_META_MESH_ID", "m"),
            ("TRUST_DOMAIN", "td"),
            (
                "PROXY_CONFIG",
                r#"{"discoveryAddress":"istiod-canary.mesh.svc:15012"}"#,
            ),
        ],
    );
    world.settings.mesh_id = "".into();
    world.settings.ca_address = "ca.example:1".into();
    world.settings.cluster_name = "named".into();
    world
        .settings
        .proxy_config
        .insert("interceptionMode".into(), json!("TPROXY"));
    world
        .settings
        .proxy_config
        .insert("discoveryAddress".into(), json!("x:1"));
    check(
        &world,
        [
            ("CA_ADDR", "ca.example:1"),
            ("ISTIO_META_CLUSTER_ID", "named"),
            ("ISTIO_META_MESH_ID", "td"),
            ("ISTIO_META_INTERCEPTION_MODE", "TPROXY"),
            (
                "PROXY_CONFIG",
                r#"{"discoveryAddress":"x:1","interceptionMode":"TPROXY"}"#,
            ),
        ],
    );
    let mut waypoint = World::waypoint("{}");
    waypoint.settings = world.settings.clone();
    assert_eq!(
        text(&waypoint, "ISTIO_META_INTERCEPTION_MODE").as_deref(),
        Some("REDIRECT")
    );
}

#[test]
fn proxy_configs_are_merged_from_the_widest_to_the_narrowest() {
    let mut world = World::ingress("{}");
    let mesh = &mut world.settings.proxy_config;
    mesh.insert("concurrency".into(), json!(1));
    mesh.insert(
        "proxyMetadata".into(),
        json!({"A": "mesh", "B": "mesh", "N": 1}),
    );
    let layer = |concurrency, environment: &[(&str, &str)], image: Option<&str>| ProxyConfigLayer {
        concurrency,
        environment: environment
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        image_type: image.map(Into::into),
    };
    world.proxy_configs = vec![
        layer(Some(2), &[("B", "root")], Some("debug")),
        layer(
            None,
            &[
                ("C", "ns"),
                ("ISTIO_META_MESH_ID", "mine"),
                ("POD_NAME", "forged"),
            ],
            None,
        ),
        layer(Some(0), &[], None),
    ];
    for (name, value) in [
        ("A", "mesh"),
        ("B", "root"),
        ("C", "ns"),
        ("N", "1"),
        ("ISTIO_META_MESH_ID", "mine"),
    ] {
        assert_eq!(text(&world, name).as_deref(), Some(value), "{name}");
    }
    assert!(
        variable(&world, "POD_NAME")
            .unwrap()
            .get("fieldRef")
            .is_some()
    );
    let config: Value = serde_json::from_str(&text(&world, "PROXY_CONFIG").unwrap()).unwrap();
    assert_eq!(config["concurrency"], 0);
    assert_eq!(config["image"], json!({"imageType": "debug"}));
    assert_eq!(config["proxyMetadata"]["B"], "root");
    assert_eq!(
        world.container()["image"],
        "docker.io/istio/proxyv2:1.32.0-debug"
    );

    let labels = |text: &str| -> model::Labels {
        let value = yaml(text);
        let fields = value.as_object().unwrap().iter();
        fields
            .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap().into()))
            .collect()
    };
    assert!(selects(&labels("{}"), "gw"));
    assert!(selects(
        &labels("{gateway.networking.k8s.io/gateway-name: gw}"),
        "gw"
    ));
    assert!(!selects(
        &labels("{gateway.networking.k8s.io/gateway-name: other}"),
        "gw"
    ));
    assert!(!selects(&labels("{app: x}"), "gw"));
}

#[test]
fn pods_say_their_own_configuration_over_that_of_the_mesh() {
    let annotated = |config: &str| {
        let annotations = json!({"proxy.istio.io/config": config});
        let spec = json!({"spec": {"infrastructure": {"annotations": annotations}}});
        stock(World::ingress(&spec.to_string()))
    };
    let config = |world: &World| -> Value {
        serde_json::from_str(&text(world, "PROXY_CONFIG").unwrap()).unwrap()
    };
    let mut world =
        annotated("gatewayTopology:\n  numTrustedProxies: 2\nproxyMetadata: {B: own}\n");
    let mesh = &mut world.settings.proxy_config;
    mesh.insert("proxyMetadata".into(), json!({"A": "mesh", "B": "mesh"}));
    mesh.insert("gatewayTopology".into(), json!({"numTrustedProxies": 7}));
    let found = config(&world);
    assert_eq!(found["gatewayTopology"], json!({"numTrustedProxies": 2}));
    assert_eq!(found["proxyMetadata"], json!({"A": "mesh", "B": "own"}));
    assert_eq!(text(&world, "B").as_deref(), Some("own"));
    // One that cannot be read costs itself alone, and is told.
    let world = annotated("[1, 2]");
    assert!(config(&world).get("gatewayTopology").is_none());
    let ignored = world.with(&[]).unwrap().ignored;
    let fields: Vec<&str> = ignored.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["metadata.annotations[proxy.istio.io/config]"]);
}
