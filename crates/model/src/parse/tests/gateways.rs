//! What Gateways, ListenerSets and BackendTLSPolicies say beside listeners.

use super::*;
use crate::input::{
    BackendTlsPolicy, BackendTlsTarget, CertificateRef, FrontendTls, FrontendValidation,
    Infrastructure, ListenerSet, ParametersRef, SubjectAltName,
};

const GATEWAY: &str = "gateway.networking.k8s.io/v1";

fn certificate(kind: &str, ns: Option<&str>, name: &str) -> CertificateRef {
    CertificateRef {
        group: s(""),
        kind: s(kind),
        ns: ns.map(s),
        name: s(name),
    }
}

fn notes(object: &Object) -> Vec<(&str, &str)> {
    let notes = object.notes().iter();
    notes.map(|note| (note.code, note.field.as_str())).collect()
}

#[test]
fn gateways_say_who_may_add_listeners_and_how_what_is_made_of_them_looks() {
    let gateway = doc(
        GATEWAY,
        "Gateway",
        json!({"spec": {
            "gatewayClassName": "istio",
            "infrastructure": {"labels": {"a": "b"}, "parametersRef": {"group": "", "kind": "ConfigMap", "name": "p"}},
            "allowedListeners": {"namespaces": {"from": "All"}},
            "tls": {
                "backend": {"clientCertificateRef": {"name": "c"}},
                "frontend": {
                    "default": {"validation": {"mode": "AllowInsecureFallback",
                        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}},
                    "perPort": [{"port": 443, "tls": {}},
                        {"port": 8443, "tls": {"validation": {"mode": "Odd", "caCertificateRefs": []}}}],
                },
            },
            "listeners": [
                {"name": "odd", "port": 80, "protocol": "Whatever", "allowedRoutes": {"namespaces": {"from": "Nobody"}}},
                {"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Odd"}},
            ],
        }}),
    );
    let found = object(&gateway);
    let Object::Gateway(row) = &found else {
        panic!()
    };
    let body = row.body.as_ref().unwrap();
    assert_eq!(
        body.infrastructure,
        Infrastructure {
            labels: Some(pairs(&[("a", "b")])),
            annotations: None,
            parameters: Some(ParametersRef {
                group: s(""),
                kind: s("ConfigMap"),
                name: s("p"),
            }),
        }
    );
    assert_eq!(body.allowed_listeners, Some(AllowedNamespaces::All));
    assert_eq!(
        body.client_certificate,
        Some(certificate("Secret", None, "c"))
    );
    let default = FrontendValidation {
        authorities: vec![certificate("ConfigMap", None, "ca")],
        accepts_untrusted: true,
    };
    let strict = FrontendValidation::default();
    assert_eq!(
        body.frontend,
        FrontendTls {
            default: Some(default.clone()),
            per_port: [(443, None), (8443, Some(strict.clone()))].into(),
        }
    );
    assert_eq!(body.frontend.of_port(80), Some(&default));
    assert_eq!(body.frontend.of_port(443), None);
    assert_eq!(body.frontend.of_port(8443), Some(&strict));
    assert_eq!(body.listeners[0].allowed, AllowedNamespaces::None);
    let tls = body.listeners[1].tls.as_ref().unwrap();
    assert_eq!(tls.unknown_mode, Some(s("Odd")));
    assert_eq!(
        notes(&found),
        [
            (
                "gw-namespaces-none",
                "spec.listeners[0].allowedRoutes.namespaces.from"
            ),
            (
                "gw-frontend-mode-unknown",
                "spec.tls.frontend.perPort[1].tls.validation.mode"
            ),
        ]
    );
    // Nothing said lets nobody in.
    let silent = doc(
        GATEWAY,
        "Gateway",
        json!({"spec": {"gatewayClassName": "istio", "listeners": [], "allowedListeners": {"namespaces": {}}}}),
    );
    let Object::Gateway(row) = object(&silent) else {
        panic!()
    };
    assert_eq!(row.body.as_ref().unwrap().allowed_listeners, None);
}

#[test]
fn listener_sets_name_a_gateway_and_may_leave_ports_open() {
    let of = |parent: Value| {
        let spec = json!({"parentRef": parent, "listeners": [{"name": "l", "protocol": "HTTP"}]});
        object(&doc(GATEWAY, "ListenerSet", json!({"spec": spec})))
    };
    let listener = Listener {
        name: s("l"),
        protocol: s("HTTP"),
        ..Listener::default()
    };
    let found = of(json!({"name": "gw", "namespace": "other"}));
    let Object::ListenerSet(row) = &found else {
        panic!()
    };
    assert_eq!(
        row.body,
        Ok(ListenerSet {
            parent: Some(ObjectKey::new("other", "gw")),
            listeners: vec![listener],
        })
    );
    assert_eq!(notes(&found), []);
    let found = of(json!({"name": "gw", "kind": "Service", "group": ""}));
    assert_eq!(notes(&found), [("listener-set-parent", "spec.parentRef")]);
    let Object::ListenerSet(row) = &found else {
        panic!()
    };
    assert_eq!(row.body.as_ref().unwrap().parent, None);
}

#[test]
fn backend_tls_policies_are_read_whole() {
    let mut policy = doc(
        GATEWAY,
        "BackendTLSPolicy",
        json!({"spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web", "sectionName": "https"}],
            "validation": {
                "hostname": "web.example",
                "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
                "subjectAltNames": [{"type": "Hostname", "hostname": "a.example"},
                    {"type": "URI", "uri": "spiffe://x"}, {"type": "Email", "hostname": "x"}],
            },
        }}),
    );
    policy["metadata"]["annotations"] = json!({"istio.io/ignore-policy-attachment": "TRUE"});
    let found = object(&policy);
    let Object::BackendTlsPolicy(row) = &found else {
        panic!()
    };
    assert_eq!(
        row.body,
        Ok(BackendTlsPolicy {
            targets: vec![BackendTlsTarget {
                group: s(""),
                kind: s("Service"),
                name: s("web"),
                section: Some(s("https")),
            }],
            hostname: s("web.example"),
            authorities: vec![certificate("ConfigMap", None, "ca")],
            well_known: None,
            subject_alt_names: vec![
                SubjectAltName::Hostname(s("a.example")),
                SubjectAltName::Uri(s("spiffe://x")),
            ],
            is_ignored: true,
        })
    );
    let unusable = (
        "btls-subject-unusable",
        "spec.validation.subjectAltNames[2]",
    );
    assert!(notes(&found).contains(&unusable));
}

#[test]
fn services_say_where_they_are_reached_from_outside() {
    let service = doc(
        "v1",
        "Service",
        json!({
            "spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.9"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}},
        }),
    );
    let Object::Service(row) = object(&service) else {
        panic!()
    };
    let body = row.body.as_ref().unwrap();
    assert!(body.load_balancer);
    assert_eq!(
        body.external,
        strs(&["192.0.2.1", "lb.example", "192.0.2.9"])
    );
}
