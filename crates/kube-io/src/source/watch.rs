//! One kind: listed and watched as long as it is served, whatever happens in between.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use kube::Api;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use model::finding::{Finding, ObjectRef, Severity};
use model::object::Input;
use model::{Kind, ObjectKey, Str};
use tokio::sync::{Notify, mpsc, watch as channel};
use tokio_util::sync::CancellationToken;

use crate::client::{Guard, guarded};
use crate::kinds;
use crate::{Health, KindState, Observed};

use super::backoff::Backoff;
use super::catalogue::{Catalogue, Poke};
use super::findings::SourceFindings;
use super::raw::RawObject;
use super::{SourceConfig, SourceError};

/// Most events that are delivered together.
const BATCH_MAX: usize = 256;
/// 404s in a row that may be a kind that goes away.
const NOT_SERVED_QUIET: u32 = 3;

/// What all watches share.
pub(super) struct Context {
    pub(super) config: SourceConfig,
    pub(super) inputs: mpsc::Sender<Vec<Input>>,
    pub(super) observed: Observed,
    pub(super) health: Health,
    pub(super) findings: SourceFindings,
    pub(super) poke: Poke,
    pub(super) stop: CancellationToken,
}

// === impl Context ===

impl Context {
    /// The client for one kind.
    pub(super) fn client(&self, metadata_only: bool, watching: &Arc<Notify>) -> kube::Client {
        let guard = Guard {
            request_timeout: self.config.request_timeout,
            idle_timeout: self.config.idle_timeout,
            metadata_only,
            watching: watching.clone(),
        };
        guarded(self.config.client.clone(), guard)
    }

    /// Hands a batch over; waits as long as the receiver does not take it.
    pub(super) async fn send(&self, batch: Vec<Input>) -> Result<(), SourceError> {
        if batch.is_empty() {
            return Ok(());
        }
        tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            sent = self.inputs.send(batch) => sent.map_err(|_| SourceError::ReceiverGone),
        }
    }
}

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
    /// A list is refused.
    fn refused(&mut self) -> Vec<Input>;
    /// What it means that lists are refused, after [`Sink::refused`].
    fn refusal(&self) -> (Severity, &'static str);
}

/// Which versions will do.
enum Versions {
    /// Always served, in this version.
    BuiltIn(&'static str),
    /// The first of these that is served.
    Preferred(&'static [&'static str]),
    /// Any.
    Any,
}

/// What a watch is of.
pub(super) struct Target {
    /// Of health, when it is of a kind that is read.
    input: Option<Kind>,
    /// In findings; unlike the kind it is never the same for two watches.
    pub(super) label: Str,
    /// In the log and in metrics.
    kind: &'static str,
    group: &'static str,
    versions: Versions,
    namespace: Option<String>,
    fields: Option<String>,
    metadata_only: bool,
}

/// Whether and how a kind is served.
#[derive(Debug, PartialEq)]
enum Served {
    Unknown,
    No,
    As(ApiResource),
}

// === impl Target ===

impl Target {
    pub(super) fn input(kind: Kind) -> Self {
        let versions = match kind.group() {
            "" | "discovery.k8s.io" => Versions::BuiltIn("v1"),
            _ => Versions::Preferred(model::parse::versions(kind)),
        };
        Self {
            input: Some(kind),
            label: label(kind.group(), kind.as_str()),
            kind: kind.as_str(),
            group: kind.group(),
            versions,
            namespace: None,
            fields: kinds::field_selector(kind).map(str::to_owned),
            metadata_only: false,
        }
    }

    pub(super) fn unsupported(group: &'static str, kind: &'static str) -> Self {
        Self {
            input: None,
            label: label(group, kind),
            kind,
            group,
            versions: Versions::Any,
            namespace: None,
            fields: None,
            metadata_only: !kinds::has_status_unsupported(group, kind),
        }
    }

    pub(super) fn definitions() -> Self {
        Self {
            input: None,
            label: label("apiextensions.k8s.io", "CustomResourceDefinition"),
            kind: "CustomResourceDefinition",
            group: "apiextensions.k8s.io",
            versions: Versions::BuiltIn("v1"),
            namespace: None,
            fields: None,
            metadata_only: true,
        }
    }

    pub(super) fn mesh(namespace: &str, name: &str) -> Self {
        Self {
            input: Some(Kind::MeshConfig),
            label: Str::from("MeshConfig"),
            kind: "ConfigMap",
            group: "",
            versions: Versions::BuiltIn("v1"),
            namespace: Some(namespace.to_owned()),
            fields: Some(format!("metadata.name={name}")),
            metadata_only: false,
        }
    }

    fn served(&self, catalogue: &Catalogue) -> Served {
        let version = match self.versions {
            Versions::BuiltIn(version) => return Served::As(self.built_in(version)),
            Versions::Preferred(versions) => Some(versions),
            Versions::Any => None,
        };
        let Some(resources) = catalogue.get(self.group) else {
            return Served::Unknown;
        };
        let mut here = resources.iter().filter(|api| api.kind == self.kind);
        let found = match version {
            None => here.next(),
            Some(versions) => {
                let here: Vec<_> = here.collect();
                let of = |version: &&str| here.iter().find(|api| api.version == **version);
                versions.iter().find_map(of).copied()
            }
        };
        found.cloned().map_or(Served::No, Served::As)
    }

