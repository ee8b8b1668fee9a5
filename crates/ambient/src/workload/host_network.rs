//! Pods that ztunnel cannot capture. Source: spec/policy-and-traffic.md §10.3.

use flow::Reads;
use model::input::{Namespace, Pod};
use model::labels::LABEL_DATAPLANE_MODE;
use model::{Finding, Kind, ObjectKey, ObjectRef, Parsed};

use crate::tables::{InputView, warning};

/// The finding on a pod that shares the network of its node although it is enrolled.
pub(super) fn note(
    object: &Parsed<Pod>,
    pod: &Pod,
    namespaces: InputView<'_, Namespace>,
    reads: &mut Reads,
) -> Option<Finding> {
    if !pod.host_network {
        return None;
    }
    let meta = &object.meta;
    let namespace = ObjectKey::cluster(meta.key.ns.clone());
    let namespace = namespaces.get(reads, &namespace);
    let inherited = || namespace.and_then(|row| row.meta.label(LABEL_DATAPLANE_MODE));
    let mode = meta.label(LABEL_DATAPLANE_MODE).or_else(inherited)?;
    if mode != "ambient" {
        return None;
    }
    let note = warning(
        "wp-hostnetwork",
        ObjectRef::new(Kind::Pod, meta.key.clone()),
        "Pods on the network of their node are not captured: what this one sends and receives has no identity and passes no waypoint",
        "Use policies that need no identity for it, or give it a network of its own",
    );
    Some(note.at("spec.hostNetwork"))
}
