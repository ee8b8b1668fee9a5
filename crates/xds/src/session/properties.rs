//! Random sequences against a model of a client that believes everything it is sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use proto::discovery::DeltaDiscoveryResponse;
use snapshot::{EncodedResource, ProxyResources, ResourceMap};

use super::tests::envoy;
use super::*;
use ResourceType::{Address, Authorization, Cluster, Endpoint, Listener, Route};

const TYPES: [ResourceType; 6] = [Authorization, Address, Cluster, Endpoint, Listener, Route];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
type Held = BTreeMap<String, String>;

#[derive(Clone, Debug)]
enum Op {
    /// Contents by type and name, 0 for absence; whether the class is translated.
    Publish([[u8; 4]; 6], bool),
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    /// Accept or reject the response in flight.
    Answer(usize, bool),
    Stale(usize),
    Reconnect,
}

fn op() -> impl Strategy<Value = Op> {
    let contents = prop::array::uniform6(prop::array::uniform4(0..3_u8));
    let (ty, name) = (0..TYPES.len(), 0..NAMES.len());
    prop_oneof![
        3 => (contents, prop::bool::weighted(0.9)).prop_map(|(c, class)| Op::Publish(c, class)),
        3 => (ty.clone(), name.clone()).prop_map(|(t, n)| Op::Subscribe(t, n)),
        1 => (ty.clone(), name).prop_map(|(t, n)| Op::Unsubscribe(t, n)),
        8 => (ty.clone(), prop::bool::weighted(0.8)).prop_map(|(t, ok)| Op::Answer(t, ok)),
        1 => ty.prop_map(Op::Stale),
        1 => Just(Op::Reconnect),
    ]
}

fn publish(contents: &[[u8; 4]; 6], has_class: bool) -> Arc<Snapshot> {
    let map = |ty: ResourceType| -> ResourceMap {
        let row = contents[TYPES.iter().position(|t| *t == ty).unwrap()];
        let item = |(name, content): (&&str, u8)| {
            EncodedResource::new(Str::from(*name), ty.type_url(), &[content], Vec::new())
        };
        NAMES
            .iter()
            .zip(row)
            .filter(|(_, content)| *content > 0)
            .map(item)
            .collect()
    };
    let resources = ProxyResources {
        clusters: map(Cluster),
        endpoints: map(Endpoint),
        listeners: map(Listener),
        routes: map(Route),
    };
    let class = envoy("app", "wp").class.unwrap();
    Arc::new(Snapshot {
        addresses: map(Address),
        authorizations: map(Authorization),
        proxies: has_class
            .then(|| (class, Arc::new(resources)))
            .into_iter()
            .collect(),
        ..Snapshot::default()
    })
}

/// What the client knows of one type.
#[derive(Default)]
struct Watch {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Nonce of the response not yet answered.
    in_flight: Option<String>,
    /// Names whose answer is owed.
    owed: BTreeSet<String>,
    /// Names that may be sent though they did not change.
    may_repeat: BTreeSet<String>,
    /// What the response in flight has.
    sent: BTreeSet<String>,
    answered: bool,
}

struct Model {
    session: Session,
    snapshot: Arc<Snapshot>,
    watches: BTreeMap<ResourceType, Watch>,
    held: BTreeMap<ResourceType, Held>,
    streams: usize,
    nonces: BTreeSet<String>,
}

impl Model {
    fn new() -> Self {
        let session = Session::new(envoy("app", "wp"), Flavour::Delta, Arc::default(), "0-");
        Self {
            session,
            snapshot: publish(&[[0; 4]; 6], false),
            watches: BTreeMap::new(),
            held: BTreeMap::new(),
            streams: 0,
            nonces: BTreeSet::new(),
        }
    }

    fn wanted(&self, ty: ResourceType) -> Held {
        let class = self.session.client().class.as_ref();
        let watch = &self.watches[&ty];
        let Some(all) = self.snapshot.resources(class, ty) else {
            return Held::new();
        };
        all.iter()
            .filter(|r| watch.wildcard || watch.names.contains(r.name().as_str()))
            .map(|r| (r.name().to_string(), r.version_str().to_string()))
            .collect()
    }

    fn is_current(&self, ty: ResourceType) -> bool {
        !self.watches.contains_key(&ty)
            || self.held.get(&ty).cloned().unwrap_or_default() == self.wanted(ty)
    }

    /// Everything that will be there is there, whatever else still is.
    fn has_upserts(&self, ty: ResourceType) -> bool {
        let Some(held) = self.held.get(&ty) else {
            return true;
        };
        !self.watches.contains_key(&ty)
            || self
                .wanted(ty)
                .iter()
                .all(|(name, version)| held.get(name) == Some(version))
    }

