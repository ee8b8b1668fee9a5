//! What to send next, and in which order.
//!
//! Two chains of steps; a step that has something to say while its type still has
//! a response in flight holds up the rest of its chain, so that the order also
//! holds between what was merged meanwhile. Chains do not wait for each other.
//!
//! Source: spec/control-plane.md §2.6, spec/workload-discovery.md §1.6.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::Str;
use snapshot::{
    DeltaCache, EncodedDelta, EncodedResource, GatewayAccounts, ResourceMap, ResourceType,
    SecretAccess, Snapshot,
};

use super::on_demand::{World, next_on_demand};
use super::portion::{Limits, Offer, Portion, Rules, cut, held_after};
use super::subscription::Subscription;
use super::{Effect, Effects, Flavour, Session};
use crate::client::{Client, ClientKind};
use crate::response::{Part, Payload, Response};

/// ztunnel skips policies it does not know, so a policy comes before the workloads
/// that name it and leaves after them. Within one response a client applies the
/// resources before the removals, so addresses need one step only.
const MESH: [(ResourceType, Part); 4] = [
    (ResourceType::Authorization, Part::Upserts),
    (ResourceType::Address, Part::All),
    (ResourceType::Workload, Part::All),
    (ResourceType::Authorization, Part::Removals),
];

/// Make before break: what is referred to comes first and leaves last.
const PROXY: [(ResourceType, Part); 8] = [
    (ResourceType::Cluster, Part::Upserts),
    (ResourceType::Endpoint, Part::Upserts),
    (ResourceType::Listener, Part::All),
    (ResourceType::Route, Part::All),
    (ResourceType::Secret, Part::All),
    (ResourceType::ExtensionConfig, Part::All),
    (ResourceType::Cluster, Part::Removals),
    (ResourceType::Endpoint, Part::Removals),
];

/// What Envoy needs before a cluster is ready. It acknowledges a cluster only then, so what it asks
/// for of these must not wait for that acknowledgement.
const WARMING: [ResourceType; 2] = [ResourceType::Endpoint, ResourceType::Secret];

/// Whether resources of a type are configuration of Envoy.
pub(super) fn is_of_proxies(ty: ResourceType) -> bool {
    PROXY.iter().any(|(proxy, _)| *proxy == ty)
}

/// The next response of a type and the state it leads to.
pub(super) struct Next {
    pub(super) payload: Payload,
    /// What the client holds afterwards.
    pub(super) sent: ResourceMap,
    /// `sent` is a clone of the snapshot's map.
    pub(super) shared: bool,
    /// The step has nothing more to say.
    pub(super) is_whole: bool,
    /// It has only what is urgent.
    pub(super) is_urgent: bool,
    pub(super) changed: Arc<[Arc<EncodedResource>]>,
}

/// What the difference of a subscription is computed from.
pub(super) struct Context<'a> {
    pub(super) ty: ResourceType,
    pub(super) target: &'a ResourceMap,
    part: Part,
    flavour: Flavour,
    pub(super) cache: &'a DeltaCache,
    /// The client's node, empty when unknown.
    pub(super) node: &'a str,
    limits: Limits,
    /// Only what the client waits for by name, although what comes before it is not yet taken.
    only_asked: bool,
}

impl Context<'_> {
    pub(super) fn rules(&self, sub: &Subscription) -> Rules<'_> {
        Rules {
            limits: self.limits,
            node: self.node,
            is_first: sub.reply || !sub.asked.is_empty(),
            is_turn_of_rest: sub.is_turn_of_rest,
        }
    }
}

impl Session {
    /// Sends whatever may be sent now.
    pub(super) fn push(
        &mut self,
        now_ms: u64,
        snapshot: &Snapshot,
        requested: bool,
        effects: &mut Effects,
    ) {
        self.hold_until_ms = self.hold_until_ms.filter(|until| now_ms < *until);
        self.push_chain(now_ms, &MESH, (snapshot, requested), effects);
        let is_whole = self.push_chain(now_ms, &PROXY, (snapshot, requested), effects);
        if !is_whole {
            self.warm(now_ms, snapshot, requested, effects);
        }
    }

    /// Whether it came to the end of the chain; if not, something waits for an acknowledgement.
    fn push_chain(
        &mut self,
        now_ms: u64,
        chain: &[(ResourceType, Part)],
        (snapshot, requested): (&Snapshot, bool),
        effects: &mut Effects,
    ) -> bool {
        for (ty, part) in chain {
            let Ok(next) = self.step(now_ms, *ty, *part, (snapshot, false)) else {
                return false;
            };
            let Some(next) = next else { continue };
            let is_whole = next.is_whole;
            let response = self.commit(now_ms, *ty, next, requested);
            effects.push(Effect::Send(response));
            // What was told apart after a rejection may have been the last of it.
            let was_suspect = self
                .subscriptions
                .get(ty)
                .is_some_and(|sub| !sub.verdicts.is_clean());
            let again = (snapshot, false);
            if !is_whole && (!was_suspect || self.step(now_ms, *ty, *part, again).is_err()) {
                return false;
            }
        }
        true
    }

