#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::{Value, json};

use super::*;

/// Puts a value below a path.
fn at(path: &str, value: &Value) -> Value {
    let fields = path.split('.').filter(|field| !field.is_empty());
    fields
        .rev()
        .fold(value.clone(), |inner, field| json!({field: inner}))
}

#[test]
fn patches_are_applied_as_kubernetes_applies_them() {
    let cases: Vec<Value> = serde_saphyr::from_str(include_str!("cases.yaml")).unwrap();
    assert!(cases.len() > 50);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let word = case["kind"].as_str().unwrap();
        let kind = OverlayKind::ALL.into_iter().find(|k| k.key() == word);
        let path = case["at"].as_str().unwrap();
        let merged = merge(
            kind.unwrap(),
            at(path, &case["object"]),
            &at(path, &case["patch"]),
        );
        match (merged, case.get("error")) {
            (Ok(merged), None) => assert_eq!(merged, at(path, &case["expect"]), "{name}"),
            (Err(error), Some(path)) => {
                assert_eq!(error.path(), path.as_str().unwrap(), "{name}: {error}");
            }
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn every_list_key_of_kubernetes_is_in_the_table() {
    let keyed = |schema: &Schema, name| match schema.field(name) {
        Some(Field::Keyed { key, .. }) => key,
        other => panic!("{name}: {other:?}"),
    };
    let into = |schema: &Schema, name| match schema.field(name) {
        Some(Field::Map(inner)) => inner,
        other => panic!("{name}: {other:?}"),
    };
    let pod = into(into(into(&schema::DEPLOYMENT, "spec"), "template"), "spec");
    for (list, key) in [
        ("containers", "name"),
        ("initContainers", "name"),
        ("ephemeralContainers", "name"),
        ("volumes", "name"),
        ("imagePullSecrets", "name"),
        ("topologySpreadConstraints", "topologyKey"),
        ("hostAliases", "ip"),
        ("resourceClaims", "name"),
        ("schedulingGates", "name"),
    ] {
        assert_eq!(keyed(pod, list), key, "{list}");
    }
    let Some(Field::Keyed { element, .. }) = pod.field("containers") else {
        panic!("containers");
    };
    for (list, key) in [
        ("env", "name"),
        ("ports", "containerPort"),
        ("volumeMounts", "mountPath"),
        ("volumeDevices", "devicePath"),
    ] {
        assert_eq!(keyed(element, list), key, "{list}");
    }
    assert_eq!(keyed(into(&schema::SERVICE, "spec"), "ports"), "port");
    assert_eq!(keyed(&schema::SERVICE_ACCOUNT, "secrets"), "name");
    for list in ["tolerations", "readinessGates"] {
        assert!(pod.field(list).is_none(), "{list}");
    }
    for list in ["args", "command", "envFrom"] {
        assert!(element.field(list).is_none(), "{list}");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    for (object, patch) in [(json!({}), json!([])), (json!(1), json!({}))] {
        let error = merge(OverlayKind::Service, object, &patch).unwrap_err();
        assert_eq!(error.to_string(), ".: must be an object");
    }
}

#[test]
fn deep_and_long_patches_are_refused() {
    let deep = |inner: Value| (0..100).fold(inner, |value, _| json!({"a": value}));
    let lists = (0..100).fold(json!(1), |value, _| json!([value]));
    for patch in [deep(json!(1)), json!({"a": lists})] {
        let error = merge(OverlayKind::Service, json!({}), &patch).unwrap_err();
        assert!(error.to_string().contains("deeper"), "{error}");
        let object = deep(json!(2));
        assert!(merge(OverlayKind::Service, object, &patch).is_err());
    }
    let ports: Vec<Value> = (0..1001).map(|port| json!({"port": port})).collect();
    let patch = json!({"spec": {"ports": ports}});
    let error = merge(OverlayKind::Service, json!({}), &patch).unwrap_err();
    assert_eq!(error.path(), "spec.ports");
    let order: Vec<Value> = (0..9000).map(|port| json!({"port": port})).collect();
    let patch = json!({"spec": {"$setElementOrder/ports": order, "ports": []}});
    assert!(merge(OverlayKind::Service, json!({}), &patch).is_err());
}

#[test]
fn a_patch_changes_nothing_when_applied_again() {
    let patch = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "b", "env": [{"name": "X", "value": "1"}]}],
        "volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}],
    }}}});
    let object = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "a"}, {"name": "b"}],
        "volumes": [{"name": "v", "secret": {}}],
    }}}});
    let once = merge(OverlayKind::Deployment, object, &patch).unwrap();
    let twice = merge(OverlayKind::Deployment, once.clone(), &patch).unwrap();
    assert_eq!(once, twice);
}
