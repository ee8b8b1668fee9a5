//! Any bytes as a file: no panic, and taking the file away takes everything away.

use model::object::Input;
use source::FileSet;

pub fn run(bytes: &[u8]) {
    let mut set = FileSet::new();
    let _ = set.changes();
    set.set("a.yaml", bytes);
    let upserts = set
        .changes()
        .iter()
        .filter(|input| matches!(input, Input::Upsert(_)))
        .count();
    set.remove("a.yaml");
    let deletes = set
        .changes()
        .iter()
        .filter(|input| matches!(input, Input::Delete(..)))
        .count();
    assert_eq!(upserts, deletes);
}
