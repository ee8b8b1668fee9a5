#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;

/// A package below a directory of its own, removed at the end of the test.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let tree =
            Self(std::env::temp_dir().join(format!("orphans-{}-{name}", std::process::id())));
        for (path, source) in files {
            let path = tree.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, source).unwrap();
        }
        tree
    }

    fn package(&self, roots: &[&str]) -> Package {
        Package {
            name: "planted".to_owned(),
            directory: self.0.clone(),
            dependencies: Vec::new(),
            roots: roots.iter().map(|root| self.0.join(root)).collect(),
        }
    }

    /// The faults of the package, with paths relative to it.
    fn faults(&self, roots: &[&str]) -> Vec<String> {
        let prefix = format!("{}/", self.0.display());
        check(&self.package(roots))
            .unwrap()
            .1
            .into_iter()
            .map(|fault| fault.replacen(&prefix, "", 1))
            .collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Left behind at worst: a few small files in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_way_to_declare_a_module_reaches_its_file() {
    let tree = Tree::new(
        "reached",
        &[
            (
                "src/lib.rs",
                "pub mod a; mod b; mod c { mod d { mod e; } mod f; } #[path = \"odd.rs\"] mod g; \
                 include!(\"table.rs\");",
            ),
            ("src/a.rs", "#[cfg(test)] mod tests;"),
            ("src/a/tests.rs", ""),
            ("src/b/mod.rs", "mod inner;"),
            ("src/b/inner.rs", ""),
            ("src/c/d/e.rs", ""),
            ("src/c/f.rs", ""),
            ("src/odd.rs", "mod beside;"),
            ("src/beside.rs", ""),
            ("src/table.rs", ""),
            ("tests/e2e.rs", "mod common;"),
            ("tests/common/mod.rs", ""),
        ],
    );
    assert_eq!(
        tree.faults(&["src/lib.rs", "tests/e2e.rs"]),
        [""; 0],
        "all are reached"
    );
}

#[test]
fn a_file_that_no_module_names_is_a_fault() {
    let tree = Tree::new(
        "orphan",
        &[
            (
                "src/lib.rs",
                "// mod commented;\nmod a; const X: &str = \"mod text;\";",
            ),
            ("src/a.rs", ""),
            ("src/b.rs", ""),
            ("src/commented.rs", ""),
            ("src/text.rs", ""),
            ("tests/undeclared.rs", ""),
        ],
    );
    assert_eq!(
        tree.faults(&["src/lib.rs"]),
        [
            "src/b.rs: no target and no `mod` reaches it",
            "src/commented.rs: no target and no `mod` reaches it",
            "src/text.rs: no target and no `mod` reaches it",
            "tests/undeclared.rs: no target and no `mod` reaches it",
        ]
    );
}

#[test]
fn only_code_that_is_neither_test_nor_generated_has_a_longest_length() {
    let long = "\n".repeat(LINES_MAX + 1);
    let cases = [
        ("src/a.rs", long.clone(), Some(LINES_MAX + 1)),
        ("src/a.rs", "\n".repeat(LINES_MAX), None),
        ("src/a/tests.rs", long.clone(), None),
        ("tests/e2e.rs", long.clone(), None),
        ("src/a.rs", format!("// @generated\n{long}"), None),
    ];
    for (path, source, expected) in cases {
        assert_eq!(excess_lines(Path::new(path), &source), expected, "{path}");
    }
}

#[test]
fn unfinished_work_is_found_in_code_but_not_in_words_about_it() {
    let cases: &[(&str, &[&str])] = &[
        ("fn f() { todo!() }", &["`todo!` is work left undone"]),
        (
            "fn f() { unimplemented!(\"later\") }",
            &["`unimplemented!` is work left undone"],
        ),
        (
            "#[test] #[ignore = \"slow\"] fn f() {}",
            &["an ignored test proves nothing"],
        ),
        ("// todo!() #[ignore]\nfn f() { g(\"todo!()\") }", &[]),
        ("if todo != 2 {}", &[]),
    ];
    for (source, expected) in cases {
        assert_eq!(unfinished(&tokens(source)), *expected, "{source}");
    }
}
