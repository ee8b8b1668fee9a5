//! VirtualService.

use std::sync::Arc;

use crate::input::VirtualService;
use crate::object::Parsed;

use super::read::Doc;

pub(super) fn virtual_service(doc: Doc<'_>) -> Arc<Parsed<VirtualService>> {
    doc.row(|_| Ok(VirtualService::default()))
}
