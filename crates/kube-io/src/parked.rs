//! What waits while requests of its verb and resource are refused, and the one object that shows
//! when they no longer are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{ObjectRef, Str};

/// Wait before what is refused is tried again; doubles. Short, since an API server that has just
/// started refuses for a moment what its roles allow.
const WAIT: Duration = Duration::from_secs(1);
/// Longest wait before that.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Namespaces that refuse, after which a further one waits for the longest time at once.
const FAST_MAX: u32 = 10;

/// Objects by the request (verb and resource) that is refused, and by namespace: that one refuses
/// says little of another, where a RoleBinding may be.
///
/// Of each namespace that refuses one object is tried. The more of them refuse, the longer the
/// next one waits, so that where the right is missing everywhere they cost a request each in ten
/// minutes. Bounded by the objects that watches hold: each is here once for a request.
pub(crate) struct Parked<K> {
    refused: BTreeMap<K, BTreeMap<Str, Refused>>,
}

struct Refused {
    wait: Duration,
    /// The object that is tried next.
    probe: ObjectRef,
    parked: BTreeSet<ObjectRef>,
}

/// What comes of an object that needs nothing of what is refused.
#[derive(Debug)]
pub(crate) struct Skipped<K> {
    /// Those that are tried in its place.
    pub(crate) probes: Vec<ObjectRef>,
    /// Requests that nothing in its namespace waits for any more.
    pub(crate) ended: Vec<K>,
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
    pub(crate) fn holds(&mut self, request: &K, object: &ObjectRef) -> bool {
        let places = self.refused.get_mut(request);
        let Some(refused) = places.and_then(|places| places.get_mut(&object.key.ns)) else {
            return false;
        };
        let is_held = refused.probe != *object;
        if is_held {
            refused.parked.insert(object.clone());
        }
        is_held
    }

    /// A request was refused. Returns after which time this object is tried again; `None` when
    /// another one is: of many that were under way in a namespace, one refusal counts.
    pub(crate) fn refuse(&mut self, request: K, object: &ObjectRef) -> Option<Duration> {
        let places = self.refused.entry(request).or_default();
        let others = u32::try_from(places.len()).unwrap_or(FAST_MAX);
        if let Some(refused) = places.get_mut(&object.key.ns) {
            if refused.probe != *object {
                refused.parked.insert(object.clone());
                return None;
            }
            refused.wait = (refused.wait * 2).min(WAIT_MAX);
            return Some(refused.wait);
        }
        let wait = (WAIT * 2_u32.pow(others.min(FAST_MAX))).min(WAIT_MAX);
        let refused = Refused {
            wait,
            probe: object.clone(),
            parked: BTreeSet::new(),
        };
        places.insert(object.key.ns.clone(), refused);
        Some(wait)
    }

    /// A request for an object went through. Returns what is to be tried now: what has waited for
    /// that in its namespace, and one object of each other namespace that refuses, for the right
    /// may be back there too.
    pub(crate) fn allow(&mut self, request: &K, object: &ObjectRef) -> BTreeSet<ObjectRef> {
        let Some(places) = self.refused.get_mut(request) else {
            return BTreeSet::new();
        };
        let Some(refused) = places.remove(&object.key.ns) else {
            return BTreeSet::new();
        };
        let mut due = refused.parked;
        due.extend(places.values().map(|refused| refused.probe.clone()));
        if places.is_empty() {
            self.refused.remove(request);
        }
        due
    }

    /// An object needs no request, or the request `but`.
    pub(crate) fn skip(&mut self, object: &ObjectRef, but: Option<&K>) -> Skipped<K> {
        let mut skipped = Skipped {
            probes: Vec::new(),
            ended: Vec::new(),
        };
        let ns = &object.key.ns;
        self.refused.retain(|request, places| {
            if Some(request) == but {
                return true;
            }
            let Some(refused) = places.get_mut(ns) else {
                return true;
            };
            refused.parked.remove(object);
            if refused.probe != *object {
                return true;
            }
            if let Some(probe) = refused.parked.pop_first() {
                refused.probe = probe.clone();
                skipped.probes.push(probe);
                return true;
            }
            places.remove(ns);
            skipped.ended.push(request.clone());
            !places.is_empty()
        });
        skipped
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use model::{Kind, ObjectKey};

    use super::*;

    fn at(ns: &str, name: &str) -> ObjectRef {
        ObjectRef::new(Kind::Service, ObjectKey::new(ns, name))
    }

    #[test]
    fn one_round_of_refusals_doubles_the_wait_once() {
        let at = |name: &str| at("shop", name);
        let names = ["a", "b", "c", "d"];
        let mut parked = Parked::default();
        let mut refuse = |name| parked.refuse("patch", &at(name));
        assert_eq!(names.map(&mut refuse), [Some(WAIT), None, None, None]);
        assert_eq!(names.map(&mut refuse), [Some(WAIT * 2), None, None, None]);
        assert!(parked.holds(&"patch", &at("e")) && !parked.holds(&"patch", &at("a")));
        assert!(!parked.holds(&"create", &at("e")));
        // The one that is tried needs nothing any more.
        assert!(parked.skip(&at("a"), Some(&"patch")).probes.is_empty());
        assert_eq!(parked.skip(&at("a"), None).probes, [at("b")]);
        assert_eq!(parked.allow(&"patch", &at("b")).len(), 3);
        assert!(!parked.holds(&"patch", &at("e")));
    }

    #[test]
    fn a_namespace_that_refuses_stops_no_other_and_one_that_no_longer_does_has_all_tried() {
        let mut parked = Parked::default();
        assert_eq!(parked.refuse("patch", &at("shut", "a")), Some(WAIT));
        assert!(parked.holds(&"patch", &at("shut", "b")));
        assert!(!parked.holds(&"patch", &at("open", "a")));
        // What goes through where nothing was refused says nothing of others.
        assert!(parked.allow(&"patch", &at("open", "a")).is_empty());
        assert!(parked.holds(&"patch", &at("shut", "b")));
        let mut wait = |ns: u32| parked.refuse("patch", &at(&ns.to_string(), "a"));
        let waits: Vec<_> = (0..100).filter_map(&mut wait).collect();
        assert_eq!(waits.len(), 100);
        assert!(waits[0] == WAIT * 2 && waits[20..].iter().all(|wait| *wait == WAIT_MAX));
        let due = parked.allow(&"patch", &at("7", "a"));
        assert_eq!(due.len(), 100);
        assert!(due.contains(&at("shut", "a")) && !due.contains(&at("shut", "b")));
        let skipped = parked.skip(&at("8", "a"), None);
        assert_eq!((skipped.probes, skipped.ended), (vec![], vec!["patch"]));
    }
}
