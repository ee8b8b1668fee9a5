//! Claims about workloads. Source: spec/workload-discovery.md §8.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::derived::{Features, Locality, Memberships, PortMap};
use model::{Labels, NamespacedHostname, Str, WorkloadRow, WorkloadUid};
use proto::workload as wds;

use super::world::{World, world, world_with};
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
        locality: Arc::new(Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: Str::new(),
        }),
        capacity: 0,
        cluster_id: "Kubernetes".into(),
        services: Memberships::new(),
        labels: Labels::from([
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
            "pod-template-hash: 7f9c",
            "ReplicaSet",
            "web7f9c",
            "web7f9c",
        ),
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
    let both = slice(
        "{addresses: [10.0.0.1], targetRef: {kind: Pod, namespace: a, name: web, uid: u1}}, {addresses: [10.0.0.2], targetRef: {kind: Pod, namespace: a, name: web, uid: old}}",
    );
    let replaced = world(&(pod("", CONTAINER, READY) + &both));
    assert_eq!(web(&replaced).services, expected);

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

const ENTRY: &str = "Kubernetes/networking.istio.io/WorkloadEntry/a/vm";

/// WorkloadEntry `a/vm` from lines of metadata and spec.
fn entry(metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{namespace: a, name: vm, {metadata}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn a_workload_entry_is_a_workload_with_every_field() {
    let yaml = entry(
        "labels: {app: web}, annotations: {istio.io/autoRegistrationGroup: group, ambient.istio.io/redirection: enabled}",
        "address: 10.0.0.7, labels: {app: other, version: v2}, locality: r/z/s/more, weight: 3, serviceAccount: vm, network: n2",
    ) + "---\nkind: MeshConfig\ntrustDomain: td1\n";
    let world = world(&yaml);
    let expected = WorkloadRow {
        uid: WorkloadUid(Str::from(ENTRY)),
        name: "vm".into(),
        ns: "a".into(),
        addresses: vec!["10.0.0.7".parse().unwrap()],
        hostname: Str::new(),
        network: "n2".into(),
        hbone: true,
        native_tunnel: false,
        trust_domain: "td1".into(),
        service_account: "vm".into(),
        waypoint: None,
        application_tunnel: None,
        blocked: None,
        network_gateway: None,
        node: Str::new(),
        canonical_name: "web".into(),
        canonical_revision: "v2".into(),
        workload_name: "group".into(),
        policies: Vec::new(),
        healthy: true,
        terminating: false,
        host_network: false,
        is_slice_endpoint: false,
        locality: Arc::new(Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: "s".into(),
        }),
        capacity: 3,
        cluster_id: "Kubernetes".into(),
        services: Memberships::new(),
        labels: Labels::from([
            ("app".into(), "web".into()),
            ("version".into(), "v2".into()),
        ]),
    };
    assert_eq!(world.workloads[ENTRY], expected);
    assert_eq!(world.codes(), Vec::<String>::new());
}

#[test]
fn an_address_that_is_no_ip_is_a_host_name() {
    // Spec, host name, addresses.
    let cases = [
        ("address: vm.example", "vm.example", 0),
        ("address: \"\"", "", 0),
        ("address: \"fd00::7\"", "", 1),
    ];
    for (spec, hostname, addresses) in cases {
        let world = world(&entry("", spec));
        let row = &world.workloads[ENTRY];
        assert_eq!(
            (row.hostname.as_str(), row.addresses.len()),
            (hostname, addresses),
            "{spec}"
        );
    }
}

#[test]
fn names_of_an_entry_come_from_group_then_label_then_name() {
    let label = "labels: {service.istio.io/workload-name: labelled}";
    let cases = [
        (String::new(), "vm"),
        (label.to_owned(), "labelled"),
        (
            format!("{label}, annotations: {{istio.io/autoRegistrationGroup: group}}"),
            "group",
        ),
    ];
    for (metadata, name) in cases {
        let world = world(&entry(&metadata, "address: 10.0.0.7"));
        let row = &world.workloads[ENTRY];
        assert_eq!(row.workload_name, name, "{metadata}");
        assert_eq!(row.canonical_name, name, "{metadata}");
    }
}

#[test]
fn an_entry_maps_ports_by_name() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web}\nspec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: main}, {name: two, port: 81, targetPort: 9090}, {name: three, port: 82, targetPort: 9091}]}\n";
    let external = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: a, name: e}\nspec: {hosts: [e.example], resolution: STATIC, ports: [{number: 90, name: one, protocol: TCP, targetPort: 9000}, {number: 91, name: two, protocol: TCP}], workloadSelector: {labels: {app: web}}}\n";
    let web = NamespacedHostname::new("a", "web.a.svc.cluster.local");
    let host = NamespacedHostname::new("a", "e.example");
    // Ports of the entry, of the service, of the host; whether a name is missing.
    let cases = [
        (
            "main: 8080, two: 7070",
            maps(&[(80, 8080), (81, 7070), (82, 9091)]),
            maps(&[(90, 9000), (91, 7070)]),
            false,
        ),
        (
            "one: 6060",
            maps(&[(81, 9090), (82, 9091)]),
            maps(&[(90, 6060), (91, 91)]),
            true,
        ),
    ];
    for (ports, of_service, of_host, missing) in cases {
        let spec = format!("address: 10.0.0.7, serviceAccount: vm, ports: {{{ports}}}");
        let labels = "labels: {app: web, networking.istio.io/tunnel: http}";
        let world = world(&(entry(labels, &spec) + service + external));
        let expected = BTreeMap::from([(web.clone(), of_service), (host.clone(), of_host)]);
        assert_eq!(world.workloads[ENTRY].services, expected, "{ports}");
        let told = missing.then(|| "we-port-name WorkloadEntry a/vm".to_owned());
        assert_eq!(world.codes(), Vec::from_iter(told), "{ports}");
    }
}

