//! Every world of the guides must be readable. They live beside the checkout, or where
//! `AMBIENTD_GUIDES` says; a checkout alone does not have them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::{Path, PathBuf};

use ambientd_source::Directory;
use model::object::Input;

fn guides() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("AMBIENTD_GUIDES") {
        return Some(PathBuf::from(path));
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testing/guides");
    beside.is_dir().then_some(beside)
}

#[test]
fn every_guide_world_parses_without_an_invalid_object() {
    let Some(guides) = guides() else {
        println!(
            "no guides beside this checkout and AMBIENTD_GUIDES is not set: nothing was checked"
        );
        return;
    };
    let mut worlds: Vec<PathBuf> = std::fs::read_dir(&guides)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    worlds.retain(|path| path.join("input.yaml").is_file());
    worlds.sort();
    assert!(!worlds.is_empty(), "no worlds in {}", guides.display());
    let mut wrong = Vec::new();
    for world in &worlds {
        let name = world.file_name().unwrap().to_string_lossy().into_owned();
        let mut objects_count = 0;
        for input in Directory::load(world).unwrap() {
            match input {
                Input::Resync(_, objects) => {
                    objects_count += objects.len();
                    for object in &objects {
                        if let Some(invalid) = object.invalid() {
                            wrong.push(format!("{name}: {:?}: {invalid:?}", object.object_ref()));
                        }
                    }
                }
                Input::SourceFindings(_, findings) => {
                    for finding in findings {
                        if matches!(
                            finding.code,
                            "file-unreadable"
                                | "not-an-object"
                                | "duplicate-object"
                                | "unknown-kind"
                                | "unknown-version"
                                | "invalid-name"
                        ) {
                            wrong.push(format!("{name}: {finding:?}"));
                        }
                    }
                }
                other => wrong.push(format!("{name}: {other:?}")),
            }
        }
        assert!(objects_count > 5, "{name} has only {objects_count} objects");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
