#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod policies;
mod routes;
mod secrets;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{LIST_ITEMS_COUNT_MAX, Recognised, is_policy, mesh_config, recognise};
use crate::finding::{Finding, Severity};
use crate::input::*;
use crate::object::{Invalid, Labels, Meta, Object, Parsed};
use crate::{ObjectKey, Str};

fn object(value: &Value) -> Object {
    match recognise(value, "f.yaml") {
        Recognised::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn finding(value: &Value) -> Finding {
    match recognise(value, "f.yaml") {
        Recognised::NotAnInput(Some(finding)) => finding,
        other => panic!("{other:?}"),
    }
}

/// An object named ns/x with the given other fields.
fn doc(version: &str, kind: &str, rest: Value) -> Value {
    let mut out =
        json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": "ns", "name": "x"}});
    out.as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    out
}

fn policy(spec: Value) -> Value {
    doc(
        "security.istio.io/v1",
        "AuthorizationPolicy",
        json!({"spec": spec}),
    )
}

fn route(spec: Value) -> Value {
    doc(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        json!({"spec": spec}),
    )
}

fn entry(spec: Value) -> Value {
    doc(
        "networking.istio.io/v1",
        "ServiceEntry",
        json!({"spec": spec}),
    )
}

fn meta() -> Meta {
    Meta {
        key: ObjectKey::new("ns", "x"),
        ..Meta::default()
    }
}

fn row<T>(body: T) -> Arc<Parsed<T>> {
    Arc::new(Parsed {
        meta: meta(),
        body: Ok(body),
        notes: Vec::new(),
    })
}

fn s(text: &str) -> Str {
    Str::from(text)
}

fn strs(items: &[&str]) -> Vec<Str> {
    items.iter().map(|item| s(item)).collect()
}

fn pairs(items: &[(&str, &str)]) -> Labels {
    items
        .iter()
        .map(|(key, value)| (s(key), s(value)))
        .collect()
}

// === Which documents are what ===

#[test]
fn documents_that_are_no_input_say_why() {
    use Severity::{Error, Info, Warning};
    let named = |version: &str, kind: &str| doc(version, kind, json!({}));
    let cases = [
        (json!(3), "not-an-object", Error, "File f.yaml", ""),
        (json!([]), "not-an-object", Error, "File f.yaml", ""),
        (
            json!({"apiVersion": "v1"}),
            "not-an-object",
            Error,
            "File f.yaml",
            "",
        ),
        (
            json!({"kind": "Pod", "metadata": {"name": "x"}}),
            "not-an-object",
            Error,
            "File f.yaml",
            "",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod"}),
            "not-an-object",
            Error,
            "File f.yaml",
            "",
        ),
        (
            named("v1", "Pood"),
            "unknown-kind",
            Error,
            "Pood ns/x",
            "Did you mean Pod?",
        ),
        (
            named("security.istio.io/v1", "AuthorisationPolicy"),
            "unknown-kind",
            Error,
            "AuthorisationPolicy ns/x",
            "Did you mean AuthorizationPolicy?",
        ),
        (
            named("v1", "HTTPRoute"),
            "unknown-kind",
            Error,
            "HTTPRoute ns/x",
            "Did you mean HTTPRoute of gateway.networking.k8s.io?",
        ),
        (
            named("cert-manager.io/v1", "Issuer"),
            "unknown-kind",
            Info,
            "Issuer ns/x",
            "Nothing, unless you expected it to configure the mesh",
        ),
        (
            named("networking.istio.io/v2", "ServiceEntry"),
            "unknown-version",
            Error,
            "ServiceEntry ns/x",
            "Write apiVersion: networking.istio.io/v1",
        ),
        (
            named("networking.istio.io/v1", "EnvoyFilter"),
            "kind-not-supported",
            Warning,
            "EnvoyFilter ns/x",
            "Remove it, or do not rely on it until it is supported",
        ),
    ];
    for (value, code, severity, object, fix) in cases {
        let found = finding(&value);
        let shown = format!("{} {}", found.object.kind, found.object.key);
        assert_eq!(
            (found.code, found.severity, shown.as_str()),
            (code, severity, object),
            "{value}"
        );
        assert!(fix.is_empty() || found.fix == fix, "{value}: {}", found.fix);
    }
}

#[test]
fn kinds_that_do_not_concern_the_mesh_are_silent() {
    for (version, kind) in [
        ("v1", "ServiceAccount"),
        ("v1", "ResourceQuota"),
        ("apps/v1", "Deployment"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ] {
        assert_eq!(
            recognise(&doc(version, kind, json!({})), "f"),
            Recognised::NotAnInput(None),
            "{kind}"
        );
    }
}

#[test]
fn list_items_inherit_the_kind_of_the_list() {
    let pod = json!({"metadata": {"name": "a"}});
    let full = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
    let list =
        |kind: &str, item: &Value| json!({"apiVersion": "v1", "kind": kind, "items": [item]});
    assert_eq!(
        recognise(&list("PodList", &pod), "f"),
        Recognised::List(vec![full.clone()])
    );
    assert_eq!(
        recognise(&list("List", &full), "f"),
        Recognised::List(vec![full])
    );
    assert_eq!(
        recognise(&list("List", &pod), "f"),
        Recognised::List(vec![pod])
    );
}

#[test]
fn names_that_would_break_wire_names_are_refused() {
    let long = "a".repeat(254);
    for name in ["a/b", "A", "-a", "a..b", "a b", "ä", long.as_str()] {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
        let found = finding(&value);
        assert_eq!(
            (found.code, found.field.as_str()),
            ("invalid-name", "metadata.name"),
            "{name}"
        );
    }
    // YAML reads an unquoted `n` as false; the default namespace was not meant.
    for ns in [json!("a.b"), json!(false), json!(7)] {
        let value =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": ns}});
        assert_eq!(finding(&value).field, "metadata.namespace");
    }
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": true}});
    let found = finding(&value);
    assert_eq!(
        (found.code, found.object.key.name.as_str()),
        ("invalid-name", "true")
    );
}

// === Metadata ===

#[test]
fn metadata_is_read_whole() {
    let value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": "n1", "uid": "u", "labels": {"a": "b"}, "annotations": {"c": "d"}, "generation": 3,
        "creationTimestamp": "1970-01-01T00:01:00+00:00", "deletionTimestamp": "2024-01-01T00:00:00Z",
        "generateName": "n-", "namespace": "ignored",
        "ownerReferences": [{"kind": "X", "name": "x"}, {"kind": "Y", "name": "y", "controller": true}],
    }});
    let expected = Meta {
        key: ObjectKey::cluster("n1"),
        uid: s("u"),
        labels: pairs(&[("a", "b")]),
        annotations: pairs(&[("c", "d")]),
        created_s: Some(60),
        deleting: true,
        generate_name: s("n-"),
        controller: Some((s("Y"), s("y"))),
        generation: 3,
    };
    assert_eq!(object(&value).meta(), &expected);
}