    fn take(&mut self, effects: Effects) {
        for effect in effects {
            if let Effect::Send(response) = effect {
                self.receive(&response);
            }
        }
    }

    fn receive(&mut self, response: &Response) {
        let ty = response.ty.unwrap();
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let decoded = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
        assert!(
            self.nonces.insert(decoded.nonce.clone()),
            "a nonce is used twice"
        );
        let watch = self
            .watches
            .get_mut(&ty)
            .expect("a response for a type never asked for");
        assert_eq!(watch.in_flight, None, "two {ty:?} responses in flight");
        watch.in_flight = Some(decoded.nonce);
        watch.sent = decoded.resources.iter().map(|r| r.name.clone()).collect();
        let is_first = !std::mem::replace(&mut watch.answered, true);
        let mut resources = decoded.resources.iter();
        let is_asked = is_first
            || resources
                .all(|r| watch.owed.contains(&r.name) || watch.may_repeat.contains(&r.name));
        let held = self.held.entry(ty).or_default();
        for resource in &decoded.resources {
            let name = &resource.name;
            assert!(
                watch.wildcard || watch.names.contains(name),
                "{ty:?} {name} not asked for"
            );
            let repeats = held.insert(name.clone(), resource.version.clone())
                == Some(resource.version.clone());
            assert!(
                watch.may_repeat.remove(name) || !repeats,
                "{ty:?} {name} sent again"
            );
            watch.owed.remove(name);
        }
        // A removal that answers a question may come at any time.
        let mut removes = false;
        for name in &decoded.removed_resources {
            assert!(
                !decoded.resources.iter().any(|r| r.name == *name),
                "{name} in both lists"
            );
            let was_held = held.remove(name).is_some();
            let was_owed = watch.owed.remove(name);
            assert!(was_owed || was_held, "{ty:?} {name} removed for no reason");
            removes |= !was_owed;
        }
        if ty == Cluster
            && let Some(endpoints) = self.watches.get_mut(&Endpoint)
        {
            endpoints
                .may_repeat
                .extend(decoded.resources.into_iter().map(|r| r.name));
        }
        self.check_order(ty, is_asked, is_first, removes);
    }

    fn check_order(&self, ty: ResourceType, is_asked: bool, is_first: bool, removes: bool) {
        let before: &[ResourceType] = match ty {
            Address => &[Authorization],
            // A cluster in flight may wait for them.
            Endpoint if is_asked => &[],
            Endpoint => &[Cluster],
            Listener => &[Cluster, Endpoint],
            Route => &[Cluster, Endpoint, Listener],
            _ => &[],
        };
        for other in before {
            assert!(
                self.has_upserts(*other),
                "{ty:?} before the {other:?} it may name"
            );
        }
        let users: &[ResourceType] = match ty {
            Authorization => &[Address],
            Cluster => &[Listener, Route],
            _ => &[],
        };
        for other in users.iter().filter(|_| removes && !is_first) {
            assert!(
                self.is_current(*other),
                "{ty:?} removed before the {other:?} that used it"
            );
        }
    }