    /// Sends what clusters in flight wait for.
    fn warm(&mut self, now_ms: u64, snapshot: &Snapshot, requested: bool, effects: &mut Effects) {
        for ty in WARMING {
            let owes_answer = |sub: &Subscription| sub.reply || !sub.asked.is_empty();
            if !self.subscriptions.get(&ty).is_some_and(owes_answer) {
                continue;
            }
            if let Ok(Some(next)) = self.step(now_ms, ty, Part::All, (snapshot, true)) {
                let response = self.commit(now_ms, ty, next, requested);
                effects.push(Effect::Send(response));
            }
        }
    }

    /// What a step has to send; `Err` when the chain has to wait for it.
    fn step(
        &mut self,
        now_ms: u64,
        ty: ResourceType,
        part: Part,
        (snapshot, only_asked): (&Snapshot, bool),
    ) -> Result<Option<Next>, Waits> {
        // While an older connection's workloads are not yet replaced, the policies that
        // they name stay.
        let guards = ty == ResourceType::Authorization
            && self.flavour == Flavour::Delta
            && (self.client.kind == ClientKind::Ztunnel
                || self.subscriptions.contains_key(&ResourceType::Address)
                || self.subscriptions.contains_key(&ResourceType::Workload));
        let Some(sub) = self.subscriptions.get_mut(&ty) else {
            return Ok(None);
        };
        if ty == ResourceType::Address && self.hold_until_ms.is_some() {
            return Err(Waits);
        }
        let class = self.client.class.as_ref();
        let is_mesh = MESH.iter().any(|(mesh, _)| *mesh == ty);
        if class.is_some_and(|class| !is_mesh && !snapshot.proxies.contains_key(class)) {
            // Not yet translated. An empty answer would make a proxy that
            // reconnects drop everything it has.
            return Err(Waits);
        }
        let owes_answer = sub.reply || !sub.asked.is_empty();
        if owes_answer && sub.in_flight_since_ms.is_some() {
            sub.behind_since_ms.get_or_insert(now_ms);
            return Err(Waits);
        }
        // What this client may have of a shared map is all of it; secrets are in none.
        let own = if ty == ResourceType::Secret {
            secrets_of(&self.client, self.access.as_deref(), sub, snapshot)
        } else {
            ResourceMap::default()
        };
        let context = Context {
            ty,
            target: snapshot.resources(class, ty).unwrap_or(&own),
            // The first response is whole: readiness opens on its acknowledgement.
            part: if sub.reply && !guards {
                Part::All
            } else {
                part
            },
            flavour: self.flavour,
            cache: &self.cache,
            node: &self.client.node_name,
            limits: self.limits,
            only_asked,
        };
        let names_addresses = matches!(ty, ResourceType::Address | ResourceType::Workload);
        let next = if let Some(next) = next_of_suspects(sub, &context) {
            Some(next)
        } else if ty == ResourceType::Secret {
            // Also of a wildcard: nobody gets what he did not name.
            next_of_named(sub, &context)
        } else if sub.wildcard {
            next_of_all(sub, &context)
        } else if names_addresses {
            next_on_demand(sub, &context, &World::of(snapshot))
        } else {
            next_of_named(sub, &context)
        };
        if next.is_some() && sub.in_flight_since_ms.is_some() {
            sub.behind_since_ms.get_or_insert(now_ms);
            return Err(Waits);
        }
        Ok(next)
    }

    /// Records a response as sent.
    fn commit(&mut self, now_ms: u64, ty: ResourceType, next: Next, requested: bool) -> Response {
        let nonce = self.next_nonce();
        let version = next.sent.version_str().to_string();
        let mut behind_ms = 0;
        if let Some(sub) = self.subscriptions.get_mut(&ty) {
            behind_ms = sub
                .behind_since_ms
                .map_or(0, |since| now_ms.saturating_sub(since));
            sub.sent = next.sent;
            sub.shared = next.shared;
            // It was compared with what was held before; and all empty maps look the same.
            sub.settled = None;
            sub.is_turn_of_rest = next.is_urgent;
            sub.in_flight_changed = Arc::clone(&next.changed);
            sub.note_sent(&nonce, now_ms);
        }
        if ty == ResourceType::Cluster {
            self.warm_endpoints(&next.changed);
        }
        Response {
            ty: Some(ty),
            type_url: Str::from(ty.type_url()),
            nonce,
            version,
            behind_ms,
            requested,
            payload: next.payload,
        }
    }