#[test]
fn an_object_with_bad_metadata_keeps_the_good_part() {
    let mut value = policy(json!({}));
    value["metadata"]["labels"] = json!({"good": "yes", "bad": true});
    let found = object(&value);
    assert_eq!(found.meta().key, ObjectKey::new("ns", "x"));
    assert_eq!(found.meta().labels, pairs(&[("good", "yes")]));
    assert_eq!(found.invalid().unwrap().field, "metadata.labels[bad]");
    assert_eq!(found.notes(), []);
}

// === One whole object of every kind ===

#[test]
fn core_kinds_are_read_whole() {
    let pod = doc(
        "v1",
        "Pod",
        json!({
            "spec": {
                "serviceAccountName": "sa", "nodeName": "n", "hostNetwork": true,
                "containers": [{"name": "a", "ports": [
                    {"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                    {"name": "b", "ports": [{"name": "http", "containerPort": 9999}]}],
                "initContainers": [
                    {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                    {"name": "side", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 15000}]}],
            },
            "status": {"phase": "Running", "podIP": "10.9.9.9", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        }),
    );
    let expected = Pod {
        service_account: s("sa"),
        node: s("n"),
        host_network: true,
        terminal: false,
        failed: false,
        ready: true,
        ips: Some(vec![
            "10.0.0.1".parse().unwrap(),
            "fd00::1".parse().unwrap(),
        ]),
        tcp_ports: BTreeMap::from([(s("http"), 8080), (s("side"), 15000)]),
    };
    assert_eq!(object(&pod), Object::Pod(row(expected)));

    let service = doc(
        "v1",
        "Service",
        json!({"spec": {
            "clusterIP": "10.1.1.1", "clusterIPs": ["10.1.1.1", "None", ""], "selector": {"app": "x"},
            "ports": [{"port": 80}, {"name": "n", "port": 81, "targetPort": "8081", "protocol": "UDP", "appProtocol": "p"},
                {"port": 82, "targetPort": 8082}, {"port": 83, "targetPort": 0}],
            "ipFamilies": ["IPv4"], "publishNotReadyAddresses": true, "internalTrafficPolicy": "Local",
            "trafficDistribution": "PreferClose", "someNewField": 1,
        }}),
    );
    let port = |port, target, name: &str, transport, app_protocol| ServicePort {
        name: s(name),
        port,
        target,
        transport,
        app_protocol,
    };
    let expected = Service {
        external_name: false,
        cluster_ips: vec!["10.1.1.1".parse().unwrap()],
        selector: pairs(&[("app", "x")]),
        ports: vec![
            port(80, TargetPort::Number(80), "", Transport::Tcp, None),
            port(
                81,
                TargetPort::Named(s("8081")),
                "n",
                Transport::Udp,
                Some(s("p")),
            ),
            port(82, TargetPort::Number(8082), "", Transport::Tcp, None),
            port(83, TargetPort::Number(83), "", Transport::Tcp, None),
        ],
        ip_families: strs(&["IPv4"]),
        publish_not_ready: true,
        internal_local: true,
        traffic_distribution: Some(s("PreferClose")),
    };
    assert_eq!(object(&service), Object::Service(row(expected)));

    let mut slice = doc(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        json!({
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {},
                "targetRef": {"kind": "Pod", "name": "p", "uid": "u"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"kind": "Node", "name": "n"}}],
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}, {}],
        }),
    );
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "svc"});
    let expected = EndpointSlice {
        fqdn: false,
        service: Some(s("svc")),
        endpoints: vec![
            SliceEndpoint {
                addresses: strs(&["10.0.0.1"]),
                ready: true,
                pod: Some((s("ns"), s("p"), s("u"))),
            },
            SliceEndpoint {
                addresses: strs(&["10.0.0.2"]),
                ready: false,
                pod: None,
            },
        ],
        ports: vec![
            SlicePort {
                name: Some(s("")),
                port: Some(80),
                transport: Some(Transport::Tcp),
            },
            SlicePort::default(),
        ],
    };
    let Object::EndpointSlice(found) = object(&slice) else {
        panic!()
    };
    assert_eq!(found.body, Ok(expected));
}

