//! Secrets and ConfigMaps are read without ever showing a value.

use serde_json::{Value, json};

use super::{doc, object, s};
use crate::object::{Invalid, Labels, Object};
use crate::parse::{Recognised, recognise};
use crate::secret::{ConfigMap, SECRET_BYTES_MAX, Secret, SecretBytes};

/// Stands for a private key; in base64 too.
const CANARY: &str = "canary-4711";
const CANARY_BASE64: &str = "Y2FuYXJ5LTQ3MTE=";

fn secret(body: Value) -> Object {
    object(&doc("v1", "Secret", body))
}

fn bytes(text: &str) -> SecretBytes {
    SecretBytes::new(text.as_bytes())
}

#[test]
fn only_known_keys_are_kept_and_string_data_wins() {
    let found = secret(json!({
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": "Y2VydA==", "tls.key": "a2\nV5\r\n", "ca.crt": "", "password": "not base64"},
        "stringData": {"tls.crt": "newer", "token": CANARY},
    }));
    let Object::Secret(row) = found else { panic!() };
    let data = [("tls.crt", bytes("newer")), ("tls.key", bytes("key"))];
    assert_eq!(
        row.body,
        Ok(Secret {
            ty: s("kubernetes.io/tls"),
            data: data.into_iter().collect(),
        })
    );
    assert!(row.notes.is_empty());
}

#[test]
fn config_maps_keep_authorities_and_the_mesh_one_stays_mesh_config() {
    let map = |ns: &str, name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": ns, "name": name}, "data": data});
    let Object::ConfigMap(row) = object(&map(
        "a",
        "ca",
        json!({"ca.crt": "roots", "tls.key": CANARY, "mesh": "x"}),
    )) else {
        panic!()
    };
    let data = [("ca.crt", bytes("roots"))].into_iter().collect();
    let other_key = Some("ca.crt".into());
    let expected = ConfigMap {
        data,
        other_key,
        ..ConfigMap::default()
    };
    assert_eq!(row.body, Ok(expected));
    let overlay = map("a", "o", json!({"service": "spec: {}", "deployment": "x"}));
    let Object::ConfigMap(row) = object(&overlay) else {
        panic!()
    };
    let body = row.body.as_ref().unwrap();
    let overlays = [("deployment", "x".into()), ("service", "spec: {}".into())];
    assert_eq!(body.overlays, overlays.into());
    assert_eq!(body.other_key, None);
    let mesh = map("istio-system", "istio", json!({"mesh": "rootNamespace: x"}));
    assert!(matches!(
        recognise(&mesh, "f"),
        Recognised::MeshYaml(_, text) if text == "rootNamespace: x"
    ));
}

#[test]
fn bad_values_are_refused_by_key() {
    let long = "a".repeat(SECRET_BYTES_MAX);
    for (body, field, reason) in [
        (
            json!({"data": CANARY}),
            "data",
            "expected a mapping of strings",
        ),
        (
            json!({"data": {"tls.key": CANARY}}),
            "data[tls.key]",
            "not base64",
        ),
        (
            json!({"data": {"tls.key": [CANARY]}}),
            "data[tls.key]",
            "expected a string",
        ),
        (
            json!({"stringData": [CANARY]}),
            "stringData",
            "expected a mapping of strings",
        ),
        (json!({"type": [CANARY]}), "type", "expected a string"),
        (
            json!({"stringData": {"tls.key": long, "tls.crt": CANARY}}),
            "data",
            "more than 1048576 bytes of values",
        ),
    ] {
        let found = secret(body);
        let Object::Secret(row) = &found else {
            panic!()
        };
        let expected = Invalid {
            field: s(field),
            reason: s(reason),
            targets: Vec::new(),
        };
        assert_eq!(row.body, Err(expected));
        assert_eq!(row.notes.len(), 1);
        assert_eq!(row.notes[0].code, "invalid-object");
    }
}

#[test]
fn no_value_shows_whatever_is_wrong_with_its_object() {
    let whole = json!({"data": {"tls.key": CANARY_BASE64, "unknown": CANARY_BASE64},
        "stringData": {"ca.crt": CANARY, "other": CANARY}});
    let mut shapes = vec![
        whole.clone(),
        json!({"data": CANARY}),
        json!({"data": {"tls.key": CANARY}}),
        json!({"data": {"tls.key": {"x": CANARY}}}),
        json!({"stringData": {"tls.key": [CANARY]}}),
        json!({"stringdata": {"tls.key": CANARY}}),
        json!({"spec": {"data": CANARY}}),
        json!({"type": {"x": CANARY}}),
        json!([CANARY]),
    ];
    let mut annotated = doc("v1", "Secret", whole);
    annotated["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": CANARY});
    let Object::Secret(row) = object(&annotated) else {
        panic!()
    };
    assert_eq!(row.meta.annotations, Labels::new());
    let mut documents = vec![annotated];
    shapes.push(json!({"metadata": {"annotations": {"last": CANARY}}}));
    for shape in shapes {
        for (version, kind) in [
            ("v1", "Secret"),
            ("v1", "ConfigMap"),
            ("v1", "SecretList"),
            ("v1", "Secrets"),
            ("v2", "Secret"),
            ("v1", "secret"),
        ] {
            let mut document = json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": "a", "name": "b"}});
            for (key, value) in shape.as_object().into_iter().flatten() {
                document[key] = value.clone();
            }
            documents.push(document.clone());
            document["metadata"] = json!({});
            documents.push(document.clone());
            document["metadata"] = json!({"namespace": "A_", "name": "b"});
            documents.push(document);
        }
    }
    for document in documents {
        let shown = format!("{:?}", recognise(&document, "f.yaml"));
        for canary in [CANARY, CANARY_BASE64] {
            assert!(!shown.contains(canary), "{document}: {shown}");
        }
    }
}

#[test]
fn secret_bytes_print_as_redacted_and_hold_what_they_were_given() {
    let bytes = bytes(CANARY);
    assert_eq!(format!("{bytes:?} {bytes:#?}"), "[redacted] [redacted]");
    assert_eq!(bytes.expose(), CANARY.as_bytes());
}
