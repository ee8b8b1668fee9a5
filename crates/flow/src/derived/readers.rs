//! Who read what.

use std::collections::BTreeSet;

use hashbrown::HashTable;

use super::dep_map::DepMap;
use crate::deps::{DepId, Recorded, hash_of};

/// From things that were read to the slots that read them.
#[derive(Default)]
pub(super) struct Readers {
    by_dep: DepMap,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    /// Groups by their reads.
    ids: HashTable<u32>,
}

/// What a slot has read.
#[derive(Default)]
pub(super) struct Deps {
    /// Sorted, each once.
    own: Box<[DepId]>,
    /// The group of those that read the rest alike.
    group: Option<GroupId>,
}

/// One more than its place, so that none needs no room.
type GroupId = std::num::NonZeroU32;

/// Slots that read something alike, which is kept once for all of them.
struct Group {
    /// Sorted, each once; never empty.
    deps: Box<[DepId]>,
    slots: BTreeSet<u32>,
}

/// A slot, or a group of them. There is memory for less than 2^30 of either, so that bit is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reader(u32);

impl Reader {
    const GROUP: u32 = 1 << 31;

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    fn slot(slot: u32) -> Self {
        Self(slot)
    }

    fn group(id: GroupId) -> Self {
        Self(id.get() | Self::GROUP)
    }
}

// === impl Readers ===

impl Readers {
    /// The slots that have read this; one that did so by itself and in a group comes twice.
    pub(super) fn of(&self, dep: DepId) -> impl Iterator<Item = u32> {
        self.by_dep.at(dep).flat_map(|reader| {
            let group =
                GroupId::new(reader.0 & !Reader::GROUP).filter(|_| reader.0 & Reader::GROUP != 0);
            let slots = group
                .and_then(|id| self.group(id))
                .map(|group| &group.slots);
            let own = group.is_none().then_some(reader.0);
            own.into_iter().chain(slots.into_iter().flatten().copied())
        })
    }

    /// Number of distinct things that were read.
    pub(super) fn len(&self) -> usize {
        self.by_dep.len()
    }

    /// Puts what a slot has read now into the place of what it read before.
    pub(super) fn replace(&mut self, slot: u32, deps: &mut Deps, recorded: Recorded) {
        let new = recorded.own;
        let reader = Reader::slot(slot);
        for dep in deps
            .own
            .iter()
            .filter(|dep| new.binary_search(dep).is_err())
        {
            self.by_dep.remove(*dep, reader);
        }
        for dep in new
            .iter()
            .filter(|dep| deps.own.binary_search(dep).is_err())
        {
            self.by_dep.insert(*dep, reader);
        }
        if *deps.own != *new {
            deps.own = new.into_boxed_slice();
        }
        let held = deps.group.and_then(|id| self.group(id));
        if held.map(|group| &*group.deps).unwrap_or_default() != recorded.shared {
            self.leave(slot, deps.group);
            deps.group = self.join(slot, recorded.shared);
        }
    }

    /// Forgets what a slot has read.
    pub(super) fn forget(&mut self, slot: u32, deps: Deps) {
        for dep in deps.own {
            self.by_dep.remove(dep, Reader::slot(slot));
        }
        self.leave(slot, deps.group);
    }

    /// Whether exactly these reads are known.
    pub(super) fn agree_with<'d>(&self, all: impl Iterator<Item = (u32, &'d Deps)>) -> bool {
        let mut readers = DepMap::default();
        let mut slots = 0;
        for (slot, deps) in all {
            for dep in &deps.own {
                readers.insert(*dep, Reader::slot(slot));
            }
            let Some(id) = deps.group else {
                continue;
            };
            let Some(group) = self.group(id).filter(|group| group.slots.contains(&slot)) else {
                return false;
            };
            slots += 1;
            for dep in &group.deps {
                readers.insert(*dep, Reader::group(id));
            }
        }
        let grouped = self.groups.iter().flatten().map(|group| group.slots.len());
        self.by_dep.same_content(&readers) && slots == grouped.sum::<usize>()
    }

    /// The group with these reads, of which the slot is one from now on.
    fn join(&mut self, slot: u32, deps: Vec<DepId>) -> Option<GroupId> {
        if deps.is_empty() {
            return None;
        }
        let hash = hash_of(&deps);
        let is_it = |at: &u32| {
            let group = self.groups.get(*at as usize).and_then(Option::as_ref);
            group.is_some_and(|group| *group.deps == *deps)
        };
        let at = match self.ids.find(hash, is_it) {
            Some(at) => *at,
            None => self.add(hash, deps),
        };
        if let Some(Some(group)) = self.groups.get_mut(at as usize) {
            group.slots.insert(slot);
        }
        GroupId::new(at + 1)
    }

    fn add(&mut self, hash: u64, deps: Vec<DepId>) -> u32 {
        let at = self.free.pop().unwrap_or(self.groups.len() as u32);
        for (dep, id) in deps.iter().zip(std::iter::repeat(GroupId::new(at + 1))) {
            if let Some(id) = id {
                self.by_dep.insert(*dep, Reader::group(id));
            }
        }
        let group = Some(Group {
            deps: deps.into_boxed_slice(),
            slots: BTreeSet::new(),
        });
        match self.groups.get_mut(at as usize) {
            Some(vacant) => *vacant = group,
            None => self.groups.push(group),
        }
        let groups = &self.groups;
        self.ids.insert_unique(hash, at, |at| {
            let group = groups.get(*at as usize).and_then(Option::as_ref);
            group.map_or(0, |group| hash_of(&group.deps))
        });
        at
    }

    /// Takes a slot out of its group, and forgets a group that is empty then.
    fn leave(&mut self, slot: u32, group: Option<GroupId>) {
        let Some(id) = group else {
            return;
        };
        let at = id.get() - 1;
        let Some(place) = self.groups.get_mut(at as usize) else {
            return;
        };
        if let Some(group) = place {
            group.slots.remove(&slot);
        }
        let Some(group) = place.take_if(|group| group.slots.is_empty()) else {
            return;
        };
        for dep in &group.deps {
            self.by_dep.remove(*dep, Reader::group(id));
        }
        let hash = hash_of(&group.deps);
        if let Ok(found) = self.ids.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        self.free.push(at);
    }

    fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.get() as usize - 1)?.as_ref()
    }
}