    /// Envoy warms a changed cluster until its endpoints arrive, and in delta mode
    /// does not ask for them again.
    fn warm_endpoints(&mut self, clusters: &[Arc<EncodedResource>]) {
        let Some(sub) = self.subscriptions.get_mut(&ResourceType::Endpoint) else {
            return;
        };
        for cluster in clusters {
            let name = cluster.name();
            if sub.wants(name) && sub.resend(name) {
                sub.asked.insert(name.clone());
            }
        }
    }
}

/// A step has something to send and must not yet.
struct Waits;

/// The secrets among the names asked for that this client may have now. Judged anew for every
/// request and every snapshot, and never shared. Whatever else he asked for does not exist, as
/// far as he is told.
fn secrets_of(
    client: &Client,
    access: Option<&dyn SecretAccess>,
    sub: &Subscription,
    snapshot: &Snapshot,
) -> ResourceMap {
    let accounts = GatewayAccounts(snapshot);
    let access = access.unwrap_or(&accounts);
    let gateway = client.class.as_ref().map(|class| &class.gateway);
    let caller = client.identity.as_ref();
    let names = sub.names().iter();
    names
        .filter_map(|name| snapshot.secret(caller, gateway, name, access))
        .collect()
}

/// What the client holds: what it was sent or, on a new stream, what it says.
/// The flag tells whether the map is one that other streams hold too.
fn held(sub: &Subscription, context: &Context<'_>) -> (ResourceMap, bool) {
    match &sub.initial {
        Some(initial) if !initial.is_empty() => {
            let held = context.target.held_by_client(initial);
            let shared = held.is_same(context.target);
            (held, shared)
        }
        _ => (sub.sent.clone(), sub.shared),
    }
}

/// Names asked for that exist nowhere: to be reported as removed.
fn missing(sub: &Subscription, held: &ResourceMap, target: &ResourceMap) -> Vec<Str> {
    let is_missing = |name: &&Str| target.get(name).is_none() && held.get(name).is_none();
    sub.asked.iter().filter(is_missing).cloned().collect()
}

/// Whether a difference is anything that the step sends.
fn is_due(sub: &Subscription, part: Part, has_upserts: bool, has_removals: bool) -> bool {
    let has_upserts = has_upserts || sub.reply || !sub.asked.is_empty();
    match part {
        Part::Upserts => has_upserts,
        Part::Removals => has_removals,
        Part::All => has_upserts || has_removals,
    }
}

fn next_of_all(sub: &mut Subscription, context: &Context<'_>) -> Option<Next> {
    let target = context.target;
    let is_idle = !sub.reply && sub.asked.is_empty();
    if is_idle && sub.sent.is_same(target) {
        return None;
    }
    let (held, shared) = held(sub, context);
    let delta = if shared {
        context.cache.between(context.ty, &held, target)
    } else {
        Arc::new(EncodedDelta::between(&held, target))
    };
    if is_idle && delta.is_empty() {
        // Equal content with another history: share it from now on.
        sub.sent = target.clone();
        sub.shared = true;
        return None;
    }
    if !is_due(
        sub,
        context.part,
        !delta.changed.is_empty(),
        !delta.removed.is_empty(),
    ) {
        return None;
    }
    let keeps_removed = context.part == Part::Upserts && !delta.removed.is_empty();
    let removed: &[Str] = if keeps_removed { &[] } else { &delta.removed };
    let offer = Offer {
        changed: &delta.changed,
        removed,
        bytes: delta.bytes,
        held: &held,
        is_urgent_here: delta.nodes_of_new.contains(context.node),
        is_urgent: delta.urgent_count > 0,
    };
    let is_delta = context.flavour == Flavour::Delta;
    let portion = is_delta.then(|| cut(&offer, context.rules(sub))).flatten();
    if let Some(portion) = &portion
        && !portion.is_whole
    {
        return Some(next_in_part(sub, &offer, portion, target));
    }
    let mut sent = target.clone();
    if keeps_removed {
        for resource in delta.removed.iter().filter_map(|name| held.get(name)) {
            sent.insert(Arc::clone(resource));
        }
    }
    let missing = missing(sub, &held, target);
    let payload = match context.flavour {
        Flavour::Sotw => {
            // Frames of removed resources that a snapshot held are still whole.
            let chunks = sub.acceptable(&sent).map(|resource| resource.framed_sotw());
            let chunks = chunks.collect();
            Payload::Own {
                chunks,
                removed: Vec::new(),
            }
        }
        Flavour::Delta if missing.is_empty() && portion.is_none() => Payload::Shared(
            Arc::clone(&delta),
            if keeps_removed {
                Part::Upserts
            } else {
                Part::All
            },
        ),
        Flavour::Delta => {
            let removed: BTreeSet<Str> = removed.iter().cloned().chain(missing).collect();
            let chunks = match &portion {
                Some(portion) => portion.changed.iter().map(|r| r.framed_delta()).collect(),
                None => delta.changed.iter().map(|r| r.framed_delta()).collect(),
            };
            Payload::Own {
                chunks,
                removed: removed.into_iter().collect(),
            }
        }
    };
    Some(Next {
        payload,
        sent,
        shared: !keeps_removed,
        is_whole: true,
        is_urgent: false,
        changed: Arc::clone(&delta.changed),
    })
}

