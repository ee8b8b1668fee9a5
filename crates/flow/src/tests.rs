#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test is a panic"
)]

mod random;

use std::cell::RefCell;
use std::hash::Hasher;
use std::sync::Mutex;

use crate::*;
use std::sync::Arc;

/// A row with a number to compute with and tags to be found by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tagged {
    number: u8,
    tags: Vec<u8>,
}

fn tagged(number: u8, tags: &[u8]) -> Arc<Tagged> {
    Arc::new(Tagged {
        number,
        tags: tags.to_vec(),
    })
}

struct ByTag;

impl Index<u8, Tagged> for ByTag {
    type At = u8;
    fn keys(_: &u8, row: &Tagged, emit: &mut dyn FnMut(&u8)) {
        row.tags.iter().for_each(emit);
    }
}

/// A tag whose hash tells odd from even only, so that most tags collide.
#[derive(PartialEq, Eq)]
struct WeakTag(u8);

impl std::hash::Hash for WeakTag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.0 % 2);
    }
}

struct ByWeakTag;

impl Index<u8, Tagged> for ByWeakTag {
    type At = WeakTag;
    fn keys(_: &u8, row: &Tagged, emit: &mut dyn FnMut(&WeakTag)) {
        row.tags.iter().for_each(|tag| emit(&WeakTag(*tag)));
    }
}

fn table() -> Table<u8, Tagged> {
    Table::new("tagged")
        .with_index::<ByTag>()
        .with_index::<ByWeakTag>()
}

type Edit = Option<Arc<Tagged>>;
type Follower = Derived<u8, u8, u8, &'static str>;

/// Primaries dirtied by a change.
fn dirtied<P: Key, V: Row>(
    derived: &Derived<P, u8, V, &'static str>,
    changes: &Changes<u8, Tagged>,
) -> Vec<P> {
    let mut dirty = Dirty::new();
    derived.touched(&mut dirty, changes);
    dirty.iter().cloned().collect()
}

fn rows<V: Row + Clone>(table: &Table<u8, V>) -> Vec<(u8, V)> {
    table
        .iter()
        .map(|(key, row)| (*key, V::clone(row)))
        .collect()
}

// === Table ===

#[test]
fn commit_sorts_by_key_and_lets_the_last_edit_win() {
    let mut table = table();
    let changes = table.commit([
        (2, Some(tagged(20, &[]))),
        (1, Some(tagged(10, &[]))),
        (2, Some(tagged(21, &[]))),
        (1, None),
        (0, Some(tagged(0, &[]))),
        (7, None),
    ]);
    let expected = [
        Change {
            key: 0,
            old: None,
            new: Some(tagged(0, &[])),
        },
        Change {
            key: 2,
            old: None,
            new: Some(tagged(21, &[])),
        },
    ];
    assert_eq!(changes.rows(), expected);
    assert_eq!(changes.keys().copied().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(
        rows(&table),
        [
            (0, (*tagged(0, &[])).clone()),
            (2, (*tagged(21, &[])).clone())
        ]
    );
}

#[test]
fn an_edit_equal_to_the_old_row_changes_nothing_and_keeps_the_arc() {
    let mut table = table();
    let first = tagged(1, &[5]);
    table.commit([(1, Some(Arc::clone(&first)))]);
    let changes = table.commit([(1, Some(tagged(1, &[5]))), (9, None)]);
    assert!(changes.is_empty() && changes.touched().is_empty());
    assert!(Arc::ptr_eq(table.row(&1).unwrap(), &first));
}

#[test]
fn resync_removes_absentees_and_reports_only_differences() {
    let mut table = table();
    table.commit([1, 2, 3].map(|key| (key, Some(tagged(key, &[key])))));
    let changes = table.resync([
        (4, tagged(4, &[])),
        (3, tagged(9, &[3])),
        (2, tagged(2, &[2])),
    ]);
    let expected = [
        Change {
            key: 1,
            old: Some(tagged(1, &[1])),
            new: None,
        },
        Change {
            key: 3,
            old: Some(tagged(3, &[3])),
            new: Some(tagged(9, &[3])),
        },
        Change {
            key: 4,
            old: None,
            new: Some(tagged(4, &[])),
        },
    ];
    assert_eq!(changes.rows(), expected);
    assert!(
        table
            .view()
            .by::<ByTag>(&mut Reads::detached(), &1)
            .next()
            .is_none()
    );
}

#[test]
fn an_index_answers_in_key_order_and_without_hash_collisions() {
    let mut plain: Table<u8, Tagged> = Table::new("late");
    plain.commit([
        (3, Some(tagged(0, &[1, 1]))),
        (1, Some(tagged(0, &[2, 1]))),
        (2, Some(tagged(0, &[3]))),
    ]);
    let late = plain
        .with_index::<ByTag>()
        .with_index::<ByWeakTag>()
        .with_index::<ByTag>();
    let reads = &mut Reads::detached();
    let by_tag: Vec<u8> = late
        .view()
        .by::<ByTag>(reads, &1)
        .map(|(key, _)| *key)
        .collect();
    let by_weak = late.view().by::<ByWeakTag>(reads, &WeakTag(1));
    assert_eq!(by_tag, [1, 3]);
    assert_eq!(by_weak.map(|(key, _)| *key).collect::<Vec<_>>(), [1, 3]);
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "invariant: bare has index")]
fn an_unregistered_index_asserts_in_debug_builds() {
    let bare: Table<u8, Tagged> = Table::new("bare");
    let _ = bare.view().by::<ByTag>(&mut Reads::detached(), &1);
}

