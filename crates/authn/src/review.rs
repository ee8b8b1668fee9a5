//! The port to whoever can say what a token is worth.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures::future::BoxFuture;
use model::SpiffeId;

use crate::Token;

/// `user.extra` key of the name of a token's pod.
pub(crate) const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// `user.extra` key of the uid of a token's pod.
pub(crate) const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The status of a TokenReview.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Whether the token is good.
    pub authenticated: bool,
    /// Why it is not; empty when nothing is said.
    pub error: String,
    /// `user.username`.
    pub username: String,
    /// `user.groups`.
    pub groups: Vec<String>,
    /// Audiences asked for that the token is good for.
    pub audiences: Vec<String>,
    /// `user.extra`.
    pub extra: BTreeMap<String, Vec<String>>,
    /// When the token ends, if that is known: nothing is remembered of one without an end.
    pub expires: Option<SystemTime>,
}

/// The reviewer could not say anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReviewError(pub String);

/// Reviews tokens: the API server of a cluster, or the development issuer.
pub trait TokenReviewer: Send + Sync {
    /// What the token is worth to one of these audiences.
    ///
    /// # Errors
    /// When that could not be found out. A bad token is no error but a review that
    /// is not `authenticated`.
    fn review<'a>(
        &'a self,
        token: &'a Token,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Review, ReviewError>>;
}

/// Reviews what service accounts may read: the API server of a cluster.
pub trait SecretReviewer: Send + Sync {
    /// Whether the account may list the Secrets of its own namespace. What cannot be found out
    /// is a no; who implements it says why, and bounds the time.
    fn may_list<'a>(&'a self, account: &'a SpiffeId) -> BoxFuture<'a, bool>;
}
