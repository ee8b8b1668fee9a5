//! Cost of a step between generations of 50 000 resources.
#![allow(missing_docs)]

use std::sync::Arc;

use ambientd_snapshot::{EncodedDelta, EncodedResource, ResourceMap, Str};
use divan::{Bencher, black_box};

const RESOURCES: usize = 50_000;

fn main() {
    divan::main();
}

fn resource(index: usize, payload: u8) -> EncodedResource {
    let name = Str::from(format!("Kubernetes//Pod/ns-{}/pod-{index}", index % 100));
    EncodedResource::new(name, proto::type_url::ADDRESS, &[payload; 400], Vec::new())
}

fn full() -> ResourceMap {
    (0..RESOURCES).map(|index| resource(index, 1)).collect()
}

#[divan::bench]
fn delta_of_one_change(bencher: Bencher<'_, '_>) {
    let old = full();
    let mut new = old.clone();
    new.insert(Arc::new(resource(RESOURCES / 2, 2)));
    bencher.bench(|| EncodedDelta::between(black_box(&old), black_box(&new)));
}

#[divan::bench]
fn delta_of_everything(bencher: Bencher<'_, '_>) {
    let new = full();
    bencher.bench(|| EncodedDelta::between(&ResourceMap::default(), black_box(&new)));
}

#[divan::bench]
fn insert_one(bencher: Bencher<'_, '_>) {
    let old = full();
    let changed = Arc::new(resource(RESOURCES / 2, 2));
    bencher.bench(|| {
        let mut new = old.clone();
        new.insert(Arc::clone(&changed));
        new
    });
}
