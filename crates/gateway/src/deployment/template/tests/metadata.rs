//! Labels, annotations and selectors.

use serde_json::{Value, json};

use super::{east_west, text};
use crate::deployment::tests::World;

#[test]
fn pods_are_labelled_and_annotated() {
    let world = World::waypoint("metadata: {labels: {a: b}, annotations: {c: d}}");
    assert_eq!(
        world.pod()["metadata"],
        json!({
            "labels": {
                "sidecar.istio.io/inject": "false",
                "service.istio.io/canonical-name": "gw",
                "service.istio.io/canonical-revision": "latest",
                "istio.io/dataplane-mode": "none",
                "a": "b",
                "gateway.networking.k8s.io/gateway-name": "gw",
                "gateway.networking.k8s.io/gateway-class-name": "istio-waypoint",
                "gateway.istio.io/managed": "istio.io-mesh-controller",
            },
            "annotations": {
                "c": "d",
                "istio.io/rev": "default",
                "prometheus.io/path": "/stats/prometheus",
                "prometheus.io/port": "15020",
                "prometheus.io/scrape": "true",
            },
        })
    );
    // The template's labels give way to those of users, the annotations do not.
    let text = "metadata: {labels: {istio.io/dataplane-mode: ambient, service.istio.io/canonical-name: x}, annotations: {prometheus.io/port: '1'}}";
    let mut world = World::waypoint(text);
    world.settings.revision = "canary".into();
    let metadata = world.pod()["metadata"].clone();
    assert_eq!(metadata["labels"]["istio.io/dataplane-mode"], "ambient");
    assert_eq!(metadata["labels"]["service.istio.io/canonical-name"], "x");
    assert_eq!(metadata["annotations"]["prometheus.io/port"], "15020");
    assert_eq!(metadata["annotations"]["istio.io/rev"], "canary");
}

#[test]
fn annotations_about_the_gateway_itself_stay_there() {
    let text = "
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{}'
    gateway.istio.io/name-override: gw-istio
    gateway.istio.io/service-account: gw-istio
    gateway.istio.io/controller-version: '5'
    kept: '1'
";
    let given = "
spec:
  infrastructure:
    annotations: {gateway.istio.io/controller-version: '5', kept: '1', gateway.networking.k8s.io/x: z}
";
    for text in [text, given] {
        for kind in ["ServiceAccount", "Deployment", "Service"] {
            let object = World::ingress(text).object(kind);
            assert_eq!(
                object["metadata"]["annotations"],
                json!({"kept": "1"}),
                "{kind}"
            );
        }
    }
}

#[test]
fn metadata_is_copied_only_where_that_is_on() {
    let mut world = World::waypoint("metadata: {labels: {a: b}, annotations: {c: d}}");
    world.settings.copies_metadata = false;
    let metadata = world.object("Deployment")["metadata"].clone();
    assert!(metadata["labels"].get("a").is_none());
    assert!(metadata.get("annotations").is_none());
}

#[test]
fn the_network_is_that_of_the_gateway_then_that_of_the_mesh() {
    const KEY: &str = "topology.istio.io/network";
    let check = |mut world: World, mesh: &str, expect: [Option<&str>; 3]| {
        world.settings.network = mesh.into();
        let labels = world.object("Service")["metadata"]["labels"].clone();
        let label = labels.get(KEY).and_then(Value::as_str).map(str::to_owned);
        let found = [
            label,
            text(&world, "ISTIO_META_NETWORK"),
            text(&world, "ISTIO_META_REQUESTED_NETWORK_VIEW"),
        ];
        assert_eq!(
            found,
            expect.map(|value| value.map(str::to_owned)),
            "{mesh}"
        );
    };
    let own = "metadata: {labels: {topology.istio.io/network: own}}";
    let given = "spec: {infrastructure: {labels: {topology.istio.io/network: own}}}";
    let (own_alone, mesh_alone) = (
        [Some("own"), Some("own"), None],
        [Some("mesh"), Some("mesh"), None],
    );
    for mesh in ["", "mesh"] {
        check(World::waypoint(own), mesh, own_alone);
        check(east_west(own), mesh, [Some("own"); 3]);
        check(World::ingress(own), mesh, [Some("own"); 3]);
        // What users say for the objects is not overwritten.
        check(World::waypoint(given), mesh, own_alone);
    }
    check(World::waypoint("{}"), "", [None; 3]);
    check(east_west("{}"), "", [None; 3]);
    check(World::waypoint("{}"), "mesh", mesh_alone);
    check(east_west("{}"), "mesh", [Some("mesh"); 3]);
    check(World::ingress("{}"), "mesh", [None, Some("mesh"), None]);
}

#[test]
fn the_deployment_selects_by_the_name_of_the_gateway() {
    let spec = World::ingress("{}").object("Deployment")["spec"].clone();
    let selector = json!({"matchLabels": {"gateway.networking.k8s.io/gateway-name": "gw"}});
    assert_eq!(spec["selector"], selector);
    assert!(spec.get("replicas").is_none());
}
