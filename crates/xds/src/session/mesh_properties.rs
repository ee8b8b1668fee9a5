//! Random sequences against a model of a ztunnel: whichever way it subscribes, whatever
//! portions it is sent, it ends up with what it should hold, and on the way no workload
//! names a policy that it does not know.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use proto::discovery::DeltaDiscoveryResponse;
use proto::workload::{Address as Message_, Workload as WorkloadMessage, address};
use snapshot::{AddressFacts, AddressIndex, AddressKind, EncodedResource, ResourceMap};

use super::tests::ztunnel;
use super::*;
use ResourceType::{Address, Authorization, Workload};

const UIDS: [&str; 4] = ["c//Pod/ns/a", "c//Pod/ns/b", "c//Pod/ns/c", "c//Pod/ns/d"];
const SERVICES: [&str; 2] = ["ns/s", "ns/t"];
const POLICIES: [&str; 2] = ["ns/p", "ns/q"];
/// What an on-demand client may ask for.
const KEYS: [&str; 9] = [
    UIDS[0],
    UIDS[1],
    SERVICES[0],
    SERVICES[1],
    "/ip-0",
    "/ip-1",
    "/vip-0",
    "/vip-1",
    "/none",
];
const TYPES: [ResourceType; 3] = [Authorization, Address, Workload];

/// A workload: address, service, policy, node of the client, unhealthy.
type Pod = Option<(usize, usize, usize, bool, bool)>;

#[derive(Clone, Debug, Default)]
struct World {
    pods: [Pod; 4],
    services: [Option<u8>; 2],
    policies: [Option<u8>; 2],
}

#[derive(Clone, Debug)]
enum Op {
    Publish(World),
    Answer(usize, bool),
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Reconnect,
}

