//! Addresses for a client that names what it needs.
//!
//! A key is a resource name, an address of a workload or a VIP. What is sent becomes part
//! of the subscription: a client is subscribed to the names that it stated and to all that
//! it holds. A change costs what changed and what the client's keys reach, however large
//! the mesh is.
//!
//! Source: spec/workload-discovery.md §1.6, spec/control-plane.md §2.7, §10 rows 27, 34–36.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::Str;
use snapshot::{AddressIndex, AddressKind, EncodedResource, ResourceMap, ResourceType, Snapshot};

use super::portion::{Offer, Portion, cut, frame_bytes, held_after};
use super::push::{Context, Next};
use super::subscription::Subscription;
use crate::response::Payload;

/// What an on-demand subscription knows beside what every subscription knows.
#[derive(Debug, Default)]
pub(super) struct OnDemand {
    /// The addresses that were last looked through for changes.
    seen: Option<ResourceMap>,
    /// Resources that the client is to have as the newest snapshot says.
    pub(super) due: BTreeSet<Str>,
    /// Keys whose answer was too large for one response. What they stood for may vanish
    /// before the rest of it is sent.
    pub(super) waiting: BTreeSet<Str>,
}

/// The mesh, and where the client is in it.
pub(super) struct World<'a> {
    addresses: &'a ResourceMap,
    index: &'a AddressIndex,
}

impl<'a> World<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            addresses: &snapshot.addresses,
            index: &snapshot.address_index,
        }
    }

    /// The names that a key stands for, and the service if it stands for one.
    fn resolve(&self, key: &str) -> (Vec<Str>, Option<Str>) {
        let is_service = |r: &&Arc<EncodedResource>| r.is_address(AddressKind::Service);
        let named = self.addresses.get(key);
        if let Some(named) = named.filter(|named| !is_service(named)) {
            return (vec![named.name().clone()], None);
        }
        let aliased = self.index.with_alias(key);
        let aliased: Vec<_> = aliased
            .filter_map(|name| self.addresses.get(name))
            .collect();
        let workloads = aliased.iter().filter(|resource| !is_service(resource));
        let mut names: Vec<Str> = workloads.map(|resource| resource.name().clone()).collect();
        let service = named.or_else(|| aliased.first().copied());
        match service.filter(|_| names.is_empty()) {
            None => (names, None),
            Some(service) => {
                names.push(service.name().clone());
                names.extend(self.index.of_service(service.name()).cloned());
                (names, Some(service.name().clone()))
            }
        }
    }
}

/// The next response for an on-demand client, if there is anything to say.
pub(super) fn next_on_demand(
    sub: &mut Subscription,
    context: &Context<'_>,
    world: &World<'_>,
) -> Option<Next> {
    let is_idle = !sub.reply
        && sub.asked.is_empty()
        && sub.on_demand.due.is_empty()
        && sub.on_demand.waiting.is_empty();
    let is_in_flight = sub.in_flight_since_ms.is_some();
    let seen = sub.on_demand.seen.replace(world.addresses.clone());
    let mut missing = match seen {
        Some(seen) if is_idle && seen.is_same(world.addresses) => return None,
        Some(seen) => {
            note_changes(sub, &seen, context, world);
            answer_asked(sub, context, world)
        }
        None => {
            note_start(sub, context, world);
            answer_first(sub, context, world)
        }
    };
    let exists = |name: &Str| context.target.get(name).is_some();
    for key in &sub.on_demand.waiting {
        if !world.resolve(key).0.iter().any(exists) {
            missing.insert(key.clone());
        }
    }
    let owes = sub.reply || !sub.asked.is_empty();
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    let (sent, due) = (&sub.sent, &mut sub.on_demand.due);
    due.retain(|name| match (sent.get(name), context.target.get(name)) {
        (None, None) => false,
        (Some(old), Some(new)) if old == new => false,
        (_, Some(new)) => {
            changed.push(Arc::clone(new));
            true
        }
        (Some(_), None) => {
            removed.push(name.clone());
            true
        }
    });
    if !owes && changed.is_empty() && removed.is_empty() && missing.is_empty() {
        return None;
    }
    let frames = changed.iter().map(|resource| frame_bytes(resource));
    let offer = Offer {
        changed: &changed,
        removed: &removed,
        bytes: frames.sum::<usize>() + removed.iter().map(|name| name.len() + 4).sum::<usize>(),
        held: &sub.sent,
        is_urgent_here: true,
        is_urgent: true,
    };
    let portion = cut(&offer, context.rules(sub)).unwrap_or_else(|| Portion {
        changed: changed.clone(),
        removed: removed.clone(),
        is_whole: true,
        is_urgent: false,
    });
    let mut sent = held_after(&offer, &portion);
    for key in &missing {
        sent.remove(key);
    }
    let mut released = BTreeSet::new();
    if !is_in_flight {
        let waiting = &mut sub.on_demand.waiting;
        waiting.extend(sub.asked.iter().cloned());
        waiting.retain(|key| !missing.contains(key));
        if portion.is_whole {
            released = std::mem::take(waiting);
        }
        // ztunnel that asked by an address waits for a resource of that name; there is none, so
        // that its connection goes on once it is told so.
        let is_awaited = context.ty == ResourceType::Address;
        released.retain(|key| is_awaited && context.target.get(key).is_none());
    }
    let frames = portion.changed.iter().map(|r| r.framed_delta_aliased());
    let removed = portion.removed.into_iter().chain(missing).chain(released);
    let removed: BTreeSet<Str> = removed.collect();
    Some(Next {
        payload: Payload::Own {
            chunks: frames.collect(),
            removed: removed.into_iter().collect(),
        },
        sent,
        shared: false,
        is_whole: portion.is_whole,
        is_urgent: portion.is_urgent,
        changed: portion.changed.into(),
    })
}

