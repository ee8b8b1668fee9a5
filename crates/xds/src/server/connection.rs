//! One HTTP/2 connection, from its handshake to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use authn::Peer;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tracing::debug;

use super::Limits;
use super::guests::Guest;
use super::io_guard::Guarded;
use crate::metrics::Metrics;
use crate::rarely::Rarely;

/// Streams of one connection; proxies use one or two, CSRs come eight at a time.
const STREAMS_MAX: u32 = 100;
/// As above while nobody is known: what these send is held in memory.
const GUEST_STREAMS_MAX: usize = 16;
/// Requests of a connection on which nobody is known that may fail to say who sends them.
const GUEST_FAILURES_MAX: u32 = 32;
/// Size of the headers of one request, bytes.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// What a client may send before somebody reads it, bytes; also in all streams together,
/// so that it bounds what an unknown client makes us hold.
const WINDOW_BYTES: u32 = 64 << 10;
/// Source: spec/control-plane.md §1.1.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client that floods may take to read that it must go.
const FLOOD_GRACE: Duration = Duration::from_secs(1);

/// What a connection is served with.
pub(super) struct Surroundings {
    pub(super) routes: Routes,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: CancellationToken,
}

/// How long streams that are told to end may take.
const END_GRACE: Duration = Duration::from_secs(1);

/// In the extensions of every request: cancelled when the streams of its connection must end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Going(pub(crate) CancellationToken);

/// Streams that are open, and that ever were.
type Streams = watch::Sender<(usize, u64)>;

/// Serves until the client leaves, is asked to go, or is cut off.
pub(super) fn serve<S>(
    io: S,
    peer: Peer,
    guest: Guest,
    with: Arc<Surroundings>,
) -> BoxFuture<'static, ()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (streams, mut watched) = watch::channel((0, 0));
    let flooded = CancellationToken::new();
    let unknown = CancellationToken::new();
    let addr = peer.addr;
    let guest = Arc::new(guest);
    let going = Going::default();
    let service = service(
        (peer, going.clone()),
        Arc::clone(&guest),
        Arc::new(streams),
        Failures::new(unknown.clone()),
        with.routes.clone(),
    );
    let io = TokioIo::new(Guarded::new(io, flooded.clone()));
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_connection(io, hyper::service::service_fn(service));
    let mut connection = Box::pin(served);
    let limits = with.limits;
    let surroundings = Arc::clone(&with);
    let going_away = Rarely::new(async move {
        tokio::select! {
            () = guest.evicted() => Reason::Evicted,
            () = flooded.cancelled() => Reason::Flood,
            () = unknown.cancelled() => Reason::Unauthenticated,
            () = idle(&mut watched, limits.idle) => Reason::Idle,
            () = tokio::time::sleep(jittered(limits.age_max)) => Reason::Age,
            () = leaving(&surroundings) => Reason::Shutdown,
        }
    });
    Box::pin(async move {
        let reason = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(peer = %addr, %error, "connection ended");
                }
                return;
            }
            reason = going_away => reason,
        };
        let closed = &with.metrics.connections_closed;
        closed.with_label_values(&[reason.as_str()]).inc();
        let Some((grace, last)) = reason.times(&limits) else {
            return;
        };
        debug!(peer = %addr, reason = reason.as_str(), "connection is asked to go");
        connection.as_mut().graceful_shutdown();
        if tokio::time::timeout(grace, connection.as_mut())
            .await
            .is_err()
        {
            // A stream that ends with a status tells its client more than one that is cut.
            going.0.cancel();
            let _ = tokio::time::timeout(last, connection).await;
        }
    })
}

/// Why the server ends a connection.
enum Reason {
    /// Others came, and it had proven nothing.
    Evicted,
    /// Too many frames that demand answers.
    Flood,
    /// Too many requests of nobody knows whom.
    Unauthenticated,
    /// No stream for long.
    Idle,
    /// Open for long.
    Age,
    /// The server ends.
    Shutdown,
}

impl Reason {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Flood => "flood",
            Self::Unauthenticated => "unauthenticated",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Shutdown => "shutdown",
        }
    }

    /// How long streams may live, and then take to end; none for whoever proved nothing and so
    /// has nothing to finish.
    fn times(&self, limits: &Limits) -> Option<(Duration, Duration)> {
        match self {
            Self::Evicted => None,
            Self::Flood | Self::Unauthenticated => Some((FLOOD_GRACE, END_GRACE)),
            Self::Idle | Self::Age => Some((limits.grace, END_GRACE)),
            // Requests had no time yet to get their answers, streams all of it.
            Self::Shutdown => Some((Duration::ZERO, limits.last_answers)),
        }
    }
}

