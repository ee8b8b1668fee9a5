//! Filters of chains that need more than a line.

pub(super) mod dynamic;
pub(super) mod ext_authz;
pub(super) mod identity;
pub(super) mod jwt;
