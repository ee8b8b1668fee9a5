//! DestinationRule.

use std::sync::Arc;

use crate::input::DestinationRule;
use crate::object::Parsed;

use super::read::Doc;

pub(super) fn destination_rule(doc: Doc<'_>) -> Arc<Parsed<DestinationRule>> {
    doc.row(|_| Ok(DestinationRule::default()))
}
