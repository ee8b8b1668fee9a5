//! Deltas that many streams share.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;
use model::Str;
use parking_lot::Mutex;

use crate::{EncodedResource, ResourceMap, ResourceType, by_urgency, encoded::put_removed};

/// The step from one map to another, ready to send.
#[derive(Debug)]
pub struct EncodedDelta {
    /// New and changed resources: urgent ones, services, the rest; each by name.
    pub changed: Arc<[Arc<EncodedResource>]>,
    /// How many of them are urgent wherever the client runs.
    pub urgent_count: usize,
    /// Nodes that new workloads run on; for clients there, those are urgent too.
    pub nodes_of_new: BTreeSet<Str>,
    /// Names that are gone, sorted.
    pub removed: Arc<[Str]>,
    /// The same names as `removed_resources` fields of a `DeltaDiscoveryResponse`.
    pub removed_framed: Bytes,
    /// Size of all frames.
    pub bytes: usize,
    /// What [`Self::framed`] gave, for as long as somebody has it.
    framed: Mutex<Weak<Framed>>,
}

/// Frames one after the other; a [`Bytes`] of it keeps it.
#[derive(Debug)]
struct Framed(Vec<u8>);

/// What a [`Bytes`] is made of.
struct Kept(Arc<Framed>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl EncodedDelta {
    /// Diffs two maps and frames the result.
    pub fn between(from: &ResourceMap, to: &ResourceMap) -> Self {
        let diff = from.diff(to);
        let (changed, urgent_count) = by_urgency(diff.changed, &diff.removed, from, "");
        let frames: usize = changed.iter().map(|resource| resource.framed_bytes()).sum();
        let is_new = |resource: &&Arc<EncodedResource>| from.get(resource.name()).is_none();
        let nodes_of_new = changed
            .iter()
            .filter(is_new)
            .filter_map(|resource| Some(resource.facts()?.node.clone()))
            .filter(|node| !node.is_empty())
            .collect();
        let mut removed = Vec::new();
        for name in &diff.removed {
            put_removed(name, &mut removed);
        }
        Self {
            bytes: frames + removed.len(),
            changed: changed.into(),
            urgent_count,
            nodes_of_new,
            removed: diff.removed.into(),
            removed_framed: removed.into(),
            framed: Mutex::default(),
        }
    }

    /// The delta frames of what changed, one after the other: one copy for all that are sent it
    /// at about the same time, and gone when the last of them has it.
    pub fn framed(&self) -> Bytes {
        if let [one] = &*self.changed {
            return one.framed_delta();
        }
        // Whoever waits here needs the same bytes.
        let mut held = self.framed.lock();
        let framed = held.upgrade().unwrap_or_else(|| {
            let mut frames = Vec::with_capacity(self.bytes - self.removed_framed.len());
            for resource in self.changed.iter() {
                frames.extend_from_slice(&resource.framed_delta());
            }
            Arc::new(Framed(frames))
        });
        *held = Arc::downgrade(&framed);
        Bytes::from_owner(Kept(framed))
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// One step, computed by whoever comes first.
struct Step {
    ty: ResourceType,
    from: ResourceMap,
    to: ResourceMap,
    delta: Arc<OnceLock<Arc<EncodedDelta>>>,
}

/// The most recently used deltas.
///
/// A wildcard client holds a clone of the map it was last sent, so that clients of
/// one generation ask for the same two maps. Maps are recognised by identity, never
/// by hash: a wrong hit would silently leave a client without a policy. The entries
/// keep their maps alive, so an identity is never reused.
pub struct DeltaCache {
    /// Most recently used first.
    steps: Mutex<VecDeque<Step>>,
    steps_max: usize,
}

/// Steps that a cache remembers unless told otherwise: a few generations of each
/// kind for as many classes of proxies as one replica commonly serves.
const STEPS_MAX: usize = 64;

impl Default for DeltaCache {
    fn default() -> Self {
        Self::with_capacity(STEPS_MAX)
    }
}

impl std::fmt::Debug for DeltaCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeltaCache")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl DeltaCache {
    /// A cache that remembers at most so many steps, and at least one.
    pub fn with_capacity(steps_max: usize) -> Self {
        Self {
            steps: Mutex::default(),
            steps_max: steps_max.max(1),
        }
    }

    /// The step from one map to another. Concurrent callers with the same maps wait
    /// for one computation; others are not held up by it.
    pub fn between(
        &self,
        ty: ResourceType,
        from: &ResourceMap,
        to: &ResourceMap,
    ) -> Arc<EncodedDelta> {
        let cell = self.step(ty, from, to);
        Arc::clone(cell.get_or_init(|| Arc::new(EncodedDelta::between(from, to))))
    }

    /// Number of remembered steps.
    pub fn len(&self) -> usize {
        self.steps.lock().len()
    }

    /// Whether no step is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The cell of a step, moved or added to the front.
    fn step(
        &self,
        ty: ResourceType,
        from: &ResourceMap,
        to: &ResourceMap,
    ) -> Arc<OnceLock<Arc<EncodedDelta>>> {
        let mut steps = self.steps.lock();
        let found = steps
            .iter()
            .position(|step| step.ty == ty && step.from.is_same(from) && step.to.is_same(to));
        let step = found
            .and_then(|at| steps.remove(at))
            .unwrap_or_else(|| Step {
                ty,
                from: from.clone(),
                to: to.clone(),
                delta: Arc::default(),
            });
        let cell = Arc::clone(&step.delta);
        steps.push_front(step);
        steps.truncate(self.steps_max);
        cell
    }
}

#[cfg(test)]
mod tests;
