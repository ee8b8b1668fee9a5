//! What an edit changes of what is served, and that it changes nothing else.
//!
//! Every row of the table in spec/workload-discovery.md §7.2 has its cases here, in its order.
//! A changed service comes with all its workloads (§1.6, step (c)).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "pushes/policies.rs"]
mod policies;
#[path = "pushes/waypoints.rs"]
mod waypoints;

use std::collections::BTreeMap;
use std::sync::Arc;

use ambientd_pipeline::{MeshDefaults, Pipeline};
use model::derived::Features;
use model::object::Input;
use model::parse::{Recognised, recognise};
use model::{Kind, Object, ObjectKey};
use snapshot::{ResourceMap, ResourceType, Snapshot};

/// The objects of a text; `- Kind ns/name` deletes one.
fn inputs(text: &str) -> Vec<Input> {
    let documents = text.split("---\n").filter(|part| !part.trim().is_empty());
    let one = |part: &str| {
        if let Some(deleted) = part.strip_prefix("- ") {
            let (kind, key) = deleted.trim().split_once(' ').unwrap();
            let mut kinds = Kind::ALL.into_iter();
            let kind = kinds.find(|known| known.as_str() == kind).unwrap();
            let key = match key.split_once('/') {
                Some((ns, name)) => ObjectKey::new(ns, name),
                None => ObjectKey::cluster(key),
            };
            return Input::Delete(kind, key);
        }
        let value: serde_json::Value = serde_saphyr::from_str(part).expect(part);
        match recognise(&value, "test.yaml") {
            Recognised::Object(object) => {
                assert!(is_readable(&object), "{part}");
                Input::Upsert(object)
            }
            other => panic!("{part}: {other:?}"),
        }
    };
    documents.map(one).collect()
}

fn is_readable(object: &Object) -> bool {
    !format!("{object:?}").contains("Invalid {")
}

/// What is sent and removed, shortened: `pod a/p`, `svc a/s` for Addresses, `policy a/p`.
fn pushed(before: &Snapshot, after: &Snapshot) -> String {
    let mut out = BTreeMap::<&str, Vec<String>>::new();
    for (ty, sent, removed) in [
        (ResourceType::Address, "sent", "removed"),
        (ResourceType::Authorization, "policies", "no policies"),
    ] {
        let of = |snapshot: &'_ Snapshot| snapshot.resources(None, ty).cloned().unwrap_or_default();
        let diff = ResourceMap::diff(&of(before), &of(after));
        for resource in &diff.changed {
            out.entry(sent).or_default().push(short(resource.name()));
        }
        for name in &diff.removed {
            out.entry(removed).or_default().push(short(name));
        }
    }
    let lists = ["sent", "removed", "policies", "no policies"]
        .into_iter()
        .filter_map(|what| {
            let mut names = out.remove(what)?;
            names.sort();
            Some(format!("{what}: {}", names.join(", ")))
        });
    lists.collect::<Vec<_>>().join("; ")
}

/// `Kubernetes//Pod/a/p` as `pod/a/p`; the rest of a name that says enough.
fn short(name: &str) -> String {
    name.replace("Kubernetes//Pod/", "pod/")
        .replace("Kubernetes/networking.istio.io/WorkloadEntry/", "we/")
        .replace("Kubernetes/networking.istio.io/ServiceEntry/", "se/")
        .replace("Kubernetes/discovery.k8s.io/EndpointSlice/", "slice/")
        .replace(".a.svc.cluster.local", "")
        .replace(".b.svc.cluster.local", "")
}

fn pipeline(features: Features) -> (Pipeline, Vec<Input>) {
    let pipeline = Pipeline::new(MeshDefaults {
        features,
        ..MeshDefaults::default()
    });
    let lists = Kind::ALL.map(|kind| Input::Resync(kind, Vec::new()));
    (pipeline, lists.into_iter().collect())
}

/// Plays the edits of a case, each of them a text and what it pushes.
fn check(features: Features, base: &str, steps: &[(&str, &str)]) {
    let (mut pipeline, mut first) = pipeline(features);
    first.extend(inputs(base));
    let mut last = pipeline.apply(first).expect("every kind is listed");
    for (edit, expected) in steps {
        let next = pipeline.apply(inputs(edit));
        let next = next.unwrap_or_else(|| Arc::clone(&last));
        assert_eq!(pushed(&last, &next), *expected, "\nafter {edit}");
        last = next;
    }
}

