//! Namespaces, nodes, services, slices and pods.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::World;

const CREATED: &str = "2026-01-01T00:00:00Z";
const NODE_IDS: u64 = 1;
const PODS: u64 = 2;
const TEMPLATES: u64 = 3;
const UIDS: u64 = 4;
const ZONES: [&str; 3] = ["eu-west-1a", "eu-west-1b", "eu-west-1c"];

/// Ends of generated names, without vowels as Kubernetes has them.
fn suffix(mut bits: u64, len: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut out = String::with_capacity(len);
    for _ in 0..len {
        out.push(LETTERS[(bits % LETTERS.len() as u64) as usize] as char);
        bits /= LETTERS.len() as u64;
    }
    out
}

fn address(base: [u8; 4], at: usize) -> String {
    let at = u32::try_from(at).expect("fewer objects than addresses");
    Ipv4Addr::from_bits(Ipv4Addr::from(base).to_bits() + at + 1).to_string()
}

impl World {
    fn uid(&self, kind: u64, at: usize) -> String {
        let a = self.mixed(UIDS + kind, at);
        let b = self.mixed(UIDS + kind + 32, at);
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            b & 0xfff,
            b >> 16
        )
    }

    /// The record of who wrote which fields, which an API server keeps and nobody reads.
    fn managed(&self, mut object: Value, manager: &str, fields: &[&str]) -> Value {
        if self.spec.ballast {
            let owned: serde_json::Map<String, Value> = fields
                .iter()
                .map(|field| (format!("f:{field}"), json!({".": {}, "f:value": {}})))
                .collect();
            object["metadata"]["managedFields"] = json!([{
                "manager": manager, "operation": "Update", "apiVersion": object["apiVersion"],
                "time": CREATED, "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": {
                        "f:annotations": {".": {}, "f:prometheus.io/scrape": {}},
                        "f:labels": {
                            ".": {}, "f:app": {}, "f:version": {}, "f:pod-template-hash": {},
                            "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/part-of": {},
                        },
                        "f:ownerReferences": {".": {}, "k:{\"uid\":\"x\"}": {}},
                    },
                    "f:spec": owned,
                },
            }]);
        }
        object
    }

    pub(super) fn namespace(&self, at: usize) -> Value {
        let name = self.namespace_name(at);
        let mut labels = json!({"kubernetes.io/metadata.name": name});
        if at < self.spec.namespaces {
            labels["istio.io/dataplane-mode"] = json!("ambient");
            labels["team"] = json!(format!("team-{}", at % 16));
        }
        if self.relabelled.contains(&at) && self.spec.waypoints > 0 {
            let waypoint = at * self.spec.waypoints / self.spec.namespaces;
            let (ns, waypoint) = self.waypoint_name(waypoint);
            labels["istio.io/use-waypoint"] = json!(waypoint);
            labels["istio.io/use-waypoint-namespace"] = json!(ns);
        }
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name, "uid": self.uid(1, at), "creationTimestamp": CREATED,
                "resourceVersion": (at + 100).to_string(), "labels": labels,
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        self.managed(object, "kubectl-create", &[])
    }

    pub(super) fn node(&self, at: usize) -> Value {
        let name = self.node_name(at);
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": name, "uid": self.uid(2, at), "creationTimestamp": CREATED,
                "resourceVersion": (at + 100).to_string(),
                "labels": {
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    "node.kubernetes.io/instance-type": "m6i.4xlarge",
                    "topology.kubernetes.io/region": "eu-west-1",
                    "topology.kubernetes.io/zone": ZONES[at % ZONES.len()],
                },
                "annotations": {
                    "node.alpha.kubernetes.io/ttl": "0",
                    "csi.volume.kubernetes.io/nodeid":
                        format!("{{\"ebs.csi.aws.com\":\"i-{:016x}\"}}", self.mixed(NODE_IDS, at)),
                },
            },
            "spec": {"podCIDR": format!("10.{}.{}.0/24", at / 256 % 256, at % 256)},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": address([192, 168, 0, 0], at)},
                    {"type": "Hostname", "address": name},
                ],
                "capacity": {"cpu": "16", "memory": "64Gi", "pods": "234"},
                "conditions": [{
                    "type": "Ready", "status": "True", "lastHeartbeatTime": CREATED,
                    "lastTransitionTime": CREATED, "reason": "KubeletReady",
                }],
            },
        });
        self.managed(object, "kubelet", &["podCIDR", "providerID"])
    }

    pub(super) fn service(&self, at: usize) -> Value {
        let name = service_name(at);
        let ip = address([172, 16, 0, 0], at);
        let mut labels = json!({
            "app": name,
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/part-of": format!("product-{}", at % 97),
        });
        if let Some(waypoint) = self.waypoint_of_service(at) {
            let (ns, waypoint) = self.waypoint_name(waypoint);
            labels["istio.io/use-waypoint"] = json!(waypoint);
            labels["istio.io/use-waypoint-namespace"] = json!(ns);
        }
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": self.namespace_name(self.namespace_of_service(at)),
                "uid": self.uid(3, at), "creationTimestamp": CREATED,
                "resourceVersion": (at + 10_000).to_string(), "labels": labels,
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "selector": {"app": name},
                "ports": [
                    {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
                    {"name": "grpc", "port": 9000, "targetPort": 9000, "protocol": "TCP"},
                ],
            },
            "status": {"loadBalancer": {}},
        });
        self.managed(object, "helm", &["ports", "selector", "type"])
    }

    pub(super) fn slice(&self, at: usize) -> Value {
        let ns = self.namespace_name(self.namespace_of_service(at));
        let name = service_name(at);
        let endpoint = |pod: usize| {
            let ready = !self.unready.contains(&pod);
            let node = pod % self.spec.nodes;
            json!({
                "addresses": [pod_ip(pod)],
                "conditions": {"ready": ready, "serving": ready, "terminating": false},
                "nodeName": self.node_name(node),
                "zone": ZONES[node % ZONES.len()],
                "targetRef": {
                    "kind": "Pod", "name": self.pod_name(pod), "namespace": ns,
                    "uid": self.uid(5, pod),
                },
            })
        };
        let endpoints: Vec<Value> = self.pods_of_service(at).map(endpoint).collect();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{}", suffix(self.mixed(PODS, at), 5)), "namespace": ns,
                "uid": self.uid(4, at), "creationTimestamp": CREATED, "generation": 1,
                "resourceVersion": (self.edits + 1_000_000).to_string(),
                "labels": {
                    "app": name,
                    "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": CREATED},
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": name,
                    "uid": self.uid(3, at), "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [
                {"name": "http", "port": 8080, "protocol": "TCP"},
                {"name": "grpc", "port": 9000, "protocol": "TCP"},
            ],
        });
        self.managed(object, "kube-controller-manager", &["endpoints", "ports"])
    }

    fn template(&self, service: usize) -> String {
        suffix(self.mixed(TEMPLATES, service), 10)
    }

    /// The name of a pod.
    pub fn pod_name(&self, at: usize) -> String {
        let service = self.service_of_pod(at);
        let template = self.template(service);
        let own = suffix(self.mixed(PODS, at), 5);
        format!("{}-{template}-{own}", service_name(service))
    }

    /// A pod, as it is now.
    pub(super) fn pod(&self, at: usize) -> Value {
        let service = self.service_of_pod(at);
        let app = service_name(service);
        let template = self.template(service);
        let node = at % self.spec.nodes;
        let is_ready = !self.unready.contains(&at);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.pod_name(at), "generateName": format!("{app}-{template}-"),
                "namespace": self.namespace_name(self.namespace_of_service(service)),
                "uid": self.uid(5, at), "creationTimestamp": CREATED,
                "resourceVersion": "1000000",
                "labels": {
                    "app": app, "version": "v1", "pod-template-hash": template,
                    "app.kubernetes.io/name": app,
                    "app.kubernetes.io/part-of": format!("product-{}", service % 97),
                },
                "annotations": {
                    "ambient.istio.io/redirection": "enabled",
                    "prometheus.io/scrape": "true", "prometheus.io/port": "9090",
                },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": format!("{app}-{template}"), "uid": self.uid(6, service),
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": self.pod_spec(&app, node),
            "status": status(&pod_ip(at), node, is_ready),
        });
        self.managed(object, "kubelet", &POD_FIELDS)
    }

    fn pod_spec(&self, app: &str, node: usize) -> Value {
        let mut spec = json!({
            "serviceAccountName": app, "nodeName": self.node_name(node),
            "containers": [{
                "name": "app", "image": format!("registry.example.com/team/{app}:1.2.3"),
                "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "grpc", "containerPort": 9000, "protocol": "TCP"},
                ],
            }],
        });
        if self.spec.ballast {
            add_ballast(&mut spec);
        }
        spec
    }

    pub(super) fn waypoint_service(&self, waypoint: usize) -> Value {
        let (ns, name) = self.waypoint_name(waypoint);
        let ip = address([172, 24, 0, 0], waypoint);
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": ns, "uid": self.uid(7, waypoint),
                "creationTimestamp": CREATED,
                "labels": {
                    "gateway.istio.io/managed": "istio.io-mesh-controller",
                    "gateway.networking.k8s.io/gateway-name": name,
                },
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                "selector": {"gateway.networking.k8s.io/gateway-name": name},
                "ports": [{"name": "mesh", "port": 15008, "targetPort": 15008}],
            },
        });
        self.managed(object, "istiod", &["ports", "selector", "type"])
    }

    pub(super) fn waypoint_pod(&self, waypoint: usize) -> Value {
        let (ns, name) = self.waypoint_name(waypoint);
        let node = waypoint % self.spec.nodes;
        let own = suffix(self.mixed(PODS, self.spec.pods + waypoint), 5);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{name}-{own}"), "namespace": ns,
                "uid": self.uid(8, waypoint), "creationTimestamp": CREATED,
                "labels": {
                    "gateway.istio.io/managed": "istio.io-mesh-controller",
                    "gateway.networking.k8s.io/gateway-name": name,
                    "istio.io/dataplane-mode": "none",
                },
            },
            "spec": {
                "serviceAccountName": name, "nodeName": self.node_name(node),
                "containers": [{"name": "istio-proxy", "image": "registry.example.com/proxy:1"}],
            },
            "status": status(&address([10, 128, 0, 0], waypoint), node, true),
        });
        self.managed(object, "kubelet", &POD_FIELDS)
    }
}

