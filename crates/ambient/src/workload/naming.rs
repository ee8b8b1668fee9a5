//! Names that only telemetry uses. Source: spec/workload-discovery.md §2.4, §2.5.

use model::{Labels, Meta, Str, shared};

use crate::keys::{self, LABEL_WORKLOAD_NAME};

/// The first of the keys that is present, even with an empty value.
fn first(labels: &Labels, keys: [&str; 3]) -> Option<Str> {
    keys.iter().find_map(|key| labels.get(*key)).cloned()
}

/// Canonical name and revision.
pub(super) fn canonical(labels: &Labels, workload_name: &Str) -> (Str, Str) {
    let name = first(labels, keys::CANONICAL_NAME).unwrap_or_else(|| workload_name.clone());
    let revision =
        first(labels, keys::CANONICAL_REVISION).unwrap_or_else(|| shared::text("latest"));
    (name, revision)
}

/// The name of the workload that a pod belongs to.
pub(super) fn of_pod(meta: &Meta) -> Str {
    if let Some(name) = meta.label(LABEL_WORKLOAD_NAME) {
        return name.clone();
    }
    match &meta.controller {
        Some((kind, owner)) if !meta.generate_name.is_empty() => of_owner(meta, kind, owner),
        _ => meta.key.name.clone(),
    }
}

fn of_owner(meta: &Meta, kind: &str, owner: &Str) -> Str {
    match kind {
        "ReplicaSet" => {
            let hashed = |label| without_hash(owner, meta.label(label)?);
            hashed("pod-template-hash")
                .or_else(|| hashed("rollouts-pod-template-hash"))
                .unwrap_or_else(|| owner.clone())
        }
        "ReplicationController" => {
            let config = meta
                .label("deploymentconfig")
                .filter(|config| !config.is_empty());
            config.unwrap_or(owner).clone()
        }
        "Job" => without_schedule(owner).unwrap_or_else(|| owner.clone()),
        _ => owner.clone(),
    }
}

fn without_hash(owner: &str, hash: &str) -> Option<Str> {
    let stem = owner.strip_suffix(hash).filter(|_| !hash.is_empty())?;
    Some(shared::text(stem.strip_suffix('-').unwrap_or(owner)))
}

/// The CronJob of a Job named after its schedule: `<name>-` and 8 to 10 digits.
fn without_schedule(owner: &str) -> Option<Str> {
    let (stem, digits) = owner.rsplit_once('-')?;
    let is_schedule =
        (8..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_schedule && !stem.is_empty()).then(|| shared::text(stem))
}