/// On a new stream: what the client says it holds, and the workloads of its node.
fn note_start(sub: &mut Subscription, context: &Context<'_>, world: &World<'_>) {
    if let Some(initial) = sub.initial.take() {
        sub.sent = context.target.held_by_client(&initial);
    }
    if !context.node.is_empty() {
        let local = world.index.on_node(context.node).cloned();
        sub.on_demand.due.extend(local);
    }
}

/// The first request: names asked for or held. Says which of them do not exist.
fn answer_first(sub: &mut Subscription, context: &Context<'_>, world: &World<'_>) -> BTreeSet<Str> {
    let mut missing = BTreeSet::new();
    for key in sub.names().clone() {
        if reach(sub, &key, context, world).is_empty() {
            if sub.sent.get(&key).is_some() {
                // Held, or waited for: gone like any other.
                sub.on_demand.due.insert(key);
            } else {
                missing.insert(key);
            }
        } else if context.target.get(&key).is_none() {
            // An alias that the client still waits for; it never held a resource of that name.
            sub.sent.remove(&key);
            sub.on_demand.waiting.insert(key);
        }
    }
    missing
}

/// Later requests: what they name is sent even if the client holds it already.
fn answer_asked(sub: &mut Subscription, context: &Context<'_>, world: &World<'_>) -> BTreeSet<Str> {
    let mut missing = BTreeSet::new();
    for key in sub.asked.clone() {
        let names = reach(sub, &key, context, world);
        for name in &names {
            // Should it vanish before it is sent, the client must be told.
            let outdated = context.target.get(name).map(|new| new.to_outdated());
            if let Some(outdated) = outdated {
                sub.sent.insert(Arc::new(outdated));
            }
        }
        if names.is_empty() {
            sub.sent.remove(&key);
            missing.insert(key);
        }
    }
    missing
}

/// Marks what a key stands for as due.
fn reach(sub: &mut Subscription, key: &str, context: &Context<'_>, world: &World<'_>) -> Vec<Str> {
    let (mut names, service) = world.resolve(key);
    names.retain(|name| context.target.get(name).is_some());
    sub.on_demand.due.extend(names.iter().cloned());
    if let Some(service) = service {
        sub.add_name(service);
    }
    names
}

/// What changed since the last look, as far as it concerns the client.
fn note_changes(
    sub: &mut Subscription,
    seen: &ResourceMap,
    context: &Context<'_>,
    world: &World<'_>,
) {
    if seen.is_same(world.addresses) {
        return;
    }
    let delta = context
        .cache
        .between(ResourceType::Address, seen, world.addresses);
    let is_service = |r: &&Arc<EncodedResource>| r.is_address(AddressKind::Service);
    let is_subscribed =
        |sub: &Subscription, name: &str| sub.names().contains(name) || sub.sent.get(name).is_some();
    let is_named = |sub: &Subscription, resource: &EncodedResource| {
        let mut aliases = resource.aliases().iter();
        is_subscribed(sub, resource.name()) || aliases.any(|alias| sub.names().contains(alias))
    };
    // Services first, since their workloads follow them.
    for service in delta.changed.iter().filter(is_service) {
        if is_named(sub, service) {
            let name = service.name();
            sub.add_name(name.clone());
            sub.on_demand.due.insert(name.clone());
            if sub.sent.get(name).is_none() {
                let members = world.index.of_service(name).cloned();
                sub.on_demand.due.extend(members);
            }
        }
    }
    for resource in delta.changed.iter().filter(|r| !is_service(r)) {
        let belongs = resource.facts().is_some_and(|facts| {
            !facts.node.is_empty() && facts.node == context.node
                || facts.services.iter().any(|s| is_subscribed(sub, s))
        });
        if belongs || is_named(sub, resource) {
            sub.on_demand.due.insert(resource.name().clone());
        }
    }
    let held = delta
        .removed
        .iter()
        .filter(|name| sub.sent.get(name).is_some());
    let held: Vec<Str> = held.cloned().collect();
    sub.on_demand.due.extend(held);
}
