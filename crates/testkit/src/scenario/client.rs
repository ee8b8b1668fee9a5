//! Clients that speak the protocol to a session directly, accept everything and note what
//! they were sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use model::Str;
use prost::Message as _;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use serde_json::{Value, json};
use snapshot::{DeltaCache, ResourceType, Snapshot};
use xds::{Client, ClientKind, Effect, Effects, Flavour, Request, Session};

use super::{ClientRole, matcher};

/// Names sent and removed, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    sent: BTreeSet<String>,
    removed: BTreeSet<String>,
}

/// By type label (`ADDRESS`, `CDS`, …).
pub(super) type ByType = BTreeMap<&'static str, Names>;
/// By client.
pub(super) type Pushes = BTreeMap<String, ByType>;

pub(super) struct ScriptedClient {
    session: Session,
    role: ClientRole,
    held: BTreeMap<ResourceType, BTreeMap<String, String>>,
    /// Route configurations by the listener that names them.
    routes: BTreeMap<String, BTreeSet<String>>,
    noted: ByType,
    errors: Vec<String>,
}

fn label(ty: ResourceType) -> &'static str {
    match ty {
        ResourceType::Address => "ADDRESS",
        ResourceType::Authorization => "AUTHORIZATION",
        ResourceType::Cluster => "CDS",
        ResourceType::Endpoint => "EDS",
        ResourceType::Listener => "LDS",
        ResourceType::Route => "RDS",
        _ => "OTHER",
    }
}

impl ScriptedClient {
    /// Connects and asks for what such a client asks for.
    pub(super) fn connect(name: &str, role: &ClientRole, snapshot: &Arc<Snapshot>) -> Self {
        let kind = match role {
            ClientRole::Ztunnel => ClientKind::Ztunnel,
            ClientRole::Waypoint(_) | ClientRole::Classed(_) => ClientKind::Envoy,
        };
        let client = Client {
            kind,
            ip: Ipv4Addr::LOCALHOST.into(),
            pod: Str::from(name),
            ns: Str::new(),
            service_account: None,
            node_name: Str::new(),
            cluster_id: Str::new(),
            version: Str::new(),
            class: role.class(),
            identity: None,
        };
        let cache = Arc::new(DeltaCache::default());
        let mut out = Self {
            session: Session::new(client, Flavour::Delta, cache, name),
            role: role.clone(),
            held: BTreeMap::new(),
            routes: BTreeMap::new(),
            noted: ByType::new(),
            errors: Vec::new(),
        };
        let types: &[ResourceType] = match role {
            ClientRole::Ztunnel => &[ResourceType::Address, ResourceType::Authorization],
            ClientRole::Waypoint(_) | ClientRole::Classed(_) => {
                &[ResourceType::Cluster, ResourceType::Listener]
            }
        };
        for ty in types {
            out.ask(*ty, DeltaDiscoveryRequest::default(), snapshot);
        }
        out
    }

    pub(super) fn on_snapshot(&mut self, snapshot: &Arc<Snapshot>) {
        let effects = self.session.on_snapshot(0, snapshot);
        self.take(effects, snapshot);
    }

    /// What was sent since the last call.
    pub(super) fn take_pushes(&mut self) -> Result<ByType> {
        ensure!(self.errors.is_empty(), "{}", self.errors.join("\n"));
        Ok(std::mem::take(&mut self.noted))
    }

    /// The client must hold exactly what the snapshot says.
    pub(super) fn check_holds(&self, snapshot: &Snapshot) -> Result<()> {
        let class = self.role.class();
        for (ty, held) in &self.held {
            let resources = snapshot
                .resources(class.as_ref(), *ty)
                .context("not served")?;
            let want: BTreeMap<String, String> = resources
                .iter()
                .map(|r| (r.name().to_string(), r.version_str().to_string()))
                .collect();
            ensure!(
                *held == want,
                "{}: holds {held:?}, should hold {want:?}",
                label(*ty)
            );
        }
        Ok(())
    }

    fn ask(
        &mut self,
        ty: ResourceType,
        mut request: DeltaDiscoveryRequest,
        snapshot: &Arc<Snapshot>,
    ) {
        ty.type_url().clone_into(&mut request.type_url);
        let effects = self
            .session
            .on_request(0, Request::Delta(request), snapshot);
        self.take(effects, snapshot);
    }

