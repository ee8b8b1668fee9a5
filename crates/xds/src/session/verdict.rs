//! Which resources a client refuses. A rejection concerns a whole response; here it is brought
//! down to the resources that are to blame, so that all others reach the client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::Str;
use snapshot::{EncodedResource, ResourceMap, ResourceType};

/// Refused resources that are remembered of one type.
const REFUSED_MAX: usize = 256;
/// Resources of one response that are told apart by sending them again.
const SPLIT_MAX: usize = 65_536;

/// A refused version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    version: u64,
    text: Str,
}

/// The verdicts on one type.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    refused: BTreeMap<Str, Refused>,
    /// Names to be sent group by group, each group in a response of its own.
    suspects: VecDeque<Vec<Str>>,
}

// === impl Verdicts ===

impl Verdicts {
    /// Notes that a response was accepted.
    pub(super) fn accept(&mut self, changed: &[Arc<EncodedResource>]) {
        if self.refused.is_empty() {
            return;
        }
        for resource in changed {
            self.refused.remove(resource.name());
        }
    }

    /// Notes that a response was rejected; the names that are to be sent again.
    pub(super) fn reject(
        &mut self,
        ty: ResourceType,
        changed: &[Arc<EncodedResource>],
        text: &str,
        kept: &str,
        can_split: bool,
    ) -> Vec<Str> {
        if let [only] = changed {
            self.refuse(only, kept);
            return Vec::new();
        }
        // Envoy takes the others and says which ones it does not take.
        if matches!(ty, ResourceType::Cluster | ResourceType::Listener) {
            let mut named = false;
            let blamed = |one: &&Arc<EncodedResource>| {
                // "Error adding/updating cluster(s) a: reason, b: reason"
                text.contains(&format!(" {}: ", one.name()))
            };
            for resource in changed.iter().filter(blamed) {
                self.refuse(resource, kept);
                named = true;
            }
            if named {
                return Vec::new();
            }
        }
        if !can_split || changed.len() > SPLIT_MAX {
            return Vec::new();
        }
        let names: Vec<Str> = changed.iter().map(|one| one.name().clone()).collect();
        let (left, right) = names.split_at(names.len() / 2);
        for half in [right, left] {
            if !half.is_empty() {
                self.suspects.push_front(half.to_vec());
            }
        }
        names
    }

    fn refuse(&mut self, resource: &EncodedResource, text: &str) {
        if self.refused.len() < REFUSED_MAX || self.refused.contains_key(resource.name()) {
            let refused = Refused {
                version: resource.version(),
                text: Str::from(text),
            };
            self.refused.insert(resource.name().clone(), refused);
        }
    }

    /// The next group that is to be sent alone, as far as it is still there and lacking.
    pub(super) fn next_group(
        &mut self,
        held: &ResourceMap,
        target: &ResourceMap,
    ) -> Vec<Arc<EncodedResource>> {
        while let Some(group) = self.suspects.front() {
            let lacking = group.iter().filter_map(|name| {
                let wanted = target.get(name)?;
                (held.get(name) != Some(wanted)).then(|| Arc::clone(wanted))
            });
            let found: Vec<_> = lacking.collect();
            if !found.is_empty() {
                return found;
            }
            self.suspects.pop_front();
        }
        Vec::new()
    }

    /// Whether a version of a resource is one that was refused.
    pub(super) fn is_refused(&self, resource: &EncodedResource) -> bool {
        self.refused
            .get(resource.name())
            .is_some_and(|refused| refused.version == resource.version())
    }

    /// What is refused and still what the client should have: name and reason.
    pub(super) fn refused<'a>(
        &'a self,
        sent: &'a ResourceMap,
    ) -> impl Iterator<Item = (&'a Str, &'a Str)> {
        let current = |name: &Str, refused: &Refused| {
            sent.get(name)
                .is_some_and(|one| one.version() == refused.version)
        };
        self.refused
            .iter()
            .filter(move |(name, refused)| current(name, refused))
            .map(|(name, refused)| (name, &refused.text))
    }

    /// Whether anything was refused at all.
    pub(super) fn is_clean(&self) -> bool {
        self.refused.is_empty() && self.suspects.is_empty()
    }
}
