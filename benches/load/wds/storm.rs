//! `storm`: everybody comes back at once while pods change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::load::process;
use testkit::load::table::{Measure, Table};

use super::super::Options;
use super::churn::Churn;
use super::{EVERY, SETTLE, add_ready, checked, per_client, sizes, start, title};

/// Everybody comes back at once while pods change.
pub(crate) async fn storm(options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (pods, clients) = sizes(options, 50_000, 1_000);
    title(table, pods, clients);
    for _ in 0..options.runs {
        let state = tempfile::tempdir()?;
        let mut mesh = start(state.path(), pods).await?;
        let id = mesh.server.id();
        mesh.clients.connect(clients)?;
        let first = mesh.clients.count()?;
        mesh.clients.leave()?;
        tokio::time::sleep(SETTLE).await;
        let rss = process::memory(id)?.rss;
        process::reset_peak(id)?;
        let busy = process::cpu_seconds(id)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut server = mesh.server;
        let changing = std::thread::spawn(move || {
            let mut churn = Churn::new(pods);
            while !stopped.load(Ordering::Relaxed) {
                churn.next(&mut server)?;
                std::thread::sleep(EVERY);
            }
            anyhow::Ok((server, churn.events))
        });
        std::thread::sleep(EVERY);
        let ready = mesh.clients.resume(clients)?;
        stop.store(true, Ordering::Relaxed);
        let (_server, events) = changing.join().expect("a thread")?;
        let busy = process::cpu_seconds(id)? - busy;
        let peak = process::memory(id)?.peak;
        let count = checked(mesh.clients.count()?, clients)?;
        add_ready(table, &ready);
        table.add("events meanwhile", Measure::Count(events as f64));
        let resources = (count.resources - first.resources) as f64 / clients as f64;
        table.add("resources sent per client", Measure::Count(resources));
        table.add("server CPU", Measure::Seconds(busy));
        table.add("server RSS before", Measure::Bytes(rss as f64));
        table.add("server RSS, peak", Measure::Bytes(peak as f64));
        per_client(table, "RSS more per client, peak", peak, rss, clients);
    }
    Ok(())
}
