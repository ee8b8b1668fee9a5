//! Tokens, and what accounts may read, reviewed by the API server.
//!
//! Source: spec/control-plane.md §3.3, §2.11.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use authn::{Review, ReviewError, Token, TokenReviewer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use kube::client::Body;
use model::{Finding, ObjectKey, ObjectRef, Severity, Str};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::Reports;
use crate::jitter::jittered;
use crate::write::account;

mod secrets;

pub use secrets::ApiSecretReviewer;

/// How long one review may take, its turn included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Reviews under way at once.
const REVIEWS_MAX: usize = 32;
/// Length of a reason in an error, characters.
const REASON_CHARS_MAX: usize = 300;
/// Request, as reports call it.
const WHAT: &str = "create tokenreviews";
/// While reviews fail, one is asked for this often, whether clients come or not.
const PROBE: Duration = Duration::from_secs(20);
/// A token that nobody has.
const NO_TOKEN: &str = "ambientd-asks-whether-reviews-work";

/// Reviews tokens by asking the API server.
///
/// Bounded: 32 reviews are under way at once; who waits for a turn does so for as long as a review
/// may take.
pub struct ApiReviewer(Arc<Reviewer>);

struct Reviewer {
    client: kube::Client,
    turns: Semaphore,
    timeout: Duration,
    reports: Option<Reports>,
    /// Somebody asks from time to time whether reviews work again.
    is_probing: AtomicBool,
}

/// Why there is no review.
struct Problem {
    reason: String,
    /// The API server says that we lack the right.
    is_forbidden: bool,
}

impl std::fmt::Debug for ApiReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiReviewer").finish_non_exhaustive()
    }
}

/// What is read of the answer: of a review only its status, since the spec of a TokenReview
/// repeats the token; of a refusal the reason.
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
        Self::with(client, None)
    }

    /// The same, which tells when the API server reviews no tokens, as a finding that goes once it
    /// does again.
    pub fn telling(client: kube::Client, reports: Reports) -> Self {
        Self::with(client, Some(reports))
    }

    fn with(client: kube::Client, reports: Option<Reports>) -> Self {
        Self(Arc::new(Reviewer {
            client,
            turns: Semaphore::new(REVIEWS_MAX),
            timeout: TIMEOUT,
            reports,
            is_probing: AtomicBool::new(false),
        }))
    }
}

// === impl Reviewer ===

impl Reviewer {
    /// Asks, and tells whether that works.
    async fn review(
        self: &Arc<Self>,
        token: &Token,
        audiences: &[String],
    ) -> Result<Review, ReviewError> {
        let asked = tokio::time::timeout(self.timeout, self.ask(token, audiences)).await;
        let asked = asked.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs();
            Err(format!("the API server did not answer within {seconds} s").into())
        });
        let Some(reports) = &self.reports else {
            return asked.map_err(|problem| ReviewError(without(token, &problem.reason)));
        };
        match asked {
            Ok(review) => {
                reports.allowed(WHAT, "");
                Ok(review)
            }
            Err(problem) => {
                let reason = without(token, &problem.reason);
                reports.report(WHAT, &reason, problem.finding());
                self.probe(audiences.to_vec());
                Err(ReviewError(reason))
            }
        }
    }

    /// Asks for reviews until one works: what is told of them must not stay because nobody comes.
    fn probe(self: &Arc<Self>, audiences: Vec<String>) {
        if self.is_probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(jittered(PROBE)).await;
                let Some(this) = Weak::upgrade(&weak) else {
                    return;
                };
                let works = match Token::new(NO_TOKEN) {
                    Ok(token) => Box::pin(this.review(&token, &audiences)).await.is_ok(),
                    Err(_) => true,
                };
                if works {
                    this.is_probing.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }

    /// Asks by a request of its own: the library logs answers that it cannot read, and these
    /// hold tokens.
    async fn ask(&self, token: &Token, audiences: &[String]) -> Result<Review, Problem> {
        let _turn = self.turns.acquire().await.map_err(|_| "closed")?;
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.expose(), "audiences": audiences},
        });
        let uri = "/apis/authentication.k8s.io/v1/tokenreviews";
        let status: Status = post(&self.client, uri, &body).await?;
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

/// Asks for a review; the status of the answer.
async fn post<T: DeserializeOwned>(
    client: &kube::Client,
    uri: &str,
    body: &serde_json::Value,
) -> Result<T, Problem> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string().into_bytes()))
        .map_err(|_| "the request cannot be written")?;
    let response = client.send(request).await;
    let response = response.map_err(|error| format!("the API server: {error}"))?;
    let code = response.status();
    let bytes = response.into_body().collect_bytes().await;
    let bytes = bytes.map_err(|error| format!("the API server: {error}"))?;
    // What serde says of a bad answer could repeat parts of it.
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|_| format!("the API server answers {code} with what is no review"))?;
    if !code.is_success() {
        let (reason, message) = (&answer.reason, &answer.message);
        return Err(Problem {
            reason: format!("the API server answers {code} {reason}: {message}"),
            is_forbidden: code == StatusCode::FORBIDDEN,
        });
    }
    let status = serde_json::from_value(answer.status)
        .map_err(|_| "the API server answers with what is no review")?;
    Ok(status)
}

impl TokenReviewer for ApiReviewer {
    fn review<'a>(
        &'a self,
        token: &'a Token,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Review, ReviewError>> {
        Box::pin(self.0.review(token, audiences))
    }
}

// === impl Problem ===

impl<T: Into<String>> From<T> for Problem {
    fn from(reason: T) -> Self {
        Self {
            reason: reason.into(),
            is_forbidden: false,
        }
    }
}

impl Problem {
    fn finding(&self) -> Finding {
        let (object, cause, fix) = if self.is_forbidden {
            (
                account(&self.reason),
                "The API server lets us not create tokenreviews",
                "Add a rule with create tokenreviews.authentication.k8s.io to the ClusterRole of ambientd",
            )
        } else {
            (
                ObjectRef {
                    kind: Str::from("TokenReview"),
                    key: ObjectKey::cluster("*"),
                },
                "The API server does not review tokens",
                "See to it that the API server answers; the log says what it says",
            )
        };
        let message = format!(
            "{cause}; clients that show a token are refused, unless it was reviewed shortly before"
        );
        Finding::new("kube-review-failed", Severity::Error, object, message, fix)
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
