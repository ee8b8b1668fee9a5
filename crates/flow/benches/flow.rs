//! Cost of the engine itself: per changed row, per bulk load, per chain of stages.
#![allow(missing_docs, reason = "a benchmark has no public API")]

use std::sync::Arc;

use ambientd_flow::{Changes, Derived, Dirty, Index, Output, Table};
use divan::{Bencher, black_box};

const SIZES: [u32; 2] = [10_000, 100_000];
/// Rows that share one index key.
const GROUP_ROWS: u32 = 20;

#[derive(Clone, PartialEq)]
struct Row {
    group: u32,
    value: u64,
}

struct ByGroup;

impl Index<u32, Row> for ByGroup {
    type At = u32;
    fn keys(_: &u32, row: &Row, emit: &mut dyn FnMut(&u32)) {
        emit(&row.group);
    }
}

type Stage = Derived<u32, u32, Row, String>;

fn row(key: u32, value: u64) -> (u32, Option<Arc<Row>>) {
    (
        key,
        Some(Arc::new(Row {
            group: key / GROUP_ROWS,
            value,
        })),
    )
}

fn loaded(size: u32) -> Table<u32, Row> {
    let mut table = Table::new("bench").with_index::<ByGroup>();
    table.commit((0..size).map(|key| row(key, 0)));
    table
}

fn main() {
    divan::main();
}

/// One changed row of a table with one index.
#[divan::bench(args = SIZES)]
fn commit_one(bencher: Bencher, size: u32) {
    let mut table = loaded(size);
    let mut value = 0;
    bencher.bench_local(|| {
        value += 1;
        table.commit([row(size / 2, value)])
    });
}

/// One edit that is equal to what is there.
#[divan::bench(args = SIZES)]
fn commit_one_equal(bencher: Bencher, size: u32) {
    let mut table = loaded(size);
    bencher.bench_local(|| table.commit([black_box(row(size / 2, 0))]));
}

#[divan::bench(sample_count = 10)]
fn bulk_load_100k(bencher: Bencher) {
    bencher.bench_local(|| loaded(100_000));
}

/// A relist that changes nothing.
#[divan::bench(sample_count = 10)]
fn resync_100k_equal(bencher: Bencher) {
    let mut table = loaded(100_000);
    bencher.bench_local(|| {
        let rows = (0..100_000).map(|key| {
            (
                key,
                Arc::new(Row {
                    group: key / GROUP_ROWS,
                    value: 0,
                }),
            )
        });
        table.resync(rows)
    });
}

/// Input → copy → sum over the group → copy.
struct Chain {
    input: Table<u32, Row>,
    stages: [Stage; 3],
}

impl Chain {
    fn new() -> Self {
        let stage = || Stage::new("stage").with_index::<ByGroup>();
        let input = Table::new("input").with_index::<ByGroup>();
        Self {
            input,
            stages: [stage(), stage(), stage()],
        }
    }

    fn apply(
        &mut self,
        edits: impl IntoIterator<Item = (u32, Option<Arc<Row>>)>,
    ) -> Changes<u32, Row> {
        let changes = self.input.commit(edits);
        let [first, second, third] = &mut self.stages;
        let view = self.input.view();
        let changes = first.update(dirty(first, &changes), |key, reads| {
            view.get(reads, key)
                .map_or(Output::gone(), |row| Output::one(*key, (**row).clone()))
        });
        let view = first.view();
        let changes = second.update(dirty(second, &changes), |key, reads| {
            let Some(own) = view.get(reads, key) else {
                return Output::gone();
            };
            let value = view
                .by::<ByGroup>(reads, &own.group)
                .map(|(_, row)| row.value)
                .sum();
            Output::one(
                *key,
                Row {
                    group: own.group,
                    value,
                },
            )
        });
        let view = second.view();
        third.update(dirty(third, &changes), |key, reads| {
            view.get(reads, key)
                .map_or(Output::gone(), |row| Output::one(*key, (**row).clone()))
        })
    }
}

fn dirty(stage: &Stage, changes: &Changes<u32, Row>) -> Dirty<u32> {
    let mut dirty: Dirty<u32> = changes.keys().copied().collect();
    stage.touched(&mut dirty, changes);
    dirty
}

/// One input row through three stages; the second one fans out to the 20 rows of the group.
#[divan::bench(args = SIZES)]
fn chain_of_three_one_change(bencher: Bencher, size: u32) {
    let mut chain = Chain::new();
    chain.apply((0..size).map(|key| row(key, 0)));
    let mut value = 0;
    bencher.bench_local(|| {
        value += 1;
        chain.apply([row(size / 2, value)])
    });
}

#[divan::bench(args = SIZES, sample_count = 5)]
fn chain_of_three_bulk_load(bencher: Bencher, size: u32) {
    bencher.bench_local(|| {
        let mut chain = Chain::new();
        chain.apply((0..size).map(|key| row(key, 0)));
        chain
    });
}