/// A part of a rejected response, alone, so that it becomes clear which resource is to blame.
fn next_of_suspects(sub: &mut Subscription, context: &Context<'_>) -> Option<Next> {
    // What the client asked for is answered first, and in one response.
    let is_idle = !sub.reply && sub.asked.is_empty();
    if sub.verdicts.is_clean() || context.part == Part::Removals || !is_idle {
        return None;
    }
    let (held, _) = held(sub, context);
    let mut group = sub.verdicts.next_group(&held, context.target);
    group.retain(|one| sub.wants(one.name()));
    if group.is_empty() {
        return None;
    }
    let mut sent = held;
    for resource in &group {
        sent.insert(Arc::clone(resource));
    }
    Some(Next {
        payload: Payload::Own {
            chunks: group.iter().map(|one| frame(one, context)).collect(),
            removed: Vec::new(),
        },
        sent,
        shared: false,
        is_whole: false,
        is_urgent: false,
        changed: group.into(),
    })
}

/// A response that leaves something for the next one.
fn next_in_part(
    sub: &Subscription,
    offer: &Offer<'_>,
    portion: &Portion,
    target: &ResourceMap,
) -> Next {
    let missing = missing(sub, offer.held, target);
    let removed: BTreeSet<Str> = portion.removed.iter().cloned().chain(missing).collect();
    Next {
        payload: Payload::Own {
            chunks: portion.changed.iter().map(|r| r.framed_delta()).collect(),
            removed: removed.into_iter().collect(),
        },
        sent: held_after(offer, portion),
        shared: false,
        is_whole: false,
        is_urgent: portion.is_urgent,
        changed: portion.changed.clone().into(),
    }
}

fn next_of_named(sub: &mut Subscription, context: &Context<'_>) -> Option<Next> {
    let target = context.target;
    let is_idle = !sub.reply && sub.asked.is_empty();
    if is_idle
        && sub
            .settled
            .as_ref()
            .is_some_and(|settled| settled.is_same(target))
    {
        return None;
    }
    let (held, _) = held(sub, context);
    let mut changed = Vec::new();
    let mut removed = Vec::new();
    let is_left_out = |name: &Str| context.only_asked && !sub.reply && !sub.asked.contains(name);
    for name in sub.names().iter().filter(|name| !is_left_out(name)) {
        match (held.get(name), target.get(name)) {
            (Some(old), Some(new)) if old == new => {}
            (_, Some(new)) => changed.push(Arc::clone(new)),
            (Some(_), None) => removed.push(name.clone()),
            (None, None) => {}
        }
    }
    if is_idle && changed.is_empty() && removed.is_empty() {
        sub.settled = Some(target.clone());
        return None;
    }
    let missing = missing(sub, &held, target);
    let mut sent = held;
    for resource in &changed {
        sent.insert(Arc::clone(resource));
    }
    if context.part != Part::Upserts {
        for name in &removed {
            sent.remove(name);
        }
    }
    // SotW cannot say that a named resource is gone, and ECDS must not: Envoy
    // would drop a filter that is in use.
    let says_removed =
        context.flavour == Flavour::Delta && context.ty != ResourceType::ExtensionConfig;
    if !is_due(
        sub,
        context.part,
        !changed.is_empty(),
        says_removed && !removed.is_empty(),
    ) {
        if !says_removed && context.part != Part::Upserts {
            sub.sent = sent;
        }
        return None;
    }
    let chunks = changed
        .iter()
        .map(|resource| frame(resource, context))
        .collect();
    if context.part == Part::Upserts {
        removed.clear();
    }
    removed.extend(missing);
    if !says_removed {
        removed.clear();
    }
    removed.sort_unstable();
    Some(Next {
        payload: Payload::Own { chunks, removed },
        sent,
        shared: false,
        is_whole: true,
        is_urgent: false,
        changed: changed.into(),
    })
}

fn frame(resource: &EncodedResource, context: &Context<'_>) -> bytes::Bytes {
    match context.flavour {
        Flavour::Sotw => resource.framed_sotw(),
        Flavour::Delta => resource.framed_delta(),
    }
}
