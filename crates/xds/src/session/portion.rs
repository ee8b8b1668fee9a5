//! How much of a difference goes into one response.
//!
//! A difference is cut for two reasons: it is larger than a client accepts, or it is large
//! and part of it is urgent. What is left is not remembered anywhere: it is the difference
//! that remains once the portion counts as sent. A cut selects frames, it never encodes.
//!
//! Source: spec/workload-discovery.md §1.7, §1.8.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::Str;
use snapshot::{AddressKind, EncodedResource, ResourceMap, by_urgency};

/// When differences are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A response has at most so many bytes of resources and removed names, unless one
    /// resource alone is larger.
    pub response_bytes_max: usize,
    /// What is urgent goes ahead of a difference of more than so many names,
    pub urgent_count_min: usize,
    /// or of more than so many bytes.
    pub urgent_bytes_min: usize,
}

impl Default for Limits {
    /// Well below the 200 MiB that ztunnel accepts.
    fn default() -> Self {
        Self {
            response_bytes_max: 128 << 20,
            urgent_count_min: 256,
            urgent_bytes_min: 64 << 10,
        }
    }
}

/// Everything that a client lacks of one type.
pub(super) struct Offer<'a> {
    pub(super) changed: &'a [Arc<EncodedResource>],
    pub(super) removed: &'a [Str],
    /// Size of all frames.
    pub(super) bytes: usize,
    /// What the client holds.
    pub(super) held: &'a ResourceMap,
    /// Some of it is urgent for this client alone.
    pub(super) is_urgent_here: bool,
    /// Some of it is urgent for everyone.
    pub(super) is_urgent: bool,
}

/// What may be done to an offer.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) limits: Limits,
    /// The client's node.
    pub(super) node: &'a str,
    /// It answers a request: complete, as far as its size permits.
    pub(super) is_first: bool,
    /// The last response held only what was urgent: now it is the turn of the rest, or
    /// a stream of urgent changes would hold it up for ever.
    pub(super) is_turn_of_rest: bool,
}

/// One response's share of an offer.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) changed: Vec<Arc<EncodedResource>>,
    pub(super) removed: Vec<Str>,
    /// Nothing is left.
    pub(super) is_whole: bool,
    /// Only what is urgent.
    pub(super) is_urgent: bool,
}

/// The portion of an offer that goes next; `None` for all of it in its own order.
pub(super) fn cut(offer: &Offer<'_>, rules: Rules<'_>) -> Option<Portion> {
    let limits = rules.limits;
    let is_too_big = offer.bytes > limits.response_bytes_max;
    let count = offer.changed.len() + offer.removed.len();
    let is_large = count > limits.urgent_count_min || offer.bytes > limits.urgent_bytes_min;
    let may_hurry = is_large && !rules.is_first && !rules.is_turn_of_rest;
    let reorders = offer.is_urgent_here && !rules.is_first;
    let hurries = may_hurry && (offer.is_urgent || offer.is_urgent_here || has_early(offer));
    if !is_too_big && !reorders && !hurries {
        return None;
    }
    let (changed, urgent_count) = by_urgency(
        offer.changed.to_vec(),
        offer.removed,
        offer.held,
        rules.node,
    );
    // A service goes in the response that completes the difference: a ztunnel forgets with
    // it the endpoints of workloads whose change is still to come.
    let (early, late): (Vec<&Str>, Vec<&Str>) =
        offer.removed.iter().partition(|name| is_early(offer, name));
    let is_urgent = may_hurry
        && urgent_count + early.len() > 0
        && urgent_count + early.len() < changed.len() + offer.removed.len();
    let mut budget = Budget::new(limits.response_bytes_max);
    let mut portion = Portion {
        changed: Vec::new(),
        removed: Vec::new(),
        is_whole: false,
        is_urgent,
    };
    let mut fits = true;
    for name in early {
        fits = fits && budget.takes(removed_bytes(name));
        portion.removed.extend(fits.then(|| name.clone()));
    }
    let takes_count = if is_urgent {
        urgent_count
    } else {
        changed.len()
    };
    for resource in changed.into_iter().take(takes_count) {
        fits = fits && budget.takes(frame_bytes(&resource));
        portion.changed.extend(fits.then_some(resource));
    }
    for name in late.into_iter().filter(|_| !is_urgent) {
        fits = fits && budget.takes(removed_bytes(name));
        portion.removed.extend(fits.then(|| name.clone()));
    }
    portion.removed.sort_unstable();
    portion.is_whole = portion.changed.len() == offer.changed.len()
        && portion.removed.len() == offer.removed.len();
    Some(portion)
}

/// What the client holds once it has a portion of an offer.
pub(super) fn held_after(offer: &Offer<'_>, portion: &Portion) -> ResourceMap {
    let mut held = offer.held.clone();
    for resource in &portion.changed {
        held.insert(Arc::clone(resource));
    }
    for name in &portion.removed {
        held.remove(name);
    }
    if portion.is_whole {
        return held;
    }
    // A service takes its workloads along, or the client may lack endpoints that it once
    // filtered out. Those still to come must come, whatever happens to the service meanwhile.
    let is_service = |r: &&Arc<EncodedResource>| r.is_address(AddressKind::Service);
    let services: BTreeSet<&Str> = portion
        .changed
        .iter()
        .filter(is_service)
        .map(|service| service.name())
        .collect();
    if services.is_empty() {
        return held;
    }
    for resource in offer.changed {
        let is_member = resource
            .facts()
            .is_some_and(|facts| facts.services.iter().any(|s| services.contains(s)));
        let old = held.get(resource.name()).filter(|old| *old != resource);
        if let Some(old) = old.filter(|_| is_member) {
            let outdated = old.to_outdated();
            held.insert(Arc::new(outdated));
        }
    }
    held
}

/// Whether a removal may go ahead: that of a workload.
fn is_early(offer: &Offer<'_>, name: &str) -> bool {
    let old = offer.held.get(name);
    old.is_some_and(|old| old.is_address(AddressKind::Workload))
}

fn has_early(offer: &Offer<'_>) -> bool {
    offer.removed.iter().any(|name| is_early(offer, name))
}

/// Size of a frame, at most: with aliases, whether or not the client gets them.
pub(super) fn frame_bytes(resource: &EncodedResource) -> usize {
    let aliases: usize = resource.aliases().iter().map(|a| removed_bytes(a)).sum();
    resource.framed_bytes() + aliases
}

/// Size of an entry of `removed_resources`, at most.
fn removed_bytes(name: &str) -> usize {
    name.len() + 4
}

/// Bytes left in a response; the first item always fits.
struct Budget {
    left: usize,
    is_empty: bool,
}

impl Budget {
    fn new(left: usize) -> Self {
        Self {
            left,
            is_empty: true,
        }
    }

    fn takes(&mut self, bytes: usize) -> bool {
        let takes = bytes <= self.left || self.is_empty;
        if takes {
            self.left = self.left.saturating_sub(bytes);
            self.is_empty = false;
        }
        takes
    }
}
