//! The chain: client certificate, then bearer token.
//!
//! Source: spec/control-plane.md §3.1 to §3.3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use model::{SpiffeId, Str};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::Semaphore;

use crate::cache::{Account, Cache};
use crate::review::{EXTRA_POD_NAME, EXTRA_POD_UID};
use crate::{AuthnError, Caller, Peer, PodRef, Proof, Review, Token, TokenReviewer};

/// What tokens must be made for unless told otherwise.
pub const DEFAULT_AUDIENCE: &str = "istio-ca";
/// Reviews under way at once; the rest waits its turn, within its own time.
const REVIEWS_MAX: usize = 64;
/// How long a caller waits for its review, its turn included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Group of all service accounts.
const GROUP: &str = "system:serviceaccounts";
/// Header that names the cluster of the caller.
const CLUSTER_ID: &str = "clusterid";
/// Length of a cluster id, bytes.
const CLUSTER_ID_BYTES_MAX: usize = 253;

/// The time of day.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What an authenticator is made of.
#[derive(Clone)]
pub struct AuthenticatorConfig {
    /// Reviews tokens of this cluster.
    pub reviewer: Arc<dyn TokenReviewer>,
    /// Id of this cluster, and its aliases.
    pub cluster_ids: Vec<String>,
    /// Review tokens of other clusters, by their ids.
    pub remotes: BTreeMap<String, Arc<dyn TokenReviewer>>,
    /// What tokens must be made for.
    pub audiences: Vec<String>,
    /// The trust domain of the mesh, asked for each caller.
    pub trust_domain: Arc<dyn Fn() -> Str + Send + Sync>,
    /// The time of day.
    pub clock: Clock,
}

/// Counters of authentication. Labels: the reasons of [`AuthnError`].
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Callers refused, by reason.
    pub failures: IntCounterVec,
    /// Tokens reviewed.
    pub reviews: IntCounter,
    /// Tokens known from a review just before.
    pub cached: IntCounter,
}

impl Metrics {
    /// Creates and registers the counters.
    ///
    /// # Errors
    /// When the registry already has one of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let failures = IntCounterVec::new(
            Opts::new(
                "ambientd_authentication_failures",
                "Callers that could not be authenticated, by reason.",
            ),
            &["reason"],
        )?;
        let reviews = IntCounter::new("ambientd_token_reviews", "Tokens reviewed.")?;
        let cached = IntCounter::new(
            "ambientd_token_reviews_cached",
            "Tokens that needed no review, for one had just been made.",
        )?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(reviews.clone()))?;
        registry.register(Box::new(cached.clone()))?;
        Ok(Self {
            failures,
            reviews,
            cached,
        })
    }
}

/// Says who is calling.
pub struct Authenticator {
    config: AuthenticatorConfig,
    cache: Cache,
    turns: Semaphore,
    metrics: Metrics,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator")
            .field("cluster_ids", &self.config.cluster_ids)
            .field("audiences", &self.config.audiences)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// An authenticator that has seen nobody yet.
    pub fn new(config: AuthenticatorConfig, metrics: Metrics) -> Self {
        Self {
            config,
            cache: Cache::default(),
            turns: Semaphore::new(REVIEWS_MAX),
            metrics,
        }
    }

    /// Who sends a gRPC request with these headers. A certificate counts before a token.
    ///
    /// # Errors
    /// See [`AuthnError`]: log it, and answer [`AuthnError::OPAQUE`].
    pub async fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Caller, AuthnError> {
        self.chain(peer, headers, &["Bearer "]).await
    }

