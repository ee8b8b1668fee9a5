//! The subscription of a ztunnel: two wildcard types on one delta stream, every response
//! acknowledged, reconnected with the versions held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use proto::core::Node;
use proto::discovery::DeltaDiscoveryResponse;
use proto::type_url::{ADDRESS, AUTHORIZATION};
use tokio::sync::watch;

use super::MeshState;
use crate::ads::{DeltaClient, XdsTarget};
use crate::http_client::AbortOnDrop;

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// ztunnel goes up to 15 s; tests do not wait that long.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// One response, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which connection it came on; the first is 1.
    pub connection: usize,
    /// Type URL.
    pub type_url: String,
    /// Names of the resources sent, sorted.
    pub names: Vec<String>,
    /// Names removed, sorted.
    pub removed: Vec<String>,
    /// Bytes of the resources.
    pub bytes: usize,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
}

/// All that has arrived so far.
#[derive(Clone, Debug, Default)]
struct View {
    state: Arc<MeshState>,
    received: Vec<Received>,
    connection: usize,
}

/// A ztunnel's subscription; ends when dropped.
pub struct Ztunnel {
    view: watch::Receiver<View>,
    choices: AtomicUsize,
    _task: AbortOnDrop<()>,
}

impl Ztunnel {
    /// Subscribes, and again whenever the stream breaks.
    pub fn start(target: XdsTarget, node: Node) -> Self {
        Self::start_with(move || Ok(target.clone()), node)
    }

    /// The same, with the target of the moment for every connection: certificates and roots
    /// are renewed.
    pub fn start_with(
        target: impl Fn() -> anyhow::Result<XdsTarget> + Send + Sync + 'static,
        node: Node,
    ) -> Self {
        let (sender, view) = watch::channel(View::default());
        let task = tokio::spawn(async move {
            let mut backoff = BACKOFF_FIRST;
            loop {
                let before = sender.borrow().received.len();
                if let Err(error) = connect(&target, &node, &sender).await {
                    tracing::debug!(error = format!("{error:#}"), "subscription ended");
                }
                if sender.borrow().received.len() > before {
                    backoff = BACKOFF_FIRST;
                }
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        });
        Self {
            view,
            choices: AtomicUsize::new(0),
            _task: AbortOnDrop(task),
        }
    }

    /// The state now.
    pub fn state(&self) -> Arc<MeshState> {
        Arc::clone(&self.view.borrow().state)
    }

    /// Every response so far.
    pub fn received(&self) -> Vec<Received> {
        self.view.borrow().received.clone()
    }

    /// How often it has connected.
    pub fn connection(&self) -> usize {
        self.view.borrow().connection
    }

    /// The next number for picking among endpoints.
    pub fn next_choice(&self) -> usize {
        self.choices.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until both types were answered on connection number `connection` or later,
    /// as ztunnel does before it calls itself ready.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub async fn wait_synced(&self, connection: usize, limit: Duration) -> anyhow::Result<()> {
        self.wait(limit, |_, received| {
            [ADDRESS, AUTHORIZATION].iter().all(|type_url| {
                received
                    .iter()
                    .any(|r| r.connection >= connection && r.type_url == *type_url)
            })
        })
        .await
        .with_context(|| format!("ztunnel is not in sync on connection {connection}"))
    }

    /// Waits until the state is as wanted.
    ///
    /// # Errors
    /// When that does not happen in time: says what has come so far.
    pub async fn wait(
        &self,
        limit: Duration,
        wanted: impl Fn(&MeshState, &[Received]) -> bool,
    ) -> anyhow::Result<()> {
        let mut view = self.view.clone();
        let reached = tokio::time::timeout(limit, view.wait_for(|v| wanted(&v.state, &v.received)));
        match reached.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("the subscription has ended"),
            Err(_) => bail!(
                "not within {limit:?}; received so far: {:#?}",
                self.received()
            ),
        }
    }
}

async fn connect(
    target: &(impl Fn() -> anyhow::Result<XdsTarget> + Sync),
    node: &Node,
    view: &watch::Sender<View>,
) -> anyhow::Result<()> {
    session(&target()?, node, view).await
}

async fn session(
    target: &XdsTarget,
    node: &Node,
    view: &watch::Sender<View>,
) -> anyhow::Result<()> {
    let mut stream = DeltaClient::connect(target, node.clone()).await?;
    view.send_modify(|v| v.connection += 1);
    let state = Arc::clone(&view.borrow().state);
    for type_url in [ADDRESS, AUTHORIZATION] {
        let held: BTreeMap<_, _> = state.versions(type_url);
        stream.resume(type_url, held).await?;
    }
    drop(state);
    loop {
        let response = stream.next().await?;
        let mut refused = None;
        view.send_modify(|v| {
            refused = Arc::make_mut(&mut v.state)
                .apply(&response)
                .err()
                .map(|error| format!("{error:#}"));
            v.received
                .push(summary(v.connection, &response, refused.clone()));
        });
        match refused {
            None => stream.ack(&response).await?,
            Some(reason) => stream.nack(&response, &reason).await?,
        }
    }
}

fn summary(
    connection: usize,
    response: &DeltaDiscoveryResponse,
    refused: Option<String>,
) -> Received {
    let mut names: Vec<String> = response.resources.iter().map(|r| r.name.clone()).collect();
    names.sort();
    let mut removed = response.removed_resources.clone();
    removed.sort();
    let bytes = response
        .resources
        .iter()
        .filter_map(|r| r.resource.as_ref())
        .map(|any| any.value.len())
        .sum();
    Received {
        connection,
        type_url: response.type_url.clone(),
        names,
        removed,
        bytes,
        refused,
    }
}
