//! A cluster's worth of objects, written through its API server.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use http::{Method, Request};
use serde_json::{Value, json};
use testkit::cluster::Cluster;

const NODES: usize = 100;
const PODS_PER_SERVICE: usize = 10;
const SERVICES_PER_NAMESPACE: usize = 50;
/// Writers at once: enough to keep the API server busy.
const WRITERS: usize = 32;

/// How many there are of what.
pub(crate) struct World {
    pods: usize,
}

/// One request.
struct Write {
    method: Method,
    path: String,
    body: Value,
}

// === impl World ===

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pods, {} Services and as many EndpointSlices, {} namespaces, {NODES} nodes",
            self.pods,
            self.services(),
            self.namespaces(),
        )
    }
}

impl World {
    pub(crate) fn of(pods: usize) -> Self {
        Self { pods }
    }

    pub(crate) fn pods(&self) -> usize {
        self.pods
    }

    fn services(&self) -> usize {
        self.pods.div_ceil(PODS_PER_SERVICE)
    }

    fn namespaces(&self) -> usize {
        self.services().div_ceil(SERVICES_PER_NAMESPACE)
    }

    /// All of them.
    pub(crate) fn objects(&self) -> usize {
        NODES + self.namespaces() + 2 * self.services() + self.pods
    }

    /// Creates everything; what others refer to comes first.
    pub(crate) async fn write(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let client = cluster.client().await?;
        in_parallel(&client, "", NODES, |at| {
            vec![Write::create("/api/v1/nodes".to_owned(), node(at))]
        })
        .await?;
        in_parallel(&client, "", self.namespaces(), |at| {
            let account = json!({"metadata": {"name": "default"}});
            vec![
                Write::create("/api/v1/namespaces".to_owned(), namespace(at)),
                // The controller that makes it does not run.
                Write::create(
                    format!("/api/v1/namespaces/ns-{at}/serviceaccounts"),
                    account,
                ),
            ]
        })
        .await?;
        in_parallel(&client, "Services", self.services(), |at| {
            let ns = format!("ns-{}", at / SERVICES_PER_NAMESPACE);
            let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices");
            vec![
                Write::create(format!("/api/v1/namespaces/{ns}/services"), service(at)),
                Write::create(slices, slice(at)),
            ]
        })
        .await?;
        in_parallel(&client, "pods", self.pods, |at| {
            let (path, body) = pod(at);
            let status = Write {
                method: Method::PUT,
                path: format!("{path}/pod-{at}/status"),
                body: body.clone(),
            };
            // A pod that is created has no status, whatever it says.
            vec![Write::create(path, body), status]
        })
        .await
    }
}

// === impl Write ===

impl Write {
    fn create(path: String, body: Value) -> Self {
        Self {
            method: Method::POST,
            path,
            body,
        }
    }

    async fn send(self, client: &kube::Client) -> anyhow::Result<()> {
        let request = Request::builder()
            .method(self.method)
            .uri(&self.path)
            .header("content-type", "application/json")
            .body(self.body.to_string().into_bytes())?;
        let answered = client.request_text(request).await;
        answered.map(drop).with_context(|| self.path)
    }
}

/// The writes of each index one after the other, the indexes side by side.
async fn in_parallel<F>(
    client: &kube::Client,
    shown: &str,
    count: usize,
    writes: F,
) -> anyhow::Result<()>
where
    F: Fn(usize) -> Vec<Write> + Clone + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (client, next, writes, shown) = (
            client.clone(),
            next.clone(),
            writes.clone(),
            shown.to_owned(),
        );
        tasks.spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return anyhow::Ok(());
                }
                for write in writes(at) {
                    write.send(&client).await?;
                }
                if !shown.is_empty() && (at + 1) % 10_000 == 0 {
                    println!("  {} {shown}", at + 1);
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn node(at: usize) -> Value {
    json!({"metadata": {"name": format!("node-{at}"), "labels": {
        "kubernetes.io/hostname": format!("node-{at}"),
        "topology.kubernetes.io/region": "r",
        "topology.kubernetes.io/zone": format!("z-{}", at % 3),
    }}})
}

fn namespace(at: usize) -> Value {
    let labels = json!({"istio.io/dataplane-mode": "ambient"});
    json!({"metadata": {"name": format!("ns-{at}"), "labels": labels}})
}

fn pod_ip(at: usize) -> String {
    let at = u32::try_from(at).expect("fewer pods than addresses");
    Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + at + 1).to_string()
}

fn service(at: usize) -> Value {
    json!({
        "metadata": {"name": format!("svc-{at}"), "labels": {"app": format!("svc-{at}")}},
        "spec": {
            "selector": {"app": format!("svc-{at}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

fn slice(at: usize) -> Value {
    let endpoint = |pod: usize| {
        json!({
            "addresses": [pod_ip(pod)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", pod % NODES),
            "zone": format!("z-{}", pod % NODES % 3),
            "targetRef": {
                "kind": "Pod", "name": format!("pod-{pod}"),
                "namespace": format!("ns-{}", at / SERVICES_PER_NAMESPACE),
            },
        })
    };
    let first = at * PODS_PER_SERVICE;
    let endpoints: Vec<Value> = (first..first + PODS_PER_SERVICE).map(endpoint).collect();
    json!({
        "metadata": {"name": format!("svc-{at}-x"), "labels": {
            "kubernetes.io/service-name": format!("svc-{at}"),
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// Where pods of its namespace are, and the pod with its status.
fn pod(at: usize) -> (String, Value) {
    let service = at / PODS_PER_SERVICE;
    let namespace = service / SERVICES_PER_NAMESPACE;
    let ip = pod_ip(at);
    let now = "2026-01-01T00:00:00Z";
    let condition = |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": now});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let value = json!({
        "metadata": {
            "name": format!("pod-{at}"),
            "labels": {
                "app": format!("svc-{service}"), "version": "v1",
                "pod-template-hash": format!("{:x}", service * 2_654_435_761),
            },
            "annotations": {"ambient.istio.io/redirection": "enabled"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("svc-{service}-x"),
                "uid": format!("00000000-0000-0000-0000-{service:012}"), "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": format!("node-{}", at % NODES),
            "containers": [{
                "name": "app", "image": "registry.example.com/team/app:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            }],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "hostIP": format!("10.0.0.{}", at % NODES),
            "startTime": now,
            "conditions": conditions.map(condition),
            "containerStatuses": [{
                "name": "app", "image": "registry.example.com/team/app:1.2.3",
                "imageID": "registry.example.com/team/app@sha256:0", "ready": true,
                "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
            }],
        },
    });
    (format!("/api/v1/namespaces/ns-{namespace}/pods"), value)
}
