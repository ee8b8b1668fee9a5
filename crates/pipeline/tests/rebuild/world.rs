//! Random edits, the world that they lead to, and the batches that tell of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::jwks::Jwks;
use model::object::Input;
use model::parse::{Recognised, recognise};
use model::rejection::Rejection;
use model::{Finding, Kind, Object, ObjectKey, ObjectRef, ProxyClass, Severity, Str};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::objects::{self, Choices};

/// Kinds as often as they should be edited.
const EDITED: [Kind; 44] = [
    Kind::Service,
    Kind::Service,
    Kind::Service,
    Kind::Service,
    Kind::Pod,
    Kind::Pod,
    Kind::Pod,
    Kind::Pod,
    Kind::Gateway,
    Kind::Gateway,
    Kind::Gateway,
    Kind::Gateway,
    Kind::ListenerSet,
    Kind::BackendTlsPolicy,
    Kind::Secret,
    Kind::Namespace,
    Kind::Namespace,
    Kind::HttpRoute,
    Kind::HttpRoute,
    Kind::HttpRoute,
    Kind::AuthorizationPolicy,
    Kind::AuthorizationPolicy,
    Kind::AuthorizationPolicy,
    Kind::ServiceEntry,
    Kind::ServiceEntry,
    Kind::PeerAuthentication,
    Kind::EndpointSlice,
    Kind::WorkloadEntry,
    Kind::ReferenceGrant,
    Kind::Node,
    Kind::GatewayClass,
    Kind::VirtualService,
    Kind::VirtualService,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::DestinationRule,
    Kind::DestinationRule,
    Kind::RequestAuthentication,
    Kind::RequestAuthentication,
    Kind::GrpcRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::MutatingWebhookConfiguration,
    Kind::ValidatingWebhookConfiguration,
];

/// One edit.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// An object is written; the bytes answer the questions of its generator.
    Write(Kind, u8, Vec<u8>),
    /// An object goes; perhaps it never was there.
    Delete(Kind, u8),
    /// A kind is listed again; objects in slots of the mask are gone.
    Resync(Kind, u16),
    /// A proxy connects, or the last one of its class leaves.
    Interest(u8, bool),
    /// The source reports something of its own.
    SourceFindings(bool),
    /// Something becomes known of a key set, or nobody asks for it any more.
    Jwks(u8, u8),
    /// Clients of a class refuse something, or nothing any more.
    Rejected(u8, u8),
}

impl Edit {
    /// It in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Write(kind, slot, choices) => {
                let slot = usize::from(*slot) % objects::slots(*kind);
                objects::document(*kind, slot, &mut Choices::new(choices)).to_string()
            }
            Self::Delete(kind, slot) => {
                let key = objects::key(*kind, usize::from(*slot) % objects::slots(*kind));
                format!("delete {kind} {key}")
            }
            other => format!("{other:?}"),
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    (0..EDITED.len()).prop_map(|at| EDITED[at])
}

fn writes() -> impl Strategy<Value = Edit> {
    (kinds(), any::<u8>(), vec(any::<u8>(), 0..64))
        .prop_map(|(kind, slot, c)| Edit::Write(kind, slot, c))
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        10 => writes(),
        3 => (kinds(), any::<u8>()).prop_map(|(kind, slot)| Edit::Delete(kind, slot)),
        1 => (0..Kind::ALL.len(), any::<u16>()).prop_map(|(at, mask)| Edit::Resync(Kind::ALL[at], mask)),
        2 => (any::<u8>(), prop::bool::weighted(0.7)).prop_map(|(class, on)| Edit::Interest(class, on)),
        1 => vec(any::<u8>(), 0..4).prop_map(|c| Edit::Write(Kind::MeshConfig, 0, c)),
        1 => any::<bool>().prop_map(Edit::SourceFindings),
        1 => any::<(u8, u8)>().prop_map(|(at, what)| Edit::Jwks(at, what)),
        1 => any::<(u8, u8)>().prop_map(|(class, what)| Edit::Rejected(class, what)),
    ]
}

/// A run: what is there before the first complete lists, the order of the lists, what follows.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Settings of the installation.
    pub(crate) defaults: Vec<u8>,
    /// Edits before and between the first complete lists.
    pub(crate) early: Vec<Edit>,
    /// Order of the first complete lists.
    pub(crate) lists: Vec<Kind>,
    /// Batches after readiness.
    pub(crate) batches: Vec<Vec<Edit>>,
}

/// What every run starts with: all slots of kinds without which no other has an effect, and
/// some routes and policies, since they need a good target on top.
const FOUNDATIONS: [(Kind, usize); 10] = [
    (Kind::Namespace, 9),
    (Kind::GatewayClass, 9),
    (Kind::Gateway, 9),
    (Kind::Service, 9),
    (Kind::Pod, 9),
    (Kind::HttpRoute, 5),
    (Kind::AuthorizationPolicy, 5),
    (Kind::VirtualService, 3),
    (Kind::DestinationRule, 4),
    (Kind::RequestAuthentication, 3),
];

fn foundations() -> impl Strategy<Value = Vec<Edit>> {
    let slots = FOUNDATIONS.into_iter().flat_map(|(kind, max)| {
        (0..objects::slots(kind).min(max)).map(move |slot| (kind, slot as u8))
    });
    let writes: Vec<_> = slots
        .map(|(kind, slot)| {
            // Half of the Gateways are as they should be, for else little comes of the rest.
            let plain = u32::from(kind == Kind::Gateway);
            let choices = prop_oneof![plain => Just(Vec::new()), 1 => vec(any::<u8>(), 0..56)];
            choices.prop_map(move |c| Edit::Write(kind, slot, c))
        })
        .collect();
    writes.prop_shuffle()
}