#[test]
fn pods_have_no_addresses_when_one_is_bad() {
    for (status, expected) in [
        (json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "x"}]}), None),
        (
            json!({"podIP": "10.0.0.1"}),
            Some(vec!["10.0.0.1".parse().unwrap()]),
        ),
        (json!({}), Some(Vec::new())),
    ] {
        let Object::Pod(pod) = object(&doc("v1", "Pod", json!({"status": status}))) else {
            panic!()
        };
        assert_eq!(pod.body.as_ref().unwrap().ips, expected);
        let fields: Vec<&str> = pod.notes.iter().map(|note| note.field.as_str()).collect();
        let told: &[&str] = if expected.is_none() {
            &["status.podIPs"]
        } else {
            &[]
        };
        assert_eq!(fields, told);
    }
}

#[test]
fn endpoints_that_are_left_out_for_an_address_are_told() {
    let slice = |address_type: &str| {
        let pod = json!({"addresses": ["also bad"], "targetRef": {"kind": "Pod", "name": "p"}});
        let endpoints =
            json!([{"addresses": ["10.0.0.1", "bad"]}, {"addresses": ["fd00::1"]}, pod]);
        let value = doc(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": address_type, "endpoints": endpoints}),
        );
        let found = object(&value);
        let fields = found.notes().iter().map(|note| note.field.to_string());
        fields.collect::<Vec<_>>()
    };
    assert_eq!(slice("IPv4"), ["endpoints[0].addresses[1]"]);
    assert_eq!(slice("FQDN"), Vec::<String>::new());
}

