//! Derived rows to encoded resources, each encoded once and kept in persistent maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy::emit::Resource;
use envoy::ir::{ClassResource, WaypointResource};
use flow::Changes;
use imbl::{OrdMap, OrdSet};
use model::input::Pod;
use model::jwks::Wanted;
use model::status::{StatusKey, StatusRow};
use model::{
    DeploymentRow, Finding, Kind, MeshRow, ObjectKey, ObjectRef, Parsed, ProxyClass, Str,
    WaypointRow, WorkloadRow,
};
use prost::Message as _;
use snapshot::{
    AddressFacts, AddressKind, AddressTable, EncodedResource, LazyWorkloads, PodFacts,
    ProxyResources, ResourceMap, ResourceType, SecretStore, Snapshot,
};

use crate::stages::{DerivedChanges, ProxyChanges, Stages};

/// Everything that is served, as of the last batch.
#[derive(Default)]
pub(crate) struct Resources {
    addresses: AddressTable,
    /// Shared by all snapshots.
    workloads: LazyWorkloads,
    authorizations: ResourceMap,
    /// Resources that all classes of a waypoint share.
    waypoints: BTreeMap<ObjectKey, ProxyResources>,
    /// Resources of one class only.
    classes: BTreeMap<ProxyClass, ProxyResources>,
    proxies: OrdMap<ProxyClass, Arc<ProxyResources>>,
    statuses: OrdMap<StatusKey, Arc<StatusRow>>,
    deployments: OrdMap<ObjectKey, Arc<DeploymentRow>>,
    foreign: OrdSet<ObjectRef>,
    waypoint_rows: OrdMap<ObjectKey, Arc<WaypointRow>>,
    jwks_wanted: OrdMap<Str, Arc<Wanted>>,
    mesh: Arc<MeshRow>,
    pods: PodFacts,
    secrets: SecretStore,
}

impl Resources {
    /// Encodes what changed; says whether anything published differs.
    pub(crate) fn update(&mut self, stages: &Stages, changes: &DerivedChanges) -> bool {
        let mut differs = self.update_addresses(stages, changes);
        differs |= self.update_authorizations(changes);
        differs |= self.update_proxies(changes);
        for changed in &changes.statuses {
            differs |= follow(&mut self.statuses, changed);
        }
        differs |= follow(&mut self.deployments, &changes.deployments);
        differs |= follow(&mut self.waypoint_rows, &changes.waypoints);
        differs |= follow(&mut self.jwks_wanted, &changes.jwks_wanted);
        differs |= self.update_secrets(changes);
        if let Some(row) = changes.mesh.rows().last() {
            self.mesh = row.new.clone().unwrap_or_default();
            differs = true;
        }
        differs
    }

    /// Takes up what identity checks must know of changed pods.
    pub(crate) fn update_pods(&mut self, changes: &Changes<ObjectKey, Parsed<Pod>>) -> bool {
        let mut differs = false;
        for change in interleaved(changes.rows()) {
            let fact = change.new.as_deref().and_then(ambient::pod_facts::of);
            if self.pods.get(&change.key).map(Arc::as_ref) != fact.as_ref() {
                self.pods.set(&change.key, fact.map(Arc::new));
                differs = true;
            }
        }
        differs
    }

    /// Takes up whose objects are another control plane's: Gateways, which are served all the same,
    /// and what its revision hides.
    pub(crate) fn update_foreign(
        &mut self,
        revised: &BTreeMap<(Kind, ObjectKey), bool>,
        changes: &DerivedChanges,
    ) -> bool {
        let gateways = changes.foreign_gateways.rows().iter();
        let gateways = gateways.map(|change| ((Kind::Gateway, &change.key), change.new.is_some()));
        let hidden = revised.iter();
        let hidden = hidden.map(|((kind, key), is_foreign)| ((*kind, key), *is_foreign));
        let mut differs = false;
        for ((kind, key), is_foreign) in gateways.chain(hidden) {
            let object = ObjectRef::new(kind, key.clone());
            differs |= if is_foreign {
                self.foreign.insert(object).is_none()
            } else {
                self.foreign.remove(&object).is_some()
            };
        }
        differs
    }