fn world() -> impl Strategy<Value = World> {
    let pod = (
        0..2_usize,
        0..3_usize,
        0..3_usize,
        any::<bool>(),
        any::<bool>(),
    );
    (
        prop::array::uniform4(prop::option::weighted(0.7, pod)),
        prop::array::uniform2(prop::option::weighted(0.8, 0..2_u8)),
        prop::array::uniform2(prop::option::weighted(0.7, 0..2_u8)),
    )
        .prop_map(|(pods, services, policies)| World {
            pods,
            services,
            policies,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => world().prop_map(Op::Publish),
        6 => (0..3_usize, prop::bool::weighted(0.9)).prop_map(|(t, ok)| Op::Answer(t, ok)),
        2 => (1..3_usize, 0..KEYS.len()).prop_map(|(t, k)| Op::Subscribe(t, k)),
        1 => (1..3_usize, 0..KEYS.len()).prop_map(|(t, k)| Op::Unsubscribe(t, k)),
        1 => Just(Op::Reconnect),
    ]
}

/// As the pipeline does it: a workload's version follows its services.
fn publish(world: &World) -> Arc<Snapshot> {
    let mut addresses = ResourceMap::default();
    for (at, content) in world.services.iter().enumerate() {
        let Some(content) = content else { continue };
        let aliases = vec![arcstr(&format!("/vip-{at}"))];
        addresses.insert(Arc::new(EncodedResource::address(
            SERVICES[at].into(),
            &[0x12, 1, *content],
            aliases,
            AddressFacts::service(),
            0,
        )));
    }
    for (at, pod) in world.pods.iter().enumerate() {
        let Some((ip, service, policy, is_local, unhealthy)) = *pod else {
            continue;
        };
        let exists = SERVICES
            .get(service)
            .filter(|name| addresses.get(name).is_some());
        let message = WorkloadMessage {
            uid: UIDS[at].to_owned(),
            hostname: format!("{ip} {exists:?} {is_local} {unhealthy}"),
            authorization_policies: POLICIES
                .get(policy)
                .map(|p| (*p).to_owned())
                .into_iter()
                .collect(),
            ..WorkloadMessage::default()
        };
        let facts = AddressFacts {
            kind: AddressKind::Workload,
            node: if is_local { "node" } else { "far" }.into(),
            unhealthy,
            services: exists.map(|name| Str::from(*name)).into_iter().collect(),
        };
        let seed = exists.map_or(0, |name| addresses.get(name).unwrap().version());
        let r#type = Some(address::Type::Workload(message));
        addresses.insert(Arc::new(EncodedResource::address(
            UIDS[at].into(),
            &Message_ { r#type }.encode_to_vec(),
            vec![arcstr(&format!("/ip-{ip}"))],
            facts,
            seed,
        )));
    }
    let policies = world.policies.iter().zip(POLICIES);
    let authorizations = policies
        .filter_map(|(content, name)| Some((name, (*content)?)))
        .map(|(name, content)| {
            EncodedResource::new(name.into(), Authorization.type_url(), &[content], vec![])
        })
        .collect();
    Arc::new(Snapshot {
        address_index: AddressIndex::of(&addresses),
        addresses,
        authorizations,
        ..Snapshot::default()
    })
}

fn arcstr(text: &str) -> Str {
    Str::from(text)
}

/// Something that the client holds.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    version: String,
    /// Policies that it names and that existed when it was sent, and still did as long as
    /// it was current.
    needs: BTreeSet<String>,
}

struct Model {
    session: Session,
    limits: Limits,
    on_demand: bool,
    snapshot: Arc<Snapshot>,
    held: BTreeMap<ResourceType, BTreeMap<String, Item>>,
    names: BTreeMap<ResourceType, BTreeSet<String>>,
    owed: BTreeMap<ResourceType, BTreeSet<String>>,
    nonces: BTreeMap<ResourceType, String>,
    answered: BTreeSet<ResourceType>,
}

impl Model {
    fn new(on_demand: bool, limits: Limits, world: &World) -> Self {
        let mut model = Self {
            session: session(limits),
            limits,
            on_demand,
            snapshot: publish(world),
            held: BTreeMap::new(),
            names: BTreeMap::new(),
            owed: BTreeMap::new(),
            nonces: BTreeMap::new(),
            answered: BTreeSet::new(),
        };
        model.connect();
        model
    }

    fn connect(&mut self) {
        self.session = session(self.limits);
        self.nonces.clear();
        self.answered.clear();
        self.owed.clear();
        for ty in [Address, Authorization, Workload] {
            let held = self.held.entry(ty).or_default();
            let versions = held
                .iter()
                .map(|(name, item)| (name.clone(), item.version.clone()));
            let star: Vec<String> = if self.on_demand && ty != Authorization {
                vec!["*".to_owned()]
            } else {
                Vec::new()
            };
            let request = DeltaDiscoveryRequest {
                initial_resource_versions: versions.collect(),
                resource_names_subscribe: star.clone(),
                resource_names_unsubscribe: star,
                ..ask(ty)
            };
            let names = held.keys().cloned().collect();
            self.names.insert(ty, names);
            self.request(request);
        }
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) {
        let snapshot = self.snapshot.clone();
        let effects = self.session.on_request(0, request.into(), &snapshot);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Send(response) => self.receive(&response),
                Effect::Close(code, text) => panic!("closed: {code:?} {text}"),
                Effect::Observe(_) | Effect::Interest(_) => {}
            }
        }
    }

    fn receive(&mut self, response: &Response) {
        let ty = response.ty.unwrap();
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let decoded = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
        let in_flight = self.nonces.insert(ty, decoded.nonce);
        assert_eq!(in_flight, None, "two {ty:?} responses in flight");
        self.answered.insert(ty);
        // Keys that do not exist are answered beside.
        let is_asked = |name: &str| self.names[&ty].contains(name);
        let is_held = |name: &&String| self.held[&ty].contains_key(*name) && !is_asked(name);
        let gone = decoded.removed_resources.iter().filter(is_held).count();
        let sizes = decoded.resources.iter().map(Message::encoded_len);
        let fits = sizes.sum::<usize>() <= self.limits.response_bytes_max;
        assert!(
            fits || decoded.resources.len() + gone <= 1,
            "too much at once"
        );
        let snapshot = self.snapshot.clone();
        let held = self.held.entry(ty).or_default();
        for resource in &decoded.resources {
            let name = &resource.name;
            assert!(
                !decoded.removed_resources.contains(name),
                "{name} in both lists"
            );
            let needs = needs(&snapshot, ty, name);
            let version = resource.version.clone();
            held.insert(name.clone(), Item { version, needs });
            let aliases = resource.aliases.iter().chain([name]);
            if let Some(owed) = self.owed.get_mut(&ty) {
                aliases.clone().for_each(|alias| {
                    owed.remove(alias);
                });
            }
        }
        for name in &decoded.removed_resources {
            held.remove(name);
            if let Some(owed) = self.owed.get_mut(&ty) {
                owed.remove(name);
            }
        }
        self.check_policies();
    }

    fn check_policies(&self) {
        let policies = &self.held[&Authorization];
        for ty in [Address, Workload] {
            for (name, item) in self.held.get(&ty).into_iter().flatten() {
                let unknown: Vec<_> = item
                    .needs
                    .iter()
                    .filter(|p| !policies.contains_key(*p))
                    .collect();
                assert!(
                    unknown.is_empty(),
                    "{name} names {unknown:?}, which is not there"
                );
            }
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Publish(world) => {
                self.snapshot = publish(world);
                self.forget_needs();
                let effects = self.session.on_snapshot(0, &self.snapshot.clone());
                self.take(effects);
            }
            Op::Answer(ty, accepts) => self.answer(TYPES[*ty], *accepts),
            Op::Subscribe(ty, key) if self.on_demand => {
                let (ty, key) = (TYPES[*ty], KEYS[*key].to_owned());
                self.names.entry(ty).or_default().insert(key.clone());
                if ty == Address {
                    // Among workloads alone, nothing is called after a service.
                    self.owed.entry(ty).or_default().insert(key.clone());
                }
                self.request(DeltaDiscoveryRequest {
                    resource_names_subscribe: vec![key],
                    ..ask(ty)
                });
            }
            Op::Unsubscribe(ty, key) if self.on_demand => {
                let (ty, key) = (TYPES[*ty], KEYS[*key].to_owned());
                // Clients take back what they stated. One that takes back a thing's name while it
                // goes on asking for its address contradicts itself: either answer would do.
                let stated = self.names.entry(ty).or_default();
                let is_address = |name: &String| name.starts_with('/') && *name != key;
                if !stated.contains(&key) || stated.iter().any(is_address) {
                    return;
                }
                self.names.entry(ty).or_default().remove(&key);
                self.owed.entry(ty).or_default().remove(&key);
                self.held.entry(ty).or_default().remove(&key);
                self.request(DeltaDiscoveryRequest {
                    resource_names_unsubscribe: vec![key],
                    ..ask(ty)
                });
            }
            Op::Reconnect => self.connect(),
            Op::Subscribe(..) | Op::Unsubscribe(..) => {}
        }
    }

    /// A policy that is gone protects nothing that is current without it.
    fn forget_needs(&mut self) {
        for ty in [Address, Workload] {
            let target = self.snapshot.resources(None, ty).unwrap().clone();
            for (name, item) in self.held.entry(ty).or_default() {
                let current = target.get(name).map(|r| r.version_str().to_string());
                if current.is_none_or(|version| version == item.version) {
                    let policies = &self.snapshot.authorizations;
                    item.needs.retain(|policy| policies.get(policy).is_some());
                }
            }
        }
    }

    fn answer(&mut self, ty: ResourceType, accepts: bool) {
        let Some(response_nonce) = self.nonces.remove(&ty) else {
            return;
        };
        self.request(DeltaDiscoveryRequest {
            response_nonce,
            error_detail: (!accepts).then(Status::default),
            ..ask(ty)
        });
    }

    /// What must be there at least: all, or what the keys reach and what is on the node.
    fn wanted(&self, ty: ResourceType) -> BTreeMap<String, String> {
        let target = self.snapshot.resources(None, ty).unwrap();
        let names = &self.names[&ty];
        let reached = |resource: &&Arc<EncodedResource>| {
            let facts = resource.facts();
            !self.on_demand
                || ty == Authorization
                || names.contains(resource.name().as_str())
                || resource
                    .aliases()
                    .iter()
                    .any(|a| names.contains(a.as_str()))
                    && !is_shadowed(&self.snapshot, resource)
                || facts.is_some_and(|f| f.services.iter().any(|s| names.contains(s.as_str())))
        };
        target
            .iter()
            .filter(reached)
            .map(|r| (r.name().to_string(), r.version_str().to_string()))
            .collect()
    }

    fn settle(&mut self) {
        for _ in 0..64 {
            for ty in TYPES {
                self.answer(ty, true);
            }
        }
        for ty in TYPES {
            assert_eq!(self.nonces.get(&ty), None, "{ty:?} never comes to rest");
            assert!(self.answered.contains(&ty), "{ty:?} was never answered");
            let held: BTreeMap<String, String> = self.held[&ty]
                .iter()
                .map(|(name, item)| (name.clone(), item.version.clone()))
                .collect();
            let target = self.snapshot.resources(None, ty).unwrap();
            for (name, version) in &held {
                let current = target.get(name).map(|r| r.version_str().to_string());
                assert_eq!(current.as_ref(), Some(version), "{ty:?} {name} is outdated");
            }
            for (name, version) in self.wanted(ty) {
                assert_eq!(held.get(&name), Some(&version), "{ty:?} {name} is missing");
            }
            if !self.on_demand {
                assert_eq!(held.len(), target.len(), "{ty:?} has too much");
            }
        }
        let owed: BTreeSet<_> = self.owed.values().flatten().collect();
        assert_eq!(owed, BTreeSet::new(), "keys were never answered");
    }
}

