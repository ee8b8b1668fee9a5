//! One whole object of every kind.

use super::*;

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
        tcp_ports: crate::FrozenMap::from([(s("http"), 8080), (s("side"), 15000)]),
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
        ..Service::default()
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
                addresses: Vec::new(),
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
    assert_eq!(
        notes,
        [
            (
                "gw-namespaces-none",
                "spec.listeners[3].allowedRoutes.namespaces"
            ),
            ("gateway-address-unusable", "status.addresses[2]"),
        ]
    );

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