    /// The snapshot of this state.
    pub(crate) fn snapshot(&self, generation: u64, findings: Arc<[Finding]>) -> Snapshot {
        Snapshot {
            generation,
            addresses: self.addresses.resources().clone(),
            address_index: self.addresses.index().clone(),
            workloads: self.workloads.clone(),
            authorizations: self.authorizations.clone(),
            proxies: self.proxies.clone(),
            findings,
            statuses: self.statuses.clone(),
            deployments: self.deployments.clone(),
            foreign: self.foreign.clone(),
            waypoints: self.waypoint_rows.clone(),
            jwks_wanted: self.jwks_wanted.clone(),
            mesh: Arc::clone(&self.mesh),
            pods: self.pods.clone(),
            secrets: self.secrets.clone(),
        }
    }

    fn update_secrets(&mut self, changes: &DerivedChanges) -> bool {
        let grants = changes.credentials.grants.rows();
        let materials = changes.credentials.materials.rows();
        for change in grants {
            self.secrets
                .put_grants(change.key.clone(), change.new.clone());
        }
        for change in materials {
            self.secrets
                .put_material(change.key.clone(), change.new.clone());
        }
        !grants.is_empty() || !materials.is_empty()
    }

    fn update_addresses(&mut self, stages: &Stages, changes: &DerivedChanges) -> bool {
        let mut differs = false;
        // A changed service is sent with all its members, also with those that did not change.
        let mut members = BTreeMap::new();
        for change in changes.services.rows() {
            let name = arcstr::format!("{}", change.key);
            let changed = match &change.new {
                None => self.addresses.remove(&name),
                Some(row) => self.addresses.insert(EncodedResource::address(
                    name,
                    &ambient::emit::address_of_service(row).encode_to_vec(),
                    ambient::emit::service_aliases(row),
                    AddressFacts::service(),
                    0,
                )),
            };
            if changed {
                differs = true;
                members.extend(stages.members(&change.key));
            }
        }
        for change in interleaved(changes.workloads.rows()) {
            members.remove(&change.key);
            match &change.new {
                Some(row) => differs |= self.put_workload(row),
                None => differs |= self.addresses.remove(&change.key.0),
            }
        }
        for row in members.values() {
            differs |= self.put_workload(row);
        }
        differs
    }

    fn put_workload(&mut self, row: &WorkloadRow) -> bool {
        let message = ambient::emit::address_of_workload(row);
        let mut seed = 0_u64;
        let mut services = Vec::with_capacity(row.services.len());
        for host in row.services.keys() {
            let name = arcstr::format!("{host}");
            let service = self.addresses.resources().get(&name);
            seed = seed.rotate_left(1) ^ service.map_or(0, |service| service.version());
            services.push(service.map_or(name, |service| service.name().clone()));
        }
        let facts = AddressFacts {
            kind: AddressKind::Workload,
            node: row.node.clone(),
            unhealthy: !row.healthy,
            services: services.into(),
        };
        self.addresses.insert(EncodedResource::address(
            row.uid.0.clone(),
            &message.encode_to_vec(),
            ambient::emit::workload_aliases(row),
            facts,
            seed,
        ))
    }

    fn update_authorizations(&mut self, changes: &DerivedChanges) -> bool {
        let mut differs = false;
        for change in changes.authorizations.rows() {
            let encoded = change.new.as_ref().map(|row| {
                (
                    ambient::emit::authorization(row).encode_to_vec(),
                    Vec::new(),
                )
            });
            let name = arcstr::format!("{}", change.key);
            differs |= put(
                &mut self.authorizations,
                ResourceType::Authorization,
                name,
                encoded,
            );
        }
        differs
    }

    fn update_proxies(&mut self, changes: &DerivedChanges) -> bool {
        let dirty_waypoints = self.update_shared(&changes.proxies);
        let mut dirty_classes = self.update_own(&changes.proxies);
        let mut differs = false;
        for (class, connected) in &changes.classes {
            if *connected {
                dirty_classes.insert(class.clone());
            } else {
                self.classes.remove(class);
                dirty_classes.remove(class);
                differs |= self.proxies.remove(class).is_some();
            }
        }
        for class in self.proxies.keys() {
            if dirty_waypoints.contains(&class.gateway) {
                dirty_classes.insert(class.clone());
            }
        }
        for class in dirty_classes {
            let assembled = self.assemble(&class);
            differs = true;
            self.proxies.insert(class, Arc::new(assembled));
        }
        self.waypoints.retain(|_, shared| {
            !(shared.clusters.is_empty() && shared.endpoints.is_empty() && shared.routes.is_empty())
        });
        differs
    }

