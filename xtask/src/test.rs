//! `test`: everything that must hold, in the order in which it fails cheapest.

use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::{bench, cluster, conformance, deny, deps, envoy, orphans, steps};

/// Tells the tests which Envoy to run; without it they fail rather than skip.
pub(crate) const ENVOY_VARIABLE: &str = "AMBIENTD_ENVOY";

/// Tells a test where we are, which else starts us by cargo and waits for its lock.
const XTASK_VARIABLE: &str = "AMBIENTD_XTASK";

/// One thing that must hold.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        run: || steps::run(&mut steps::cargo(&["fmt", "--all", "--check"])),
    },
    Step {
        name: "check-deps",
        run: deps::run,
    },
    Step {
        name: "check-orphans",
        run: orphans::run,
    },
    Step {
        name: "clippy",
        run: clippy,
    },
    Step {
        name: "doc",
        run: doc,
    },
    Step {
        name: "deny",
        run: || deny::run(false),
    },
    Step {
        name: "envoy",
        run: || envoy::ensure().map(|path| println!("{}", path.display())),
    },
    Step {
        name: "cluster",
        run: || cluster::ensure().map(|path| println!("{}", path.display())),
    },
    Step {
        name: "cluster-test",
        run: cluster::test,
    },
    Step {
        name: "conformance-test",
        run: conformance::test,
    },
    Step {
        name: "cargo-test",
        run: cargo_test,
    },
    Step {
        name: "bench-check",
        run: || bench::check::run(false),
    },
];

/// Runs the steps named in `only`, or all; stops at the first that fails.
///
/// # Errors
/// When a step fails, or `only` names one that does not exist.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let chosen = choose(only)?;
    let started = Instant::now();
    for (done, step) in chosen.iter().enumerate() {
        println!("\n==> {} ({} of {})", step.name, done + 1, chosen.len());
        let began = Instant::now();
        let result = (step.run)();
        let elapsed_s = began.elapsed().as_secs_f64();
        if let Err(error) = result {
            println!("<== {} failed after {elapsed_s:.1} s", step.name);
            println!("\nsteps: {done} passed, 1 failed");
            return Err(error.context(format!("step {} failed", step.name)));
        }
        println!("<== {} passed in {elapsed_s:.1} s", step.name);
    }
    println!(
        "\nsteps: {} passed, 0 failed, in {:.1} s",
        chosen.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn choose(only: &[String]) -> Result<Vec<&'static Step>> {
    if only.is_empty() {
        return Ok(STEPS.iter().collect());
    }
    only.iter()
        .map(|name| {
            STEPS.iter().find(|step| step.name == name).ok_or_else(|| {
                let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
                anyhow!("no step {name}; there are {}", names.join(", "))
            })
        })
        .collect()
}

fn clippy() -> Result<()> {
    let args = ["clippy", "--workspace", "--all-targets"];
    steps::run(steps::cargo(&args).args(["--", "-D", "warnings"]))
}

fn doc() -> Result<()> {
    let mut doc = steps::cargo(&["doc", "--workspace", "--no-deps"]);
    steps::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Unit, property, documentation, scenario and end-to-end tests.
fn cargo_test() -> Result<()> {
    let envoy = envoy::ensure().context("the end-to-end tests need Envoy")?;
    let binary = cluster::ensure().context("the end-to-end tests need a cluster")?;
    let mut test = steps::cargo(&["test", "--workspace"]);
    test.env(ENVOY_VARIABLE, envoy)
        .env(cluster::CLUSTER_VARIABLE, binary)
        .env(XTASK_VARIABLE, std::env::current_exe()?);
    steps::run(&mut test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_by_name_in_the_order_given() {
        let names = |only: &[&str]| -> Result<Vec<&str>> {
            let only: Vec<_> = only.iter().map(ToString::to_string).collect();
            Ok(choose(&only)?.iter().map(|step| step.name).collect())
        };
        assert_eq!(names(&[]).ok().map(|all| all.len()), Some(STEPS.len()));
        assert_eq!(names(&["deny", "fmt"]).ok(), Some(vec!["deny", "fmt"]));
        assert!(names(&["fnt"]).is_err());
    }
}
