//! Anything at all.

use proptest::prelude::*;

use super::*;

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