#[test]
fn switches_decide_who_selects_what() {
    const HOST: &str = "e.example";
    const SERVICE: &str = "web.a.svc.cluster.local";
    let services = "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web}\nspec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{port: 80}]}\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: a, name: e}\nspec: {hosts: [e.example], resolution: STATIC, ports: [{number: 90, name: one, protocol: TCP}], workloadSelector: {labels: {app: web}}}\n";
    let yaml = pod(WEB, CONTAINER, READY) + &entry(WEB, "address: 10.0.0.7") + services;
    // Entries select pods, services select entries; hosts of the pod, of the entry.
    let cases: [(bool, bool, &[&str], &[&str]); 3] = [
        (true, true, &[HOST, SERVICE], &[HOST, SERVICE]),
        (false, true, &[SERVICE], &[HOST, SERVICE]),
        (true, false, &[HOST, SERVICE], &[HOST]),
    ];
    for (entries_select_pods, services_select_entries, of_pod, of_entry) in cases {
        let features = Features {
            entries_select_pods,
            services_select_entries,
            ..Features::default()
        };
        let world = world_with(&yaml, features);
        let hosts = |uid: &str| -> Vec<String> {
            let keys = world.workloads[uid].services.keys();
            keys.map(|key| key.hostname.to_string()).collect()
        };
        assert_eq!(hosts("Kubernetes//Pod/a/web"), of_pod);
        assert_eq!(hosts(ENTRY), of_entry);
    }
}

