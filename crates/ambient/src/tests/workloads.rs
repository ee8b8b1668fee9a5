//! Claims about workloads. Source: spec/workload-discovery.md §8.

use std::collections::BTreeMap;

use model::derived::{Locality, PortMap};
use model::{NamespacedHostname, Str, WorkloadRow, WorkloadUid};
use proto::workload as wds;

use super::world::{World, world};
use crate::emit::{address_of_workload, workload_aliases};

/// Pod `a/web` with label `app: web`, from lines of metadata, spec and status.
fn pod(metadata: &str, spec: &str, status: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{namespace: a, name: web, uid: u1, {metadata}}}\nspec: {{serviceAccountName: web, nodeName: n1, {spec}}}\nstatus: {{{status}}}\n"
    )
}

const READY: &str = "podIP: 10.0.0.1, conditions: [{type: Ready, status: \"True\"}]";
const WEB: &str = "labels: {app: web}";
const CONTAINER: &str = "containers: [{name: c, image: i}]";

fn web(world: &World) -> &WorkloadRow {
    world.pod("a/web")
}

fn maps(ports: &[(u16, u16)]) -> Vec<PortMap> {
    let map = |&(service_port, target_port)| PortMap {
        service_port,
        target_port,
    };
    ports.iter().map(map).collect()
}

#[test]
fn a_pod_is_a_workload_with_every_field() {
    let yaml = pod(
        "labels: {app: web, version: v2, pod-template-hash: 7f9c}, generateName: web-7f9c-, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-7f9c, uid: r, controller: true}], annotations: {ambient.istio.io/redirection: enabled}",
        CONTAINER,
        "podIPs: [{ip: 10.0.0.1}, {ip: \"fd00::1\"}], conditions: [{type: Ready, status: \"True\"}]",
    ) + "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}\n"
        + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system, labels: {topology.istio.io/network: n1}}\n"
        + "---\nkind: MeshConfig\ntrustDomain: td1\n";
    let world = world(&yaml);
    let expected = WorkloadRow {
        uid: WorkloadUid(Str::from("Kubernetes//Pod/a/web")),
        name: "web".into(),
        ns: "a".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        hostname: Str::new(),
        network: "n1".into(),
        hbone: true,
        native_tunnel: false,
        trust_domain: "td1".into(),
        service_account: "web".into(),
        waypoint: None,
        application_tunnel: None,
        blocked: None,
        network_gateway: None,
        node: "n1".into(),
        canonical_name: "web".into(),
        canonical_revision: "v2".into(),
        workload_name: "web".into(),
        policies: Vec::new(),
        healthy: true,
        terminating: false,
        host_network: false,
        is_slice_endpoint: false,
        locality: Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: Str::new(),
        },
        capacity: 0,
        cluster_id: "Kubernetes".into(),
        services: BTreeMap::new(),
        labels: BTreeMap::from([
            ("app".into(), "web".into()),
            ("pod-template-hash".into(), "7f9c".into()),
            ("version".into(), "v2".into()),
        ]),
    };
    assert_eq!(*web(&world), expected);
    assert_eq!(world.codes(), Vec::<String>::new());
    assert_eq!(workload_aliases(web(&world)), ["n1/10.0.0.1", "n1/fd00::1"]);
}

#[test]
fn status_decides_whether_a_pod_is_a_workload_and_healthy() {
    // Metadata, status, healthy or no workload at all.
    let cases = [
        ("", "phase: Pending, podIP: 10.0.0.1", Some(false)),
        ("", "phase: Pending", None),
        ("", "phase: Succeeded, podIP: 10.0.0.1", None),
        ("", "phase: Failed, podIP: 10.0.0.1", None),
        (
            "deletionTimestamp: \"2026-01-01T00:00:00Z\"",
            READY,
            Some(false),
        ),
        ("", "podIPs: [{ip: 10.0.0.1}, {ip: garbage}]", None),
        ("", READY, Some(true)),
    ];
    for (metadata, status, expected) in cases {
        let world = world(&pod(metadata, CONTAINER, status));
        let healthy = world.workloads.values().next().map(|row| row.healthy);
        assert_eq!(healthy, expected, "{metadata} {status}");
    }
}

#[test]
fn a_host_network_pod_says_so() {
    let world = world(&pod("", "hostNetwork: true", READY));
    let wds::address::Type::Workload(message) = address_of_workload(web(&world)).r#type.unwrap()
    else {
        panic!("a workload");
    };
    assert_eq!(
        message.network_mode,
        i32::from(wds::NetworkMode::HostNetwork)
    );
    assert_eq!(message.addresses, [vec![10, 0, 0, 1]]);
}