fn plain(base: &str, steps: &[(&str, &str)]) {
    check(Features::default(), base, steps);
}

fn with_waypoint_policies() -> Features {
    Features {
        allow_waypoint_policies: true,
        ..Features::default()
    }
}

// === Objects ===

/// A pod `ns/name`, ready, with metadata, spec and status to add.
fn pod_with(key: &str, ip: &str, metadata: &str, spec: &str, status: &str) -> String {
    let (ns, name) = key.split_once('/').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: {ns}, name: {name}, uid: u-{name}, {metadata}}}\nspec: {{serviceAccountName: sa, nodeName: n1, containers: [], {spec}}}\nstatus: {{podIP: {ip}, conditions: [{{type: Ready, status: \"True\"}}], {status}}}\n"
    )
}

fn pod(key: &str, ip: &str, labels: &str) -> String {
    pod_with(key, ip, &format!("labels: {{{labels}}}"), "", "")
}

fn service(key: &str, labels: &str, spec: &str) -> String {
    let (ns, name) = key.split_once('/').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: {ns}, name: {name}, labels: {{{labels}}}}}\nspec: {{{spec}}}\n"
    )
}

fn namespace(name: &str, labels: &str, annotations: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}, annotations: {{{annotations}}}}}\n"
    )
}

fn istio(kind: &str, key: &str, metadata: &str, spec: &str) -> String {
    let (ns, name) = key.split_once('/').unwrap();
    let group = match kind {
        "ServiceEntry" | "WorkloadEntry" => "networking",
        _ => "security",
    };
    format!(
        "---\napiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{namespace: {ns}, name: {name}, {metadata}}}\nspec: {{{spec}}}\n"
    )
}

fn gateway(key: &str, metadata: &str, from: &str, status: &str) -> String {
    let (ns, name) = key.split_once('/').unwrap();
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{namespace: {ns}, name: {name}, {metadata}}}\nspec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {{namespaces: {{from: {from}}}}}}}]}}\nstatus: {{{status}}}\n"
    )
}

fn slice(key: &str, service: &str, endpoints: &str) -> String {
    let (ns, name) = key.split_once('/').unwrap();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{namespace: {ns}, name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: p, port: 8080, protocol: TCP}}]\nendpoints: [{endpoints}]\n"
    )
}

const SPEC: &str = "clusterIP: 10.9.0.1, selector: {app: x}, ports: [{name: p, port: 80}]";
const ADDRESS: &str = "addresses: [{type: IPAddress, value: 10.8.0.1}]";
const USE: &str = "istio.io/use-waypoint: wp";

/// Pods `a/p` of service `a/s`, and `a/q` of none.
fn small() -> String {
    service("a/s", "", SPEC) + &pod("a/p", "10.0.0.1", "app: x") + &pod("a/q", "10.0.0.2", "")
}

// === Rows of the table ===

#[test]
fn a_pod_pushes_itself_alone() {
    let with = |metadata: &str, status: &str| {
        let metadata = format!("labels: {{app: x}}, {metadata}");
        pod_with("a/p", "10.0.0.1", &metadata, "", status)
    };
    let ready = "phase: Running";
    plain(
        &small(),
        &[
            (&pod("a/new", "10.0.0.9", "app: x"), "sent: pod/a/new"),
            ("- Pod a/q\n", "removed: pod/a/q"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {namespace: a, name: late}\nspec: {containers: []}\nstatus: {phase: Pending}\n",
                "",
            ),
            (&pod("a/late", "10.0.0.8", ""), "sent: pod/a/late"),
            (
                &with("", ready).replace("\"True\"", "\"False\""),
                "sent: pod/a/p",
            ),
            (&with("", ready), "sent: pod/a/p"),
            (
                &with(
                    "annotations: {ambient.istio.io/redirection: enabled}",
                    ready,
                ),
                "sent: pod/a/p",
            ),
            (
                &with(
                    "annotations: {ambient.istio.io/redirection: pending}",
                    ready,
                ),
                "sent: pod/a/p",
            ),
            (&with("annotations: {other: word}", ready), ""),
            (
                &pod("a/p", "10.0.0.1", "app: x, version: v2"),
                "sent: pod/a/p",
            ),
            (
                &with("deletionTimestamp: \"2026-01-01T00:00:00Z\"", ready),
                "sent: pod/a/p",
            ),
            (&with("", "phase: Succeeded"), "removed: pod/a/p"),
            ("- Pod a/new\n", "removed: pod/a/new"),
        ],
    );
}