#[test]
fn what_a_workload_entry_lacks_is_told() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: web}\nspec: {clusterIP: 10.9.0.1, selector: {app: web}, ports: [{port: 80}]}\n";
    let tunnel = "labels: {app: web, networking.istio.io/tunnel: http}";
    // Metadata, spec, code.
    let cases = [
        (
            "labels: {app: web}",
            "address: 10.0.0.7",
            Some("we-not-hbone"),
        ),
        ("labels: {app: lone}", "address: 10.0.0.7", None),
        (tunnel, "address: 10.0.0.7", Some("we-no-service-account")),
        (tunnel, "address: 10.0.0.7, serviceAccount: vm", None),
    ];
    for (metadata, spec, code) in cases {
        let world = world(&(entry(metadata, spec) + service));
        let code = code.map(|code| format!("{code} WorkloadEntry a/vm"));
        assert_eq!(world.codes(), Vec::from_iter(code), "{metadata} {spec}");
    }
}

#[test]
fn an_entry_that_has_no_identity_is_told_where_a_policy_asks_for_one() {
    let from = |source: &str| format!("rules: [{{from: [{{source: {{{source}}}}}]}}]");
    let asks = from("namespaces: [a]");
    let selects = format!("selector: {{matchLabels: {{app: web}}}}, {asks}");
    let when = "rules: [{when: [{key: source.namespace, values: [a]}]}]".to_owned();
    let nobody = from("ipBlocks: [10.0.0.0/8]");
    let plain = "labels: {app: lone}";
    let tunnel = "labels: {app: lone, networking.istio.io/tunnel: http}";
    // Namespace and spec of the policy, metadata and account of the entry, whether it is told.
    let cases = [
        ("a", &asks, plain, "", true),
        ("a", &selects, plain, "", true),
        ("a", &when, plain, "", true),
        ("istio-system", &asks, plain, "", true),
        ("b", &asks, plain, "", false),
        ("a", &nobody, plain, "", false),
        ("a", &asks, plain, ", serviceAccount: vm", false),
        ("a", &asks, tunnel, ", serviceAccount: vm", false),
    ];
    for (ns, policy, metadata, account, is_told) in cases {
        let namespaces = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
        let policy = format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{namespace: {ns}, name: p}}\nspec: {{{policy}}}\n"
        );
        let spec = format!("address: 10.0.0.7{account}");
        let world = world(&(entry(metadata, &spec) + namespaces + &policy));
        let told = "we-no-service-account WorkloadEntry a/vm".to_owned();
        let expected = Vec::from_iter(is_told.then_some(told));
        assert_eq!(
            world.codes(),
            expected,
            "{ns} {policy} {metadata} {account}"
        );
    }
}

#[test]
fn endpoints_of_a_service_entry_take_their_own_words_and_the_rest_of_their_entry() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: a, name: e, labels: {app: ext, version: v3, networking.istio.io/tunnel: http}}\nspec: {hosts: [one.example, two.example], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], endpoints: [{address: 192.0.2.1, network: n2, locality: r, weight: 5, serviceAccount: x, labels: {app: in}}, {address: 192.0.2.2, ports: {http: 7070}}, {address: 192.0.2.2, weight: 9}]}\n".to_owned()
        + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {namespace: a, name: of-entry}\nspec: {selector: {matchLabels: {app: ext}}}\n"
        + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {namespace: a, name: of-endpoint}\nspec: {selector: {matchLabels: {app: in}}}\n";
    let world = world(&yaml);
    let uid = |ip: &str| format!("Kubernetes/networking.istio.io/ServiceEntry/a/e/{ip}");
    let first = &world.workloads[&uid("192.0.2.1")];
    let services = |ports: &[(u16, u16)]| {
        let hosts = ["one.example", "two.example"];
        BTreeMap::from(hosts.map(|host| (NamespacedHostname::new("a", host), maps(ports))))
    };
    let expected = WorkloadRow {
        uid: WorkloadUid(Str::from(uid("192.0.2.1"))),
        name: "e".into(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        network: "n2".into(),
        hbone: true,
        native_tunnel: true,
        service_account: "x".into(),
        canonical_name: "ext".into(),
        canonical_revision: "v3".into(),
        workload_name: "e".into(),
        policies: vec!["a/of-entry".into()],
        locality: Arc::new(Locality {
            region: "r".into(),
            ..Locality::default()
        }),
        capacity: 5,
        services: services(&[(80, 8080)]).into(),
        ..first.clone()
    };
    assert_eq!(*first, expected);
    // The network of one endpoint is not that of the next; the first of one address counts.
    let second = &world.workloads[&uid("192.0.2.2")];
    assert_eq!((second.network.as_str(), second.capacity), ("", 0));
    assert_eq!(second.services, services(&[(80, 7070)]));
    assert_eq!(world.workloads.len(), 2);
}

