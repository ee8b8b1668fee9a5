//! Stage `peer_binding`: PeerAuthentication → what workloads and policies read of it; and the
//! resolution of mTLS modes.
//!
//! Inheritance is resolved first (mesh, namespace, workload, port) and the result converted, so
//! that what a workload references and what a policy contains cannot disagree.
//! Source: spec/workload-discovery.md §5.4 and the ruling on PeerAuthentication.

use std::collections::BTreeMap;
use std::sync::Arc;

use flow::{Output, Reads, View};
use model::input::{MtlsMode, PeerAuthentication};
use model::{Finding, Labels, ObjectKey, Str};

use crate::selector::{self, SelectorAt};
use crate::tables::InputView;

/// What is read of a PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerBinding {
    /// Creation time: the oldest of a level wins.
    pub created_s: Option<i64>,
    /// Labels that a workload must have; `None` for a namespace-wide or mesh-wide one.
    pub selector: Option<Labels>,
    /// Mode.
    pub mode: MtlsMode,
    /// Modes by pod port.
    pub ports: BTreeMap<u16, MtlsMode>,
    /// Its body could not be read: STRICT for its namespace, or the mesh in the root namespace.
    pub invalid: bool,
}

/// The tracked view of peer bindings.
pub type PeerBindingTable<'t> = View<'t, ObjectKey, PeerBinding>;

/// Index of peer bindings by the place of their selector.
#[derive(Clone, Copy, Debug)]
pub struct PeersBySelector;

impl flow::Index<ObjectKey, PeerBinding> for PeersBySelector {
    type At = SelectorAt;

    fn keys(key: &ObjectKey, row: &PeerBinding, emit: &mut dyn FnMut(&SelectorAt)) {
        match &row.selector {
            None => emit(&(key.ns.clone(), None)),
            Some(selector) => emit(&selector::place(&key.ns, selector)),
        }
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct PeerBindingView<'t> {
    /// PeerAuthentications.
    pub peers: InputView<'t, PeerAuthentication>,
}

/// The binding of a PeerAuthentication: every one has a row.
pub fn derive(
    key: &ObjectKey,
    view: &PeerBindingView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, PeerBinding, Finding> {
    let Some(object) = view.peers.get(reads, key) else {
        return Output::gone();
    };
    let created_s = object.meta.created_s;
    let row = match &object.body {
        Ok(peer) => PeerBinding {
            created_s,
            selector: peer
                .selector
                .clone()
                .filter(|selector| !selector.is_empty()),
            mode: peer.mode,
            ports: peer.ports.clone(),
            invalid: false,
        },
        Err(_) => PeerBinding {
            created_s,
            selector: None,
            mode: MtlsMode::Strict,
            ports: BTreeMap::new(),
            invalid: true,
        },
    };
    Output::one(key.clone(), row)
}

/// What enforces the mTLS mode of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    /// Nothing: plaintext is accepted on every port.
    Open,
    /// The static policy: plaintext is refused on every port.
    Static,
    /// The converted policy of its own PeerAuthentication.
    PerPort,
}

/// Whether a level says STRICT; `None` when it says nothing. DISABLE counts as PERMISSIVE.
fn strictness(mode: MtlsMode) -> Option<bool> {
    match mode {
        MtlsMode::Unset => None,
        MtlsMode::Strict => Some(true),
        MtlsMode::Permissive | MtlsMode::Disable => Some(false),
    }
}

// === impl PeerBinding ===

impl PeerBinding {
    /// Whether ports without a mode of their own are STRICT.
    pub(crate) fn is_strict(&self, inherited: bool) -> bool {
        strictness(self.mode).unwrap_or(inherited)
    }

    /// Ports whose mode differs from that of the others, ascending.
    pub(crate) fn exceptions(&self, inherited: bool) -> Vec<u16> {
        let strict = self.is_strict(inherited);
        let differs = |mode: &MtlsMode| strictness(*mode).is_some_and(|own| own != strict);
        self.ports
            .iter()
            .filter(|(_, mode)| differs(mode))
            .map(|(port, _)| *port)
            .collect()
    }