#[test]
fn a_pod_is_encoded_with_the_words_of_wds() {
    let world = world(&pod(
        "annotations: {ambient.istio.io/redirection: enabled}",
        CONTAINER,
        READY,
    ));
    let expected = wds::Workload {
        uid: "Kubernetes//Pod/a/web".into(),
        name: "web".into(),
        namespace: "a".into(),
        addresses: vec![vec![10, 0, 0, 1].into()],
        tunnel_protocol: wds::TunnelProtocol::Hbone.into(),
        service_account: "web".into(),
        node: "n1".into(),
        canonical_name: "web".into(),
        canonical_revision: "latest".into(),
        workload_type: wds::WorkloadType::Pod.into(),
        workload_name: "web".into(),
        cluster_id: "Kubernetes".into(),
        ..wds::Workload::default()
    };
    let message = address_of_workload(web(&world)).r#type;
    assert_eq!(message, Some(wds::address::Type::Workload(expected)));
}

#[test]
fn capture_and_the_tunnel_label_decide_the_tunnel() {
    // Metadata, HBONE, native.
    let cases = [
        ("", false, false),
        (
            "annotations: {ambient.istio.io/redirection: pending}",
            false,
            false,
        ),
        (
            "annotations: {ambient.istio.io/redirection: enabled}",
            true,
            false,
        ),
        (
            "annotations: {networking.istio.io/tunnel: http}",
            false,
            false,
        ),
        (
            "labels: {networking.istio.io/tunnel: \"http3,http\"}",
            true,
            true,
        ),
        ("labels: {networking.istio.io/tunnel: http3}", false, false),
        (
            "labels: {networking.istio.io/tunnel: http}, annotations: {ambient.istio.io/redirection: enabled}",
            true,
            true,
        ),
    ];
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {istio.io/dataplane-mode: ambient}}\n";
    for (metadata, hbone, native) in cases {
        let world = world(&(pod(metadata, CONTAINER, READY) + namespace));
        let row = web(&world);
        assert_eq!(
            (row.hbone, row.native_tunnel),
            (hbone, native),
            "{metadata}"
        );
    }
}

#[test]
fn the_owner_names_the_workload() {
    // Labels, owner kind, owner name, name.
    let cases = [
        ("pod-template-hash: 7f9c", "ReplicaSet", "web-7f9c", "web"),
        (
            "pod-template-hash: other",
            "ReplicaSet",
            "web-7f9c",
            "web-7f9c",
        ),
        (
            "rollouts-pod-template-hash: 7f9c",
            "ReplicaSet",
            "web-7f9c",
            "web",
        ),
        (
            "deploymentconfig: dc",
            "ReplicationController",
            "dc-1",
            "dc",
        ),
        ("a: b", "Job", "nightly-28412345", "nightly"),
        ("a: b", "Job", "nightly-284", "nightly-284"),
        ("a: b", "StatefulSet", "db", "db"),
        (
            "service.istio.io/workload-name: own",
            "StatefulSet",
            "db",
            "own",
        ),
    ];
    for (labels, kind, owner, expected) in cases {
        let metadata = format!(
            "labels: {{{labels}}}, generateName: x-, ownerReferences: [{{apiVersion: v1, kind: {kind}, name: {owner}, uid: o, controller: true}}]"
        );
        let world = world(&pod(&metadata, CONTAINER, READY));
        assert_eq!(
            web(&world).workload_name,
            expected,
            "{kind} {owner} {labels}"
        );
    }
}

#[test]
fn the_first_canonical_label_present_wins_even_when_empty() {
    let world = world(&pod(
        "labels: {service.istio.io/canonical-name: \"\", app: web, app.kubernetes.io/version: v3, version: v1}",
        CONTAINER,
        READY,
    ));
    let row = web(&world);
    assert_eq!(
        (row.canonical_name.as_str(), row.canonical_revision.as_str()),
        ("", "v3")
    );
}

const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web}\nspec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: main}, {name: two, port: 81, targetPort: 9090}]}\n";

#[test]
fn named_target_ports_come_from_tcp_ports_of_containers_that_run() {
    // Pod spec, ports of the service on the pod.
    let cases: [(&str, &[(u16, u16)]); 5] = [
        (CONTAINER, &[(81, 9090)]),
        (
            "containers: [{name: c, image: i, ports: [{name: main, containerPort: 8080}]}]",
            &[(80, 8080), (81, 9090)],
        ),
        (
            "containers: [{name: c, image: i, ports: [{name: main, containerPort: 8080, protocol: UDP}]}]",
            &[(81, 9090)],
        ),
        (
            "containers: [{name: c, image: i}], initContainers: [{name: s, image: i, restartPolicy: Always, ports: [{name: main, containerPort: 7070}]}]",
            &[(80, 7070), (81, 9090)],
        ),
        (
            "containers: [{name: c, image: i}], initContainers: [{name: s, image: i, ports: [{name: main, containerPort: 7070}]}]",
            &[(81, 9090)],
        ),
    ];
    for (spec, ports) in cases {
        let world = world(&(pod(WEB, spec, READY) + SERVICE));
        let key = NamespacedHostname::new("a", "web.a.svc.cluster.local");
        assert_eq!(
            web(&world).services,
            BTreeMap::from([(key, maps(ports))]),
            "{spec}"
        );
    }
}