#[test]
fn the_trust_domain_is_on_every_workload_but_the_default_one_is_left_out() {
    let yaml = pod("", CONTAINER, READY)
        + &entry("", "address: 10.0.0.7")
        + "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: a, name: e}\nspec: {hosts: [e.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n"
        + "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: a, name: manual}\nspec: {clusterIP: 10.9.0.2, ports: [{name: p, port: 80}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {namespace: a, name: s1, labels: {kubernetes.io/service-name: manual}}\naddressType: IPv4\nendpoints: [{addresses: [192.0.2.7]}]\n";
    for (config, expected) in [
        ("", ""),
        ("---\nkind: MeshConfig\ntrustDomain: td1\n", "td1"),
    ] {
        let world = world(&(yaml.clone() + config));
        let domains: Vec<&str> = (world.workloads.values())
            .map(|row| row.trust_domain.as_str())
            .collect();
        assert_eq!(domains, [expected; 4]);
    }
}

#[test]
fn slice_ports_join_service_ports_by_name_and_only_over_tcp() {
    let slice = |ports: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: a, name: manual}}\nspec: {{clusterIP: 10.9.0.2, ports: [{{name: p, port: 80}}, {{name: q, port: 81}}, {{name: u, port: 82, protocol: UDP}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{namespace: a, name: s1, labels: {{kubernetes.io/service-name: manual}}}}\naddressType: IPv4\nports: [{ports}]\nendpoints: [{{addresses: [192.0.2.7, 192.0.2.8]}}, {{addresses: [192.0.2.7], conditions: {{ready: false}}}}]\n"
        )
    };
    let cases: [(&str, &[(u16, u16)]); 5] = [
        (
            "{name: p, port: 8080, protocol: TCP}, {name: q, port: 8081, protocol: TCP}",
            &[(80, 8080), (81, 8081)],
        ),
        (
            "{name: p, protocol: TCP}, {name: q, port: 8081, protocol: TCP}",
            &[(81, 8081)],
        ),
        ("{name: u, port: 8082, protocol: UDP}", &[]),
        ("{name: other, port: 8080, protocol: TCP}", &[]),
        ("", &[]),
    ];
    for (ports, expected) in cases {
        let world = world(&slice(ports));
        let uid = "Kubernetes/discovery.k8s.io/EndpointSlice/a/s1/192.0.2.7";
        let row = &world.workloads[uid];
        let manual = NamespacedHostname::new("a", "manual.a.svc.cluster.local");
        assert_eq!(
            row.services,
            BTreeMap::from([(manual, maps(expected))]),
            "{ports}"
        );
        // All addresses of the endpoint; a repeated first address is skipped.
        assert_eq!((row.addresses.len(), row.healthy), (2, true));
        assert_eq!(world.workloads.len(), 1);
    }
}

#[test]
fn a_slice_may_name_a_pod_of_another_namespace() {
    let yaml = pod("", CONTAINER, READY)
        + "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: b, name: manual}\nspec: {clusterIP: 10.9.0.2, ports: [{name: p, port: 80, targetPort: 9000}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {namespace: b, name: s1, labels: {kubernetes.io/service-name: manual}}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, namespace: a, name: web, uid: u1}}]\n";
    let key = NamespacedHostname::new("b", "manual.b.svc.cluster.local");
    let expected = BTreeMap::from([(key, maps(&[(80, 9000)]))]);
    assert_eq!(web(&world(&yaml)).services, expected);
}
