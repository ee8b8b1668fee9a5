//! `event-cost`: processor time of an event, from the object as it is read to the next snapshot,
//! in meshes of growing size. Nothing but the size differs, so the columns should not.

use testkit::load::process;
use testkit::load::table::{Measure, Table};

use super::Options;

#[path = "../cost/events.rs"]
mod events;

use events::{EVENTS, Mesh, event};

/// The smallest mesh, that others are compared with.
const PODS_MIN: usize = 1_000;
const PODS_MAX: usize = 100_000;
const QUICK_PODS_MAX: usize = 5_000;
/// How long an event is repeated: the kernel counts in hundredths.
const SECONDS: f64 = 1.0;
const QUICK_SECONDS: f64 = 0.2;

/// Runs the scenario.
pub(crate) fn run(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let most = options.size(options.pods, PODS_MAX, QUICK_PODS_MAX);
    let at_least = if options.quick {
        QUICK_SECONDS
    } else {
        SECONDS
    };
    let sizes = [PODS_MIN, 10_000, most];
    let mut sizes: Vec<usize> = sizes.into_iter().filter(|size| *size <= most).collect();
    sizes.dedup();
    table.note(
        "an event is read and applied; goal: 1.2 x at most, from the smallest mesh to the largest",
    );
    for _ in 0..options.runs {
        let mut costs = Vec::new();
        for size in &sizes {
            let mut mesh = Mesh::of_pods(*size);
            for name in EVENTS {
                let cost = cost(&mut mesh, name, at_least)?;
                table.add(
                    format!("{name}, {size} pods"),
                    Measure::Millis(cost * 1000.0),
                );
                costs.push((name, cost));
            }
        }
        for name in EVENTS {
            let mut of = costs
                .iter()
                .filter(|(of, _)| *of == name)
                .map(|(_, cost)| cost);
            if let (Some(first), Some(last)) = (of.next(), of.next_back()) {
                table.add(format!("{name}: growth"), Measure::Ratio(last / first));
            }
        }
    }
    Ok(())
}

/// Processor seconds of one event.
fn cost(mesh: &mut Mesh, name: &str, at_least: f64) -> anyhow::Result<f64> {
    let [there, back] = event(name, &mut mesh.world);
    mesh.apply(&there);
    mesh.apply(&back);
    let pid = std::process::id();
    let began = process::cpu_seconds(pid)?;
    let mut events = 0;
    loop {
        for _ in 0..10 {
            mesh.apply(&there);
            mesh.apply(&back);
        }
        events += 20;
        let busy = process::cpu_seconds(pid)? - began;
        if busy >= at_least {
            return Ok(busy / f64::from(events));
        }
    }
}
