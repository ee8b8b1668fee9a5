//! Volumes, contexts, resources and places.

use serde_json::json;

use super::{east_west, stock, volumes};
use crate::deployment::settings::TrustBundle;
use crate::deployment::tests::{World, yaml};

#[test]
fn volumes_are_those_that_the_proxy_reads() {
    let common = [
        "istiod-ca-cert",
        "istio-data",
        "istio-envoy",
        "istio-token",
        "istio-podinfo",
    ];
    let expect = |first: &[&str], last: &[&str]| -> Vec<String> {
        let all = first.iter().chain(&common).chain(last);
        all.map(|name| (*name).to_owned()).collect()
    };
    let ingress = ["workload-socket", "credential-socket", "workload-certs"];
    assert_eq!(volumes(&World::ingress("{}")), expect(&ingress, &[]));
    let waypoint = expect(&["workload-socket"], &[]);
    assert_eq!(volumes(&World::waypoint("{}")), waypoint);
    let stocked = expect(&["workload-socket"], &["agent-bin"]);
    assert_eq!(volumes(&stock(World::ingress("{}"))), stocked);

    let mut other = World::ingress("{}");
    other.settings.cert_provider = "custom".into();
    assert!(!volumes(&other).contains(&"istiod-ca-cert".to_owned()));
    let mut other = World::waypoint("{}");
    other.settings.cert_provider = "custom".into();
    assert_eq!(volumes(&other), waypoint);
}

#[test]
fn the_sources_of_volumes() {
    let mut world = World::waypoint("{}");
    let source = |world: &World, name: &str| {
        let pod = world.pod();
        let all = pod["spec"]["volumes"].as_array().unwrap().clone();
        let mut one = all
            .into_iter()
            .find(|volume| volume["name"] == name)
            .unwrap();
        one.as_object_mut().unwrap().remove("name");
        one
    };
    assert_eq!(
        source(&world, "istio-envoy"),
        json!({"emptyDir": {"medium": "Memory"}})
    );
    assert_eq!(
        source(&world, "istio-token")["projected"]["sources"],
        yaml(
            "[{serviceAccountToken: {audience: istio-ca, expirationSeconds: 43200, path: istio-token}}]"
        )
    );
    let items = &source(&world, "istio-podinfo")["downwardAPI"]["items"];
    assert_eq!(items[0]["path"], "labels");
    assert_eq!(items[1]["fieldRef"]["fieldPath"], "metadata.annotations");
    let root = |world: &World| source(world, "istiod-ca-cert");
    assert_eq!(
        root(&world),
        json!({"configMap": {"name": "istio-ca-root-cert"}})
    );
    world.settings.trust_bundle = TrustBundle::Cluster("istio.io:istiod-ca:root-cert".into());
    assert_eq!(
        root(&world)["projected"]["sources"],
        yaml("[{clusterTrustBundle: {name: 'istio.io:istiod-ca:root-cert', path: root-cert.pem}}]")
    );
    let mounts = world.container()["volumeMounts"].clone();
    let path = |name: &str| {
        let all = mounts.as_array().unwrap();
        all.iter().find(|mount| mount["name"] == name).unwrap()["mountPath"].clone()
    };
    for (name, at) in [
        ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
        ("istio-envoy", "/etc/istio/proxy"),
        ("istio-data", "/var/lib/istio/data"),
        ("istio-token", "/var/run/secrets/tokens"),
        ("istio-podinfo", "/etc/istio/pod"),
        ("istiod-ca-cert", "/var/run/secrets/istio"),
    ] {
        assert_eq!(path(name), at);
    }
}

#[test]
fn nobody_is_root() {
    let context = |world: &World| world.container()["securityContext"].clone();
    let usual = yaml(
        "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, privileged: false, readOnlyRootFilesystem: true, runAsNonRoot: true, runAsUser: 1337, runAsGroup: 1337}",
    );
    assert_eq!(context(&World::ingress("{}")), usual);
    assert_eq!(context(&World::waypoint("{}")), usual);
    let mut world = World::waypoint("{}");
    world.settings.seccomp_profile = Some(json!({"type": "RuntimeDefault"}));
    assert_eq!(context(&world)["seccompProfile"]["type"], "RuntimeDefault");
    assert!(world.pod()["spec"].get("securityContext").is_none());
    world.settings.is_openshift = true;
    assert!(context(&world).get("runAsUser").is_none());

    let mut world = World::ingress("{}");
    let sysctls = yaml("{sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '0'}]}");
    assert_eq!(world.pod()["spec"]["securityContext"], sysctls);
    world.settings.seccomp_profile = Some(json!({"type": "RuntimeDefault"}));
    let pod = world.pod();
    assert_eq!(
        pod["spec"]["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(
        pod["spec"]["securityContext"]["sysctls"],
        sysctls["sysctls"]
    );
    assert!(context(&world).get("seccompProfile").is_none());
    world.settings.gateway_security_context = Some(json!({"fsGroup": 7}));
    assert_eq!(
        world.pod()["spec"]["securityContext"],
        json!({"fsGroup": 7})
    );
    world.settings.is_openshift = true;
    world.proxy_user = Some(1_000_650_000);
    assert_eq!(context(&world)["runAsUser"], 1_000_650_000);
    assert_eq!(context(&world)["runAsGroup"], 1_000_650_000);
}

#[test]
fn resources_and_places_are_those_of_the_class() {
    let set = |mut world: World| {
        let settings = &mut world.settings;
        settings.gateway_resources = json!({"requests": {"cpu": "1"}});
        settings.waypoint_resources = json!({"requests": {"cpu": "2"}});
        settings.waypoint_scheduling.node_selector = Some(json!({"a": "b"}));
        settings.waypoint_scheduling.tolerations = Some(json!([{"operator": "Exists"}]));
        settings.waypoint_scheduling.affinity = Some(json!({"nodeAffinity": {}}));
        settings.waypoint_scheduling.topology_spread_constraints = Some(json!([{"maxSkew": 1}]));
        settings.lifecycle = Some(json!({"preStop": {}}));
        settings.image_pull_secrets = vec!["s".into()];
        settings.image_pull_policy = Some("Always".into());
        world
    };
    let default = json!({
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "2000m", "memory": "1024Mi"},
    });
    assert_eq!(World::ingress("{}").container()["resources"], default);
    assert_eq!(World::waypoint("{}").container()["resources"], default);
    let fields = [
        "affinity",
        "topologySpreadConstraints",
        "nodeSelector",
        "tolerations",
    ];
    for (world, cpu, is_placed) in [
        (set(World::ingress("{}")), "1", false),
        (set(World::waypoint("{}")), "2", true),
        (set(east_west("{}")), "2", true),
    ] {
        let (pod, container) = (world.pod()["spec"].clone(), world.container());
        assert_eq!(container["resources"]["requests"]["cpu"], cpu);
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container.get("lifecycle").is_some(), !is_placed);
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "s"}]));
        for field in fields {
            assert_eq!(pod.get(field).is_some(), is_placed, "{field}");
        }
    }
}