#[test]
fn heartbeats_and_words_nobody_reads_push_nothing() {
    let base = small()
        + &namespace("a", "", "")
        + &gateway("a/wp", "", "Same", ADDRESS)
        + &istio("AuthorizationPolicy", "a/allow", "", "rules: [{}]")
        + "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z}}\n";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: z, arch: arm}}\nstatus: {conditions: [{type: Ready, status: \"True\", lastHeartbeatTime: \"2026-01-01T00:00:00Z\"}]}\n";
    let probed = pod_with("a/p", "10.0.0.1", "labels: {app: x}", "", "phase: Running")
        .replace("\"True\"}", "\"True\", lastProbeTime: \"2026-01-01T00:00:00Z\", lastTransitionTime: \"2026-01-01T00:00:00Z\"}");
    let status = "status: {conditions: [{type: Odd, status: \"True\", reason: R, message: M, lastTransitionTime: \"2026-01-01T00:00:00Z\"}]}\n";
    plain(
        &base,
        &[
            (&probed, ""),
            (node, ""),
            (&namespace("a", "team: red", "note: word"), ""),
            (&(service("a/s", "team: red", SPEC) + status), ""),
            (
                &gateway(
                    "a/wp",
                    "",
                    "Same",
                    &format!(
                        "{ADDRESS}, conditions: [{{type: Programmed, status: \"True\", reason: R, message: M, lastTransitionTime: \"2026-01-01T00:00:00Z\"}}]"
                    ),
                ),
                "",
            ),
            (
                &(istio(
                    "AuthorizationPolicy",
                    "a/allow",
                    "generation: 2",
                    "rules: [{}]",
                ) + status),
                "",
            ),
            // Deleted and created again at once: an update without a difference.
            (&format!("- Pod a/p\n---\n- Service a/s\n{}", small()), ""),
        ],
    );
}

#[test]
fn a_pod_of_a_waypoint_pushes_itself_and_the_policy_that_names_its_account() {
    let labels = "gateway.networking.k8s.io/gateway-name: wp";
    let instance = pod("a/w1", "10.0.0.7", labels);
    let base = small() + &gateway("a/wp", "", "Same", ADDRESS);
    let other = instance.replace("serviceAccountName: sa", "serviceAccountName: sb");
    check(
        with_waypoint_policies(),
        &base,
        &[
            (
                &instance,
                "sent: pod/a/w1; policies: a/istio_allow_waypoint_a_wp",
            ),
            (
                &other,
                "sent: pod/a/w1; policies: a/istio_allow_waypoint_a_wp",
            ),
            (
                "- Pod a/w1\n",
                "removed: pod/a/w1; no policies: a/istio_allow_waypoint_a_wp",
            ),
        ],
    );
    plain(
        &base,
        &[(&instance, "sent: pod/a/w1"), (&other, "sent: pod/a/w1")],
    );
}

#[test]
fn a_selector_pushes_who_enters_and_who_leaves() {
    let entry = istio(
        "WorkloadEntry",
        "a/vm",
        "",
        "address: 10.0.0.5, labels: {app: yy}",
    );
    let base = small() + &pod("a/yy", "10.0.0.3", "app: yy") + &entry;
    let selects = |app: &str| service("a/s", "", &SPEC.replace("app: x", app));
    plain(
        &base,
        &[
            (&selects("app: yy"), "sent: pod/a/p, pod/a/yy, we/a/vm"),
            (&selects("app: z"), "sent: pod/a/yy, we/a/vm"),
        ],
    );
}

#[test]
fn a_service_pushes_itself_with_its_workloads() {
    let with = |from: &str, to: &str| service("a/s", "", &SPEC.replace(from, to));
    let base = small() + &gateway("a/wp", "", "Same", ADDRESS);
    plain(
        &base,
        &[
            (&with("port: 80", "port: 81"), "sent: a/s, pod/a/p"),
            (
                &with("port: 80", "port: 81, targetPort: 8080"),
                "sent: a/s, pod/a/p",
            ),
            (&with("10.9.0.1", "10.9.0.2"), "sent: a/s, pod/a/p"),
            (&service("a/s", USE, SPEC), "sent: a/s, pod/a/p"),
            (
                &service("a/s", USE, &format!("{SPEC}, internalTrafficPolicy: Local")),
                "sent: a/s, pod/a/p",
            ),
            (
                &service(
                    "a/s",
                    USE,
                    &format!("{SPEC}, trafficDistribution: PreferClose"),
                ),
                "sent: a/s, pod/a/p",
            ),
            ("- Service a/s\n", "sent: pod/a/p; removed: a/s"),
            // Again: its workloads after it, although they were never gone.
            (&service("a/s", "", SPEC), "sent: a/s, pod/a/p"),
        ],
    );
}

const MANUAL: &str = "clusterIP: 10.9.0.3, ports: [{name: p, port: 80}]";

#[test]
fn endpoints_of_slices_go_with_their_service_and_alone_otherwise() {
    let endpoints = "{addresses: [192.0.2.1]}, {addresses: [192.0.2.2]}";
    let not_ready =
        "{addresses: [192.0.2.1]}, {addresses: [192.0.2.2], conditions: {ready: false}}";
    plain(
        &(service("a/m", "", MANUAL) + &slice("a/e", "m", endpoints)),
        &[
            (&slice("a/e", "m", not_ready), "sent: slice/a/e/192.0.2.2"),
            (
                &slice("a/e", "m", "{addresses: [192.0.2.1]}"),
                "removed: slice/a/e/192.0.2.2",
            ),
            (
                &slice(
                    "a/e",
                    "m",
                    "{addresses: [192.0.2.1]}, {addresses: [192.0.2.3]}",
                ),
                "sent: slice/a/e/192.0.2.3",
            ),
            (
                "- Service a/m\n",
                "removed: a/m, slice/a/e/192.0.2.1, slice/a/e/192.0.2.3",
            ),
        ],
    );
    let target = "{addresses: [10.0.0.2], targetRef: {kind: Pod, namespace: a, name: q, uid: u-q}}";
    plain(
        &(small() + &service("a/m", "", MANUAL)),
        &[
            (&slice("a/e", "m", target), "sent: pod/a/q"),
            ("- EndpointSlice a/e\n", "sent: pod/a/q"),
        ],
    );
}

#[test]
fn a_service_entry_pushes_its_hosts_and_endpoints() {
    const SE: &str = "ports: [{number: 80, name: p, protocol: TCP}], resolution: STATIC";
    let entry = |hosts: &str, more: &str, endpoints: &str| {
        let spec = format!("hosts: [{hosts}], {SE}, {more}endpoints: [{endpoints}]");
        istio("ServiceEntry", "a/e", "", &spec)
    };
    let two = "{address: 192.0.2.1}, {address: 192.0.2.2}";
    let plainly = entry("h.example", "addresses: [10.7.0.1], ", two);
    plain(
        &plainly,
        &[
            (
                &entry("h.example", "addresses: [10.7.0.2], ", two),
                "sent: a/h.example, se/a/e/192.0.2.1, se/a/e/192.0.2.2",
            ),
            (
                &entry("h.example, i.example", "addresses: [10.7.0.2], ", two),
                "sent: a/i.example, se/a/e/192.0.2.1, se/a/e/192.0.2.2",
            ),
            (
                &entry(
                    "h.example, i.example",
                    "addresses: [10.7.0.2], ",
                    "{address: 192.0.2.1, weight: 2}, {address: 192.0.2.2}",
                ),
                "sent: se/a/e/192.0.2.1",
            ),
            (
                &entry(
                    "h.example",
                    "addresses: [10.7.0.2], ",
                    "{address: 192.0.2.1}",
                ),
                "sent: se/a/e/192.0.2.1; removed: a/i.example, se/a/e/192.0.2.2",
            ),
            (
                &entry(
                    "h.example",
                    "addresses: [10.7.0.2], ",
                    "{address: 192.0.2.1}",
                )
                .replace("number: 80", "number: 81"),
                "sent: a/h.example, se/a/e/192.0.2.1",
            ),
            (
                "- ServiceEntry a/e\n",
                "removed: a/h.example, se/a/e/192.0.2.1",
            ),
        ],
    );
    let given = |ip: &str| {
        entry("h.example", "", "")
            + &format!(
                "status: {{addresses: [{{value: {ip}, host: h.example}}, {{value: \"2001:2::5\", host: h.example}}]}}\n"
            )
    };
    plain(
        &given("240.240.0.5"),
        &[
            (&given("240.240.0.6"), "sent: a/h.example"),
            (&given("240.240.0.6"), ""),
        ],
    );
}

#[test]
fn whoever_loses_or_gains_a_host_is_pushed() {
    let spec = "hosts: [s.a.svc.cluster.local], ports: [{number: 80, name: p, protocol: TCP}], resolution: STATIC, addresses: [10.7.0.1], endpoints: [{address: 192.0.2.1}]";
    let entry = istio("ServiceEntry", "a/e", "", spec);
    // The same host in another namespace: it is canonical only without the Service.
    let abroad = istio("ServiceEntry", "b/e", "", spec);
    plain(
        &(entry + &abroad),
        &[
            // Canonical moves from the one to the other; endpoints of the loser go.
            (
                &service("a/s", "", MANUAL),
                "sent: a/s; removed: se/a/e/192.0.2.1",
            ),
            ("- Service a/s\n", "sent: a/s, se/a/e/192.0.2.1"),
            (
                "- ServiceEntry a/e\n",
                "sent: b/s, se/b/e/192.0.2.1; removed: a/s, se/a/e/192.0.2.1",
            ),
        ],
    );
}

#[test]
fn a_workload_entry_pushes_itself() {
    let entry = |spec: &str| istio("WorkloadEntry", "a/vm", "labels: {app: x}", spec);
    plain(
        &(small() + &entry("address: 10.0.0.5")),
        &[
            (&entry("address: 10.0.0.6"), "sent: we/a/vm"),
            (&entry("address: 10.0.0.6, weight: 2"), "sent: we/a/vm"),
            ("- WorkloadEntry a/vm\n", "removed: we/a/vm"),
            (&entry("address: 10.0.0.6"), "sent: we/a/vm"),
        ],
    );
}

#[test]
fn the_topology_of_a_node_pushes_its_pods() {
    let node = |labels: &str| {
        format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: n1, labels: {{{labels}}}}}\n")
    };
    let elsewhere = pod("a/r", "10.0.0.4", "app: x").replace("nodeName: n1", "nodeName: n2");
    let zone = "topology.kubernetes.io/zone";
    plain(
        &(small() + &elsewhere),
        &[
            (&node(&format!("{zone}: z")), "sent: pod/a/p, pod/a/q"),
            (&node(&format!("{zone}: z, arch: arm")), ""),
            (&node("arch: arm"), "sent: pod/a/p, pod/a/q"),
        ],
    );
}

