//! What waits while a request of its sort is refused, and the one object that shows when it no
//! longer is. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::ObjectRef;

/// Wait before what is refused is tried again; doubles. Short, since an API server that has just
/// started refuses for a moment what its roles allow.
const WAIT: Duration = Duration::from_secs(1);
/// Longest wait before that.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Objects by sort of the request that is refused.
pub(crate) struct Parked<K> {
    refused: BTreeMap<K, Refused>,
}

struct Refused {
    wait: Duration,
    /// The object that is tried next.
    probe: ObjectRef,
    parked: BTreeSet<ObjectRef>,
}

// === impl Parked ===

impl<K> Default for Parked<K> {
    fn default() -> Self {
        Self {
            refused: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Parked<K> {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.refused.clear();
    }

    /// Whether an object must wait; it is kept then.
    pub(crate) fn holds(&mut self, sort: &K, object: &ObjectRef) -> bool {
        let Some(refused) = self.refused.get_mut(sort) else {
            return false;
        };
        let is_held = refused.probe != *object;
        if is_held {
            refused.parked.insert(object.clone());
        }
        is_held
    }

    /// A request was refused. Returns after which time this object is tried again; `None` when
    /// another one is: of many that were under way, one refusal counts.
    pub(crate) fn refuse(&mut self, sort: K, object: &ObjectRef) -> Option<Duration> {
        if let Some(refused) = self.refused.get_mut(&sort) {
            if refused.probe != *object {
                refused.parked.insert(object.clone());
                return None;
            }
            refused.wait = (refused.wait * 2).min(WAIT_MAX);
            return Some(refused.wait);
        }
        let refused = Refused {
            wait: WAIT,
            probe: object.clone(),
            parked: BTreeSet::new(),
        };
        self.refused.insert(sort, refused);
        Some(WAIT)
    }

    /// A request went through. Returns what has waited for that.
    pub(crate) fn allow(&mut self, sort: &K) -> BTreeSet<ObjectRef> {
        let refused = self.refused.remove(sort);
        refused.map(|refused| refused.parked).unwrap_or_default()
    }

    /// An object needs no request, or one of the sort `but`. Returns those that are tried in its
    /// place.
    pub(crate) fn skip(&mut self, object: &ObjectRef, but: Option<&K>) -> Vec<ObjectRef> {
        let mut next = Vec::new();
        self.refused.retain(|sort, refused| {
            if Some(sort) == but {
                return true;
            }
            refused.parked.remove(object);
            if refused.probe != *object {
                return true;
            }
            let Some(probe) = refused.parked.pop_first() else {
                return false;
            };
            refused.probe = probe.clone();
            next.push(probe);
            true
        });
        next
    }
}

#[cfg(test)]
mod tests {
    use model::{Kind, ObjectKey};

    use super::*;

    #[test]
    fn one_round_of_refusals_doubles_the_wait_once() {
        let at = |name: &str| ObjectRef::new(Kind::Service, ObjectKey::new("shop", name));
        let names = ["a", "b", "c", "d"];
        let mut parked = Parked::default();
        let mut refuse = |name| parked.refuse("patch", &at(name));
        assert_eq!(names.map(&mut refuse), [Some(WAIT), None, None, None]);
        assert_eq!(names.map(&mut refuse), [Some(WAIT * 2), None, None, None]);
        assert!(parked.holds(&"patch", &at("e")) && !parked.holds(&"patch", &at("a")));
        assert!(!parked.holds(&"create", &at("e")));
        // The one that is tried needs nothing any more.
        assert_eq!(parked.skip(&at("a"), Some(&"patch")), []);
        assert_eq!(parked.skip(&at("a"), None), [at("b")]);
        assert_eq!(parked.allow(&"patch").len(), 3);
        assert!(!parked.holds(&"patch", &at("e")));
    }
}
