//! The owner thread: drains inputs, decides when to apply them, publishes snapshots.
//!
//! The first change after quiet is applied at once; changes that follow within the
//! quiet period are collected until it is quiet again or the maximum has passed. A
//! connecting proxy and everything before readiness are never delayed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use model::object::Input;
use model::{Finding, ProxyClass};
use pipeline::Pipeline;
use snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

/// When collected changes are applied.
#[derive(Clone, Copy, Debug)]
pub struct Debounce {
    /// Quiet time that ends a collection.
    pub after: Duration,
    /// Longest collection.
    pub max: Duration,
}

/// The ends of the channels that the owner thread works on.
pub struct Channels {
    /// Batches of a source.
    pub inputs: mpsc::Receiver<Vec<Input>>,
    /// Connecting and leaving proxy classes.
    pub interest: mpsc::Receiver<(ProxyClass, bool)>,
    /// Where snapshots go; `None` until the first one.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

/// Starts the owner thread. It ends when the sources are gone.
///
/// # Errors
/// When the thread or its timer cannot be made.
pub fn spawn(
    mut pipeline: Pipeline,
    debounce: Debounce,
    mut channels: Channels,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .context("cannot make the timer of the pipeline thread")?;
    std::thread::Builder::new()
        .name("pipeline".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let mut quiet_since: Option<Instant> = None;
                while let Some(batch) = next_batch(&mut channels, debounce, quiet_since).await {
                    apply(&mut pipeline, &channels.snapshots, batch);
                    quiet_since = Some(Instant::now());
                }
            });
        })
        .context("cannot start the pipeline thread")
}

fn apply(
    pipeline: &mut Pipeline,
    snapshots: &watch::Sender<Option<Arc<Snapshot>>>,
    batch: Vec<Input>,
) {
    let events = batch.len();
    let started = Instant::now();
    if let Some(snapshot) = pipeline.apply(batch) {
        tracing::info!(
            generation = snapshot.generation,
            events,
            addresses = snapshot.addresses.len(),
            authorizations = snapshot.authorizations.len(),
            proxies = snapshot.proxies.len(),
            findings = snapshot.findings.len(),
            elapsed_us = started.elapsed().as_micros() as u64,
            "published"
        );
        for finding in snapshot.findings.iter() {
            report(finding);
        }
        snapshots.send_replace(Some(snapshot));
    }
}

fn report(finding: &Finding) {
    tracing::debug!(
        code = finding.code,
        kind = %finding.object.kind,
        object = %finding.object.key,
        field = %finding.field,
        "finding"
    );
}

/// One event from either channel; `None` when the sources are gone.
async fn next_event(channels: &mut Channels) -> Option<(Vec<Input>, bool)> {
    tokio::select! {
        biased;
        Some((class, connected)) = channels.interest.recv() => {
            Some((vec![Input::Interest(class, connected)], true))
        }
        batch = channels.inputs.recv() => {
            let batch = batch?;
            let urgent = batch.iter().any(|input| matches!(input, Input::Resync(..)));
            Some((batch, urgent))
        }
    }
}

async fn next_batch(
    channels: &mut Channels,
    debounce: Debounce,
    last_apply: Option<Instant>,
) -> Option<Vec<Input>> {
    let (mut batch, mut urgent) = next_event(channels).await?;
    let quiet = last_apply.is_none_or(|at| at.elapsed() >= debounce.after);
    if quiet || urgent {
        return Some(batch);
    }
    let deadline = Instant::now() + debounce.max;
    while !urgent {
        let wait = debounce
            .after
            .min(deadline.saturating_duration_since(Instant::now()));
        match tokio::time::timeout(wait, next_event(channels)).await {
            Ok(Some((more, is_urgent))) => {
                batch.extend(more);
                urgent = is_urgent;
            }
            Ok(None) | Err(_) => break,
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    Some(batch)
}