    /// Encodes what all proxies of a waypoint share; returns the waypoints that differ.
    fn update_shared(&mut self, changes: &ProxyChanges) -> BTreeSet<ObjectKey> {
        let mut dirty = BTreeSet::new();
        let mut put = |key: &WaypointResource, ty, resource| {
            let shared = self.waypoints.entry(key.waypoint.clone()).or_default();
            if put_resource(shared, ty, &key.name, resource) {
                dirty.insert(key.waypoint.clone());
            }
        };
        for change in changes.clusters.rows() {
            let resource = change.new.as_ref().map(|row| envoy::emit::cluster(row));
            put(&change.key, ResourceType::Cluster, resource);
        }
        for change in changes.route_configs.rows() {
            let resource = change.new.as_ref().map(|row| envoy::emit::routes(row));
            put(&change.key, ResourceType::Route, resource);
        }
        for change in changes.ingress_configs.rows() {
            let resource = change
                .new
                .as_ref()
                .map(|row| envoy::emit::encoded_routes(row));
            put(&change.key, ResourceType::Route, resource);
        }
        for change in changes.endpoints.rows() {
            let resource = change.new.as_ref().map(|row| envoy::emit::endpoints(row));
            put(&change.key, ResourceType::Endpoint, resource);
        }
        dirty
    }

    /// Encodes what depends on the class; returns the classes that differ.
    fn update_own(&mut self, changes: &ProxyChanges) -> BTreeSet<ProxyClass> {
        let mut dirty = BTreeSet::new();
        let mut put = |key: &ClassResource, ty, resource| {
            let own = self.classes.entry(key.class.clone()).or_default();
            if put_resource(own, ty, &key.name, resource) {
                dirty.insert(key.class.clone());
            }
        };
        for change in changes.local_endpoints.rows() {
            let resource = change.new.as_ref().map(|row| envoy::emit::endpoints(row));
            put(&change.key, ResourceType::Endpoint, resource);
        }
        for change in changes.listeners.rows() {
            let resource = change.new.as_ref().map(|row| envoy::emit::listener(row));
            put(&change.key, ResourceType::Listener, resource);
        }
        for change in changes.static_clusters.rows() {
            let resource = change
                .new
                .as_ref()
                .map(|row| envoy::emit::static_cluster(row));
            put(&change.key, ResourceType::Cluster, resource);
        }
        dirty
    }

    /// What a class receives: its own resources over those of its waypoint.
    fn assemble(&self, class: &ProxyClass) -> ProxyResources {
        let mut all = self
            .waypoints
            .get(&class.gateway)
            .cloned()
            .unwrap_or_default();
        if let Some(own) = self.classes.get(class) {
            for resource in own.clusters.iter() {
                all.clusters.insert(Arc::clone(resource));
            }
            for resource in own.endpoints.iter() {
                all.endpoints.insert(Arc::clone(resource));
            }
            all.listeners = own.listeners.clone();
        }
        all
    }
}

/// Every other row, then the rest. A persistent map splits a full node into halves, which rows
/// in order never touch again and the second half of these fills: 21 bytes an entry, not 43.
fn interleaved<T>(rows: &[T]) -> impl Iterator<Item = &T> {
    let rest = rows.iter().skip(1).step_by(2);
    rows.iter().step_by(2).chain(rest)
}

/// Repeats changes in a persistent map; says whether there were any.
fn follow<K: Clone + Ord, V>(map: &mut OrdMap<K, Arc<V>>, changes: &Changes<K, V>) -> bool {
    for change in changes.rows() {
        match &change.new {
            Some(row) => map.insert(change.key.clone(), Arc::clone(row)),
            None => map.remove(&change.key),
        };
    }
    !changes.rows().is_empty()
}

fn put(
    map: &mut ResourceMap,
    ty: ResourceType,
    name: Str,
    encoded: Option<(Vec<u8>, Vec<Str>)>,
) -> bool {
    match encoded {
        None => map.remove(&name),
        Some((bytes, aliases)) => map.insert(Arc::new(EncodedResource::new(
            name,
            ty.type_url(),
            &bytes,
            aliases,
        ))),
    }
}

/// Puts a resource of an Envoy into its map, or takes it out; says whether that changed it.
fn put_resource(
    all: &mut ProxyResources,
    ty: ResourceType,
    name: &Str,
    resource: Option<Resource>,
) -> bool {
    let map = match ty {
        ResourceType::Cluster => &mut all.clusters,
        ResourceType::Endpoint => &mut all.endpoints,
        ResourceType::Listener => &mut all.listeners,
        ResourceType::Route => &mut all.routes,
        _ => return false,
    };
    put(
        map,
        ty,
        name.clone(),
        resource.map(|resource| (resource.bytes, Vec::new())),
    )
}
