//! Equal values once: what rows of many objects repeat.
//!
//! Names of nodes, accounts and labels stand in every pod, and all pods of a deployment have the
//! same labels; a pod's name stands in its slice too. What is read or derived goes through here,
//! so that each is held once, however often objects change. Nothing depends on whether two equal
//! values are one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashTable;

use crate::derived::Memberships;
use crate::object::Labels;
use crate::{FrozenMap, Str};

/// A text that others are likely to repeat.
pub fn text(text: &str) -> Str {
    if text.is_empty() {
        return Str::new();
    }
    TEXTS.get(hash_of(text), |held| held == text, || Str::from(text))
}

/// Labels as others are likely to have them, each of their texts shared too.
pub fn labels(labels: Labels) -> Labels {
    map(&LABELS, labels)
}

/// Memberships as others are likely to have them.
pub fn memberships(memberships: Memberships) -> Memberships {
    map(&MEMBERSHIPS, memberships)
}

/// Named ports as others are likely to have them.
pub fn ports(ports: FrozenMap<Str, u16>) -> FrozenMap<Str, u16> {
    map(&PORTS, ports)
}

static TEXTS: Pool<Str> = Pool::new();
static LABELS: Pool<Labels> = Pool::new();
static MEMBERSHIPS: Pool<Memberships> = Pool::new();
static PORTS: Pool<FrozenMap<Str, u16>> = Pool::new();

fn map<K, V>(pool: &Pool<FrozenMap<K, V>>, map: FrozenMap<K, V>) -> FrozenMap<K, V>
where
    K: Ord + Hash,
    V: Eq + Hash,
{
    if map.is_empty() {
        return map;
    }
    pool.get(hash_of(&map), |held| *held == map, || map.clone())
}

/// Locks of a pool: threads that read objects hardly ever wait for one another.
const SHARDS: usize = 16;
/// Values of a shard that are not worth a look for which are still in use.
const KEPT_MIN: usize = 256;

/// Values that somebody holds, and some that nobody does any more.
struct Pool<T> {
    shards: [Mutex<Shard<T>>; SHARDS],
}

struct Shard<T> {
    values: HashTable<T>,
    /// How many there may be before those that nobody else holds are dropped.
    values_max: usize,
}

/// A value of which a pool knows whether anybody else holds it.
trait Counted: Clone + Hash {
    fn is_held(&self) -> bool;
}

impl Counted for Str {
    fn is_held(&self) -> bool {
        Str::strong_count(self).is_none_or(|count| count > 1)
    }
}

impl<K: Hash, V: Hash> Counted for FrozenMap<K, V> {
    fn is_held(&self) -> bool {
        self.sharers_count() > 1
    }
}

// === impl Pool ===

impl<T> Pool<T> {
    const fn new() -> Self {
        let shards = [const {
            Mutex::new(Shard {
                values: HashTable::new(),
                values_max: KEPT_MIN,
            })
        }; SHARDS];
        Self { shards }
    }
}

impl<T: Counted> Pool<T> {
    /// The value that `is_it` accepts, or else the one made now.
    fn get(&self, hash: u64, is_it: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> T {
        let Some(shard) = self.shards.get((hash >> 32) as usize % SHARDS) else {
            return make();
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = shard.values.find(hash, is_it) {
            return held.clone();
        }
        if shard.values.len() >= shard.values_max {
            shard.values.retain(|value| value.is_held());
            shard.values_max = KEPT_MIN.max(shard.values.len() * 2);
        }
        let value = make();
        shard.values.insert_unique(hash, value.clone(), rehash);
        value
    }
}

fn rehash<T: Hash>(value: &T) -> u64 {
    hash_of(value)
}

fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_held_once_as_long_as_anybody_holds_them() {
        let pool: Pool<Str> = Pool::new();
        let get = |text: &str| pool.get(hash_of(text), |held| held == text, || Str::from(text));
        let kept: Vec<Str> = (0..20_000).map(|i| get(&format!("kept-{i}"))).collect();
        for i in 0..100_000 {
            get(&format!("gone-{i}"));
        }
        for (i, text) in kept.iter().enumerate() {
            assert!(Str::ptr_eq(text, &get(&format!("kept-{i}"))));
        }
        let held = pool.shards.iter().map(|shard| match shard.lock() {
            Ok(shard) => shard.values.len(),
            Err(_) => 0,
        });
        assert!(held.sum::<usize>() <= 2 * kept.len() + SHARDS * KEPT_MIN);
    }

    #[test]
    fn equal_maps_are_one() {
        let entry = || (Str::from("app"), Str::from("web"));
        let (first, second) = (labels([entry()].into()), labels([entry()].into()));
        assert_eq!(first, second);
        assert!(first.sharers_count() >= 3, "both and the pool");
    }
}
