//! Every identity row of spec/control-plane.md §10, and every attack, names tests that exist.
//!
//! `tests/edge-cases/control-plane-identity.tsv` has the number of a row or the word of an
//! attack, its claim, and tests as `package::name`; the package `ambientd` is the binary with
//! its end-to-end tests. Rows 70 and 71 are of Kubernetes, which this version does not read.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names of the test functions in the Rust files below a folder.
fn test_functions(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(test_functions(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if is_test && let Some((_, rest)) = line.split_once("fn ") {
                    found.extend(rest.split('(').next().map(str::to_owned));
                    is_test = false;
                }
            }
        }
    }
    found
}

fn tests_of(package: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if package == "ambientd" {
        return ["src", "tests"]
            .iter()
            .flat_map(|dir| test_functions(&root.join(dir)))
            .collect();
    }
    test_functions(&root.join("crates").join(package))
}

#[test]
fn every_identity_row_names_tests_that_exist() {
    let text = include_str!("edge-cases/control-plane-identity.tsv");
    let mut packages: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut rows = Vec::new();
    for line in text.lines().skip(1) {
        let [row, claim, places] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three columns, not {line:?}");
        };
        assert!(!claim.is_empty(), "{line}");
        rows.extend(row.parse::<u32>());
        for place in places.split(' ') {
            let (package, name) = place.split_once("::").unwrap();
            let tests = packages.entry(package).or_insert_with(|| tests_of(package));
            assert!(tests.contains(name), "row {row}: no test {place}");
        }
    }
    let expected = (1..=15).chain(49..=69).chain([72, 73, 75, 82]);
    assert_eq!(rows, expected.collect::<Vec<u32>>());
}
