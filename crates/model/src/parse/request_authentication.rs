//! RequestAuthentication.

use std::sync::Arc;

use crate::input::RequestAuthentication;
use crate::object::Parsed;

use super::read::Doc;

pub(super) fn request_authentication(doc: Doc<'_>) -> Arc<Parsed<RequestAuthentication>> {
    doc.row(|_| Ok(RequestAuthentication::default()))
}
