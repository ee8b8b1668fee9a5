//! Why a peer is not known.

/// Why a caller could not be authenticated. For the log; the peer learns nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthnError {
    /// Neither certificate nor token.
    #[error("there is neither a client certificate nor a bearer token")]
    NoCredentials,
    /// The token is empty, too long, or holds what no token holds.
    #[error("the bearer token is empty, too long or has characters that no token has")]
    MalformedToken,
    /// `clusterid` names a cluster that is not ours.
    #[error("the cluster id {0:?} is not known")]
    UnknownCluster(String),
    /// The reviewer could not be asked.
    #[error("the token could not be reviewed: {0}")]
    ReviewFailed(String),
    /// The reviewer did not answer in time.
    #[error("the token was not reviewed in time")]
    ReviewTimeout,
    /// The reviewer says that the token is not good.
    #[error("the token is not good: {0}")]
    Rejected(String),
    /// The token is good, but not for us.
    #[error("the token is for another audience")]
    Audience,
    /// The token is not one of a service account.
    #[error("the token is not one of a service account")]
    NotServiceAccount,
}

impl AuthnError {
    /// What a peer is told, whatever the reason.
    pub const OPAQUE: &'static str = "authentication failure";

    /// The label of metrics: one of eight words.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::MalformedToken => "malformed_token",
            Self::UnknownCluster(_) => "unknown_cluster",
            Self::ReviewFailed(_) => "review_failed",
            Self::ReviewTimeout => "review_timeout",
            Self::Rejected(_) => "rejected",
            Self::Audience => "audience",
            Self::NotServiceAccount => "not_service_account",
        }
    }
}