#[cfg(not(debug_assertions))]
#[test]
fn an_unregistered_index_is_slow_but_never_stale_in_release_builds() {
    let mut bare: Table<u8, Tagged> = Table::new("bare");
    let mut found: Follower = Derived::new("found");
    let find = |found: &mut Follower, bare: &Table<u8, Tagged>, dirty: Dirty<u8>| {
        let view = bare.view();
        found.update(dirty, |tag, reads| {
            view.by::<ByTag>(reads, tag)
                .map(|(k, _)| (*k, 1))
                .collect::<Vec<_>>()
                .into()
        });
    };
    find(&mut found, &bare, [1].into_iter().collect());
    let changes = bare.commit([(4, Some(tagged(0, &[1])))]);
    assert_eq!(dirtied(&found, &changes), [1]);
    find(&mut found, &bare, [1].into_iter().collect());
    assert_eq!(rows(found.table()), [(4, 1)]);
}

// === Derived: what is dirtied ===

/// Primaries 0..10, primary `p` reading tag `p` through one index or the other.
fn tag_followers(table: &Table<u8, Tagged>) -> Follower {
    let mut derived: Follower = Derived::new("count");
    let view = table.view();
    derived.update((0..10).collect(), |tag, reads| {
        Output::one(*tag, view.by::<ByTag>(reads, tag).count() as u8)
    });
    derived
}

#[test]
fn old_and_new_index_keys_are_dirtied_and_no_others() {
    let mut table = table();
    table.commit([(1, Some(tagged(0, &[3, 4]))), (2, Some(tagged(0, &[8])))]);
    let followers = tag_followers(&table);
    let cases: [(Edit, &[u8]); 5] = [
        (Some(tagged(0, &[4, 5])), &[3, 4, 5]),
        (Some(tagged(0, &[4, 5])), &[]),
        (Some(tagged(1, &[4, 5])), &[4, 5]),
        (None, &[4, 5]),
        (Some(tagged(1, &[9])), &[9]),
    ];
    for (edit, expected) in cases {
        let shown = format!("{edit:?}");
        let changes = table.commit([(1, edit)]);
        assert_eq!(dirtied(&followers, &changes), expected, "after {shown}");
    }
}

#[test]
fn reads_by_key_miss_and_scan_are_dirtied_each_by_its_own_changes() {
    let mut table = table();
    table.commit([(1, Some(tagged(0, &[])))]);
    let mut derived: Follower = Derived::new("readers");
    let view = table.view();
    // Primaries 1 and 2 read the key of their own number (2 is missing); 3 scans; 4 reads nothing.
    derived.update([1, 2, 3, 4].into_iter().collect(), |primary, reads| {
        match primary {
            3 => drop(view.scan(reads)),
            4 => {}
            key => drop(view.get(reads, key)),
        }
        Output::none()
    });
    let cases: [(u8, Edit, &[u8]); 4] = [
        (1, Some(tagged(1, &[])), &[1, 3]),
        (2, Some(tagged(2, &[])), &[2, 3]),
        (9, Some(tagged(9, &[])), &[3]),
        (9, Some(tagged(9, &[])), &[]),
    ];
    for (key, edit, expected) in cases {
        let changes = table.commit([(key, edit)]);
        assert_eq!(dirtied(&derived, &changes), expected, "key {key}");
    }
}

#[test]
fn tables_with_the_same_name_and_keys_do_not_dirty_each_others_readers() {
    let (mut left, mut right) = (table(), table());
    let followers = tag_followers(&left);
    let edit = [(1, Some(tagged(0, &[1])))];
    assert_eq!(dirtied(&followers, &right.commit(edit.clone())), []);
    assert_eq!(dirtied(&followers, &left.commit(edit)), [1]);
}

