//! Bearer tokens.

use std::fmt;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::AuthnError;

/// Length of a token, bytes. Tokens of Kubernetes have one or two thousand.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A bearer token: wiped from memory when dropped, shown to nobody.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token: visible ASCII, not empty, of bounded length.
    ///
    /// # Errors
    /// [`AuthnError::MalformedToken`].
    pub fn new(text: &str) -> Result<Self, AuthnError> {
        let is_plain = text.bytes().all(|b| b.is_ascii_graphic());
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !is_plain {
            return Err(AuthnError::MalformedToken);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The token itself, for those who verify it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A key under which what is known of the token may be kept.
    pub(crate) fn hash(&self, cluster: &str) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(cluster.as_bytes());
        context.update(&[0]);
        context.update(self.0.as_bytes());
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        out
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}
