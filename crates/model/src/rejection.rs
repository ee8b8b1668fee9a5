//! What clients refuse of what they were sent, as table input.

use crate::Str;

/// A resource version that a client refused (NACK).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rejection {
    /// Type URL.
    pub type_url: Str,
    /// Resource name; empty when the client did not say which.
    pub name: Str,
    /// What the client said, shortened.
    pub text: Str,
}
