//! API servers of tests: each is a function of what it is asked.

#![allow(clippy::unwrap_used)]

use std::io;
use std::time::Duration;

use http::{Method, Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// Null where there is none.
    pub(crate) body: Value,
}

/// A client of one that answers with a status code and a body; an error is a broken connection.
pub(crate) fn client<F, A>(ns: &str, answer: F) -> Client
where
    F: Fn(Asked) -> A + Clone + Send + 'static,
    A: Future<Output = io::Result<(u16, Value)>> + Send + 'static,
{
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let (code, body) = answer(Asked {
                method: parts.method,
                uri: parts.uri,
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            })
            .await?;
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, io::Error>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, ns)
}

/// Lets this many seconds of the test's clock go by.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
