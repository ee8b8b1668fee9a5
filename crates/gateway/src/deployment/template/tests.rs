#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::{Value, json};

use super::super::proxy_config::selects;
use super::super::settings::{PodForms, TrustBundle};
use super::super::tests::{World, yaml};
use super::super::{PodForm, ProxyConfigLayer};

/// The value of a variable, or where it comes from.
fn variable(world: &World, name: &str) -> Option<Value> {
    let container = world.container();
    let env = container["env"].as_array().unwrap().clone();
    let mut found = env.iter().filter(|variable| variable["name"] == name);
    let first = found.next()?;
    assert!(found.next().is_none(), "{name} is there twice");
    first
        .get("value")
        .or_else(|| first.get("valueFrom"))
        .cloned()
}

fn text(world: &World, name: &str) -> Option<String> {
    variable(world, name).map(|value| value.as_str().unwrap().to_owned())
}

fn stock(mut world: World) -> World {
    world.settings.forms = PodForms::all(PodForm::Stock);
    world
}

fn east_west(text: &str) -> World {
    World::new("istio-east-west", text)
}

/// Names of volumes; each must be mounted, and nothing else.
fn volumes(world: &World) -> Vec<String> {
    let pod = world.pod()["spec"].clone();
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let volumes = names(&pod["volumes"]);
    assert_eq!(volumes, names(&pod["containers"][0]["volumeMounts"]));
    volumes
}

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
fn the_service_prefers_what_is_near_for_waypoints() {
    const KEY: &str = "networking.istio.io/traffic-distribution";
    let value = |world: World| world.object("Service")["metadata"]["annotations"][KEY].clone();
    assert_eq!(value(World::waypoint("{}")), "PreferClose");
    assert_eq!(value(east_west("{}")), "PreferClose");
    assert_eq!(value(World::ingress("{}")), Value::Null);
    let own = "metadata: {annotations: {networking.istio.io/traffic-distribution: Any}}";
    assert_eq!(value(World::waypoint(own)), "Any");
    let account = World::waypoint("{}").object("ServiceAccount");
    assert!(account["metadata"].get("annotations").is_none());
}

#[test]
fn the_service_asks_for_both_families_and_the_address() {
    let text = "spec: {addresses: [{value: 192.0.2.1}]}";
    let spec = World::ingress(text).object("Service")["spec"].clone();
    assert_eq!(spec["ipFamilyPolicy"], "PreferDualStack");
    assert_eq!(
        spec["selector"],
        json!({"gateway.networking.k8s.io/gateway-name": "gw"})
    );
    assert_eq!(spec["loadBalancerIP"], "192.0.2.1");
    assert!(spec["ports"][0].get("targetPort").is_none());
    assert!(
        World::ingress("{}").object("Service")["spec"]
            .get("loadBalancerIP")
            .is_none()
    );
    assert!(
        World::waypoint(text).object("Service")["spec"]
            .get("loadBalancerIP")
            .is_none()
    );
}

#[test]
fn the_deployment_selects_by_the_name_of_the_gateway() {
    let spec = World::ingress("{}").object("Deployment")["spec"].clone();
    let selector = json!({"matchLabels": {"gateway.networking.k8s.io/gateway-name": "gw"}});
    assert_eq!(spec["selector"], selector);
    assert!(spec.get("replicas").is_none());
}

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
