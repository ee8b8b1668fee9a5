//! Stage `pod_facts`: Pod → [`PodFact`], what identity checks must know of it.
//!
//! Pods that wait or have succeeded count: certificates are asked for while a pod
//! starts. Failed ones do not. Source: spec/control-plane.md §4.3.

use flow::{Output, Reads};
use model::input::Pod;
use model::labels::LABEL_GATEWAY_NAME;
use model::{Finding, ObjectKey, PodFact};

use crate::tables::InputView;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct PodFactView<'t> {
    /// Pods.
    pub pods: InputView<'t, Pod>,
}

/// What is known of a pod; no row for one that failed, is invalid or has no account.
pub fn derive(
    pod: &ObjectKey,
    view: &PodFactView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, PodFact, Finding> {
    let Some(row) = view.pods.get(reads, pod) else {
        return Output::gone();
    };
    let Some(body) = row
        .ok()
        .filter(|body| !body.failed && !body.service_account.is_empty())
    else {
        return Output::none();
    };
    let fact = PodFact {
        uid: row.meta.uid.clone(),
        service_account: body.service_account.clone(),
        node: body.node.clone(),
        gateway: row.meta.label(LABEL_GATEWAY_NAME).cloned(),
    };
    Output::one(pod.clone(), fact)
}
