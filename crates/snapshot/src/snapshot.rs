//! Everything that is published at one generation.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use model::jwks::Wanted;
use model::status::{StatusKey, StatusRow};
use model::{DeploymentRow, Finding, MeshRow, ObjectKey, ObjectRef, ProxyClass, Str, WaypointRow};

use crate::{AddressIndex, LazyWorkloads, PodFacts, ResourceMap, ResourceType, SecretStore};

/// Resources of one class of proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyResources {
    /// CDS.
    pub clusters: ResourceMap,
    /// EDS.
    pub endpoints: ResourceMap,
    /// LDS.
    pub listeners: ResourceMap,
    /// RDS.
    pub routes: ResourceMap,
}

impl ProxyResources {
    /// The resources of one kind; `None` for kinds that do not vary by class.
    pub fn resources(&self, ty: ResourceType) -> Option<&ResourceMap> {
        match ty {
            ResourceType::Cluster => Some(&self.clusters),
            ResourceType::Endpoint => Some(&self.endpoints),
            ResourceType::Listener => Some(&self.listeners),
            ResourceType::Route => Some(&self.routes),
            _ => None,
        }
    }
}

/// A consistent state of everything served. Immutable once published.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts published snapshots; only this process knows its meaning.
    pub generation: u64,
    /// Workloads and services.
    pub addresses: ResourceMap,
    /// The other ways to them, for on-demand clients.
    pub address_index: AddressIndex,
    /// The workloads among them, for who subscribes to workloads alone.
    pub workloads: LazyWorkloads,
    /// L4 policy.
    pub authorizations: ResourceMap,
    /// Envoy resources of every class that a connected proxy belongs to.
    pub proxies: OrdMap<ProxyClass, Arc<ProxyResources>>,
    /// What of the configuration does not do what it says.
    pub findings: Arc<[Finding]>,
    /// What belongs into the status of objects. No client sees it.
    pub statuses: OrdMap<StatusKey, Arc<StatusRow>>,
    /// What the Gateways whose deployments are ours run as. No client sees it.
    pub deployments: OrdMap<ObjectKey, Arc<DeploymentRow>>,
    /// Objects that belong to another control plane: nothing is written to their status, findings
    /// included. No client sees it. Source: spec/gateway-api.md §2.2.
    pub foreign: OrdSet<ObjectRef>,
    /// Gateways that can be named as waypoints, those without address included.
    pub waypoints: OrdMap<ObjectKey, Arc<WaypointRow>>,
    /// Key sets of token issuers that configuration needs, by [`model::jwks::JwksSource::key`].
    /// No client sees it.
    pub jwks_wanted: OrdMap<Str, Arc<Wanted>>,
    /// Mesh-wide settings in force.
    pub mesh: Arc<MeshRow>,
    /// What identity checks must know of pods. No client sees it.
    pub pods: PodFacts,
    /// Certificates and keys; see [`Snapshot::secret`].
    pub secrets: SecretStore,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            generation: 0,
            addresses: ResourceMap::default(),
            address_index: AddressIndex::default(),
            workloads: LazyWorkloads::default(),
            authorizations: ResourceMap::default(),
            proxies: OrdMap::new(),
            findings: Arc::from([]),
            statuses: OrdMap::new(),
            deployments: OrdMap::new(),
            foreign: OrdSet::new(),
            waypoints: OrdMap::new(),
            jwks_wanted: OrdMap::new(),
            mesh: Arc::default(),
            pods: PodFacts::default(),
            secrets: SecretStore::default(),
        }
    }
}

impl Snapshot {
    /// What a client sees of one kind of resource; `class` is `None` for clients
    /// that are not Envoy proxies.
    ///
    /// `None` when there is nothing to say: a kind we do not serve to this client,
    /// or a class that has not been translated yet. An empty map, in contrast, is
    /// an answer.
    pub fn resources(&self, class: Option<&ProxyClass>, ty: ResourceType) -> Option<&ResourceMap> {
        match ty {
            ResourceType::Address => Some(&self.addresses),
            ResourceType::Workload => Some(self.workloads.of(&self.addresses)),
            ResourceType::Authorization => Some(&self.authorizations),
            _ => self.proxies.get(class?)?.resources(ty),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{ObjectKey, Str};

    use super::*;
    use crate::EncodedResource;

    fn one(ty: ResourceType) -> ResourceMap {
        [EncodedResource::new(
            Str::from(ty.short()),
            ty.type_url(),
            b"x",
            Vec::new(),
        )]
        .into_iter()
        .collect()
    }

    #[test]
    fn a_client_sees_the_mesh_and_its_own_class_only() {
        let class = |name| ProxyClass::waypoint(ObjectKey::new("ns", name));
        let proxy = ProxyResources {
            clusters: one(ResourceType::Cluster),
            endpoints: one(ResourceType::Endpoint),
            listeners: one(ResourceType::Listener),
            routes: one(ResourceType::Route),
        };
        let snapshot = Snapshot {
            addresses: one(ResourceType::Address),
            authorizations: one(ResourceType::Authorization),
            proxies: [(class("a"), Arc::new(proxy))].into_iter().collect(),
            ..Snapshot::default()
        };
        let seen = |class: Option<&ProxyClass>| {
            ResourceType::ALL
                .into_iter()
                .filter(|ty| snapshot.resources(class, *ty) == Some(&one(*ty)))
                .map(ResourceType::short)
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(None), ["wds", "wads"]);
        assert_eq!(
            seen(Some(&class("a"))),
            ["cds", "eds", "lds", "rds", "wds", "wads"]
        );
        assert_eq!(seen(Some(&class("b"))), ["wds", "wads"]);
    }
}
