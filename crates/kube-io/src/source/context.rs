//! What all watches share.

use std::sync::Arc;

use model::object::Input;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::client::{Guard, guarded};
use crate::{Health, Observed};

use super::catalogue::Poke;
use super::findings::SourceFindings;
use super::releases::Releases;
use super::{SourceConfig, SourceError};

/// What all watches share.
pub(super) struct Context {
    pub(super) config: SourceConfig,
    pub(super) inputs: mpsc::Sender<Vec<Input>>,
    pub(super) observed: Observed,
    pub(super) health: Health,
    pub(super) findings: SourceFindings,
    pub(super) poke: Poke,
    pub(super) releases: Releases,
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
