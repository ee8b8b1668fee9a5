//! Watches the cluster of a kubeconfig and says what comes, how long the first lists took, and how
//! much memory the objects take: `cargo run --example watch_cluster -- KUBECONFIG [SECONDS]`.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube_io::client::{ClientOptions, connect};
use kube_io::source::{SourceConfig, run};
use kube_io::{Health, Observed};
use model::Kind;
use model::object::{Input, Object};
use tokio_util::sync::CancellationToken;

extern crate ambientd_kube_io as kube_io;

/// Resident memory, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_default()
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let options = ClientOptions {
        kubeconfig: args.next().map(Into::into),
        ..ClientOptions::default()
    };
    let seconds = args.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let client = connect(&options).await.expect("a client");
    let (sender, mut inputs) = tokio::sync::mpsc::channel(16);
    let stop = CancellationToken::new();
    let health = Health::default();
    let (started, before) = (Instant::now(), resident());
    let task = tokio::spawn(run(
        SourceConfig::new(client),
        sender,
        Observed::default(),
        health.clone(),
        stop.clone(),
    ));
    let mut kept: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
    let end = tokio::time::sleep(Duration::from_secs(seconds));
    let mut end = std::pin::pin!(end);
    loop {
        let batch = tokio::select! {
            () = &mut end => break,
            batch = inputs.recv() => batch.expect("the source goes on"),
        };
        for input in batch {
            match input {
                Input::Resync(kind, list) => {
                    let (ms, kib) = (started.elapsed().as_millis(), resident());
                    println!("{ms:>6} ms {kib:>8} KiB  {kind}: {} listed", list.len());
                    kept.insert(kind, list);
                }
                Input::Upsert(object) => println!("upsert {} {}", object.kind(), object.meta().key),
                Input::Delete(kind, key) => println!("delete {kind} {key}"),
                Input::SourceFindings(_, list) => {
                    for finding in list {
                        println!(
                            "finding {}: {} ({})",
                            finding.code, finding.message, finding.fix
                        );
                    }
                }
                _ => {}
            }
        }
    }
    for (kind, health) in health.kinds() {
        println!("{kind}: {:?} {}", health.state, health.error);
    }
    let count: usize = kept.values().map(Vec::len).sum();
    let grown = resident().saturating_sub(before) * 1024;
    let each = grown / u64::try_from(count.max(1)).unwrap_or(1);
    println!("{count} objects, {grown} bytes more than at the start, {each} bytes each");
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), task).await;
    println!("{ended:?}");
}
