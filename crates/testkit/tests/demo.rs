//! The demo as a whole: everything that it claims holds.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_demo_keeps_its_word() {
    let output = Command::new(env!("CARGO_BIN_EXE_ambientd-demo"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
