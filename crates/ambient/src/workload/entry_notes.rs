//! What a WorkloadEntry does not do that its reader may expect.
//! Source: spec/policy-and-traffic.md §8.3, §10.6.

use std::collections::BTreeMap;

use model::input::{TargetPort, WorkloadEntry};
use model::{Finding, ObjectKey, ObjectRef, ServiceRow, Severity};

use crate::tables::warning;

/// Findings on an entry with these services.
pub(super) fn notes(
    object: &ObjectRef,
    entry: &WorkloadEntry,
    services: &[&ServiceRow],
    hbone: bool,
) -> Vec<Finding> {
    let mut notes: Vec<Finding> = unmapped(object, entry, services).collect();
    if hbone {
        notes.extend(no_identity(object, entry));
    } else if services.iter().any(|service| !service.external) {
        let note = warning(
            "we-not-hbone",
            object.clone(),
            "The entry is reached in plain text: nothing says that it terminates HBONE",
            "Label it networking.istio.io/tunnel: http if a tunnel runs there",
        );
        notes.push(note.at("metadata.labels"));
    }
    notes
}

/// The finding on an entry without account and tunnel, where a policy asks who its peers are.
pub(super) fn nameless(object: &ObjectRef, policy: &ObjectKey) -> Finding {
    let note = warning(
        "we-no-service-account",
        object.clone(),
        format!(
            "The entry has no identity: no peer that AuthorizationPolicy {policy} names is this one"
        ),
        "Set serviceAccount, and run a tunnel there that presents it (label networking.istio.io/tunnel: http)",
    );
    note.at("spec.serviceAccount")
}

fn no_identity(object: &ObjectRef, entry: &WorkloadEntry) -> Option<Finding> {
    let note = Finding::new(
        "we-no-service-account",
        Severity::Info,
        object.clone(),
        format!(
            "Without serviceAccount the entry must present the identity of {}/default; policies see no other",
            object.key.ns
        ),
        "Set serviceAccount",
    );
    entry
        .service_account
        .is_empty()
        .then(|| note.at("spec.serviceAccount"))
}

/// One finding per port name, naming the first service.
fn unmapped<'a>(
    object: &'a ObjectRef,
    entry: &WorkloadEntry,
    services: &[&'a ServiceRow],
) -> impl Iterator<Item = Finding> + use<'a> {
    let mut missing = BTreeMap::new();
    for service in services {
        for port in &service.ports {
            if let TargetPort::Named(name) = &port.target
                && !entry.ports.contains_key(name)
            {
                missing.entry(name.clone()).or_insert((*service, port.port));
            }
        }
    }
    missing.into_iter().map(|(name, (service, port))| {
        let note = warning(
            "we-port-name",
            object.clone(),
            format!(
                "Port {port} of {} has target port {name}, which the entry does not map; it is no endpoint of that port",
                service.key.hostname
            ),
            format!("Add {name} to ports"),
        );
        note.at("spec.ports")
    })
}
