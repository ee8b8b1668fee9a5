//! What identity checks must know of a pod.
//!
//! Pods that wait or have succeeded count: certificates are asked for while a pod
//! starts. Failed ones do not. Source: spec/control-plane.md §4.3.

use model::input::Pod;
use model::labels::LABEL_GATEWAY_NAME;
use model::{Parsed, PodFact};

/// What is known of a pod; nothing of one that failed, is invalid or has no account.
pub fn of(row: &Parsed<Pod>) -> Option<PodFact> {
    let body = row
        .ok()
        .filter(|body| !body.failed && !body.service_account.is_empty())?;
    Some(PodFact {
        uid: row.meta.uid.clone(),
        service_account: body.service_account.clone(),
        node: body.node.clone(),
        gateway: row.meta.label(LABEL_GATEWAY_NAME).cloned(),
    })
}
