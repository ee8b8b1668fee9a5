//! Tokens reviewed by the API server.
//!
//! Source: spec/control-plane.md §3.3.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use authn::{Review, ReviewError, Token, TokenReviewer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::{Method, Request, header};
use kube::client::Body;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

/// How long one review may take, its turn included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Reviews under way at once.
const REVIEWS_MAX: usize = 32;
/// Length of a reason in an error, characters.
const REASON_CHARS_MAX: usize = 300;

/// Reviews tokens by asking the API server.
pub struct ApiReviewer {
    client: kube::Client,
    turns: Semaphore,
    timeout: Duration,
}

impl std::fmt::Debug for ApiReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiReviewer").finish_non_exhaustive()
    }
}

/// What is read of the answer: of a TokenReview only its status, since its spec repeats the
/// token; of a refusal the reason.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    status: serde_json::Value,
    reason: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    error: String,
    audiences: Vec<String>,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

// === impl ApiReviewer ===

impl ApiReviewer {
    /// A reviewer by the API server of a client.
    pub fn new(client: kube::Client) -> Self {
        Self {
            client,
            turns: Semaphore::new(REVIEWS_MAX),
            timeout: TIMEOUT,
        }
    }

    /// Asks by a request of its own: the library logs answers that it cannot read, and these
    /// hold tokens.
    async fn ask(&self, token: &Token, audiences: &[String]) -> Result<Review, String> {
        let _turn = self.turns.acquire().await.map_err(|_| "closed")?;
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.expose(), "audiences": audiences},
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri("/apis/authentication.k8s.io/v1/tokenreviews")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string().into_bytes()))
            .map_err(|_| "the request cannot be written")?;
        let response = self.client.send(request).await;
        let response = response.map_err(|error| format!("the API server: {error}"))?;
        let code = response.status();
        let bytes = response.into_body().collect_bytes().await;
        let bytes = bytes.map_err(|error| format!("the API server: {error}"))?;
        // What serde says of a bad answer could repeat parts of it.
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| format!("the API server answers {code} with what is no TokenReview"))?;
        if !code.is_success() {
            return Err(format!(
                "the API server answers {code} {}: {}",
                answer.reason, answer.message
            ));
        }
        let status: Status = serde_json::from_value(answer.status)
            .map_err(|_| "the API server answers with what is no TokenReview")?;
        Ok(Review {
            authenticated: status.authenticated,
            error: without(token, &status.error),
            username: status.user.username,
            groups: status.user.groups,
            audiences: status.audiences,
            extra: status.user.extra,
            expires: expires(token),
        })
    }
}

impl TokenReviewer for ApiReviewer {
    fn review<'a>(
        &'a self,
        token: &'a Token,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Review, ReviewError>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(self.timeout, self.ask(token, audiences)).await;
            match asked {
                Ok(Ok(review)) => Ok(review),
                Ok(Err(reason)) => Err(ReviewError(without(token, &reason))),
                Err(_) => Err(ReviewError(format!(
                    "the API server did not answer within {} s",
                    self.timeout.as_secs()
                ))),
            }
        })
    }
}

/// A reason on one line, bounded, and without the token.
fn without(token: &Token, reason: &str) -> String {
    let reason = reason.replace(token.expose(), "(the token)");
    let chars = reason.chars().take(REASON_CHARS_MAX);
    chars
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `exp` of a token, read without verifying it: the API server vouches for the token, and
/// what is not there or does not read means that nothing is remembered.
fn expires(token: &Token) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let payload = token.expose().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

#[cfg(test)]
mod tests;