#[test]
fn what_can_be_read_of_a_namespace_counts_and_its_finding_says_so() {
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": 1, "y": "z"}}});
    let found = object(&value);
    assert_eq!(found.meta().labels, pairs(&[("y", "z")]));
    let [note] = found.notes() else { panic!() };
    assert_eq!(
        (note.code, note.field.as_str()),
        ("invalid-object", "metadata.labels[x]")
    );
    assert!(note.message.contains("is ignored"), "{}", note.message);
}

#[test]
fn gateway_kinds_are_read_whole() {
    let gateway = doc(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        json!({
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [
                {"name": "mesh", "port": 15008, "protocol": "HBONE"},
                {"name": "all", "port": 80, "protocol": "HTTP", "hostname": "a.b", "allowedRoutes": {"namespaces": {"from": "All"}}},
                {"name": "sel", "port": 81, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Selector",
                    "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "Exists"}]}}}},
                {"name": "none", "port": 82, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Selector"}}}]},
            "status": {"addresses": [{"type": "Hostname", "value": "x.ns.svc"}, {"type": "IPAddress", "value": "10.0.0.1"},
                {"value": "10.0.0.2"}], "conditions": [{"type": "Odd"}]},
        }),
    );
    let listener = |name: &str, port, protocol: &str, allowed| Listener {
        name: s(name),
        port,
        protocol: s(protocol),
        allowed,
        ..Listener::default()
    };
    let selector = LabelSelector {
        match_labels: pairs(&[("a", "b")]),
        match_expressions: vec![(s("k"), s("Exists"), Vec::new())],
    };
    let expected = Gateway {
        class: s("istio-waypoint"),
        listeners: vec![
            listener("mesh", 15008, "HBONE", AllowedNamespaces::Same),
            Listener {
                hostname: Some(s("a.b")),
                ..listener("all", 80, "HTTP", AllowedNamespaces::All)
            },
            listener("sel", 81, "HTTP", AllowedNamespaces::Selector(selector)),
            listener("none", 82, "HTTP", AllowedNamespaces::None),
        ],
        addresses: vec![
            GatewayStatusAddress::Hostname(s("x.ns.svc")),
            GatewayStatusAddress::Ip("10.0.0.1".parse().unwrap()),
        ],
        has_address: true,
        is_managed: true,
        ..Gateway::default()
    };
    let Object::Gateway(found) = object(&gateway) else {
        panic!()
    };
    assert_eq!(found.body, Ok(expected));
    let notes: Vec<_> = found
        .notes
        .iter()
        .map(|note| (note.code, note.field.as_str()))
        .collect();
    assert_eq!(notes, [("gateway-address-unusable", "status.addresses[2]")]);

    let class = json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "GatewayClass",
        "metadata": {"name": "c"}, "spec": {"controllerName": "a/b"}});
    let Object::GatewayClass(found) = object(&class) else {
        panic!()
    };
    assert_eq!(
        found.body,
        Ok(GatewayClass {
            controller: s("a/b")
        })
    );

    let grant = doc(
        "gateway.networking.k8s.io/v1beta1",
        "ReferenceGrant",
        json!({"spec": {
        "from": [{"group": "g", "kind": "HTTPRoute", "namespace": "other"}],
        "to": [{"group": "", "kind": "Service"}, {"group": "", "kind": "Service", "name": "n"}]}}),
    );
    let expected = ReferenceGrant {
        from: vec![(s("g"), s("HTTPRoute"), s("other"))],
        to: vec![
            (s(""), s("Service"), None),
            (s(""), s("Service"), Some(s("n"))),
        ],
    };
    assert_eq!(object(&grant), Object::ReferenceGrant(row(expected)));
}

#[test]
fn policies_are_read_whole() {
    let mut value = policy(json!({
        "targetRefs": [{"group": "core", "kind": "Service", "name": "svc"},
            {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "gw"}],
        "action": "DENY",
        "rules": [{}, {
            "from": [{"source": {"principals": ["a"], "notNamespaces": ["b"], "ipBlocks": ["10.0.0.0/8"]}}],
            "to": [{"operation": {"ports": ["80"], "notPaths": ["/x"]}}],
            "when": [{"key": "source.ip", "values": ["1.1.1.1"], "notValues": ["2.2.2.2"]}]}],
    }));
    value["metadata"]["annotations"] = json!({"istio.io/dry-run": "T"});
    let values = |items: &[&str], not: &[&str]| Values {
        values: strs(items),
        not_values: strs(not),
    };
    let expected = AuthorizationPolicy {
        selector: None,
        targets: vec![
            TargetRef {
                group: s(""),
                kind: s("Service"),
                name: s("svc"),
                ns: None,
            },
            TargetRef {
                group: s("gateway.networking.k8s.io"),
                kind: s("Gateway"),
                name: s("gw"),
                ns: None,
            },
        ],
        action: Action::Deny,
        provider: None,
        rules: vec![
            AuthzRule::default(),
            AuthzRule {
                from: vec![AuthzSource {
                    principals: values(&["a"], &[]),
                    namespaces: values(&[], &["b"]),
                    ip_blocks: values(&["10.0.0.0/8"], &[]),
                    ..AuthzSource::default()
                }],
                to: vec![AuthzOperation {
                    ports: values(&["80"], &[]),
                    paths: values(&[], &["/x"]),
                    ..AuthzOperation::default()
                }],
                when: vec![(s("source.ip"), values(&["1.1.1.1"], &["2.2.2.2"]))],
            },
        ],
        dry_run: true,
    };
    let Object::AuthorizationPolicy(found) = object(&value) else {
        panic!()
    };
    assert_eq!(found.body, Ok(expected));

    let peer = doc(
        "security.istio.io/v1beta1",
        "PeerAuthentication",
        json!({"spec": {
        "selector": {"matchLabels": {"a": "b"}}, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"8080": {"mode": "DISABLE"}, "9": {}}}}),
    );
    let expected = PeerAuthentication {
        selector: Some(pairs(&[("a", "b")])),
        mode: MtlsMode::Strict,
        ports: BTreeMap::from([(9, MtlsMode::Unset), (8080, MtlsMode::Disable)]),
    };
    assert_eq!(object(&peer), Object::PeerAuthentication(row(expected)));
}

