//! The gRPC service: one task per stream that moves messages between the stream,
//! the snapshots and a [`crate::Session`].
//!
//! Source: spec/control-plane.md §2.2.

mod body;
mod interest;
mod limiter;
mod shares;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use authn::{Authenticator, AuthnError, Caller, Peer, SecretReviewer};
use futures::future::BoxFuture;
use prost::Message;
use proto::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use snapshot::{DeltaCache, Snapshot};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Status, Streaming};

use crate::client::NodeReader;
use crate::connections::Connections;
use crate::identity::IdentityPolicy;
use crate::metrics::Metrics;
use crate::response::Response;
use crate::server::Going;
use crate::session::Request;
use crate::wire::{AdsDecoder, DECODE_BYTES_MAX};
use body::ResponseBody;
use interest::Interests;
pub use interest::Report;
use limiter::Limiter;
use shares::Shares;

/// Streams that one replica serves unless told otherwise.
pub const STREAMS_MAX: usize = 20_000;

/// How long a stream of a known caller may stay open without saying what it wants.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// As above, for a stream on the plaintext listener.
const FIRST_REQUEST_TIMEOUT_UNKNOWN: Duration = Duration::from_secs(30);

/// Streams that may open per second unless told otherwise.
/// Source: spec/control-plane.md §2.2.
pub fn streams_per_second() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    u32::try_from(cpus).map_or(100, |cpus| {
        cpus.saturating_mul(5).saturating_add(15).min(100)
    })
}

/// What the service needs of its surroundings.
pub struct Deps {
    /// The newest snapshot; `None` until the first one is complete.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Understands nodes.
    pub node_reader: Arc<dyn NodeReader>,
    /// Told which classes of proxies are connected and what they refuse.
    pub interest: mpsc::Sender<Report>,
    /// Where open streams are listed.
    pub connections: Arc<Connections>,
    /// Where events are counted.
    pub metrics: Arc<Metrics>,
    /// Says who is calling.
    pub authenticator: Arc<Authenticator>,
    /// Who may claim to be what.
    pub identity: IdentityPolicy,
    /// Says who may read private keys of his namespace; `None` to go by the Gateways of the
    /// snapshot.
    pub secrets: Option<Arc<dyn SecretReviewer>>,
    /// Shared by all streams.
    pub cache: Arc<DeltaCache>,
    /// Streams that may be open at once; see [`STREAMS_MAX`].
    pub streams_max: usize,
    /// Streams that may open per second; see [`streams_per_second`].
    pub streams_per_second: u32,
    /// Ends all streams.
    pub shutdown: CancellationToken,
}

struct Shared {
    deps: Deps,
    interests: Interests,
    shares: Arc<Shares>,
    streams: Arc<Semaphore>,
    limiter: Limiter,
    /// Zero of the sessions' clock.
    started: Instant,
    /// Makes nonces differ between processes.
    nonce_salt: String,
}

/// The service `envoy.service.discovery.v3.AggregatedDiscoveryService`.
#[derive(Clone)]
pub struct AdsService(Arc<Shared>);

impl AdsService {
    /// A service over its surroundings.
    pub fn new(deps: Deps) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.unwrap_or_default().as_nanos().to_le_bytes();
        Self(Arc::new(Shared {
            interests: Interests::new(deps.interest.clone()),
            shares: Arc::default(),
            streams: Arc::new(Semaphore::new(deps.streams_max)),
            limiter: Limiter::new(deps.streams_per_second),
            started: Instant::now(),
            nonce_salt: format!("{:x}", xxhash_rust::xxh64::xxh64(&nanos, 0)),
            deps,
        }))
    }

    /// Ends all streams when cancelled.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.deps.shutdown
    }
}

