//! `soak`: changes for long, and what stays of it.

use std::time::{Duration, Instant};

use testkit::load::process;
use testkit::load::table::{Measure, Table};

use super::super::Options;
use super::churn::Churn;
use super::{EVERY, SETTLE, checked, sizes, start, title};

/// For the edits that come before the clients.
const SETTLED: Duration = Duration::from_secs(10);

/// Changes for long.
pub(crate) async fn soak(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (pods, clients) = sizes(options, 20_000, 200);
    let seconds = options
        .seconds
        .unwrap_or(if options.quick { 60 } else { 1_200 });
    title(table, pods, clients);
    table.note(format!("{seconds} s of 10 events each"));
    for _ in 0..options.runs {
        let state = tempfile::tempdir()?;
        let mut mesh = start(state.path(), pods).await?;
        let id = mesh.server.id();
        let mut churn = Churn::new(pods);
        churn.settle(&mut mesh.server)?;
        tokio::time::sleep(SETTLED).await;
        let before = process::memory(id)?.rss as f64;
        mesh.clients.connect(clients)?;
        let (began, mut samples) = (Instant::now(), Vec::new());
        let mut tick = tokio::time::interval(EVERY);
        while began.elapsed().as_secs() < seconds {
            tick.tick().await;
            churn.next(&mut mesh.server)?;
            if churn.events.is_multiple_of(50) {
                let rss = process::memory(id)?.rss as f64;
                samples.push((began.elapsed().as_secs_f64(), rss));
            }
        }
        checked(mesh.clients.count()?, clients)?;
        let full = process::memory(id)?.rss as f64;
        mesh.clients.leave()?;
        tokio::time::sleep(SETTLE * 5).await;
        let left = process::memory(id)?.rss as f64;
        // Until the clients' first answers are freed.
        let late = &samples[samples.len() / 4..];
        table.add("events", Measure::Count(churn.events as f64));
        table.add("RSS before the clients", Measure::Bytes(before));
        table.add("RSS at a quarter of the time", Measure::Bytes(late[0].1));
        table.add("RSS at the end", Measure::Bytes(full));
        table.add(
            "RSS slope per hour, last three quarters",
            Measure::Bytes(slope(late) * 3600.0),
        );
        table.add("RSS after all clients left", Measure::Bytes(left));
        table.add(
            "RSS after all clients left, against before",
            Measure::Ratio(left / before),
        );
    }
    Ok(())
}

/// Of the line that fits best.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|it| it.0), mean(|it| it.1));
    let over: f64 = samples.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    let under: f64 = samples.iter().map(|it| (it.0 - x).powi(2)).sum();
    over / under
}
