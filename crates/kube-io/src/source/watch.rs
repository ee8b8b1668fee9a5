//! One kind: listed and watched as long as it is served, whatever happens in between.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use kube::Api;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use model::finding::{Finding, Severity};
use model::object::Input;
use tokio::sync::{Notify, watch as channel};
use tokio::time::Instant;

use crate::KindState;

use super::SourceError;
use super::backoff::Backoff;
use super::catalogue::Catalogue;
use super::context::Context;
use super::failure::Failure;
use super::raw::RawObject;
use super::target::{Served, Target};

/// Most events that are delivered together.
const BATCH_MAX: usize = 256;
/// For how long refusals are not believed: an API server that starts refuses for a moment what its
/// roles allow, since it has not read them yet.
const REFUSALS_DOUBTED: Duration = Duration::from_secs(4);
/// Longest pause between attempts while refusals are not believed.
const REFUSALS_RETRY: Duration = Duration::from_secs(1);
/// Answers in a row by which the API server does not let a watch go on, before a new list: it may
/// not know the resource version any more, and never will.
const WATCH_ANSWERS_MAX: u32 = 3;
/// 404s in a row that may be a kind that goes away.
const NOT_SERVED_QUIET: u32 = 3;

/// What becomes of the objects of a kind.
pub(super) trait Sink: Send + 'static {
    /// A list begins.
    fn begin(&mut self);
    /// It holds this object.
    fn listed(&mut self, object: RawObject, api: &ApiResource);
    /// It is complete.
    fn complete(&mut self) -> Vec<Input>;
    /// An object was created or changed.
    fn applied(&mut self, object: RawObject, api: &ApiResource) -> Option<Input>;
    /// An object is gone.
    fn deleted(&mut self, object: &RawObject) -> Option<Input>;
    /// There are no objects, since the API server does not serve the kind.
    fn emptied(&mut self) -> Vec<Input>;
    /// A list is refused, or the objects are served in a version that is not known.
    fn refused(&mut self) -> Vec<Input>;
    /// What that means, after [`Sink::refused`].
    fn refusal(&self) -> (Severity, &'static str);
}

/// Why a kind is watched no longer.
enum End {
    Stopped,
    /// It is served differently, or no longer.
    Moved,
}

/// Whether the same watcher goes on.
#[derive(PartialEq)]
enum Next {
    Resume,
    Anew,
}

/// Lists and watches one kind.
pub(super) struct Driver<S> {
    context: Arc<Context>,
    target: Target,
    sink: S,
    backoff: Backoff,
    watching: Arc<Notify>,
    /// What was said to be wrong.
    problem: Option<KindState>,
    watch_refused: bool,
    /// Since when lists or watches are refused.
    refused_since: Option<Instant>,
    not_served: u32,
    /// Answers since the last event that did not let a watch go on.
    watch_answers: u32,
}

// === impl Driver ===

impl<S: Sink> Driver<S> {
    pub(super) fn new(context: Arc<Context>, target: Target, sink: S) -> Self {
        Self {
            backoff: Backoff::new(context.config.retry_max),
            watching: Arc::default(),
            problem: None,
            watch_refused: false,
            refused_since: None,
            not_served: 0,
            watch_answers: 0,
            context,
            target,
            sink,
        }
    }

    /// Until it is stopped.
    pub(super) async fn run(
        mut self,
        mut catalogue: channel::Receiver<Catalogue>,
    ) -> Result<(), SourceError> {
        let stop = self.context.stop.clone();
        loop {
            let served = self.target.served(&catalogue.borrow_and_update());
            match served {
                Served::Unknown => {}
                Served::No => self.absent().await?,
                Served::Otherwise(versions) => self.version_unknown(&versions).await?,
                Served::Outdated(release) => self.outdated(&release).await?,
                Served::As(api) => match self.watch(&api, &mut catalogue).await? {
                    End::Stopped => return Ok(()),
                    End::Moved => continue,
                },
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = catalogue.changed() => if changed.is_err() {
                    stop.cancelled().await;
                },
            }
        }
    }

    async fn absent(&mut self) -> Result<(), SourceError> {
        self.told(KindState::Absent, "the API server does not serve it");
        self.accuse(None);
        self.problem = None;
        let batch = self.sink.emptied();
        self.context.send(batch).await
    }