impl NamedService for AdsService {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<Body>> for AdsService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        Box::pin(async move {
            Ok(match method.as_str() {
                "DeltaAggregatedResources" => {
                    serve::<DeltaDiscoveryRequest>(&shared, request).await
                }
                "StreamAggregatedResources" => serve::<DiscoveryRequest>(&shared, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Answers a stream of requests with one of responses, or with a status.
async fn serve<R: AdsRequest>(
    shared: &Arc<Shared>,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let encoding = request.headers().get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Status::unimplemented("compressed requests are not supported").into_http();
    }
    // Nothing is decoded before the caller is known, so the limit may be generous
    // enough for a reconnect in a large mesh.
    let decoded = |body| {
        let decoder = AdsDecoder::<R>::default();
        Streaming::new_request(decoder, body, None, Some(DECODE_BYTES_MAX))
    };
    let request = tonic::Request::from_http(request.map(decoded));
    match open(shared, request).await {
        Ok(responses) => {
            let mut response = http::Response::new(Body::new(ResponseBody::new(responses)));
            let grpc = http::HeaderValue::from_static("application/grpc");
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, grpc);
            response
        }
        Err(status) => {
            shared.deps.metrics.count_refused(&status);
            status.into_http()
        }
    }
}

/// One of the two request messages.
trait AdsRequest: Message + Default + Into<Request> + 'static {}
impl AdsRequest for DeltaDiscoveryRequest {}
impl AdsRequest for DiscoveryRequest {}

impl From<DeltaDiscoveryRequest> for Request {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        Self::Delta(request)
    }
}

impl From<DiscoveryRequest> for Request {
    fn from(request: DiscoveryRequest) -> Self {
        Self::Sotw(request)
    }
}

/// Authenticates, then starts the task of a stream. Refusals that no message of the
/// client can change come before the response headers, so that clients back off.
async fn open<R: AdsRequest>(
    shared: &Arc<Shared>,
    request: tonic::Request<Streaming<R>>,
) -> Result<mpsc::Receiver<Result<Response, Status>>, Status> {
    if shared.deps.snapshots.borrow().is_none() || shared.deps.shutdown.is_cancelled() {
        return Err(Status::unavailable("the control plane is not ready"));
    }
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Err(Status::internal("a connection without a peer"));
    };
    let going = request.extensions().get::<Going>().cloned();
    let going = going.unwrap_or_default().0;
    let caller = authenticate(shared, &peer, request.metadata()).await?;
    // One caller must not use up what is there for all.
    let share = shared
        .shares
        .take(&peer, caller.as_ref())
        .ok_or_else(|| Status::resource_exhausted("too many streams of one caller"))?;
    // Only now: strangers must not use up the turns of others.
    if !shared.limiter.turn().await {
        return Err(Status::resource_exhausted("too many streams open at once"));
    }
    let permit = Arc::clone(&shared.streams)
        .try_acquire_owned()
        .map_err(|_| Status::resource_exhausted("too many streams"))?;
    // One response in the channel, one being written: the rest waits in the session,
    // where it is merged.
    let (responses, receiver) = mpsc::channel(1);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let who = stream::Who {
            peer,
            caller,
            going,
        };
        stream::run(shared, who, request.into_inner(), responses).await;
        drop((permit, share));
    });
    Ok(receiver)
}

/// Who opens a stream; `None` on the plaintext listener, where nobody is known.
async fn authenticate(
    shared: &Shared,
    peer: &Peer,
    metadata: &tonic::metadata::MetadataMap,
) -> Result<Option<Caller>, Status> {
    if !peer.secure {
        return Ok(None);
    }
    let authenticator = &shared.deps.authenticator;
    match authenticator.authenticate(peer, metadata.as_ref()).await {
        Ok(caller) => Ok(Some(caller)),
        Err(error) => {
            tracing::info!(peer = %peer.addr, reason = error.reason(), %error, "stream refused");
            Err(Status::unauthenticated(AuthnError::OPAQUE))
        }
    }
}

#[cfg(test)]
mod tests;