/// Returns some time after the server is told to end, another time for every connection.
async fn leaving(with: &Surroundings) {
    with.shutdown.cancelled().await;
    tokio::time::sleep(with.limits.drain.mul_f64(permille_of(random() % 1000))).await;
}

/// Returns when no stream was open for this long.
async fn idle(streams: &mut watch::Receiver<(usize, u64)>, limit: Duration) {
    loop {
        let Ok(opened) = streams
            .wait_for(|(open, _)| *open == 0)
            .await
            .map(|now| now.1)
        else {
            return std::future::pending().await;
        };
        let busy = streams.wait_for(|(open, ever)| *open > 0 || *ever != opened);
        if tokio::time::timeout(limit, busy).await.is_err() {
            return;
        }
    }
}

/// An age within a tenth of this one, so that clients that came together do not leave together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + permille_of(random() % 201))
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

#[allow(clippy::cast_precision_loss, reason = "below 1000")]
fn permille_of(count: u64) -> f64 {
    count as f64 / 1000.0
}

type Answer =
    Pin<Box<dyn Future<Output = Result<http::Response<Counted>, std::convert::Infallible>> + Send>>;

/// The services, told who the peer is.
fn service(
    (peer, going): (Peer, Going),
    guest: Arc<Guest>,
    streams: Arc<Streams>,
    failures: Arc<Failures>,
    routes: Routes,
) -> impl Fn(http::Request<Incoming>) -> Answer {
    move |request| {
        let mut routes = routes.clone();
        let guest = Arc::clone(&guest);
        let failures = Arc::clone(&failures);
        let open = Open::new(&streams);
        let is_excess = !guest.is_proven() && streams.borrow().0 > GUEST_STREAMS_MAX;
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(going.clone());
        Box::pin(async move {
            let response = if is_excess {
                tonic::Status::resource_exhausted("too many streams").into_http()
            } else {
                routes.call(request).await?
            };
            // Services authenticate before they answer anything but a status.
            let status = response.headers().get("grpc-status");
            if response.status() == http::StatusCode::OK && status.is_none() {
                guest.prove();
            }
            // A known ztunnel may be refused the certificates of pods that are yet unknown.
            if status.is_some_and(|status| status == UNAUTHENTICATED) && !guest.is_proven() {
                failures.count();
            }
            Ok(response.map(|body| Counted { body, _open: open }))
        })
    }
}

/// `grpc-status` of requests whose sender is not known.
const UNAUTHENTICATED: &str = "16";

/// Requests that failed to say who sends them.
struct Failures {
    count: AtomicU32,
    too_many: CancellationToken,
}

impl Failures {
    fn new(too_many: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU32::new(0),
            too_many,
        })
    }

    fn count(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 >= GUEST_FAILURES_MAX {
            self.too_many.cancel();
        }
    }
}

/// A stream that counts while it is open.
struct Open(Arc<Streams>);

impl Open {
    fn new(streams: &Arc<Streams>) -> Self {
        streams.send_modify(|(open, ever)| {
            *open += 1;
            *ever += 1;
        });
        Self(Arc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|(open, _)| *open -= 1);
    }
}

/// The body of a response; its end is the end of its stream.
struct Counted {
    body: Body,
    _open: Open,
}

impl http_body::Body for Counted {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_time_counts_from_the_end_of_the_last_stream() {
        let (streams, mut watched) = watch::channel((0, 0));
        let streams = Arc::new(streams);
        let began = tokio::time::Instant::now();
        let busy = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                drop(Open::new(&streams));
            }
            let _open = Open::new(&streams);
            tokio::time::sleep(Duration::from_secs(500)).await;
        };
        tokio::join!(busy, idle(&mut watched, Duration::from_secs(60)));
        assert_eq!(began.elapsed().as_secs(), 150 + 500 + 60);
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let age = Duration::from_secs(1000);
        for _ in 0..100 {
            let jittered = jittered(age);
            assert!((900..=1100).contains(&jittered.as_secs()), "{jittered:?}");
        }
    }
}