#[test]
fn a_service_selects_by_every_pair_and_in_its_own_namespace() {
    let service = |ns: &str, name: &str, selector: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: {ns}, name: {name}}}\nspec: {{clusterIP: 10.9.0.1, selector: {{{selector}}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let yaml = pod("labels: {app: web, tier: front}", CONTAINER, READY)
        + &service("a", "both", "app: web, tier: front")
        + &service("a", "more", "app: web, zone: z")
        + &service("a", "none", "")
        + &service("b", "other", "app: web")
        + &service("a", "second", "tier: front");
    let world = world(&yaml);
    let hosts: Vec<&str> = web(&world)
        .services
        .keys()
        .map(|key| key.hostname.as_str())
        .collect();
    assert_eq!(
        hosts,
        ["both.a.svc.cluster.local", "second.a.svc.cluster.local"]
    );
}

#[test]
fn slices_add_pods_and_endpoints_to_a_service_without_selector() {
    let slice = |endpoints: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: a, name: manual}}\nspec: {{clusterIP: 10.9.0.2, ports: [{{name: p, port: 80, targetPort: 9000}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{namespace: a, name: s1, labels: {{kubernetes.io/service-name: manual}}}}\naddressType: IPv4\nports: [{{name: p, port: 8081, protocol: TCP}}]\nendpoints: [{endpoints}]\n"
        )
    };
    let manual = NamespacedHostname::new("a", "manual.a.svc.cluster.local");
    let target = |uid: &str| {
        slice(&format!(
            "{{addresses: [10.0.0.1], targetRef: {{kind: Pod, namespace: a, name: web, uid: {uid}}}}}"
        ))
    };
    let linked = world(&(pod("", CONTAINER, READY) + &target("u1")));
    let expected = BTreeMap::from([(manual.clone(), maps(&[(80, 9000)]))]);
    assert_eq!(web(&linked).services, expected);
    assert_eq!(linked.workloads.len(), 1);
    let stale = world(&(pod("", CONTAINER, READY) + &target("old")));
    assert_eq!(web(&stale).services, BTreeMap::new());

    let bare = world(&slice(
        "{addresses: [192.0.2.7]}, {addresses: [192.0.2.8], conditions: {ready: false}}, {addresses: [bad]}",
    ));
    let uid = |ip: &str| format!("Kubernetes/discovery.k8s.io/EndpointSlice/a/s1/{ip}");
    let first = &bare.workloads[&uid("192.0.2.7")];
    assert!(first.healthy && first.host_network && first.is_slice_endpoint);
    assert_eq!(
        first.services,
        BTreeMap::from([(manual, maps(&[(80, 8081)]))])
    );
    assert!(!bare.workloads[&uid("192.0.2.8")].healthy);
    assert_eq!(bare.workloads.len(), 2);
}

#[test]
fn entries_are_workloads_under_their_own_names() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {namespace: a, name: vm, labels: {app: web}}\nspec: {address: vm.example, labels: {app: other, k: v}, locality: r/z, weight: 3, serviceAccount: vm, ports: {http: 8088}}\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: a, name: ext}\nspec: {hosts: [one.example, two.example], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: a, name: vms}\nspec: {hosts: [vms.example], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: web}}}\n";
    let world = world(yaml);
    let vm = &world.workloads["Kubernetes/networking.istio.io/WorkloadEntry/a/vm"];
    assert_eq!(
        (vm.hostname.as_str(), vm.addresses.len(), vm.capacity),
        ("vm.example", 0, 3)
    );
    assert_eq!(vm.labels.get("app").map(Str::as_str), Some("web"));
    let vms = NamespacedHostname::new("a", "vms.example");
    assert_eq!(vm.services, BTreeMap::from([(vms, maps(&[(80, 8088)]))]));
    let ext = "Kubernetes/networking.istio.io/ServiceEntry/a/ext";
    for host in ["one.example", "two.example"] {
        let row = &world.workloads[&format!("{ext}/{host}")];
        let key = NamespacedHostname::new("a", host);
        assert_eq!(row.services, BTreeMap::from([(key, maps(&[(443, 443)]))]));
        assert_eq!(row.hostname, host);
    }
    assert_eq!(world.workloads.len(), 3);
}