    fn request(&mut self, request: DeltaDiscoveryRequest) {
        let effects = self
            .session
            .on_request(0, Request::Delta(request), &self.snapshot.clone());
        self.take(effects);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Publish(contents, has_class) => {
                self.snapshot = publish(contents, *has_class);
                let effects = self.session.on_snapshot(0, &self.snapshot.clone());
                self.take(effects);
            }
            Op::Subscribe(ty, name) => self.subscribe(TYPES[*ty], NAMES[*name]),
            Op::Unsubscribe(ty, name) => self.unsubscribe(TYPES[*ty], NAMES[*name]),
            Op::Answer(ty, accepts) => self.answer(TYPES[*ty], *accepts),
            Op::Stale(ty) => {
                let effects = self.session.on_request(
                    0,
                    Request::Delta(DeltaDiscoveryRequest {
                        response_nonce: "stale".to_owned(),
                        resource_names_subscribe: vec!["stale".to_owned()],
                        error_detail: Some(Status::default()),
                        ..ask(TYPES[*ty])
                    }),
                    &self.snapshot.clone(),
                );
                assert!(!effects.iter().any(|e| matches!(e, Effect::Send(_))));
            }
            Op::Reconnect => self.reconnect(),
        }
        self.check_warming();
    }

    /// Envoy acknowledges a cluster when it has its endpoints: they wait for nothing else.
    fn check_warming(&self) {
        let class = self.session.client().class.as_ref().unwrap();
        if let Some(endpoints) = self.watches.get(&Endpoint)
            && endpoints.in_flight.is_none()
            && self.snapshot.proxies.contains_key(class)
        {
            assert_eq!(
                endpoints.owed,
                BTreeSet::new(),
                "clusters wait for endpoints"
            );
        }
    }

    /// The first request of a wildcard kind asks for everything, later ones for a name.
    fn subscribe(&mut self, ty: ResourceType, name: &str) {
        let is_first = !self.watches.contains_key(&ty);
        let watch = self.watches.entry(ty).or_default();
        let mut request = ask(ty);
        if is_first && ty.is_wildcard_class() {
            watch.wildcard = true;
        } else {
            watch.names.insert(name.to_owned());
            watch.owed.insert(name.to_owned());
            watch.may_repeat.insert(name.to_owned());
            request.resource_names_subscribe.push(name.to_owned());
        }
        if is_first {
            // Named kinds reconnect with names only, so that both sides agree.
            self.held
                .entry(ty)
                .or_default()
                .retain(|held, _| watch.wildcard || held == name);
            let held = &self.held[&ty];
            request.initial_resource_versions =
                held.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
            watch.may_repeat.clear();
            if held.contains_key(name) {
                watch.owed.remove(name);
            }
        }
        self.request(request);
    }

    fn unsubscribe(&mut self, ty: ResourceType, name: &str) {
        let Some(watch) = self.watches.get_mut(&ty) else {
            return;
        };
        let was_named = watch.names.remove(name);
        if watch.wildcard {
            if was_named {
                watch.may_repeat.insert(name.to_owned());
                watch.owed.insert(name.to_owned());
            }
        } else {
            watch.owed.remove(name);
            watch.may_repeat.remove(name);
            self.held.entry(ty).or_default().remove(name);
        }
        let mut request = ask(ty);
        request.resource_names_unsubscribe.push(name.to_owned());
        self.request(request);
    }

    fn answer(&mut self, ty: ResourceType, accepts: bool) {
        let nonce = self
            .watches
            .get_mut(&ty)
            .and_then(|watch| watch.in_flight.take());
        let Some(response_nonce) = nonce else { return };
        if let Some(watch) = self.watches.get_mut(&ty)
            && !accepts
            && watch.sent.len() > 1
            && !matches!(ty, Address | Authorization)
        {
            // Which of them is to blame is found out by sending them again.
            watch.may_repeat.append(&mut watch.sent);
        }
        let error_detail = (!accepts).then(Status::default);
        self.request(DeltaDiscoveryRequest {
            response_nonce,
            error_detail,
            ..ask(ty)
        });
    }

    fn reconnect(&mut self) {
        self.streams += 1;
        let prefix = format!("{}-", self.streams);
        let client = self.session.client().clone();
        self.session = Session::new(client, Flavour::Delta, Arc::default(), prefix);
        self.watches.clear();
    }

    /// Answers everything until there is silence; then the client must be current.
    fn settle(&mut self) {
        for _ in 0..64 {
            for ty in TYPES {
                self.answer(ty, true);
            }
        }
        for ty in TYPES {
            let Some(watch) = self.watches.get(&ty) else {
                continue;
            };
            assert_eq!(watch.in_flight, None, "{ty:?} never comes to rest");
            assert!(watch.answered, "{ty:?} was never answered");
            assert_eq!(
                watch.owed,
                BTreeSet::new(),
                "{ty:?} names were never answered"
            );
            let held = self.held.get(&ty).cloned().unwrap_or_default();
            assert_eq!(held, self.wanted(ty), "{ty:?} does not converge");
        }
    }
}

fn ask(ty: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ty.type_url().to_owned(),
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_sequence_converges_in_order_without_repetition(
        ops in prop::collection::vec(op(), 1..60),
        last in prop::array::uniform6(prop::array::uniform4(0..3_u8)),
    ) {
        let mut model = Model::new();
        for op in &ops {
            model.apply(op);
        }
        model.apply(&Op::Publish(last, true));
        model.settle();
    }
}

/// The last part of a rejected response holds up nothing behind it.
#[test]
fn what_follows_a_told_apart_response_does_not_wait_for_another_request() {
    let none = [0; 4];
    let contents = [none, none, [1, 1, 0, 0], none, none, none];
    let mut model = Model::new();
    for op in [
        Op::Publish(contents, true),
        Op::Subscribe(2, 0),
        Op::Answer(2, false),
        Op::Subscribe(3, 0),
        Op::Answer(2, false),
        Op::Stale(0),
    ] {
        model.apply(&op);
    }
}
