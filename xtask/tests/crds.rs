//! Definitions of kinds are those that `cargo xtask gen` would write now.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "../examples/crds/main.rs"]
#[allow(dead_code)]
mod crds;

#[test]
fn the_files_are_not_stale() {
    crds::run(true).unwrap();
}