    fn take(&mut self, effects: Effects, snapshot: &Arc<Snapshot>) {
        for effect in effects {
            match effect {
                Effect::Send(response) => {
                    let mut bytes = Vec::new();
                    response.encode(&mut bytes);
                    match DeltaDiscoveryResponse::decode(bytes.as_slice()) {
                        Ok(response) => self.receive(response, snapshot),
                        Err(error) => self.errors.push(error.to_string()),
                    }
                }
                Effect::Close(code, text) => self.errors.push(format!("closed: {code:?} {text}")),
                Effect::Interest(_) | Effect::Observe(_) => {}
            }
        }
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse, snapshot: &Arc<Snapshot>) {
        let Some(ty) = ResourceType::from_type_url(&response.type_url) else {
            return self
                .errors
                .push(format!("unknown type {}", response.type_url));
        };
        let held = self.held.entry(ty).or_default();
        let noted = self.noted.entry(label(ty)).or_default();
        for resource in &response.resources {
            held.insert(resource.name.clone(), resource.version.clone());
            noted.sent.insert(resource.name.clone());
        }
        for name in &response.removed_resources {
            held.remove(name);
            noted.removed.insert(name.clone());
        }
        let ack = DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.ask(ty, ack, snapshot);
        match ty {
            ResourceType::Cluster => self.follow_clusters(&response, snapshot),
            ResourceType::Listener => self.follow_listeners(&response, snapshot),
            _ => {}
        }
    }

    /// Envoy asks for the routes that its listeners name.
    fn follow_listeners(&mut self, response: &DeltaDiscoveryResponse, snapshot: &Arc<Snapshot>) {
        let all = |routes: &BTreeMap<String, BTreeSet<String>>| -> BTreeSet<String> {
            routes.values().flatten().cloned().collect()
        };
        let before = all(&self.routes);
        for name in &response.removed_resources {
            self.routes.remove(name);
        }
        for resource in &response.resources {
            let any = resource.resource.as_ref();
            let json = any.and_then(|any| proto::json::to_json(&any.type_url, &any.value).ok());
            let names = json.map(|json| route_names(&json)).unwrap_or_default();
            self.routes.insert(resource.name.clone(), names);
        }
        let now = all(&self.routes);
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: now.difference(&before).cloned().collect(),
            resource_names_unsubscribe: before.difference(&now).cloned().collect(),
            ..Default::default()
        };
        if let Some(held) = self.held.get_mut(&ResourceType::Route) {
            held.retain(|name, _| now.contains(name));
        }
        if now != before {
            self.ask(ResourceType::Route, request, snapshot);
        }
    }

    /// Envoy asks for the endpoints of the EDS clusters that it has.
    fn follow_clusters(&mut self, response: &DeltaDiscoveryResponse, snapshot: &Arc<Snapshot>) {
        let subscribe: Vec<String> = response
            .resources
            .iter()
            .filter(|resource| {
                let any = resource.resource.as_ref();
                let json = any.and_then(|any| proto::json::to_json(&any.type_url, &any.value).ok());
                json.is_some_and(|json| json.get("edsClusterConfig").is_some())
            })
            .map(|resource| resource.name.clone())
            .collect();
        let unsubscribe = response.removed_resources.clone();
        if let Some(held) = self.held.get_mut(&ResourceType::Endpoint) {
            held.retain(|name, _| !unsubscribe.contains(name));
        }
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return;
        }
        let request = DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..Default::default()
        };
        self.ask(ResourceType::Endpoint, request, snapshot);
    }
}

/// Every route configuration that a listener names.
fn route_names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(route_names).collect(),
        Value::Object(map) => {
            let own = map.get("routeConfigName").and_then(Value::as_str);
            let own = own.map(ToOwned::to_owned).into_iter();
            own.chain(map.values().flat_map(route_names)).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// Compares `pushes.yaml` with what the steps sent.
pub(super) fn mismatches(want: &Value, pushes: &[(String, Pushes)]) -> Vec<String> {
    let Some(steps) = want.as_array() else {
        return vec!["must be a list".to_owned()];
    };
    let mut out = Vec::new();
    if steps.len() != pushes.len() {
        out.push(format!(
            "{} entries for {} steps",
            steps.len(),
            pushes.len()
        ));
    }
    for (want, (step, by_client)) in steps.iter().zip(pushes) {
        let mut actual = serde_json::Map::from_iter([("step".to_owned(), json!(step))]);
        for (client, by_type) in by_client {
            if want.get(client).is_some() {
                actual.insert(client.clone(), show(by_type));
            }
        }
        let actual = Value::Object(actual);
        let mut wrong = matcher::mismatches(want, &actual);
        wrong.extend(matcher::mismatches(&actual, want));
        out.extend(wrong.into_iter().map(|text| format!("{step}{text}")));
    }
    out
}

fn show(by_type: &ByType) -> Value {
    let mut out = serde_json::Map::new();
    for (ty, names) in by_type {
        let mut one = serde_json::Map::new();
        if !names.sent.is_empty() {
            one.insert("sent".to_owned(), json!(names.sent));
        }
        if !names.removed.is_empty() {
            one.insert("removed".to_owned(), json!(names.removed));
        }
        if !one.is_empty() {
            out.insert((*ty).to_owned(), Value::Object(one));
        }
    }
    Value::Object(out)
}
