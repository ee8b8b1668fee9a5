//! The resources of one kind, shared by structure between generations.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, ordmap::DiffItem};
use model::Str;
use xxhash_rust::xxh64::xxh64;

use crate::encoded::{EncodedResource, version_str};

/// Resources of one kind by name. A clone is O(1).
#[derive(Clone, Debug, Default)]
pub struct ResourceMap {
    resources: OrdMap<Str, Arc<EncodedResource>>,
    bytes_total: usize,
    content: u64,
}

/// What leads from one map to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Resources that are new or have another version, by name.
    pub changed: Vec<Arc<EncodedResource>>,
    /// Names that are gone, sorted.
    pub removed: Vec<Str>,
}

impl ResourceMap {
    /// The resource with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<EncodedResource>> {
        self.resources.get(name)
    }

    /// Adds or replaces a resource, and says whether its content is new.
    ///
    /// An equal resource is not replaced, so that maps go on sharing structure.
    pub fn insert(&mut self, resource: Arc<EncodedResource>) -> bool {
        let old = self.resources.get(resource.name());
        let same_content = old.is_some_and(|old| **old == *resource);
        if old.is_some_and(|old| same_content && old.aliases() == resource.aliases()) {
            return false;
        }
        self.forget(resource.name().clone().as_str());
        self.bytes_total += resource.framed_bytes();
        self.content = self.content.wrapping_add(digest(&resource));
        self.resources.insert(resource.name().clone(), resource);
        !same_content
    }

    /// Removes a resource, and says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let found = self.forget(name);
        if found && self.resources.len() == 1 {
            // An empty map is always the same map, see `is_same`.
            self.resources = OrdMap::new();
        } else if found {
            self.resources.remove(name);
        }
        found
    }

    /// Takes a resource out of the totals.
    fn forget(&mut self, name: &str) -> bool {
        let Some(old) = self.resources.get(name) else {
            return false;
        };
        self.bytes_total -= old.framed_bytes();
        self.content = self.content.wrapping_sub(digest(old));
        true
    }

    /// Resources by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<EncodedResource>> {
        self.resources.values()
    }

    /// Number of resources.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are no resources.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Size of all delta frames.
    pub fn bytes_total(&self) -> usize {
        self.bytes_total
    }

    /// A hash of all names and versions, independent of their history: maps of
    /// equal content agree on it, on every replica. Zero when empty.
    pub fn content_id(&self) -> u64 {
        self.content
    }

    /// The content id as a version string of a whole response.
    pub fn version_str(&self) -> Str {
        version_str(self.content)
    }

    /// Whether both are clones of one map. Never true for maps that differ, and
    /// true for two empty ones; maps of equal content may have separate histories.
    pub fn is_same(&self, other: &Self) -> bool {
        self.resources.ptr_eq(&other.resources)
    }

    /// What leads from `self` to `next`. Skips what they share, so that a small
    /// change costs little however large the maps are.
    pub fn diff(&self, next: &Self) -> Diff {
        let mut diff = Diff::default();
        for item in self.resources.diff(&next.resources) {
            match item {
                DiffItem::Add(_, resource)
                | DiffItem::Update {
                    new: (_, resource), ..
                } => {
                    diff.changed.push(Arc::clone(resource));
                }
                DiffItem::Remove(name, _) => diff.removed.push(name.clone()),
            }
        }
        diff
    }

    /// What a reconnecting client holds, as a map to diff from.
    ///
    /// `held` are names and versions as the client states them. Versions that we
    /// cannot have given count as outdated. A client that is up to date gets a clone of
    /// `self`, so that it shares deltas with everyone else.
    ///
    /// Both are in the order of names and are read side by side: looking each name up was
    /// most of what a client's return cost.
    pub fn held_by_client(&self, held: &BTreeMap<String, String>) -> ResourceMap {
        let mut ours = self.iter().peekable();
        let (mut kept, mut lacking, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for (name, version) in held {
            while let Some(resource) = ours.next_if(|it| it.name().as_str() < name.as_str()) {
                lacking.push(resource);
            }
            let current = ours.next_if(|it| it.name().as_str() == name);
            kept.extend(current);
            let stated = stated_version(version);
            if stated.is_none() || current.map(|current| current.version()) != stated {
                // Even of what is gone: it may come back before the client was told.
                let stated = stated.unwrap_or(0);
                other.push(EncodedResource::held(Str::from(name.as_str()), stated));
            }
        }
        lacking.extend(ours);
        // Who comes back holds most of this map: the rest is cheaper to take out than all that
        // it holds is to put in, and nearly always there is none.
        let mut map = if lacking.len() <= kept.len() {
            let mut map = self.clone();
            for resource in lacking {
                map.remove(resource.name());
            }
            map
        } else {
            let mut map = Self::default();
            for resource in kept {
                map.insert(Arc::clone(resource));
            }
            map
        };
        for resource in other {
            map.insert(Arc::new(resource));
        }
        map
    }
}

/// A version as [`version_str`] writes it; `None` of anything else.
fn stated_version(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_ours = text.bytes().all(is_digit) && (text == "0" || !text.starts_with('0'));
    is_ours.then(|| u64::from_str_radix(text, 16).ok())?
}

impl FromIterator<EncodedResource> for ResourceMap {
    fn from_iter<I: IntoIterator<Item = EncodedResource>>(resources: I) -> Self {
        let mut map = Self::default();
        for resource in resources {
            map.insert(Arc::new(resource));
        }
        map
    }
}

/// Same names and versions.
impl PartialEq for ResourceMap {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.resources == other.resources
    }
}

impl Eq for ResourceMap {}

fn digest(resource: &EncodedResource) -> u64 {
    xxh64(resource.name().as_bytes(), resource.version())
}

#[cfg(test)]
mod tests;
