//! Tables of cases against one control plane and one real Envoy: each case has a service of its
//! own, some objects, and requests with what must come of them. See `tests/tables/README.md`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::struct_field_names
)]

mod common;
mod tables;

use std::path::Path;
use std::sync::Arc;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use tables::case::{Case, load};
use tables::world::World;

/// Requests mostly wait, so more at once than there are processors.
const THREADS: usize = 8;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let cases = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables")).unwrap();
    if arguments.list {
        let trials = cases
            .iter()
            .map(|case| Trial::test(case.name.clone(), || Ok(())));
        libtest_mimic::run(&arguments, trials.collect()).exit();
    }
    let conclusion = run(&arguments, cases);
    // Only here: what runs is ended by its destructors.
    conclusion.exit();
}

fn run(arguments: &Arguments, cases: Vec<Case>) -> Conclusion {
    let runtime = Arc::new(common::runtime());
    let wanted = |case: &Case| match (&arguments.filter, arguments.exact) {
        (Some(filter), true) => case.name == *filter,
        (Some(filter), false) => case.name.contains(filter.as_str()),
        (None, _) => true,
    };
    let chosen: Vec<Arc<Case>> = cases.into_iter().filter(wanted).map(Arc::new).collect();
    let world = match runtime.block_on(Box::pin(World::start(&chosen))) {
        Ok(world) => Arc::new(world),
        Err(error) => {
            let text = format!("{error:#}");
            let trial = Trial::test("the world starts", move || Err(Failed::from(text)));
            let mut all = arguments.clone();
            all.filter = None;
            return libtest_mimic::run(&all, vec![trial]);
        }
    };
    let trials = chosen.iter().map(|case| {
        let (case, world, runtime) = (Arc::clone(case), Arc::clone(&world), Arc::clone(&runtime));
        Trial::test(case.name.clone(), move || {
            runtime
                .block_on(Box::pin(world.play(&case)))
                .map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    let conclusion = libtest_mimic::run(arguments, trials.collect());
    if let Err(error) = runtime.block_on(world.nothing_refused()) {
        eprintln!("{error:#}");
        std::process::exit(101);
    }
    conclusion
}
