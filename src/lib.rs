//! ambientd.