#[test]
fn a_namespace_pushes_what_inherits_from_it() {
    let own = service("a/own", "istio.io/use-waypoint: none", MANUAL);
    let abroad = service("b/s", "", MANUAL);
    let all = "labels: {istio.io/waypoint-for: all}";
    let base = small() + &own + &abroad + &gateway("a/wp", all, "Same", ADDRESS);
    let ingress = format!("{USE}, istio.io/ingress-use-waypoint: \"true\"");
    let close = "networking.istio.io/traffic-distribution: PreferClose";
    plain(
        &base,
        &[
            (&namespace("a", "", ""), ""),
            (&namespace("a", "", close), "sent: a/own, a/s, pod/a/p"),
            (&namespace("a", "", ""), "sent: a/own, a/s, pod/a/p"),
            (&namespace("a", USE, ""), "sent: a/s, pod/a/p, pod/a/q"),
            (&namespace("a", &ingress, ""), "sent: a/s, pod/a/p"),
            (&namespace("a", "", ""), "sent: a/s, pod/a/p, pod/a/q"),
        ],
    );
}

#[test]
fn the_network_of_the_system_namespace_is_on_everything() {
    let entry = istio(
        "WorkloadEntry",
        "a/vm",
        "",
        "address: 10.0.0.5, network: own",
    );
    plain(
        &(small() + &entry),
        &[
            (
                &namespace("istio-system", "topology.istio.io/network: n1", ""),
                "sent: a/s, pod/a/p, pod/a/q",
            ),
            (&namespace("b", "topology.istio.io/network: n2", ""), ""),
            ("- Namespace istio-system\n", "sent: a/s, pod/a/p, pod/a/q"),
        ],
    );
}