fn service_name(at: usize) -> String {
    format!("service-{at}")
}

fn pod_ip(at: usize) -> String {
    address([10, 0, 0, 0], at)
}

const POD_FIELDS: [&str; 10] = [
    "containers",
    "dnsPolicy",
    "enableServiceLinks",
    "restartPolicy",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "volumes",
];

/// What a pod has that is nothing to a mesh.
fn add_ballast(spec: &mut Value) {
    let container = &mut spec["containers"][0];
    let secret = json!({"name": "settings", "key": "value"});
    container["env"] = (0..8)
        .map(|n| json!({"name": format!("SETTING_{n}"), "valueFrom": {"secretKeyRef": secret}}))
        .collect();
    container["resources"] = json!({
        "requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"},
    });
    let probe = json!({
        "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
        "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3,
    });
    container["livenessProbe"] = probe.clone();
    container["readinessProbe"] = probe;
    container["volumeMounts"] = json!([{
        "name": "kube-api-access", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }]);
    container["terminationMessagePath"] = json!("/dev/termination-log");
    container["imagePullPolicy"] = json!("IfNotPresent");
    spec["volumes"] = json!([{"name": "kube-api-access", "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ],
    }}]);
    let toleration = |key: &str| {
        json!({
            "key": format!("node.kubernetes.io/{key}"), "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 300,
        })
    };
    spec["tolerations"] = json!([toleration("not-ready"), toleration("unreachable")]);
    spec["dnsPolicy"] = json!("ClusterFirst");
    spec["restartPolicy"] = json!("Always");
    spec["schedulerName"] = json!("default-scheduler");
    spec["terminationGracePeriodSeconds"] = json!(30);
}

fn status(ip: &str, node: usize, is_ready: bool) -> Value {
    let ready = if is_ready { "True" } else { "False" };
    let condition =
        |name: &str, is: &str| json!({"type": name, "status": is, "lastTransitionTime": CREATED});
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "hostIP": address([192, 168, 0, 0], node), "startTime": CREATED,
        "qosClass": "Burstable",
        "conditions": [
            condition("PodReadyToStartContainers", "True"),
            condition("Initialized", "True"),
            condition("Ready", ready),
            condition("ContainersReady", ready),
            condition("PodScheduled", "True"),
        ],
        "containerStatuses": [{
            "name": "app", "image": "registry.example.com/team/app:1.2.3",
            "imageID": "registry.example.com/team/app@sha256:\
                9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "containerID": "containerd://\
                60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
            "ready": is_ready, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": CREATED}},
        }],
    })
}
