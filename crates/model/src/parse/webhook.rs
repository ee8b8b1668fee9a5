//! Webhook configurations: of these, only what says which revision a tag is.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::input::WebhookConfiguration;
use crate::labels::{LABEL_REVISION, LABEL_TAG};
use crate::names::Kind;
use crate::object::{Meta, Parsed};

use super::read::Doc;

/// Whether a document is a webhook configuration that names no revision: those are none of ours.
pub(super) fn is_foreign(kind: Kind, map: &Map<String, Value>) -> bool {
    let is_webhook = matches!(
        kind,
        Kind::MutatingWebhookConfiguration | Kind::ValidatingWebhookConfiguration
    );
    let labels = map.get("metadata").and_then(|meta| meta.get("labels"));
    let revision = labels.and_then(|labels| labels.get(LABEL_REVISION));
    is_webhook && !revision.is_some_and(Value::is_string)
}

/// The row keeps two labels, so that an edit of anything else is none.
pub(super) fn configuration(mut doc: Doc<'_>) -> Arc<Parsed<WebhookConfiguration>> {
    let mut labels = std::mem::take(&mut doc.meta.labels);
    labels.retain(|key, _| matches!(key.as_str(), LABEL_REVISION | LABEL_TAG));
    doc.meta = Meta {
        key: std::mem::take(&mut doc.meta.key),
        labels,
        ..Meta::default()
    };
    doc.row(|_| Ok(WebhookConfiguration {}))
}