#[test]
fn entries_are_read_whole() {
    let mut value = entry(json!({
        "hosts": ["a.example"], "addresses": ["240.0.0.1"], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"name": "http", "number": 80, "protocol": "HTTP", "targetPort": 8080}, {"number": 81}],
        "endpoints": [{"address": "10.0.0.1", "ports": {"http": 8081}, "labels": {"a": "b"}, "network": "n",
            "locality": "r/z", "weight": 5, "serviceAccount": "sa"}],
        "workloadSelector": {"labels": {"c": "d"}}, "subjectAltNames": ["spiffe://x"],
    }));
    value["status"] = json!({"addresses": [{"value": "240.240.0.1", "host": "a.example"}]});
    let endpoint = WorkloadEntry {
        address: s("10.0.0.1"),
        ports: BTreeMap::from([(s("http"), 8081)]),
        labels: pairs(&[("a", "b")]),
        network: s("n"),
        locality: s("r/z"),
        weight: 5,
        service_account: s("sa"),
    };
    let expected = ServiceEntry {
        hosts: strs(&["a.example"]),
        addresses: strs(&["240.0.0.1"]),
        ports: vec![
            EntryPort {
                name: s("http"),
                number: 80,
                protocol: s("HTTP"),
                target: Some(8080),
            },
            EntryPort {
                name: s(""),
                number: 81,
                protocol: s(""),
                target: None,
            },
        ],
        external: false,
        resolution: Resolution::Static,
        endpoints: vec![endpoint.clone()],
        selector: Some(pairs(&[("c", "d")])),
        subject_alt_names: strs(&["spiffe://x"]),
        export_to: Vec::new(),
        allocated: vec![(s("240.240.0.1"), s("a.example"))],
    };
    assert_eq!(object(&value), Object::ServiceEntry(row(expected)));

    let spec = value["spec"]["endpoints"][0].clone();
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let value = doc(
            &format!("networking.istio.io/{version}"),
            "WorkloadEntry",
            json!({"spec": spec}),
        );
        assert_eq!(object(&value), Object::WorkloadEntry(row(endpoint.clone())));
    }
}