#[test]
fn reads_of_an_earlier_run_no_longer_dirty() {
    let mut table = table();
    table.commit([(0, Some(tagged(5, &[]))), (5, Some(tagged(0, &[])))]);
    let mut derived: Follower = Derived::new("pointer");
    let follow = |derived: &mut Follower, table: &Table<u8, Tagged>| {
        let view = table.view();
        derived.update([0].into_iter().collect(), |primary, reads| {
            let target = view.get(reads, primary).map_or(0, |row| row.number);
            view.get(reads, &target);
            Output::none()
        });
    };
    follow(&mut derived, &table);
    table.commit([(0, Some(tagged(6, &[])))]);
    follow(&mut derived, &table);
    assert_eq!(dirtied(&derived, &table.commit([(5, None)])), []);
    assert_eq!(
        dirtied(&derived, &table.commit([(6, Some(tagged(0, &[])))])),
        [0]
    );
}

// === Derived: what is shown ===

#[test]
fn a_derived_row_equal_to_the_old_one_stops_and_keeps_its_arc() {
    let mut table = table();
    table.commit([(1, Some(tagged(6, &[])))]);
    let mut halves: Follower = Derived::new("halves");
    let halve = |halves: &mut Follower, table: &Table<u8, Tagged>| {
        let view = table.view();
        halves.update([1].into_iter().collect(), |key, reads| {
            view.get(reads, key)
                .map_or(Output::gone(), |row| Output::one(*key, row.number / 2))
        })
    };
    halve(&mut halves, &table);
    let before = Arc::clone(halves.table().row(&1).unwrap());
    assert!(!table.commit([(1, Some(tagged(7, &[])))]).is_empty());
    assert!(halve(&mut halves, &table).is_empty());
    assert!(Arc::ptr_eq(halves.table().row(&1).unwrap(), &before));
}

#[test]
fn the_smallest_primary_shows_and_the_next_one_follows_in_any_order() {
    type Claimants = Derived<u8, u8, u8, &'static str>;
    let orders = [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [2, 3, 1],
        [3, 1, 2],
        [3, 2, 1],
    ];
    for order in orders {
        let mut derived: Claimants = Derived::new("claims");
        let mut expected: Vec<u8> = Vec::new();
        for primary in order {
            derived.update([primary].into_iter().collect(), |p, _| Output::one(0, *p));
            expected.push(primary);
            assert_eq!(
                rows(derived.table()),
                [(0, *expected.iter().min().unwrap())],
                "{order:?}"
            );
        }
        for primary in order {
            derived.update([primary].into_iter().collect(), |_, _| Output::gone());
            expected.retain(|kept| *kept != primary);
            let shown = expected.iter().min().map(|winner| (0, *winner));
            assert_eq!(
                rows(derived.table()),
                shown.into_iter().collect::<Vec<_>>(),
                "{order:?}"
            );
        }
    }
}

/// Were every one that leaves looked for among the others, this would take minutes.
#[test]
fn a_key_that_everybody_claims_is_left_by_nearly_all_at_once() {
    const PRIMARIES: u32 = 300_000;
    let mut crowd: Derived<u32, u8, u32, ()> = Derived::new("crowd");
    crowd.update((0..PRIMARIES).collect(), |p, _| Output::one(0, *p));
    assert_eq!(rows(crowd.table()), [(0, 0)]);
    let last = PRIMARIES - 1;
    crowd.update((0..last).collect(), |_, _| Output::gone());
    assert_eq!(rows(crowd.table()), [(0, last)]);
    assert_eq!(crowd.primary_count(), 1);
}

#[test]
fn a_handover_between_primaries_in_one_update_is_one_change() {
    let mut derived: Follower = Derived::new("handover");
    derived.update([1].into_iter().collect(), |p, _| Output::one(0, *p));
    let owner = 2;
    let changes = derived.update([1, 2].into_iter().collect(), |p, _| {
        if *p == owner {
            Output::one(0, *p)
        } else {
            Output::none()
        }
    });
    let expected = [Change {
        key: 0,
        old: Some(Arc::new(1)),
        new: Some(Arc::new(2)),
    }];
    assert_eq!(changes.rows(), expected);
    let back = derived.update([1].into_iter().collect(), |_, _| Output::one(0, 2));
    assert!(
        back.is_empty(),
        "an equal row of another primary is no change"
    );
}

