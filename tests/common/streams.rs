//! Streams that are held open and looked at, and not opened again.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::type_url::{ADDRESS, CLUSTER};
use testkit::ads::{DeltaClient, SotwClient, XdsTarget, waypoint_node, ztunnel_node};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::SOON;

/// Longer than a test.
const LONG: Duration = Duration::from_secs(600);

/// What came on a stream so far, and with which code it ended.
#[derive(Default)]
pub(crate) struct Seen {
    /// Names that were sent, of a delta stream.
    pub(crate) names: BTreeSet<String>,
    pub(crate) responses: usize,
    /// The resources of the last response, of a state-of-the-world stream.
    pub(crate) last: String,
    pub(crate) end: Option<Code>,
}

pub(crate) type Held = watch::Receiver<Seen>;

enum Stream {
    Delta(DeltaClient),
    Sotw(SotwClient),
}

/// A ztunnel's stream.
pub(crate) async fn hold_delta(target: &XdsTarget) -> anyhow::Result<Held> {
    let mut stream = DeltaClient::connect(target, ztunnel_node("n1")).await?;
    stream.subscribe(ADDRESS, &[]).await?;
    hold(Stream::Delta(stream)).await
}

/// The stream of an Envoy that asks for the state of the world.
pub(crate) async fn hold_sotw(target: &XdsTarget) -> anyhow::Result<Held> {
    let node = waypoint_node("shop", "waypoint", "10.1.0.1");
    let mut stream = SotwClient::connect(target, node).await?;
    stream.subscribe(CLUSTER, &[]).await?;
    hold(Stream::Sotw(stream)).await
}

/// The code that an error comes from.
pub(crate) fn code(error: &anyhow::Error) -> Code {
    error
        .downcast_ref::<Status>()
        .map_or(Code::Ok, Status::code)
}

async fn hold(mut stream: Stream) -> anyhow::Result<Held> {
    let (sender, mut held) = watch::channel(Seen::default());
    tokio::spawn(async move {
        loop {
            if let Err(error) = stream.take(&sender).await {
                sender.send_modify(|seen| seen.end = Some(code(&error)));
                return;
            }
        }
    });
    tokio::time::timeout(SOON, held.wait_for(|seen| seen.responses > 0)).await??;
    Ok(held)
}

// === impl Stream ===

impl Stream {
    /// Notes the next response, and accepts it.
    async fn take(&mut self, sender: &watch::Sender<Seen>) -> anyhow::Result<()> {
        match self {
            Self::Delta(stream) => {
                let response = stream.next().await?;
                let names = response.resources.iter().map(|one| one.name.clone());
                sender.send_modify(|seen| {
                    seen.names.extend(names);
                    seen.responses += 1;
                });
                let _ = stream.ack(&response).await;
            }
            Self::Sotw(stream) => {
                let response = stream.next_response(LONG).await?;
                let all = response.resources.iter().map(|any| any.value.as_slice());
                let last = all.collect::<Vec<_>>().concat();
                sender.send_modify(|seen| {
                    seen.last = String::from_utf8_lossy(&last).into_owned();
                    seen.responses += 1;
                });
                let _ = stream.ack(&response).await;
            }
        }
        Ok(())
    }
}