    fn age(&self) -> i64 {
        self.created_s.unwrap_or(i64::MAX)
    }
}

/// Whether namespace and mesh together say STRICT.
pub(crate) fn inherited_strict(
    peers: PeerBindingTable<'_>,
    reads: &mut Reads,
    ns: &Str,
    root: &Str,
) -> bool {
    let mesh = level(peers, reads, root);
    let namespace = if ns == root {
        None
    } else {
        level(peers, reads, ns)
    };
    namespace.or(mesh).unwrap_or(false)
}

/// What the oldest selector-less PeerAuthentication of a namespace says; STRICT if any there
/// cannot be read. In the root namespace such a one is that of the mesh: those with a selector
/// have no effect there.
fn level(peers: PeerBindingTable<'_>, reads: &mut Reads, ns: &Str) -> Option<bool> {
    let all = peers.by::<PeersBySelector>(reads, &(ns.clone(), None));
    let all: Vec<_> = all.filter(|(_, peer)| peer.selector.is_none()).collect();
    if all.iter().any(|(_, peer)| peer.invalid) {
        return Some(true);
    }
    let oldest = (all.into_iter()).min_by_key(|(key, peer)| (peer.age(), *key))?;
    strictness(oldest.1.mode)
}

/// Whether the selector-less PeerAuthentication in force for a namespace has no mode.
pub(crate) fn is_namespace_unset(peers: PeerBindingTable<'_>, reads: &mut Reads, ns: &Str) -> bool {
    let all = peers.by::<PeersBySelector>(reads, &(ns.clone(), None));
    let oldest = all
        .filter(|(_, peer)| peer.selector.is_none() && !peer.invalid)
        .min_by_key(|(key, peer)| (peer.age(), *key));
    oldest.is_some_and(|(_, peer)| peer.mode == MtlsMode::Unset)
}

/// The oldest PeerAuthentication with exactly the scope of this one, if it is another.
pub(crate) fn older_of_same_scope<'t>(
    peers: PeerBindingTable<'t>,
    reads: &mut Reads,
    key: &ObjectKey,
    own: &PeerBinding,
) -> Option<&'t ObjectKey> {
    let at = match &own.selector {
        None => (key.ns.clone(), None),
        Some(selector) => selector::place(&key.ns, selector),
    };
    let all = peers.by::<PeersBySelector>(reads, &at);
    let same = all.filter(|(_, peer)| peer.selector == own.selector && !peer.invalid);
    let (oldest, _) = same.min_by_key(|(key, peer)| (peer.age(), *key))?;
    (oldest != key).then_some(oldest)
}

/// The PeerAuthentication that selects a workload: the oldest one, never one of the root namespace.
pub(crate) fn selecting<'t>(
    peers: PeerBindingTable<'t>,
    reads: &mut Reads,
    ns: &Str,
    root: &Str,
    labels: &Labels,
) -> Option<(&'t ObjectKey, &'t Arc<PeerBinding>)> {
    if ns == root {
        return None;
    }
    let mut found = Vec::new();
    for at in selector::places(ns, labels).filter(|at| at.1.is_some()) {
        found.extend(peers.by::<PeersBySelector>(reads, &at).filter(|(_, peer)| {
            let selector = peer.selector.as_ref();
            selector.is_some_and(|selector| selector::selects(selector, labels))
        }));
    }
    found
        .into_iter()
        .min_by_key(|(key, peer)| (peer.age(), *key))
}

/// What enforces the mode of a workload with this PeerAuthentication of its own.
pub(crate) fn enforcement(own: Option<&PeerBinding>, inherited: bool) -> Enforcement {
    let strict = own.map_or(inherited, |peer| peer.is_strict(inherited));
    if own.is_some_and(|peer| !peer.exceptions(inherited).is_empty()) {
        Enforcement::PerPort
    } else if strict {
        Enforcement::Static
    } else {
        Enforcement::Open
    }
}

/// Resource name of the static policy.
pub(crate) fn static_key(root: &Str) -> ObjectKey {
    ObjectKey::new(root.clone(), "istio_converted_static_strict")
}

/// Resource name of the converted policy of a PeerAuthentication.
pub(crate) fn converted_key(peer: &ObjectKey) -> ObjectKey {
    let name = format!("converted_peer_authentication_{}", peer.name);
    ObjectKey::new(peer.ns.clone(), name)
}
