//! What a watch has told, by namespace.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;
use model::Str;

/// Rows by namespace. A list that is delivered anew takes the place of the old one at once.
pub(super) struct Listed<V> {
    rows: BTreeMap<Str, V>,
    fresh: BTreeMap<Str, V>,
    is_complete: bool,
}

impl<V> Default for Listed<V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            fresh: BTreeMap::new(),
            is_complete: false,
        }
    }
}

// === impl Listed ===

impl<V> Listed<V> {
    /// Whether a first list is complete.
    pub(super) fn is_listed(&self) -> bool {
        self.is_complete
    }

    pub(super) fn get(&self, ns: &Str) -> Option<&V> {
        self.rows.get(ns)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Str> {
        self.rows.keys()
    }

    /// Takes up an event; returns the namespaces to judge.
    pub(super) fn follow<K>(
        &mut self,
        event: Event<K>,
        ns: impl Fn(&K) -> Option<Str>,
        row: impl Fn(&K) -> V,
    ) -> Vec<Str> {
        match event {
            Event::Apply(object) => {
                let Some(ns) = ns(&object) else {
                    return Vec::new();
                };
                self.rows.insert(ns.clone(), row(&object));
                vec![ns]
            }
            Event::Delete(object) => {
                let Some(ns) = ns(&object) else {
                    return Vec::new();
                };
                self.rows.remove(&ns);
                vec![ns]
            }
            Event::Init => {
                self.fresh.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(ns) = ns(&object) {
                    self.fresh.insert(ns, row(&object));
                }
                Vec::new()
            }
            Event::InitDone => {
                let old = std::mem::replace(&mut self.rows, std::mem::take(&mut self.fresh));
                self.is_complete = true;
                let gone = old.into_keys().filter(|ns| !self.rows.contains_key(ns));
                let gone: Vec<Str> = gone.collect();
                self.rows.keys().cloned().chain(gone).collect()
            }
        }
    }
}
