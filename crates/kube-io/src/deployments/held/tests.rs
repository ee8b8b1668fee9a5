#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::json;

use super::*;

/// What is applied.
fn wanted() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "gw", "namespace": "shop",
            "labels": {"gateway.istio.io/managed": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Gateway", "name": "gw", "uid": "7"}],
        },
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "containers": [{
                        "name": "istio-proxy",
                        "args": ["a", "b"],
                        "env": [
                            {"name": "A", "value": "b"},
                            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        ],
                        "ports": [{"containerPort": 15020, "protocol": "TCP"}, {"containerPort": 15021}],
                        "resources": {"limits": {"cpu": "2000m", "memory": "1024Mi"}},
                        "readinessProbe": {"initialDelaySeconds": 0, "failureThreshold": 4},
                    }],
                    "volumes": [{"name": "d", "emptyDir": {}}],
                },
            },
        },
    })
}

/// What an API server made of it, as 1.36 answers: defaults, quantities in their canonical form,
/// zeros left out, and the record of our fields.
fn live() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "gw", "namespace": "shop", "uid": "1", "resourceVersion": "371", "generation": 1,
            "annotations": {"deployment.kubernetes.io/revision": "1"},
            "labels": {"gateway.istio.io/managed": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Gateway", "name": "gw", "uid": "7"}],
            "managedFields": [
                {
                    "manager": "istio.io/gateway-controller", "operation": "Apply", "apiVersion": "apps/v1",
                    "fieldsV1": {
                        "f:metadata": {
                            "f:labels": {"f:gateway.istio.io/managed": {}},
                            "f:ownerReferences": {"k:{\"uid\":\"7\"}": {}},
                        },
                        "f:spec": {
                            "f:selector": {},
                            "f:template": {
                                "f:metadata": {"f:labels": {"f:a": {}}},
                                "f:spec": {
                                    "f:containers": {"k:{\"name\":\"istio-proxy\"}": {
                                        ".": {},
                                        "f:args": {},
                                        "f:env": {
                                            "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}},
                                            "k:{\"name\":\"P\"}": {".": {}, "f:name": {}, "f:valueFrom": {"f:fieldRef": {}}},
                                        },
                                        "f:name": {},
                                        "f:ports": {
                                            "k:{\"containerPort\":15020,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}},
                                            "k:{\"containerPort\":15021,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                                        },
                                        "f:readinessProbe": {"f:failureThreshold": {}, "f:initialDelaySeconds": {}},
                                        "f:resources": {"f:limits": {"f:cpu": {}, "f:memory": {}}},
                                    }},
                                    "f:volumes": {"k:{\"name\":\"d\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}},
                                },
                            },
                        },
                    },
                },
                {
                    "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "apps/v1",
                    "subresource": "status",
                    "fieldsV1": {"f:status": {"f:replicas": {}}},
                },
            ],
        },
        "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "containers": [{
                        "name": "istio-proxy",
                        "args": ["a", "b"],
                        "env": [
                            {"name": "A", "value": "b"},
                            {"name": "P", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                        ],
                        "imagePullPolicy": "Always",
                        "ports": [{"containerPort": 15020, "protocol": "TCP"}, {"containerPort": 15021, "protocol": "TCP"}],
                        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
                        "readinessProbe": {"failureThreshold": 4, "periodSeconds": 10},
                    }],
                    "dnsPolicy": "ClusterFirst",
                    "volumes": [{"name": "d", "emptyDir": {}}],
                },
            },
        },
    })
}

const CONTAINER: &str = "/spec/template/spec/containers/0";

#[test]
fn what_was_applied_holds() {
    assert!(holds(&wanted(), &live()));
    let mut version = wanted();
    version["metadata"]["resourceVersion"] = json!("371");
    assert!(holds(&version, &live()));
}

#[test]
fn fields_of_others_do_not_matter() {
    let mut live = live();
    live["spec"]["replicas"] = json!(5);
    live["metadata"]["labels"]["theirs"] = json!("1");
    let container = live.pointer_mut(CONTAINER).unwrap();
    let extra = json!({"name": "EXTRA", "value": "1"});
    container["env"].as_array_mut().unwrap().insert(1, extra);
    assert!(holds(&wanted(), &live));
}

#[test]
fn other_values_fields_and_records_differ() {
    type Edit = (&'static str, fn(&mut Value, &mut Value));
    let edits: [Edit; 9] = [
        ("a value that is edited", |_, live| {
            live.pointer_mut(CONTAINER).unwrap()["args"] = json!(["a", "c"]);
        }),
        ("a list that is cut", |_, live| {
            live.pointer_mut(CONTAINER).unwrap()["args"] = json!(["a"]);
        }),
        ("another quantity", |_, live| {
            live.pointer_mut(CONTAINER).unwrap()["resources"]["limits"]["cpu"] = json!("3");
        }),
        ("a field that is wanted now", |wanted, _| {
            wanted["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        }),
        ("a field that is wanted no longer", |wanted, _| {
            let container = wanted.pointer_mut(CONTAINER).unwrap();
            container.as_object_mut().unwrap().remove("resources");
        }),
        ("an item that is wanted no longer", |wanted, _| {
            let container = wanted.pointer_mut(CONTAINER).unwrap();
            container["env"].as_array_mut().unwrap().pop();
        }),
        ("items in another order", |wanted, _| {
            let container = wanted.pointer_mut(CONTAINER).unwrap();
            container["env"].as_array_mut().unwrap().reverse();
        }),
        ("a field that somebody took over", |_, live| {
            let fields = &mut live["metadata"]["managedFields"][0]["fieldsV1"];
            fields["f:spec"]
                .as_object_mut()
                .unwrap()
                .remove("f:selector");
        }),
        ("an object that was never applied", |_, live| {
            live["metadata"]["managedFields"][0]["operation"] = json!("Update");
        }),
    ];
    for (what, edit) in edits {
        let (mut wanted, mut live) = (wanted(), live());
        edit(&mut wanted, &mut live);
        assert!(!holds(&wanted, &live), "{what}");
    }
}

#[test]
fn quantities_are_compared_by_size() {
    for (a, b) in [
        ("2000m", "2"),
        ("1024Mi", "1Gi"),
        ("0.5", "500m"),
        ("1.5Gi", "1536Mi"),
    ] {
        assert!(
            quantity(a).is_some() && quantity(a) == quantity(b),
            "{a} {b}"
        );
    }
    for (a, b) in [("1M", "1Mi"), ("100m", "100M")] {
        assert!(quantity(a) != quantity(b), "{a} {b}");
    }
    for bad in [
        "",
        "m",
        "x",
        "1x",
        "1.2.3",
        "99999999999999999999999999999999999999999999",
    ] {
        assert_eq!(quantity(bad), None, "{bad}");
    }
}
