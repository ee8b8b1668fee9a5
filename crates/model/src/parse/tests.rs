#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod anything;
mod gateways;
mod kinds;
mod policies;
mod routes;
mod secrets;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::take_items;

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
    for (kind, item, expected) in [
        ("PodList", &pod, &full),
        ("List", &full, &full),
        ("List", &pod, &pod),
    ] {
        let list = list(kind, item);
        let expected = vec![expected.clone()];
        assert_eq!(recognise(&list, "f"), Recognised::List(expected.clone()));
        assert_eq!(take_items(list), Ok(expected));
    }
    // What is no list comes back as it was.
    for other in [
        pod,
        full,
        json!({"kind": "List", "apiVersion": "v1", "items": {}}),
        json!(1),
    ] {
        assert_eq!(take_items(other.clone()), Err(other));
    }
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
