//! The tasks of the process, and how they end.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For requests that are being answered when everything else has ended.
pub(super) const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// The least that servers get to end their streams.
pub(super) const END_MIN: Duration = Duration::from_secs(2);

/// The tasks of the process. The end of one is the end of all.
pub(super) struct Tasks {
    all: JoinSet<anyhow::Result<()>>,
    /// Those that have something to finish.
    finishing: TaskTracker,
    /// Told as soon as any of them has ended, however it did.
    pub(super) any_ended: CancellationToken,
    /// Told first: who writes, and who lets clients in.
    pub(super) stopping: CancellationToken,
    /// Told last: who answers, and all streams.
    pub(super) ended: CancellationToken,
}

/// Ends when the owner thread ends, so that its death is the death of the process.
pub(super) async fn watch_owner(owner: std::thread::JoinHandle<()>) -> anyhow::Result<()> {
    while !owner.is_finished() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    match owner.join() {
        Ok(()) => bail!("the pipeline thread ended"),
        Err(_) => bail!("the pipeline thread panicked"),
    }
}

/// Every connection is a file descriptor, and the usual limit of 1,024 is for interactive use.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// SIGINT and SIGTERM.
pub(super) struct Ending {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

// === impl Ending ===

impl Ending {
    pub(super) fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        })
    }

    pub(super) async fn signal(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            _ = self.terminate.recv() => Ok(()),
            _ = self.interrupt.recv() => Ok(()),
        }
    }
}

// === impl Tasks ===

impl Tasks {
    pub(super) fn new() -> Self {
        Self {
            all: JoinSet::new(),
            finishing: TaskTracker::new(),
            any_ended: CancellationToken::new(),
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    /// A task that has nothing to finish, or ends by itself after `ended`.
    pub(super) fn spawn(
        &mut self,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let telling = self.any_ended.clone().drop_guard();
        self.all.spawn(async move {
            let _telling = telling;
            task.await
        });
    }

    /// A task that ends by itself after `stopping`, and is waited for.
    pub(super) fn spawn_finishing(
        &mut self,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.spawn(self.finishing.track_future(task));
    }

    /// Why the first part ended that should not.
    pub(super) async fn next_ended(&mut self) -> anyhow::Result<()> {
        match self.all.join_next().await {
            Some(Ok(Ok(()))) => Err(anyhow::anyhow!("a part of ambientd ended")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(error).context("a part of ambientd failed"),
            None => std::future::pending().await,
        }
    }

    /// Ends all parts: who has something to finish gets this time.
    pub(super) async fn stop(&mut self, within: Duration) {
        self.stopping.cancel();
        self.finishing.close();
        if within.is_zero() {
            self.ended.cancel();
        }
        let finished = tokio::time::timeout(within.max(END_MIN), self.finishing.wait()).await;
        if finished.is_err() {
            tracing::warn!("not all has ended in time");
        }
        self.ended.cancel();
        tokio::time::sleep(LAST_ANSWERS / 5).await;
        self.all.abort_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn however_a_part_ends_it_is_told_and_why() {
        for why in [
            "a part of ambientd ended",
            "broken",
            "a part of ambientd failed",
        ] {
            let mut tasks = Tasks::new();
            tasks.spawn(std::future::pending());
            tasks.spawn_finishing(async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                match why {
                    "broken" => bail!(why),
                    "a part of ambientd failed" => panic!("on purpose"),
                    _ => Ok(()),
                }
            });
            assert!(!tasks.any_ended.is_cancelled());
            let told = tokio::time::timeout(Duration::from_secs(6), tasks.any_ended.cancelled());
            told.await.unwrap();
            assert_eq!(tasks.next_ended().await.unwrap_err().to_string(), why);
            tasks.stop(Duration::ZERO).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_who_has_something_to_finish_is_waited_for() {
        let mut tasks = Tasks::new();
        let (done, is_done) = tokio::sync::oneshot::channel();
        let stopping = tasks.stopping.clone();
        tasks.spawn_finishing(async move {
            stopping.cancelled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = done.send(());
            Ok(())
        });
        tasks.stop(Duration::ZERO).await;
        is_done.await.unwrap();
    }
}