/// Runs of about 50 objects and up to twelve batches after readiness.
pub(crate) fn runs() -> impl Strategy<Value = Run> {
    let more = prop_oneof![8 => writes(), 2 => edits(), 2 => (0..4_u8).prop_map(|c| Edit::Interest(c, true))];
    let early = (foundations(), vec(more, 10..30)).prop_map(|(mut early, more)| {
        early.extend(more);
        early
    });
    let lists = Just(Kind::ALL.to_vec()).prop_shuffle();
    let batches = vec(vec(edits(), 1..5), 1..12);
    let all = (vec(any::<u8>(), 0..8), early, lists, batches);
    all.prop_map(|(defaults, early, lists, batches)| Run {
        defaults,
        early,
        lists,
        batches,
    })
}

/// All objects and everything else that a pipeline is told.
#[derive(Clone, Default)]
pub(crate) struct World {
    objects: BTreeMap<Kind, BTreeMap<ObjectKey, Object>>,
    classes: BTreeSet<ProxyClass>,
    source_findings: Vec<Finding>,
    jwks: BTreeMap<Str, Arc<Jwks>>,
    rejected: BTreeMap<ProxyClass, Vec<Rejection>>,
}

impl World {
    /// Makes the edit; what a source would tell of it.
    pub(crate) fn edit(&mut self, edit: &Edit) -> Input {
        match edit {
            Edit::Write(kind, slot, choices) => {
                let object = object(*kind, *slot, choices);
                let key = object.meta().key.clone();
                self.objects
                    .entry(*kind)
                    .or_default()
                    .insert(key, object.clone());
                Input::Upsert(object)
            }
            Edit::Delete(kind, slot) => {
                let key = objects::key(*kind, usize::from(*slot) % objects::slots(*kind));
                self.objects.entry(*kind).or_default().remove(&key);
                Input::Delete(*kind, key)
            }
            Edit::Resync(kind, mask) => {
                for slot in 0..objects::slots(*kind) {
                    if mask & (1 << slot) != 0 && mask & 1 << 15 != 0 {
                        let key = objects::key(*kind, slot);
                        self.objects.entry(*kind).or_default().remove(&key);
                    }
                }
                self.list(*kind)
            }
            Edit::Interest(at, on) => {
                let classes = objects::classes();
                let class = classes[usize::from(*at) % classes.len()].clone();
                if *on {
                    self.classes.insert(class.clone());
                } else {
                    self.classes.remove(&class);
                }
                Input::Interest(class, *on)
            }
            Edit::SourceFindings(any) => {
                self.source_findings = if *any {
                    vec![source_finding()]
                } else {
                    Vec::new()
                };
                Input::SourceFindings("files", self.source_findings.clone())
            }
            Edit::Jwks(at, what) => {
                let source = objects::jwks_source(*at);
                let known = objects::jwks(*what).map(Arc::new);
                match &known {
                    Some(known) => self.jwks.insert(source.clone(), Arc::clone(known)),
                    None => self.jwks.remove(&source),
                };
                Input::Jwks(source, known)
            }
            Edit::Rejected(at, what) => {
                let classes = objects::classes();
                let class = classes[usize::from(*at) % classes.len()].clone();
                let list = objects::rejections(*what);
                if list.is_empty() {
                    self.rejected.remove(&class);
                } else {
                    self.rejected.insert(class.clone(), list.clone());
                }
                Input::Rejected(class, list)
            }
        }
    }

    /// The complete list of a kind.
    pub(crate) fn list(&self, kind: Kind) -> Input {
        let objects = self.objects.get(&kind);
        Input::Resync(
            kind,
            objects
                .into_iter()
                .flat_map(|all| all.values().cloned())
                .collect(),
        )
    }

    /// Everything in one batch, in another order than any source has.
    pub(crate) fn complete(&self) -> Vec<Input> {
        let mut batch: Vec<Input> = Vec::new();
        for kind in Kind::ALL.into_iter().rev() {
            let mut list = self.list(kind);
            if let Input::Resync(_, objects) = &mut list {
                objects.reverse();
            }
            batch.push(list);
        }
        batch.push(Input::SourceFindings("files", self.source_findings.clone()));
        batch.extend(
            self.classes
                .iter()
                .rev()
                .map(|class| Input::Interest(class.clone(), true)),
        );
        let known = self.jwks.iter();
        batch.extend(known.map(|(at, row)| Input::Jwks(at.clone(), Some(Arc::clone(row)))));
        let refused = self.rejected.iter();
        batch.extend(refused.map(|(class, list)| Input::Rejected(class.clone(), list.clone())));
        batch
    }
}

fn object(kind: Kind, slot: u8, choices: &[u8]) -> Object {
    let slot = usize::from(slot) % objects::slots(kind);
    let document = objects::document(kind, slot, &mut Choices::new(choices));
    match recognise(&document, "world.yaml") {
        Recognised::Object(object) => {
            assert_eq!(
                (object.kind(), &object.meta().key),
                (kind, &objects::key(kind, slot))
            );
            object
        }
        other => panic!("{document} is {other:?}"),
    }
}

fn source_finding() -> Finding {
    let file = ObjectRef {
        kind: "File".into(),
        key: ObjectKey::cluster("bad.yaml"),
    };
    Finding::new(
        "file-unreadable",
        Severity::Error,
        file,
        "It is bad.",
        "Mend it.",
    )
}