    fn built_in(&self, version: &str) -> ApiResource {
        let api_version = if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        };
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: kinds::plural(self.kind),
        }
    }
}

fn label(group: &str, kind: &str) -> Str {
    arcstr::format!("{group}/{kind}")
}

/// What an error of a watcher asks for.
#[derive(Debug)]
enum Failure {
    /// A watch broke, which it may; it is resumed.
    Broken(String),
    /// What was asked for is history: a new list is on its way.
    Expired,
    /// A watch cannot be resumed from where it was.
    Stale,
    /// There is no such resource.
    NotServed,
    /// Lists are refused.
    ListRefused(String),
    /// Lists work, watches are refused.
    WatchRefused(String),
    /// No answer, or one that says that something is wrong.
    Away(String),
    /// An event cannot be read, so it is not known what it was.
    Garbled(String),
}

// === impl Failure ===

impl Failure {
    fn of(error: &watcher::Error) -> Self {
        use watcher::Error as E;
        match error {
            E::InitialListFailed(error) => match code(error) {
                403 => Self::ListRefused(text(error)),
                404 => Self::NotServed,
                410 => Self::Expired,
                _ => Self::Away(text(error)),
            },
            E::WatchStartFailed(error) => Self::of_watch(error),
            // A watch that is refused has begun, for the watcher, and fails with its first line.
            E::WatchFailed(error @ (kube::Error::Api(_) | kube::Error::SerdeError(_))) => {
                Self::of_watch(error)
            }
            E::WatchError(status) if status.code == 410 => Self::Expired,
            E::WatchError(status) => Self::Broken(clip(&status.message)),
            E::WatchFailed(error) => Self::Broken(text(error)),
            E::NoResourceVersion => Self::Away(error.to_string()),
        }
    }

    fn of_watch(error: &kube::Error) -> Self {
        match code(error) {
            403 => Self::WatchRefused(text(error)),
            404 => Self::NotServed,
            410 => Self::Stale,
            _ if matches!(error, kube::Error::SerdeError(_)) => Self::Garbled(text(error)),
            _ => Self::Away(text(error)),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Expired | Self::Stale => "expired",
            Self::NotServed => "not-served",
            Self::ListRefused(_) | Self::WatchRefused(_) => "forbidden",
            Self::Away(_) => "unavailable",
            Self::Garbled(_) => "garbled",
        }
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// One line that says what is wrong.
pub(super) fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => {
            format!("status {} {}", status.code, clip(&status.reason))
        }
        kube::Error::Api(status) => format!("status {}: {}", status.code, clip(&status.message)),
        error => {
            let mut out = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                let inner_text = inner.to_string();
                if !out.contains(&inner_text) {
                    out = format!("{out}: {inner_text}");
                }
                cause = inner.source();
            }
            clip(&out)
        }
    }
}

fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    text.chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
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
    not_served: u32,
}

// === impl Driver ===

impl<S: Sink> Driver<S> {
    pub(super) fn new(context: Arc<Context>, target: Target, sink: S) -> Self {
        Self {
            backoff: Backoff::new(context.config.retry_max),
            watching: Arc::default(),
            problem: None,
            watch_refused: false,
            not_served: 0,
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
                let finding = self.forbidden("list", severity, effect);
                self.accuse(Some(finding));
                self.complain(KindState::Forbidden, &reason);
                self.context.send(batch).await?;
                Ok((Next::Resume, pause))
            }
            Failure::WatchRefused(reason) => {
                self.watch_refused = true;
                let effect = "they are listed again and again instead, so changes are seen late";
                let finding = self.forbidden("watch", Severity::Error, effect);
                self.accuse(Some(finding));
                self.complain(KindState::Forbidden, &reason);
                Ok((Next::Anew, self.context.config.retry_max))
            }
            Failure::Away(reason) => {
                self.complain(KindState::Failing, &reason);
                Ok((Next::Resume, pause))
            }
            Failure::Garbled(reason) => {
                self.complain(KindState::Failing, &reason);
                Ok((Next::Anew, pause))
            }
        }
    }

    /// Says once that something is wrong.
    fn complain(&mut self, state: KindState, reason: &str) {
        self.told(state.clone(), reason);
        if self.problem.as_ref() != Some(&state) {
            let kind = &self.target.label;
            if state == KindState::Forbidden {
                tracing::error!(%kind, reason, "the API server refuses to let us read it");
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

    fn forbidden(&self, verb: &str, severity: Severity, effect: &str) -> Finding {
        let (group, plural) = (self.target.group, kinds::plural(self.target.kind));
        let object = ObjectRef {
            kind: Str::from(self.target.input.map_or(self.target.kind, Kind::as_str)),
            key: ObjectKey::cluster("*"),
        };
        let message = arcstr::format!("The API server refuses to {verb} {plural}: {effect}");
        let fix = arcstr::format!(
            "Add to the ClusterRole of ambientd: apiGroups [\"{group}\"], resources [{plural}], \
             verbs [get, list, watch]"
        );
        Finding::new("kube-forbidden", severity, object, message, fix)
    }
}
