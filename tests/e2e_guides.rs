//! The worked examples of the user guides as worlds that run: each claim about requests is asked
//! of one control plane, a real Envoy for each waypoint, and workloads behind HBONE.
//!
//! The worlds live beside the checkout, or where `AMBIENTD_GUIDES` says; `claims.yaml` says what
//! is asked of each of them, and which claims cannot be seen without real ztunnels.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::struct_field_names
)]

mod common;

#[path = "e2e_guides/call.rs"]
mod call;
#[path = "e2e_guides/claim.rs"]
mod claim;
#[path = "e2e_guides/servers.rs"]
mod servers;
#[path = "e2e_guides/world.rs"]
mod world;

use std::path::Path;
use std::sync::Arc;

use claim::{Table, folder, guides, tables};
use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

/// Worlds mostly wait, so more at once than there are processors.
const THREADS: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let Some(guides) = guides() else {
        let line =
            "no guides beside this checkout and AMBIENTD_GUIDES is not set: nothing was checked";
        assert!(std::env::var_os("CI").is_none(), "{line}");
        eprintln!("{line}");
        return;
    };
    let mut trials = Vec::new();
    for table in tables() {
        let (guides, table) = (guides.clone(), Arc::new(table));
        let folder = folder(&guides, &table.world).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let (its, of) = (Arc::clone(&table), folder.clone());
        trials.push(Trial::test(
            format!("{name}/no claim is missing"),
            move || its.ensure_complete(&of).map_err(failed),
        ));
        if !table.claims.is_empty() {
            trials.push(Trial::test(name, move || {
                let run = Box::pin(run(&guides, &folder, &table));
                common::runtime().block_on(run).map_err(failed)
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}

async fn run(guides: &Path, folder: &Path, table: &Table) -> anyhow::Result<()> {
    let mut world = Box::pin(World::start(guides, folder, table)).await?;
    world.play(table).await
}
