#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;

fn service(version: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "gw", "namespace": "shop", "resourceVersion": version},
        "spec": {"ports": [{"port": port}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    })
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn key() -> ChildKey {
    ("Service", ObjectKey::new("shop", "gw"))
}

#[test]
fn events_of_before_our_own_write_change_nothing() {
    let mut children = Children::default();
    let is_one = |changed: &Changed| matches!(changed, Changed::One(_));
    children.put(&key(), children::kept(service("9", 80)));
    let old = children.follow("Service", Event::Apply(object(service("8", 81))));
    assert!(!is_one(&old));
    let gone = children.follow("Service", Event::Delete(object(service("7", 81))));
    assert!(!is_one(&gone) && children.get(&key()).is_some());
    // Its own event, and one of the status alone.
    for version in ["9", "10"] {
        let same = children.follow("Service", Event::Apply(object(service(version, 80))));
        assert!(!is_one(&same), "{version}");
    }
    let edited = children.follow("Service", Event::Apply(object(service("11", 81))));
    assert!(is_one(&edited));
    let gone = children.follow("Service", Event::Delete(object(service("12", 81))));
    assert!(is_one(&gone) && children.get(&key()).is_none());
}

#[test]
fn a_list_takes_the_place_of_what_was_known() {
    let mut children = Children::default();
    assert!(!children.is_listed("Service"));
    children.put(&key(), service("1", 80));
    let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "namespace": "shop"}});
    for event in [
        Event::Init,
        Event::InitApply(object(other)),
        Event::InitDone,
    ] {
        children.follow("Service", event);
    }
    assert!(children.is_listed("Service") && !children.is_listed("Deployment"));
    assert!(children.get(&key()).is_none());
    let x = ("Service", ObjectKey::new("shop", "x"));
    assert!(children.get(&x).is_some());
}

#[test]
fn requests_are_called_as_rules_of_roles_call_them() {
    assert_eq!(
        request("patch", "apps/v1", "Deployment"),
        "patch deployments.apps"
    );
    assert_eq!(
        request("get", "v1", "ServiceAccount"),
        "get serviceaccounts"
    );
    assert_eq!(
        watched("PodDisruptionBudget"),
        "watch poddisruptionbudgets.policy"
    );
    assert_eq!(
        watched("HorizontalPodAutoscaler"),
        "watch horizontalpodautoscalers.autoscaling"
    );
}

/// A managed object: its label, and the name and group of its controller.
fn managed(label: Option<&str>, owner: Option<(&str, &str)>) -> Value {
    let mut labels = json!({"gateway.istio.io/managed": "istio.io-gateway-controller"});
    if let Some(name) = label {
        labels["gateway.networking.k8s.io/gateway-name"] = json!(name);
    }
    let owners: Vec<Value> = owner
        .into_iter()
        .map(|(version, name)| {
            json!({"apiVersion": version, "kind": "Gateway", "name": name, "uid": "u-1", "controller": true})
        })
        .collect();
    json!({"metadata": {"labels": labels, "ownerReferences": owners}})
}

#[test]
fn a_managed_object_is_of_the_gateway_that_it_names() {
    const API: &str = "gateway.networking.k8s.io/v1";
    for (label, owner, expected) in [
        (None, None, None),
        (Some("a"), None, Some("a")),
        (None, Some((API, "b")), Some("b")),
        // A label that somebody changed makes no other Gateway of it.
        (Some("a"), Some((API, "b")), Some("b")),
        (Some("a"), Some(("networking.istio.io/v1", "b")), Some("a")),
    ] {
        let live = managed(label, owner);
        let found = judge::named_by(&live);
        assert_eq!(found, expected, "{live}");
    }
    let mut other = managed(Some("a"), Some((API, "b")));
    other["metadata"]["ownerReferences"][0]["controller"] = json!(false);
    assert_eq!(judge::named_by(&other), Some("a"));
    // What nobody manages is nobody's: it is left as it is for that.
    other["metadata"]["labels"] = json!({"gateway.networking.k8s.io/gateway-name": "a"});
    assert_eq!(judge::named_by(&other), None);
}
