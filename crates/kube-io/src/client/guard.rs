//! Requests that neither begin nor go on are given up, whatever lies below.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{ACCEPT, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::Client;
use kube::client::Body;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::BoxError;

const METADATA_LIST: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
const METADATA: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// What is watched over.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// How long the beginning of an answer may take.
    pub(crate) request_timeout: Duration,
    /// How long an answer that has begun may pause.
    pub(crate) idle_timeout: Duration,
    /// Ask for metadata of objects alone.
    pub(crate) metadata_only: bool,
    /// Told whenever a watch has begun.
    pub(crate) watching: Arc<Notify>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            metadata_only: false,
            watching: Arc::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Silent {
    #[error("no answer within {0:?}")]
    Request(Duration),
    #[error("nothing was heard for {0:?}")]
    Answer(Duration),
}

/// The same client, guarded.
pub(crate) fn guarded(client: Client, guard: Guard) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| send(client.clone(), guard.clone(), request));
    Client::new(service, namespace)
}

async fn send(
    client: Client,
    guard: Guard,
    mut request: Request<Body>,
) -> Result<Response<IdleBody>, BoxError> {
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query
        .split('&')
        .any(|part| matches!(part, "watch=true" | "watch=1"));
    if guard.metadata_only {
        let accept = if is_watch { METADATA } else { METADATA_LIST };
        request.headers_mut().insert(ACCEPT, accept);
    }
    let answer = timeout(guard.request_timeout, client.send(request)).await;
    let answer = answer.map_err(|_| Silent::Request(guard.request_timeout))??;
    if is_watch && answer.status().is_success() {
        guard.watching.notify_one();
    }
    Ok(answer.map(|inner| IdleBody {
        inner,
        idle_timeout: guard.idle_timeout,
        idle: Box::pin(sleep(guard.idle_timeout)),
    }))
}

/// A body that fails when nothing comes for too long.
struct IdleBody {
    inner: Body,
    idle_timeout: Duration,
    idle: Pin<Box<Sleep>>,
}

impl HttpBody for IdleBody {
    type Data = <Body as HttpBody>::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = &mut *self;
        match pin!(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                let deadline = Instant::now() + this.idle_timeout;
                this.idle.as_mut().reset(deadline);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                ready!(this.idle.as_mut().poll(cx));
                Poll::Ready(Some(Err(Silent::Answer(this.idle_timeout).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