/// Policies of the snapshot that a resource of it names.
fn needs(snapshot: &Snapshot, ty: ResourceType, name: &str) -> BTreeSet<String> {
    let resource = snapshot.addresses.get(name).filter(|_| ty != Authorization);
    let Some(resource) = resource.filter(|r| r.is_address(AddressKind::Workload)) else {
        return BTreeSet::new();
    };
    let message = Message_::decode(resource.payload()).unwrap().r#type;
    let Some(address::Type::Workload(workload)) = message else {
        return BTreeSet::new();
    };
    let policies = workload.authorization_policies.into_iter();
    policies
        .filter(|p| snapshot.authorizations.get(p).is_some())
        .collect()
}

/// An alias leads to workloads before services.
fn is_shadowed(snapshot: &Snapshot, resource: &EncodedResource) -> bool {
    resource.is_address(AddressKind::Service)
        && resource.aliases().iter().any(|alias| {
            let mut names = snapshot.address_index.with_alias(alias);
            names.any(|name| name != resource.name())
        })
}

fn session(limits: Limits) -> Session {
    Session::new(ztunnel(), Flavour::Delta, Arc::default(), "n-").with_limits(limits)
}

fn ask(ty: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ty.type_url().to_owned(),
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whichever_way_a_ztunnel_subscribes_it_converges_and_never_lacks_a_policy(
        on_demand in any::<bool>(),
        response_bytes_max in prop_oneof![Just(1_usize), Just(300), Just(1 << 20)],
        urgent_count_min in prop_oneof![Just(0_usize), Just(2), Just(256)],
        first in world(),
        ops in prop::collection::vec(op(), 1..50),
        last in world(),
    ) {
        let limits = Limits { response_bytes_max, urgent_count_min, ..Limits::default() };
        let mut model = Model::new(on_demand, limits, &first);
        for op in &ops {
            model.apply(op);
        }
        model.apply(&Op::Publish(last));
        model.settle();
    }
}
