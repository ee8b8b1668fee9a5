//! The subscription of a waypoint as its Envoy makes it: one delta stream with clusters, listeners,
//! the endpoints of clusters and the routes of listeners, resumed with what is held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use proto::core::Node;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use serde_json::Value;
use testkit::ads::{DeltaClient, XdsTarget};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two attempts to connect.
const BACKOFF: Duration = Duration::from_millis(200);

/// Versions by type and name.
pub(super) type Resources = BTreeMap<&'static str, BTreeMap<String, String>>;

#[derive(Clone, Debug, Default)]
struct View {
    held: Resources,
    /// Routes by the listener that names them.
    routes: BTreeMap<String, BTreeSet<String>>,
    /// Clusters whose endpoints are asked for.
    endpoints: BTreeSet<String>,
    /// Names that were sent and removed, oldest first.
    told: Vec<String>,
    connection: usize,
    /// Types that were answered on this connection.
    answered: BTreeSet<&'static str>,
}

/// A waypoint's subscription; ends when dropped.
pub(super) struct Waypoint {
    view: watch::Receiver<View>,
    task: JoinHandle<()>,
}

// === impl Waypoint ===

impl Waypoint {
    /// Subscribes, and again whenever the stream breaks.
    pub(super) fn start(target: XdsTarget, node: Node) -> Self {
        let (sender, view) = watch::channel(View::default());
        let task = tokio::spawn(async move {
            loop {
                let _ = session(&target, &node, &sender).await;
                tokio::time::sleep(BACKOFF).await;
            }
        });
        Self { view, task }
    }

    /// What it holds.
    pub(super) fn held(&self) -> Resources {
        self.view.borrow().held.clone()
    }

    /// Names that it was sent and told to forget, oldest first.
    pub(super) fn told(&self) -> Vec<String> {
        self.view.borrow().told.clone()
    }

    /// How often it has connected.
    pub(super) fn connection(&self) -> usize {
        self.view.borrow().connection
    }

    /// Waits until all that it asked for was answered on connection number `connection` or later.
    pub(super) async fn wait_synced(
        &self,
        connection: usize,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let mut view = self.view.clone();
        let is_synced = |view: &View| {
            let needs = |ty, is_needed: bool| !is_needed || view.answered.contains(ty);
            view.connection >= connection
                && needs(CLUSTER, true)
                && needs(LISTENER, true)
                && needs(ENDPOINT, !view.endpoints.is_empty())
                && needs(ROUTE, view.routes.values().any(|names| !names.is_empty()))
        };
        let synced = tokio::time::timeout(limit, view.wait_for(is_synced)).await;
        synced.with_context(|| format!("the waypoint holds {:#?}", self.view.borrow()))??;
        Ok(())
    }
}

impl Drop for Waypoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl View ===

impl View {
    /// Names of a type that is asked for by name.
    fn wanted(&self, ty: &str) -> BTreeSet<String> {
        if ty == ENDPOINT {
            return self.endpoints.clone();
        }
        self.routes.values().flatten().cloned().collect()
    }

    /// Takes what came, and notes what it names.
    fn take(&mut self, ty: &'static str, response: &DeltaDiscoveryResponse) {
        self.answered.insert(ty);
        let held = self.held.entry(ty).or_default();
        for resource in &response.resources {
            held.insert(resource.name.clone(), resource.version.clone());
            self.told.push(resource.name.clone());
            let any = resource.resource.as_ref();
            let json = any.and_then(|any| proto::json::to_json(&any.type_url, &any.value).ok());
            let json = json.unwrap_or_default();
            if ty == LISTENER {
                self.routes.insert(resource.name.clone(), routes(&json));
            } else if ty == CLUSTER && json.get("edsClusterConfig").is_some() {
                self.endpoints.insert(resource.name.clone());
            }
        }
        for name in &response.removed_resources {
            held.remove(name);
            self.told.push(name.clone());
            if ty == LISTENER {
                self.routes.remove(name);
            } else if ty == CLUSTER {
                self.endpoints.remove(name);
            }
        }
    }
}

async fn session(
    target: &XdsTarget,
    node: &Node,
    view: &watch::Sender<View>,
) -> anyhow::Result<()> {
    let mut stream = DeltaClient::connect(target, node.clone()).await?;
    view.send_modify(|view| {
        view.connection += 1;
        view.answered.clear();
    });
    let held = view.borrow().held.clone();
    let of = |ty| held.get(ty).cloned().unwrap_or_default();
    for ty in [CLUSTER, LISTENER] {
        stream.resume(ty, of(ty)).await?;
    }
    let mut asked = BTreeMap::new();
    for ty in [ENDPOINT, ROUTE] {
        let wanted = view.borrow().wanted(ty);
        if !wanted.is_empty() {
            let request = DeltaDiscoveryRequest {
                type_url: ty.to_owned(),
                resource_names_subscribe: wanted.iter().cloned().collect(),
                initial_resource_versions: of(ty),
                ..DeltaDiscoveryRequest::default()
            };
            stream.send(request).await?;
        }
        asked.insert(ty, wanted);
    }
    loop {
        let response = stream.next().await?;
        let all = [CLUSTER, LISTENER, ENDPOINT, ROUTE];
        let ty = all.into_iter().find(|ty| *ty == response.type_url);
        let ty = ty.context("a type that nobody asked for")?;
        view.send_modify(|view| view.take(ty, &response));
        stream.ack(&response).await?;
        for (ty, before) in &mut asked {
            let now = view.borrow().wanted(ty);
            if now == *before {
                continue;
            }
            let request = DeltaDiscoveryRequest {
                type_url: (*ty).to_owned(),
                resource_names_subscribe: now.difference(before).cloned().collect(),
                resource_names_unsubscribe: before.difference(&now).cloned().collect(),
                ..DeltaDiscoveryRequest::default()
            };
            stream.send(request).await?;
            view.send_modify(|view| {
                let held = view.held.entry(ty).or_default();
                held.retain(|name, _| now.contains(name));
            });
            *before = now;
        }
    }
}

/// Every route configuration that a listener names.
fn routes(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(routes).collect(),
        Value::Object(map) => {
            let own = map.get("routeConfigName").and_then(Value::as_str);
            let own = own.map(ToOwned::to_owned).into_iter();
            own.chain(map.values().flat_map(routes)).collect()
        }
        _ => BTreeSet::new(),
    }
}
