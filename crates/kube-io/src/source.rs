//! The API server as a source of objects.
//!
//! One task per kind. What lists and watches say becomes rows at once, the JSON is dropped.
//! `catalogue` says which versions are served, `watch` drives one kind (`target`) on kube's watcher,
//! whose errors `failure` tells apart, and
//! sinks say what becomes of objects: `rows` of kinds that are read, `unsupported` of those that
//! are only reported, `mesh` of mesh config.
//!
//! Namespaces that `discoverySelectors` leave out are watched like the others, so their rows take
//! memory: a change of the selectors or of a label then needs no new list.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use model::object::Input;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::kinds;
use crate::{Health, Observed};

mod backoff;
mod catalogue;
mod context;
mod failure;
mod findings;
mod mesh;
mod metrics;
mod nesting;
mod raw;
mod releases;
mod rows;
mod target;
#[cfg(test)]
mod tests;
mod unsupported;
mod watch;

pub use metrics::SourceMetrics;

use catalogue::{Catalogue, Poke};
use context::Context;
use findings::SourceFindings;
use target::Target;
use watch::Driver;

/// Where mesh config is mounted when it is. Source: spec/control-plane.md §5.2.
pub const MESH_CONFIG_FILE: &str = "/etc/istio/config/mesh";

/// What is watched, and how.
#[derive(Clone)]
pub struct SourceConfig {
    /// The API server.
    pub client: Client,
    /// Namespace that this control plane runs in, where the mesh ConfigMap is.
    pub system_namespace: String,
    /// Revision; names the mesh ConfigMap `istio-REV`. Empty, or `default`, for `istio`.
    pub revision: String,
    /// A file with mesh config; used instead of the ConfigMap when it exists at the start.
    pub mesh_config_file: Option<PathBuf>,
    /// A ConfigMap of the same namespace that the one of the revision is applied over.
    pub shared_mesh_config: Option<String>,
    /// Objects per page of a list.
    pub page_size: u32,
    /// After how long the API server is asked to end a watch, which is then resumed; at most
    /// 295 s.
    pub watch_timeout: Duration,
    /// How long the beginning of an answer may take.
    pub request_timeout: Duration,
    /// How long an answer that has begun may pause; a watch hears of the server every minute.
    pub idle_timeout: Duration,
    /// Longest pause between attempts.
    pub retry_max: Duration,
    /// Where events and errors are counted.
    pub metrics: SourceMetrics,
}

impl SourceConfig {
    /// The defaults, in namespace `istio-system`.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            system_namespace: model::defaults::ROOT_NAMESPACE.to_owned(),
            revision: String::new(),
            mesh_config_file: Some(PathBuf::from(MESH_CONFIG_FILE)),
            shared_mesh_config: None,
            page_size: 500,
            watch_timeout: Duration::from_secs(290),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            retry_max: Duration::from_secs(30),
            metrics: SourceMetrics::default(),
        }
    }
}

/// Why there are no more objects.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The receiver of objects is gone.
    #[error("nobody takes the objects any more")]
    ReceiverGone,
    /// A task ended that should not, which is a defect.
    #[error("a watch ended by itself")]
    Ended,
}

/// Delivers a `Resync` of every kind when its first list is complete, then what changes, until it
/// is cancelled. What it sends waits for the receiver, and the watches wait with it.
///
/// # Errors
/// [`SourceError::ReceiverGone`]; that the API server is away is no error.
pub async fn run(
    config: SourceConfig,
    inputs: mpsc::Sender<Vec<Input>>,
    observed: Observed,
    health: Health,
    stop: CancellationToken,
) -> Result<(), SourceError> {
    // Whatever ends ends the others.
    let stop = stop.child_token();
    let _guard = stop.clone().drop_guard();
    let (entries, catalogue) = channel::channel(Catalogue::default());
    let findings = SourceFindings::default();
    let poke = Poke::default();
    let context = Arc::new(Context {
        config,
        inputs: inputs.clone(),
        observed,
        health,
        findings: findings.clone(),
        poke: poke.clone(),
        releases: releases::Releases::default(),
        stop: stop.clone(),
    });
    let mut tasks: JoinSet<Result<(), SourceError>> = JoinSet::new();
    for kind in kinds::watched() {
        context.health.set(kind, crate::KindState::Listing, "");
        let sink = rows::Rows::new(kind, &context);
        let driver = Driver::new(context.clone(), Target::input(kind), sink);
        tasks.spawn(driver.run(catalogue.clone()));
    }
    for (group, kind) in kinds::watched_unsupported() {
        let sink = unsupported::Unsupported::new(group, kind, &context);
        let driver = Driver::new(context.clone(), Target::unsupported(group, kind), sink);
        tasks.spawn(driver.run(catalogue.clone()));
    }
    let sink = catalogue::Definitions::new(&context);
    let driver = Driver::new(context.clone(), Target::definitions(), sink);
    tasks.spawn(driver.run(catalogue.clone()));
    tasks.spawn(mesh::run(context.clone(), catalogue));
    tasks.spawn(catalogue::run(context.clone(), poke, entries));
    tasks.spawn(findings.run(inputs, stop.clone()));
    while let Some(ended) = tasks.join_next().await {
        let cancelled = stop.is_cancelled();
        if cancelled {
            continue;
        }
        match ended {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) => return Err(SourceError::Ended),
            Err(error) => {
                tracing::error!(%error, "a watch ended by itself");
                return Err(SourceError::Ended);
            }
        }
    }
    Ok(())
}
