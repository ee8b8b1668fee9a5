//! Who is calling: client certificates and bearer tokens.
//!
//! In: what the transport knows of a peer ([`Peer`]) and the headers of its request.
//! Out: the [`Caller`], or an [`AuthnError`] that is precise for the log and opaque to
//! the peer.
//!
//! **Invariants**
//! - A caller is named by its certificate or by a token that a [`TokenReviewer`]
//!   vouches for, never by what it says of itself.
//! - Tokens appear in no `Debug` output, no error text and no log; the cache holds
//!   their hashes only, and no refusal.
//! - Every wait is bounded: length of tokens, number of reviews at once, time of one.
//! - An unknown cluster is refused; it never falls back to the local one.

mod authenticator;
mod cache;
mod caller;
mod dev_issuer;
mod error;
mod review;
mod token;

pub use authenticator::{Authenticator, AuthenticatorConfig, Clock, DEFAULT_AUDIENCE, Metrics};
pub use caller::{Caller, Peer, PodRef, Proof};
pub use dev_issuer::{DevIssuer, IssuerError, PodCheck, TokenRequest};
pub use error::AuthnError;
pub use review::{Review, ReviewError, SecretReviewer, TokenReviewer};
pub use token::Token;