#[test]
fn mesh_config_comes_from_a_document_or_from_yaml_in_a_config_map() {
    let expected = MeshConfig {
        trust_domain: Some(s("td")),
        trust_domain_aliases: strs(&["old"]),
        root_namespace: Some(s("root")),
        ..MeshConfig::default()
    };
    let fields =
        json!({"trustDomain": "td", "trustDomainAliases": ["old"], "rootNamespace": "root"});
    let mut flat = fields.clone();
    flat["kind"] = json!("MeshConfig");
    let nested = json!({"apiVersion": "ambientd/v1", "kind": "MeshConfig", "spec": fields});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "istio-system", "name": "istio"},
        "data": {"mesh": "text"}});
    let Recognised::MeshYaml(meta, text) = recognise(&map, "f") else {
        panic!()
    };
    assert_eq!(text, "text");
    for found in [
        object(&flat),
        object(&nested),
        mesh_config(meta.clone(), Ok(&fields)),
    ] {
        let Object::MeshConfig(found) = found else {
            panic!()
        };
        assert_eq!(found.meta.key, ObjectKey::new("istio-system", "istio"));
        assert_eq!(
            (&found.body, found.notes.as_slice()),
            (&Ok(expected.clone()), [].as_slice())
        );
    }
    let noted = mesh_config(
        meta.clone(),
        Ok(&json!({"accessLogFile": "x", "trustDomian": "y", "ingressClass": "z"})),
    );
    let notes: Vec<_> = noted
        .notes()
        .iter()
        .map(|n| (n.code, n.field.as_str(), n.fix.as_str()))
        .collect();
    assert_eq!(
        notes,
        [
            (
                "unknown-field",
                "data.mesh.trustDomian",
                "Did you mean trustDomain?"
            ),
            (
                "field-not-applied",
                "data.mesh.accessLogFile",
                "Remove it, or do not rely on it"
            ),
        ]
    );
    let broken = mesh_config(meta, Err("line 1: no".into()));
    assert_eq!(
        broken.invalid(),
        Some(&Invalid {
            field: s("data.mesh"),
            reason: s("line 1: no"),
            targets: Vec::new(),
        })
    );
}

// === What is wrong with an object ===

