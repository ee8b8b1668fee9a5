//! `gen`: files that are generated from types and descriptors.
//!
//! The generators are examples, so that other commands need not wait for what they link.

use anyhow::Result;

use crate::steps;

/// Writes the generated files anew. With `check`, only compares: definitions of kinds, which are
/// quick to make; those of messages are compared by the tests of crate `proto`.
///
/// # Errors
/// When a generator fails, or finds a stale file.
pub(crate) fn run(check: bool) -> Result<()> {
    if check {
        return steps::run(&mut example("crds", &["--", "--check"]));
    }
    steps::run(&mut example("gen", &[]))?;
    steps::run(&mut example("crds", &[]))
}

fn example(name: &str, args: &[&str]) -> std::process::Command {
    let mut command = steps::cargo(&["run", "-p", "xtask", "--example", name]);
    command.args(args);
    command
}
