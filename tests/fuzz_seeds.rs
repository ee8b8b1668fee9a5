//! The seeds of the fuzz targets, replayed without a fuzzer through the same entry points.
//!
//! A case that fuzzing found becomes a file below `fuzz/seeds/<target>/`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss
)]

use std::path::Path;

#[path = "../fuzz/entries/csr.rs"]
mod csr;
#[path = "../fuzz/entries/discovery.rs"]
mod discovery;
#[path = "../fuzz/entries/node.rs"]
mod node;
#[path = "../fuzz/entries/recognise.rs"]
mod recognise;
#[path = "../fuzz/entries/token.rs"]
mod token;
#[path = "../fuzz/entries/yaml_file.rs"]
mod yaml_file;

type Entry = fn(&[u8]);

const TARGETS: [(&str, Entry); 6] = [
    ("csr", csr::run),
    ("discovery", discovery::run),
    ("node", node::run),
    ("recognise", recognise::run),
    ("token", token::run),
    ("yaml_file", yaml_file::run),
];
/// Seeds of one target; more is a corpus, and no business of the repository.
const SEEDS_MAX: usize = 50;
const SEED_BYTES_MAX: usize = 16 << 10;

#[test]
fn seeds_of_every_fuzz_target_pass() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (target, entry) in TARGETS {
        let mut files: Vec<_> = std::fs::read_dir(seeds.join(target))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        assert!((1..=SEEDS_MAX).contains(&files.len()), "{target}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            assert!(bytes.len() <= SEED_BYTES_MAX, "{}", file.display());
            // The name stays on the screen when an entry panics.
            eprintln!("{}", file.display());
            entry(&bytes);
        }
    }
}

#[test]
fn every_fuzz_target_is_replayed() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut found: Vec<String> = std::fs::read_dir(targets)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, TARGETS.map(|(name, _)| name));
}

/// Or else the token target would look at refusals alone.
#[test]
fn only_good_tokens_of_the_seeds_open_anything() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/token");
    let opens = |name: &str| token::opens(&std::fs::read(seeds.join(name)).unwrap());
    for name in ["good", "pod", "two-audiences"] {
        assert!(opens(name), "{name}");
    }
    for name in [
        "alg-none", "expired", "audience", "issuer", "subject", "slash",
    ] {
        assert!(!opens(name), "{name}");
    }
}