#[test]
fn unknown_fields_are_noted_with_their_path() {
    let cases = [
        (
            entry(json!({"hosts": ["a"], "zzzzzzzzzzz": 1})),
            "spec.zzzzzzzzzzz",
            "Remove it, or check its spelling and place",
        ),
        (
            entry(json!({"hosts": ["a"], "port": []})),
            "spec.port",
            "Did you mean ports?",
        ),
        (
            route(json!({"rules": [{"match": []}]})),
            "spec.rules[0].match",
            "Did you mean matches?",
        ),
    ];
    for (value, field, fix) in cases {
        let found = object(&value);
        let notes: Vec<_> = found
            .notes()
            .iter()
            .map(|n| (n.code, n.severity, n.field.as_str(), n.fix.as_str()))
            .collect();
        assert_eq!(
            notes,
            [("unknown-field", Severity::Warning, field, fix)],
            "{value}"
        );
        assert_eq!(found.invalid(), None);
    }
    let mut value = entry(json!({"hosts": ["a"]}));
    value["specs"] = json!({});
    assert_eq!(object(&value).notes()[0].field, "specs");
}

#[test]
fn bad_values_make_the_body_invalid_and_name_the_field() {
    let long: Vec<String> = (0..=LIST_ITEMS_COUNT_MAX)
        .map(|i| format!("h{i}"))
        .collect();
    let service = |port: Value| doc("v1", "Service", json!({"spec": {"ports": [port]}}));
    let cases = [
        (entry(json!({})), "spec.hosts"),
        (entry(json!({"hosts": ["a/b"]})), "spec.hosts[0]"),
        (entry(json!({"hosts": long})), "spec.hosts"),
        (
            entry(json!({"hosts": ["a"], "resolution": "dns"})),
            "spec.resolution",
        ),
        (
            entry(json!({"hosts": ["a"], "ports": [{"number": 70_000}]})),
            "spec.ports[0].number",
        ),
        (service(json!({"port": 0})), "spec.ports[0].port"),
        (
            service(json!({"port": 80, "protocol": "tcp"})),
            "spec.ports[0].protocol",
        ),
        (service(json!({"port": "80"})), "spec.ports[0].port"),
        (
            route(json!({"rules": [{"matches": vec![json!({}); 65]}]})),
            "spec.rules[0].matches",
        ),
        (
            doc(
                "gateway.networking.k8s.io/v1",
                "Gateway",
                json!({"spec": {"gatewayClassName": "c"}}),
            ),
            "spec",
        ),
    ];
    for (value, field) in cases {
        let found = object(&value);
        let invalid = found
            .invalid()
            .unwrap_or_else(|| panic!("{value} is valid"));
        assert_eq!(invalid.field, field, "{value}: {}", invalid.reason);
        let note = found
            .notes()
            .iter()
            .find(|note| note.code == "invalid-object")
            .unwrap();
        assert_eq!(
            (note.field.as_str(), note.severity),
            (field, Severity::Error)
        );
    }
}

// === Anything at all ===

/// Values whose keys are those that parsing looks at.
fn values() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 48] = [
        "metadata",
        "spec",
        "status",
        "name",
        "namespace",
        "labels",
        "annotations",
        "items",
        "rules",
        "from",
        "to",
        "source",
        "operation",
        "when",
        "key",
        "values",
        "ports",
        "port",
        "targetPort",
        "hosts",
        "addresses",
        "endpoints",
        "listeners",
        "parentRefs",
        "backendRefs",
        "matches",
        "path",
        "headers",
        "filters",
        "type",
        "value",
        "weight",
        "selector",
        "matchLabels",
        "targetRefs",
        "kind",
        "action",
        "mtls",
        "mode",
        "portLevelMtls",
        "containers",
        "podIPs",
        "ip",
        "creationTimestamp",
        "ownerReferences",
        "data",
        "mesh",
        "x",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9./:-]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        proptest::sample::select(
            &["STRICT", "ALLOW", "TCP", "10.0.0.1", "80", "Exact", "true"][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(proptest::sample::select(&WORDS[..]), inner, 0..6)
                .prop_map(|map| Value::Object(
                    map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
                )),
        ]
    })
}