    /// The objects are there, but by a definition that is too old: they count for nothing.
    async fn outdated(&mut self, release: &str) -> Result<(), SourceError> {
        let finding = self.target.outdated(release);
        self.told(KindState::Absent, &finding.message);
        if self.problem != Some(KindState::Absent) {
            self.problem = Some(KindState::Absent);
            tracing::warn!(code = finding.code, "{}", finding.message);
        }
        self.accuse(Some(finding));
        let batch = self.sink.emptied();
        self.context.send(batch).await
    }

    /// The objects are there, but cannot be read: what was read of them stays.
    async fn version_unknown(&mut self, versions: &str) -> Result<(), SourceError> {
        let batch = self.sink.refused();
        let (severity, effect) = self.sink.refusal();
        let finding = self.target.version_unknown(versions, severity, effect);
        self.complain(KindState::Failing, &finding.message);
        self.accuse(Some(finding));
        self.context.send(batch).await
    }

    async fn watch(
        &mut self,
        api: &ApiResource,
        catalogue: &mut channel::Receiver<Catalogue>,
    ) -> Result<End, SourceError> {
        let stop = self.context.stop.clone();
        loop {
            let mut stream = std::pin::pin!(self.open(api));
            loop {
                let event = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(End::Stopped),
                    changed = catalogue.changed() => {
                        if changed.is_err() {
                            stop.cancelled().await;
                            return Ok(End::Stopped);
                        }
                        let served = self.target.served(&catalogue.borrow_and_update());
                        if !matches!(served, Served::As(now) if now == *api) {
                            return Ok(End::Moved);
                        }
                        continue;
                    }
                    () = self.watching.notified() => {
                        self.watch_refused = false;
                        self.recovered();
                        continue;
                    }
                    event = stream.next() => event,
                };
                let failed = match event {
                    Some(Ok(event)) => self.deliver(event, stream.as_mut(), api).await?,
                    Some(Err(error)) => Some(error),
                    None => break,
                };
                let Some(error) = failed else { continue };
                let (next, pause) = self.failed(&error).await?;
                tokio::select! {
                    () = stop.cancelled() => return Ok(End::Stopped),
                    () = tokio::time::sleep(pause) => {}
                    // It is looked at above.
                    changed = catalogue.changed() => if changed.is_ok() {
                        catalogue.mark_changed();
                    },
                }
                if next == Next::Anew {
                    break;
                }
            }
        }
    }

    fn open(
        &self,
        api: &ApiResource,
    ) -> impl Stream<Item = watcher::Result<Event<RawObject>>> + Send + use<S> {
        let client = self
            .context
            .client(self.target.metadata_only, &self.watching);
        let objects: Api<RawObject> = match &self.target.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, api),
            None => Api::all_with(client, api),
        };
        let seconds = self.context.config.watch_timeout.as_secs().clamp(1, 294);
        let mut config = watcher::Config::default()
            .page_size(self.context.config.page_size)
            .timeout(u32::try_from(seconds).unwrap_or(290));
        if let Some(fields) = &self.target.fields {
            config = config.fields(fields);
        }
        if let Some(labels) = self.target.labels {
            config = config.labels(labels);
        }
        watcher(objects, config)
    }

    /// Delivers an event and those that are ready with it. Returns the error that ended them.
    async fn deliver(
        &mut self,
        first: Event<RawObject>,
        mut stream: impl Stream<Item = watcher::Result<Event<RawObject>>> + Unpin,
        api: &ApiResource,
    ) -> Result<Option<watcher::Error>, SourceError> {
        let mut batch = Vec::new();
        self.take(first, api, &mut batch);
        let mut failed = None;
        for _ in 1..BATCH_MAX {
            match stream.next().now_or_never() {
                Some(Some(Ok(event))) => self.take(event, api, &mut batch),
                Some(Some(Err(error))) => {
                    failed = Some(error);
                    break;
                }
                Some(None) | None => break,
            }
        }
        self.context.send(batch).await?;
        Ok(failed)
    }

    fn take(&mut self, event: Event<RawObject>, api: &ApiResource, batch: &mut Vec<Input>) {
        let metrics = &self.context.config.metrics;
        self.watch_answers = 0;
        match event {
            Event::Init => self.sink.begin(),
            Event::InitApply(object) => {
                metrics.events(self.target.kind, "add", 1);
                self.sink.listed(object, api);
            }
            Event::InitDone => {
                metrics.list(self.target.kind);
                batch.extend(self.sink.complete());
                self.recovered();
            }
            Event::Apply(object) => {
                metrics.events(self.target.kind, "update", 1);
                batch.extend(self.sink.applied(object, api));
            }
            Event::Delete(object) => {
                metrics.events(self.target.kind, "delete", 1);
                batch.extend(self.sink.deleted(&object));
            }
        }
    }

    /// A list or a watch works.
    fn recovered(&mut self) {
        self.not_served = 0;
        if self.watch_refused {
            return;
        }
        self.refused_since = None;
        self.told(KindState::Watching, "");
        if self.problem.take().is_some() {
            tracing::info!(kind = %self.target.label, "listed and watched again");
            self.accuse(None);
        }
    }

    async fn failed(&mut self, error: &watcher::Error) -> Result<(Next, Duration), SourceError> {
        let failure = Failure::of(error);
        self.context
            .config
            .metrics
            .error(self.target.kind, failure.reason());
        let pause = self.backoff.pause();
        match failure {
            Failure::ListRefused(reason) | Failure::WatchRefused(reason)
                if self.doubts_refusal() =>
            {
                self.complain(KindState::Failing, &reason);
                Ok((Next::Resume, pause.min(REFUSALS_RETRY)))
            }
            Failure::Broken(reason) => {
                tracing::debug!(kind = %self.target.label, %reason, "watch broke");
                Ok((Next::Resume, pause))
            }
            Failure::Expired => Ok((Next::Resume, pause)),
            Failure::Stale => Ok((Next::Anew, pause)),
            Failure::NotServed => {
                self.not_served += 1;
                self.context.poke.now();
                if self.not_served > NOT_SERVED_QUIET {
                    self.complain(KindState::Failing, "the API server does not find it");
                }
                Ok((Next::Anew, pause))
            }
            Failure::ListRefused(reason) => {
                let batch = self.sink.refused();
                let (severity, effect) = self.sink.refusal();
                let finding = self.target.forbidden("list", severity, effect);
                self.accuse(Some(finding));
                self.complain(KindState::Forbidden, &reason);
                self.context.send(batch).await?;
                Ok((Next::Resume, pause))
            }
            Failure::WatchRefused(reason) => {
                self.watch_refused = true;
                let effect = "they are listed again and again instead, so changes are seen late";
                let finding = self.target.forbidden("watch", Severity::Error, effect);
                self.accuse(Some(finding));
                self.complain(KindState::Forbidden, &reason);
                Ok((Next::Anew, self.context.config.retry_max))
            }
            Failure::Away(reason) => {
                self.complain(KindState::Failing, &reason);
                Ok((Next::Resume, pause))
            }
            Failure::WatchDenied(reason) => {
                self.complain(KindState::Failing, &reason);
                Ok((self.after_answer(), pause))
            }
            Failure::WatchEnded(reason) => {
                tracing::debug!(kind = %self.target.label, %reason, "watch ended");
                Ok((self.after_answer(), pause))
            }
            Failure::Garbled(reason) => {
                self.complain(KindState::Failing, &reason);
                Ok((Next::Anew, pause))
            }
        }
    }

    fn after_answer(&mut self) -> Next {
        self.watch_answers += 1;
        if self.watch_answers < WATCH_ANSWERS_MAX {
            return Next::Resume;
        }
        self.watch_answers = 0;
        Next::Anew
    }

    /// Whether a refusal may be one of an API server that has just started.
    fn doubts_refusal(&mut self) -> bool {
        if self.problem == Some(KindState::Forbidden) {
            return false;
        }
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        since.elapsed() < REFUSALS_DOUBTED
    }

    /// Says once that something is wrong.
    fn complain(&mut self, state: KindState, reason: &str) {
        self.told(state.clone(), reason);
        if self.problem.as_ref() != Some(&state) {
            let kind = &self.target.label;
            if state == KindState::Forbidden {
                let code = "kube-forbidden";
                tracing::error!(code, %kind, reason, "the API server refuses to let us read it");
            } else {
                tracing::warn!(
                    %kind,
                    reason,
                    "cannot be read from the API server; what was read last stays in effect"
                );
            }
            self.problem = Some(state);
        }
    }

    fn told(&self, state: KindState, error: &str) {
        if let Some(kind) = self.target.input {
            self.context.health.set(kind, state, error);
        }
    }

    fn accuse(&self, finding: Option<Finding>) {
        self.context.findings.set(&self.target.label, None, finding);
    }
}
