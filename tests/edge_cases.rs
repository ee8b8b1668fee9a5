//! Every row of the contract's edge-case tables has a test that exists.
//!
//! `tests/edge-cases/*.tsv` say which: a scenario by its folder, a test function as
//! `package::name`, or a case of `tests/tables` as `table::name`. Whether a test claims what its row says is for its reader to judge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Table; number of its rows; what it repeats.
const TABLES: [(&str, usize, &str); 3] = [
    (
        "workload-discovery.tsv",
        65,
        "spec/workload-discovery.md §8",
    ),
    (
        "workload-discovery-pushes.tsv",
        28,
        "spec/workload-discovery.md §7.2 and, last, what pushes nothing",
    ),
    ("gateway-api.tsv", 80, "spec/gateway-api.md §9"),
];

fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Names of the test functions in the Rust files below a folder.
fn test_functions(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(test_functions(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut marked = false;
            for line in text.lines().map(str::trim_start) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    marked = true;
                } else if marked && let Some((_, rest)) = line.split_once("fn ") {
                    found.extend(rest.split('(').next().map(str::to_owned));
                    marked = false;
                }
            }
        }
    }
    found
}

/// Names of the cases in the files of `tests/tables`.
fn table_cases() -> BTreeSet<String> {
    let files = std::fs::read_dir(tests_dir().join("tables")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let tables = paths.filter(|path| path.extension().is_some_and(|ext| ext == "yaml"));
    let mut found = BTreeSet::new();
    for path in tables {
        let text = std::fs::read_to_string(path).unwrap();
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("- name: "));
        found.extend(names.map(str::to_owned));
    }
    found
}

/// Why a place is no test.
fn missing(place: &str, by_package: &mut BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let Some((package, name)) = place.split_once("::") else {
        let expect = tests_dir().join("scenarios").join(place).join("expect");
        let files = std::fs::read_dir(expect).map(Iterator::count);
        return (!files.is_ok_and(|files| files > 0)).then(|| format!("no scenario {place}"));
    };
    let functions = by_package.entry(package.to_owned()).or_insert_with(|| {
        let root = tests_dir().parent().unwrap().to_owned();
        if package == "table" {
            return table_cases();
        }
        if package == "ambientd" {
            // The binary, with its end-to-end tests.
            return [root.join("src"), root.join("tests")]
                .iter()
                .flat_map(|dir| test_functions(dir))
                .collect();
        }
        let root = root.join("crates").join(package);
        assert!(root.is_dir(), "{place}: no package {package}");
        test_functions(&root)
    });
    (!functions.contains(name)).then(|| format!("no test {place}"))
}

#[test]
fn every_edge_case_names_tests_that_exist() {
    let mut by_package = BTreeMap::new();
    for (file, rows, contract) in TABLES {
        let text = std::fs::read_to_string(tests_dir().join("edge-cases").join(file)).unwrap();
        let mut numbers = Vec::new();
        for line in text.lines().skip(1) {
            let [number, claim, places] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{file}: three columns, not {line:?}");
            };
            numbers.push(number.parse::<usize>().unwrap());
            assert!(!claim.is_empty() && !places.is_empty(), "{file}: {line}");
            let wrong: Vec<String> = places
                .split(' ')
                .filter_map(|place| missing(place, &mut by_package))
                .collect();
            assert!(wrong.is_empty(), "{file}, row {number}: {wrong:?}");
        }
        let all: Vec<usize> = (1..=rows).collect();
        assert_eq!(numbers, all, "{file}: the rows of {contract}");
    }
}

/// Rows of spec/control-plane.md §10 by number, and attacks by a word.
#[test]
fn every_identity_row_and_attack_names_tests_that_exist() {
    let file = tests_dir().join("edge-cases/control-plane-identity.tsv");
    let text = std::fs::read_to_string(file).unwrap();
    let (mut by_package, mut rows) = (BTreeMap::new(), Vec::new());
    for line in text.lines().skip(1) {
        let [row, claim, places] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("three columns, not {line:?}");
        };
        assert!(!claim.is_empty(), "{line}");
        rows.extend(row.parse::<u32>());
        let wrong = places
            .split(' ')
            .find_map(|place| missing(place, &mut by_package));
        assert_eq!(wrong, None, "row {row}");
    }
    let expected = (1..=15).chain(49..=69).chain([70, 71, 72, 73, 75, 82, 85]);
    assert_eq!(rows, expected.collect::<Vec<u32>>());
}