/// Documents that mostly get as far as their body.
fn documents() -> impl Strategy<Value = Value> {
    const KINDS: [(&str, &str); 17] = [
        ("v1", "Namespace"),
        ("v1", "Node"),
        ("v1", "Pod"),
        ("v1", "Service"),
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("v1", "PodList"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
        ("gateway.networking.k8s.io/v1", "GatewayClass"),
        ("gateway.networking.k8s.io/v1", "ReferenceGrant"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("security.istio.io/v1", "AuthorizationPolicy"),
        ("security.istio.io/v1", "PeerAuthentication"),
        ("networking.istio.io/v1", "ServiceEntry"),
        ("networking.istio.io/v1", "WorkloadEntry"),
        ("x", "MeshConfig"),
    ];
    (proptest::sample::select(&KINDS[..]), values(), values(), values(), any::<bool>()).prop_map(
        |((version, kind), spec, status, metadata, named)| {
            let mut out = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec.clone(),
                "status": status.clone(), "items": spec.clone(), "endpoints": spec, "ports": status});
            if named {
                out["metadata"] = json!({"name": "x", "labels": metadata.clone(), "creationTimestamp": metadata});
            }
            out
        },
    )
}

proptest! {
    #[test]
    fn anything_is_recognised_without_panic(value in prop_oneof![values(), documents()]) {
        let first = recognise(&value, "f");
        if let Recognised::Object(object) = &first {
            let noted = object.notes().iter().any(|note| note.code == "invalid-object");
            // The stages tell of policies.
            prop_assert_eq!(object.invalid().is_some() && !is_policy(object.kind()), noted);
        }
        prop_assert_eq!(first, recognise(&value, "f"));
    }
}

#[test]
fn of_a_webhook_configuration_with_a_revision_two_labels_are_kept() {
    let webhook = |kind: &str, version: &str, labels: Value| {
        json!({
            "apiVersion": format!("admissionregistration.k8s.io/{version}"),
            "kind": kind,
            "metadata": {
                "name": "istio-revision-tag-prod", "namespace": "ignored", "labels": labels,
                "annotations": {"a": "b"}, "generation": 7, "uid": "u",
                "creationTimestamp": "2024-01-01T00:00:00Z",
            },
            "webhooks": [{"clientConfig": {"caBundle": "c29tZXRoaW5n"}}],
        })
    };
    let wanted = |labels: [(&str, &str); 2]| Meta {
        key: ObjectKey::cluster("istio-revision-tag-prod"),
        labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
        ..Meta::default()
    };
    let tag = json!({"istio.io/tag": "prod", "istio.io/rev": "canary", "app": "injector"});
    let meta = wanted([("istio.io/tag", "prod"), ("istio.io/rev", "canary")]);
    for kind in [
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ] {
        let row = object(&webhook(kind, "v1", tag.clone()));
        assert_eq!((row.kind().as_str(), row.meta()), (kind, &meta));
        assert_eq!((row.notes(), row.invalid()), ([].as_slice(), None));
        for foreign in [json!({}), json!({"istio.io/tag": "prod"}), json!(7)] {
            for version in ["v1", "v1beta1"] {
                let recognised = recognise(&webhook(kind, version, foreign.clone()), "f.yaml");
                assert_eq!(recognised, Recognised::NotAnInput(None), "{foreign}");
            }
        }
    }
    let bad = json!({"istio.io/tag": true, "istio.io/rev": "canary"});
    let row = object(&webhook("MutatingWebhookConfiguration", "v1", bad));
    assert_eq!(
        row.meta().label("istio.io/rev").map(Str::as_str),
        Some("canary")
    );
    assert_eq!(row.notes().len(), 1, "{:?}", row.notes());
}
