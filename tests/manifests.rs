//! What `manifests/` holds: it builds, it allows what the code needs and no more, and tools find
//! in it what they look for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kube_io::kinds;
use serde_json::{Value, json};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// What `kubectl kustomize` makes of a directory.
fn build(directory: &str) -> Vec<Value> {
    let mut command = Command::new(testkit::cluster::binary().unwrap());
    let output = command
        .args(["kubectl", "kustomize"])
        .arg(manifests().join(directory))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{directory}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    documents(&text)
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").filter(|part| !part.trim().is_empty());
    parts
        .map(|part| serde_saphyr::from_str(part).expect(part))
        .collect()
}

fn one<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = all
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "more than one {kind} {name}");
    object
}

/// Ports as name → number.
fn ports(list: &Value, number: &str) -> BTreeMap<String, u64> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|port| {
            let name = port["name"].as_str().unwrap().to_owned();
            (name, port[number].as_u64().unwrap())
        })
        .collect()
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

#[test]
fn everything_builds_and_lives_in_the_namespace_of_the_control_plane() {
    for directory in [
        "base",
        "overlays/kind",
        "overlays/ha",
        "overlays/test",
        "ztunnel",
    ] {
        for object in build(directory) {
            let metadata = &object["metadata"];
            let is_cluster_wide = matches!(
                object["kind"].as_str().unwrap(),
                "Namespace"
                    | "ClusterRole"
                    | "ClusterRoleBinding"
                    | "ValidatingWebhookConfiguration"
            );
            if !is_cluster_wide {
                assert_eq!(
                    metadata["namespace"], "istio-system",
                    "{directory}: {metadata}"
                );
            }
        }
    }
    for directory in ["crds", "samples/bookinfo", "samples/waypoint"] {
        assert!(!build(directory).is_empty(), "{directory}");
    }
}

#[test]
fn overlays_change_what_they_are_for() {
    let replicas = |all: &[Value]| one(all, "Deployment", "istiod")["spec"]["replicas"].clone();
    let has = |all: &[Value], kind: &str| all.iter().any(|object| object["kind"] == kind);
    for overlay in ["overlays/kind", "overlays/test"] {
        let all = build(overlay);
        assert_eq!(replicas(&all), json!(1));
        assert!(!has(&all, "HorizontalPodAutoscaler"), "{overlay}");
        let pod = &one(&all, "Deployment", "istiod")["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "ambientd:dev");
        assert_eq!(pod["containers"][0]["imagePullPolicy"], "IfNotPresent");
    }
    let ha = build("overlays/ha");
    assert_eq!(replicas(&ha), Value::Null, "the autoscaler's to say");
    let scaler = one(&ha, "HorizontalPodAutoscaler", "istiod");
    assert_eq!(scaler["spec"]["minReplicas"], 2);
    let budget = &one(&ha, "PodDisruptionBudget", "istiod")["spec"];
    assert_eq!(budget["minAvailable"], 1);
    assert_eq!(budget["maxUnavailable"], Value::Null);
}

/// Source: spec/control-plane.md §1.3, §6.4, §6.5.
#[test]
fn istioctl_kiali_and_ztunnel_find_what_they_look_for() {
    let all = build("base");
    let service = one(&all, "Service", "istiod");
    let labels = &service["metadata"]["labels"];
    assert_eq!(labels["app"], "istiod");
    assert_eq!(labels["istio.io/rev"], "default");
    let expected = [
        ("grpc-xds", 15010),
        ("https-dns", 15012),
        ("https-webhook", 443),
        ("http-monitoring", 15014),
    ];
    let expected = expected.map(|(name, port)| (name.to_owned(), port)).into();
    assert_eq!(ports(&service["spec"]["ports"], "port"), expected);

    let deployment = one(&all, "Deployment", "istiod");
    let template = &deployment["spec"]["template"];
    for (name, value) in [
        ("app", "istiod"),
        ("istio", "pilot"),
        ("istio.io/rev", "default"),
        ("istio.io/dataplane-mode", "none"),
        ("sidecar.istio.io/inject", "false"),
        ("operator.istio.io/component", "Pilot"),
    ] {
        assert_eq!(template["metadata"]["labels"][name], value, "{name}");
    }
    for (name, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(template["metadata"]["labels"][name], *value, "{name}");
        assert_eq!(
            deployment["spec"]["selector"]["matchLabels"][name], *value,
            "{name}"
        );
    }
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], "15014");
    assert_eq!(annotations["prometheus.io/scrape"], "true");

    let pod = &template["spec"];
    assert_eq!(pod["serviceAccountName"], "istiod");
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    let discovery = &containers[0];
    assert_eq!(discovery["name"], "discovery");
    assert_eq!(discovery["args"][0], "discovery");
    let expected = [
        ("http-debug", 8080),
        ("grpc-xds", 15010),
        ("tls-xds", 15012),
        ("https-webhooks", 15017),
        ("http-monitoring", 15014),
    ];
    let expected = expected.map(|(name, port)| (name.to_owned(), port)).into();
    assert_eq!(ports(&discovery["ports"], "containerPort"), expected);
    assert_eq!(discovery["readinessProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(discovery["readinessProbe"]["httpGet"]["port"], 8080);

    let mesh = one(&all, "ConfigMap", "istio")["data"]["mesh"]
        .as_str()
        .unwrap();
    let mesh: Value = serde_saphyr::from_str(mesh).unwrap();
    assert_eq!(mesh["rootNamespace"], "istio-system");
    let hbone = &mesh["defaultConfig"]["proxyMetadata"]["ISTIO_META_ENABLE_HBONE"];
    assert_eq!(hbone, "true");

    let webhook = one(
        &all,
        "ValidatingWebhookConfiguration",
        "istio-validator-istio-system",
    );
    assert_eq!(webhook["metadata"]["labels"]["istio.io/rev"], "default");
    // Nobody is kept from applying objects while nothing answers.
    assert_eq!(webhook["webhooks"][0]["failurePolicy"], "Ignore");
}

#[test]
fn ambientd_runs_with_the_least_of_rights() {
    let all = build("base");
    let pod = &one(&all, "Deployment", "istiod")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));

    for file in ["base/cluster-role.yaml", "base/role.yaml"] {
        let text = std::fs::read_to_string(manifests().join(file)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.starts_with("- apiGroups:"))
        {
            let above = lines[..at]
                .iter()
                .rev()
                .take_while(|line| line.starts_with('#'));
            let purposes = above.filter(|line| line.starts_with("# purpose: ")).count();
            assert_eq!(purposes, 1, "{file}:{}: a rule without a purpose", at + 1);
        }
    }
    let allowed = ["get", "list", "watch", "create", "update", "patch"];
    for (group, resource, verbs) in rules(&all) {
        assert!(
            !group.contains('*') && !resource.contains('*'),
            "{group}/{resource}"
        );
        for verb in verbs {
            assert!(
                allowed.contains(&verb.as_str()),
                "{verb} {group}/{resource}"
            );
        }
    }
}