#[test]
fn none_keeps_the_reads_and_gone_drops_all() {
    let mut table = table();
    let mut derived: Follower = Derived::new("kept");
    let view = table.view();
    derived.update([1, 2].into_iter().collect(), |key, reads| {
        view.get(reads, key);
        Output::none().with_note("waiting")
    });
    let view = table.view();
    derived.update([2].into_iter().collect(), |key, reads| {
        view.get(reads, key);
        Output::gone().with_row(2, 2).with_note("ignored")
    });
    assert_eq!(
        (derived.primary_count(), derived.dependency_count()),
        (1, 1)
    );
    assert_eq!(
        derived.notes().collect::<Vec<_>>(),
        [(&1, ["waiting"].as_slice())]
    );
    assert!(derived.table().is_empty());
    let edits = [(1, Some(tagged(0, &[]))), (2, Some(tagged(0, &[])))];
    assert_eq!(dirtied(&derived, &table.commit(edits)), [1]);
}

#[test]
fn the_notes_generation_grows_exactly_when_notes_change() {
    let mut derived: Derived<u8, u8, u8, &'static str> = Derived::new("notes");
    let cases: [(&[&'static str], u64); 5] = [
        (&[], 0),
        (&["a"], 1),
        (&["a"], 1),
        (&["a", "b"], 2),
        (&[], 3),
    ];
    for (notes, generation) in cases {
        let changes = derived.update([1].into_iter().collect(), |_, _| {
            Output::one(1, 1).with_notes(notes.iter().copied())
        });
        assert_eq!(derived.notes_generation(), generation, "after {notes:?}");
        assert_eq!(derived.notes_of(&1), notes);
        drop(changes);
    }
    assert!(derived.notes().next().is_none());
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "invariant: a primary yields each key once")]
fn a_key_yielded_twice_asserts_in_debug_builds() {
    let mut derived: Follower = Derived::new("twice");
    derived.update([1].into_iter().collect(), |_, _| {
        vec![(0, 1), (0, 2)].into()
    });
}

#[cfg(not(debug_assertions))]
#[test]
fn the_first_of_a_key_yielded_twice_wins_in_release_builds() {
    let mut derived: Follower = Derived::new("twice");
    derived.update([1].into_iter().collect(), |_, _| {
        vec![(0, 1), (0, 2)].into()
    });
    assert_eq!(rows(derived.table()), [(0, 1)]);
}

#[test]
fn a_large_dirty_set_runs_on_several_threads_with_the_same_result() {
    type Wide = Derived<u32, u32, u32, String>;
    let mut inputs: Table<u32, u32> = Table::new("inputs");
    inputs.commit((0..1_000).map(|key| (key, Some(Arc::new(key * 7 % 101)))));
    let threads = Mutex::new(std::collections::HashSet::new());
    let run = |derived: &mut Wide, dirty: Dirty<u32>| {
        let view = inputs.view();
        derived.update(dirty, |primary, reads| {
            threads.lock().unwrap().insert(std::thread::current().id());
            let row = **view.get(reads, primary).unwrap();
            Output::one(row, *primary).with_note(format!("{primary}"))
        })
    };
    let (mut at_once, mut one_by_one): (Wide, Wide) = (Derived::new("a"), Derived::new("b"));
    run(&mut at_once, (0..1_000).collect());
    let own = std::thread::current().id();
    assert!(
        threads.lock().unwrap().iter().any(|thread| *thread != own),
        "rayon took no part"
    );
    for primary in (0..1_000).rev() {
        run(&mut one_by_one, [primary].into_iter().collect());
    }
    assert!(at_once.table().iter().eq(one_by_one.table().iter()));
    assert!(at_once.notes().eq(one_by_one.notes()));
    assert_eq!(at_once.table().len(), 101);
}

#[test]
fn only_dirty_primaries_run() {
    let mut table = table();
    let mut derived: Follower = Derived::new("counted");
    let changes = table.commit((0..100).map(|key| (key, Some(tagged(key, &[key % 10])))));
    let ran = Mutex::new(RefCell::new(Vec::new()));
    let update = |derived: &mut Follower, table: &Table<u8, Tagged>, dirty: Dirty<u8>| {
        let view = table.view();
        derived.update(dirty, |key, reads| {
            ran.lock().unwrap().borrow_mut().push(*key);
            view.get(reads, key)
                .map_or(Output::gone(), |row| Output::one(*key, row.number))
        });
        ran.lock().unwrap().take()
    };
    assert_eq!(
        update(&mut derived, &table, changes.keys().copied().collect()).len(),
        100
    );
    let changes = table.commit([(7, Some(tagged(8, &[]))), (9, Some(tagged(9, &[9])))]);
    let mut dirty = Dirty::new();
    derived.touched(&mut dirty, &changes);
    assert_eq!(update(&mut derived, &table, dirty), [7]);
}
