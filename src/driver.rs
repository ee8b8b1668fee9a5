//! The owner thread: drains inputs, decides when to apply them, publishes snapshots.
//!
//! The first change after quiet is applied at once; changes that follow within the
//! quiet period are collected until it is quiet again or the maximum has passed. A
//! connecting proxy and everything before readiness are never delayed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use model::object::Input;
use pipeline::Pipeline;
use snapshot::Snapshot;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use xds::Report;

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
    /// Connecting and leaving proxy classes, and what they refuse.
    pub interest: mpsc::Receiver<Report>,
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
        snapshots.send_replace(Some(snapshot));
    }
}

/// One event from either channel; `None` when the sources are gone.
async fn next_event(channels: &mut Channels) -> Option<(Vec<Input>, bool)> {
    tokio::select! {
        biased;
        Some(report) = channels.interest.recv() => Some(match report {
            Report::Interest(class, connected) => (vec![Input::Interest(class, connected)], true),
            Report::Rejected(class, list) => (vec![Input::Rejected(class, list)], false),
        }),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use model::{Kind, ObjectKey, ProxyClass};

    use super::*;

    const DEBOUNCE: Debounce = Debounce {
        after: Duration::from_millis(25),
        max: Duration::from_millis(250),
    };

    struct Ends {
        inputs: mpsc::Sender<Vec<Input>>,
        interest: mpsc::Sender<Report>,
        channels: Channels,
    }

    fn ends() -> Ends {
        let (inputs, inputs_receiver) = mpsc::channel(64);
        let (interest, interest_receiver) = mpsc::channel(64);
        let channels = Channels {
            inputs: inputs_receiver,
            interest: interest_receiver,
            snapshots: watch::channel(None).0,
        };
        Ends {
            inputs,
            interest,
            channels,
        }
    }

    fn change() -> Vec<Input> {
        vec![Input::Delete(Kind::Pod, ObjectKey::new("ns", "pod"))]
    }

    /// Sends a change every `every_ms` for as long as somebody receives.
    fn keep_changing(inputs: mpsc::Sender<Vec<Input>>, every_ms: u64) {
        tokio::spawn(async move {
            while inputs.send(change()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(every_ms)).await;
            }
        });
    }

    /// The next batch's size and how long it took, after an apply that just ended.
    async fn next_after_apply(ends: &mut Ends) -> (usize, u128) {
        let now = Instant::now();
        let batch = next_batch(&mut ends.channels, DEBOUNCE, Some(now)).await;
        (batch.unwrap().len(), now.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn first_change_after_quiet_is_applied_at_once() {
        let mut ends = ends();
        let quiet_since = Instant::now();
        tokio::time::advance(DEBOUNCE.after).await;
        ends.inputs.send(change()).await.unwrap();
        ends.inputs.send(change()).await.unwrap();
        let now = Instant::now();
        let batch = next_batch(&mut ends.channels, DEBOUNCE, Some(quiet_since)).await;
        assert_eq!(batch.unwrap().len(), 1);
        assert_eq!(now.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_right_after_an_apply_are_collected_until_it_is_quiet() {
        let mut ends = ends();
        for _ in 0..3 {
            ends.inputs.send(change()).await.unwrap();
        }
        assert_eq!(next_after_apply(&mut ends).await, (3, 25));
    }

    #[tokio::test(start_paused = true)]
    async fn collecting_ends_at_the_maximum_however_busy_it_is() {
        let mut ends = ends();
        keep_changing(ends.inputs.clone(), 10);
        let (events, elapsed_ms) = next_after_apply(&mut ends).await;
        assert!(events > 20, "{events}");
        assert!((250..=260).contains(&elapsed_ms), "{elapsed_ms}");
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_proxy_ends_the_collection_at_once() {
        let mut ends = ends();
        ends.inputs.send(change()).await.unwrap();
        let class = ProxyClass::waypoint(ObjectKey::new("ns", "waypoint"));
        let interest = ends.interest.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            interest.send(Report::Interest(class, true)).await.unwrap();
        });
        assert_eq!(next_after_apply(&mut ends).await, (2, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn thread_ends_when_the_source_is_gone() {
        let mut ends = ends();
        drop(ends.inputs);
        drop(ends.interest);
        assert!(
            next_batch(&mut ends.channels, DEBOUNCE, None)
                .await
                .is_none()
        );
    }
}
