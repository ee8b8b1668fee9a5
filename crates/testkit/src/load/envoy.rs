//! Clients that ask as the Envoy of a waypoint does: all clusters and listeners, then the
//! endpoints and routes that these name. Each response is acknowledged, none is applied.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use proto::core::Node;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use serde_json::Value;
use snapshot::ResourceType;

use crate::ads::{DeltaClient, XdsTarget};

/// One waypoint's stream.
pub struct Waypoint {
    client: DeltaClient,
    plan: Plan,
    /// What was asked for by name and did not come yet.
    awaited: BTreeSet<(ResourceType, String)>,
    first: BTreeSet<ResourceType>,
}

/// What a waypoint asks for by name. Reading it from listeners and clusters costs time that
/// Envoy does not need for it, so that whoever measures has it read once and kept.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    names: Option<[Vec<String>; 2]>,
}

/// What came until nothing more was awaited.
#[derive(Debug, Default)]
pub struct Settled {
    /// What the next client may be told to ask for.
    pub plan: Plan,
    /// Everything that was sent.
    pub resources: Vec<Resource>,
    /// Of all resources, without the frames around them.
    pub bytes: usize,
    /// Responses.
    pub messages: usize,
}

impl Waypoint {
    /// Opens a stream and asks for clusters and listeners.
    ///
    /// # Errors
    /// When the server is not there or refuses.
    pub async fn connect(target: &XdsTarget, node: Node, plan: Plan) -> anyhow::Result<Self> {
        let mut client = DeltaClient::connect(target, node).await?;
        let first = [ResourceType::Cluster, ResourceType::Listener];
        for ty in first {
            client.subscribe(ty.type_url(), &[]).await?;
        }
        Ok(Self {
            client,
            plan,
            awaited: BTreeSet::new(),
            first: first.into(),
        })
    }

    /// Takes and acknowledges until all that it asked for is there.
    ///
    /// # Errors
    /// When the stream ends, or after this long.
    pub async fn settle(&mut self, limit: Duration) -> anyhow::Result<Settled> {
        let settled = tokio::time::timeout(limit, self.take_all()).await;
        settled.with_context(|| format!("not settled after {limit:?}"))?
    }

    async fn take_all(&mut self) -> anyhow::Result<Settled> {
        let mut out = Settled::default();
        let mut read: [Vec<String>; 2] = Default::default();
        while !self.first.is_empty() || !self.awaited.is_empty() {
            let mut response = self.next().await?;
            let Some(ty) = ResourceType::from_type_url(&response.type_url) else {
                anyhow::bail!("nobody asked for {}", response.type_url);
            };
            self.first.remove(&ty);
            out.messages += 1;
            for resource in &response.resources {
                self.awaited.remove(&(ty, resource.name.clone()));
                out.bytes += resource.resource.as_ref().map_or(0, |any| any.value.len());
            }
            for name in &response.removed_resources {
                self.awaited.remove(&(ty, name.clone()));
            }
            let follow = match ty {
                ResourceType::Cluster => Some((0, ResourceType::Endpoint)),
                ResourceType::Listener => Some((1, ResourceType::Route)),
                _ => None,
            };
            if let Some((slot, wanted)) = follow {
                let names = match &self.plan.names {
                    Some(known) => known[slot].clone(),
                    None => named(&response, ty),
                };
                read[slot].extend(names.iter().cloned());
                self.ask(wanted, names).await?;
            }
            out.resources.append(&mut response.resources);
        }
        out.plan = Plan { names: Some(read) };
        Ok(out)
    }

    async fn ask(&mut self, ty: ResourceType, names: Vec<String>) -> anyhow::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let named = names.iter().map(|name| (ty, name.clone()));
        self.awaited.extend(named);
        self.client
            .send(DeltaDiscoveryRequest {
                type_url: ty.type_url().to_owned(),
                resource_names_subscribe: names,
                ..DeltaDiscoveryRequest::default()
            })
            .await
    }

    /// The next response, acknowledged.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn next(&mut self) -> anyhow::Result<DeltaDiscoveryResponse> {
        let response = self.client.next().await?;
        self.client.ack(&response).await?;
        Ok(response)
    }
}

/// What clusters and listeners name: the clusters with endpoints of their own, the routes.
fn named(response: &DeltaDiscoveryResponse, ty: ResourceType) -> Vec<String> {
    let mut out = Vec::new();
    for resource in &response.resources {
        let any = resource.resource.as_ref();
        let json = any.and_then(|any| proto::json::to_json(&any.type_url, &any.value).ok());
        let Some(json) = json else { continue };
        if ty != ResourceType::Cluster {
            route_names(&json, &mut out);
        } else if json.get("edsClusterConfig").is_some() {
            out.push(resource.name.clone());
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Every route configuration that a listener names.
fn route_names(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| route_names(item, out)),
        Value::Object(map) => {
            let own = map.get("routeConfigName").and_then(Value::as_str);
            out.extend(own.map(ToOwned::to_owned));
            map.values().for_each(|item| route_names(item, out));
        }
        _ => {}
    }
}