    /// As [`Self::authenticate`] for plain HTTP, where tokens may also be given as `Istio`.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn authenticate_http(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Caller, AuthnError> {
        self.chain(peer, headers, &["Bearer ", "Istio "]).await
    }

    async fn chain(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        prefixes: &[&str],
    ) -> Result<Caller, AuthnError> {
        let result = match &peer.identity {
            Some(identity) => Ok(Caller {
                identity: identity.clone(),
                proof: Proof::Certificate,
            }),
            None => self.by_token(headers, prefixes).await,
        };
        if let Err(error) = &result {
            let reason = error.reason();
            self.metrics.failures.with_label_values(&[reason]).inc();
            tracing::debug!(peer = %peer.addr, reason, %error, "caller not authenticated");
        }
        result
    }

    async fn by_token(&self, headers: &HeaderMap, prefixes: &[&str]) -> Result<Caller, AuthnError> {
        let token = token(headers, prefixes)?;
        let cluster = cluster(headers);
        let reviewer = self.reviewer(cluster)?;
        let now = (self.config.clock)();
        let key = token.hash(cluster);
        let account = if let Some(account) = self.cache.find(&key, now) {
            self.metrics.cached.inc();
            account
        } else {
            let review = self.review(reviewer.as_ref(), &token).await?;
            let account = account(&review, &self.config.audiences)?;
            if let Some(expires) = review.expires {
                self.cache.keep(key, account.clone(), expires, now);
            }
            account
        };
        let trust_domain = (self.config.trust_domain)().replace('@', ".");
        Ok(Caller {
            identity: SpiffeId::new(trust_domain, account.ns, account.sa),
            proof: Proof::Token { pod: account.pod },
        })
    }

    /// The reviewer of a cluster; the empty id is this one.
    fn reviewer(&self, cluster: &str) -> Result<&Arc<dyn TokenReviewer>, AuthnError> {
        if cluster.is_empty() || self.config.cluster_ids.iter().any(|id| id == cluster) {
            return Ok(&self.config.reviewer);
        }
        self.config.remotes.get(cluster).ok_or_else(|| {
            AuthnError::UnknownCluster(cluster.chars().take(CLUSTER_ID_BYTES_MAX).collect())
        })
    }

    async fn review(
        &self,
        reviewer: &dyn TokenReviewer,
        token: &Token,
    ) -> Result<Review, AuthnError> {
        let review = async {
            let _turn = self.turns.acquire().await;
            self.metrics.reviews.inc();
            reviewer.review(token, &self.config.audiences).await
        };
        match tokio::time::timeout(REVIEW_TIMEOUT, review).await {
            Ok(Ok(review)) => Ok(review),
            Ok(Err(error)) => Err(AuthnError::ReviewFailed(error.to_string())),
            Err(_) => Err(AuthnError::ReviewTimeout),
        }
    }
}

/// The first `authorization` value that has exactly one of the prefixes.
fn token(headers: &HeaderMap, prefixes: &[&str]) -> Result<Token, AuthnError> {
    let text = headers
        .get_all(AUTHORIZATION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(|value| {
            prefixes
                .iter()
                .find_map(|prefix| value.strip_prefix(prefix))
        })
        .ok_or(AuthnError::NoCredentials)?;
    Token::new(text)
}

/// The one `clusterid`; none or several count as none. One that is no text is unknown.
fn cluster(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all(CLUSTER_ID).iter();
    match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().unwrap_or("\u{fffd}"),
        _ => "",
    }
}

/// The service account that a review is of.
fn account(review: &Review, audiences: &[String]) -> Result<Account, AuthnError> {
    if !review.error.is_empty() {
        return Err(AuthnError::Rejected(review.error.clone()));
    }
    if !review.authenticated {
        return Err(AuthnError::Rejected("not authenticated".to_owned()));
    }
    // A reviewer that knows nothing of audiences names none.
    if !review.audiences.iter().any(|a| audiences.contains(a)) {
        return Err(AuthnError::Audience);
    }
    if !review.groups.iter().any(|group| group == GROUP) {
        return Err(AuthnError::NotServiceAccount);
    }
    let parts: Vec<&str> = review.username.split(':').collect();
    let [_, "serviceaccount", ns, sa] = parts[..] else {
        return Err(AuthnError::NotServiceAccount);
    };
    if parts.first() != Some(&"system") || !is_name(ns) || !is_name(sa) {
        return Err(AuthnError::NotServiceAccount);
    }
    let first = |key| review.extra.get(key).and_then(|values| values.first());
    let pod = first(EXTRA_POD_NAME).map(|name| PodRef {
        name: Str::from(name.as_str()),
        uid: first(EXTRA_POD_UID).map_or_else(Str::new, |uid| Str::from(uid.as_str())),
    });
    Ok(Account {
        ns: Str::from(ns),
        sa: Str::from(sa),
        pod,
    })
}

/// A Kubernetes name: what a segment of an identity may hold.
pub(crate) fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests;