/// Group, resource and verbs of every rule, split up.
fn rules(all: &[Value]) -> Vec<(String, String, BTreeSet<String>)> {
    let roles = all
        .iter()
        .filter(|object| matches!(object["kind"].as_str(), Some("ClusterRole" | "Role")));
    let mut out = Vec::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        let verbs: BTreeSet<String> = texts(&rule["verbs"])
            .into_iter()
            .map(str::to_owned)
            .collect();
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                out.push((group.to_owned(), resource.to_owned(), verbs.clone()));
            }
        }
    }
    out
}

#[test]
fn what_is_watched_may_be_watched_and_nothing_else() {
    let all = build("base");
    let rules = rules(&all);
    let mut wanted: BTreeSet<(String, String)> = kinds::watched()
        .map(|kind| (kind.group().to_owned(), kinds::plural(kind.as_str())))
        .chain(
            kinds::watched_unsupported()
                .map(|(group, kind)| (group.to_owned(), kinds::plural(kind))),
        )
        .collect();
    for (group, resource) in [
        ("", "serviceaccounts"),
        ("apps", "deployments"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("policy", "poddisruptionbudgets"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        (
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations",
        ),
    ] {
        wanted.insert((group.to_owned(), resource.to_owned()));
    }
    let allowed: BTreeSet<(String, String)> = rules
        .iter()
        .filter(|(_, _, verbs)| verbs.contains("list") && verbs.contains("watch"))
        .map(|(group, resource, _)| (group.clone(), resource.clone()))
        .collect();
    assert_eq!(allowed, wanted);
}

#[test]
fn every_kind_that_definitions_bring_is_defined_for_tests() {
    let defined: BTreeSet<(String, String)> = build("crds")
        .iter()
        .map(|object| &object["spec"])
        .map(|spec| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&spec["group"]), text(&spec["names"]["kind"]))
        })
        .collect();
    let wanted: BTreeSet<(String, String)> = kinds::watched()
        .map(|kind| (kind.group(), kind.as_str()))
        .chain(kinds::watched_unsupported())
        .filter(|(group, _)| kinds::DISCOVERED_GROUPS.contains(group))
        .map(|(group, kind)| (group.to_owned(), kind.to_owned()))
        .collect();
    assert_eq!(defined, wanted);
}

#[test]
fn the_sample_is_allowed_exactly_what_its_policies_say() {
    let all = build("samples/bookinfo");
    let accounts: BTreeSet<&str> = all
        .iter()
        .filter(|object| object["kind"] == "ServiceAccount")
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect();
    let services = all.iter().filter(|object| object["kind"] == "Service");
    for service in services {
        let name = service["metadata"]["name"].as_str().unwrap();
        let policy = &one(&all, "AuthorizationPolicy", name)["spec"];
        assert_eq!(
            policy["selector"]["matchLabels"],
            service["spec"]["selector"]
        );
        assert_eq!(policy["action"], "ALLOW");
        for principal in texts(&policy["rules"][0]["from"][0]["source"]["principals"]) {
            let account = principal
                .strip_prefix("cluster.local/ns/bookinfo/sa/")
                .unwrap();
            assert!(accounts.contains(account), "{principal}");
        }
    }
    let namespace = one(&all, "Namespace", "bookinfo");
    assert_eq!(
        namespace["metadata"]["labels"]["istio.io/dataplane-mode"],
        "ambient"
    );
}
