//! What is said of each listener. Source: spec/gateway-api.md §3.4, §3.5.

use std::collections::BTreeSet;

use flow::Reads;
use model::gateway::{Defect, ListenerRow};
use model::status::{Condition, ListenerStatus};
use model::{ObjectRef, Str};

use super::{ACCEPTED, CONFLICTED, PROGRAMMED, RESOLVED_REFS, StatusTables};
use crate::index::RouteByListener;

/// The statuses of the listeners of a Gateway or ListenerSet, in the order of its spec.
pub(super) fn statuses<'r>(
    listeners: impl Iterator<Item = &'r ListenerRow>,
    generation: i64,
    tables: &StatusTables<'_>,
    reads: &mut Reads,
) -> Vec<ListenerStatus> {
    // Names are distinct in a cluster; of equal ones, the first has the routes.
    let mut names = BTreeSet::new();
    listeners
        .map(|listener| {
            let has_routes = names.insert(&listener.name) && listener.conflict.is_none();
            let attached = if has_routes {
                attached(&listener.owner, &listener.name, tables, reads)
            } else {
                0
            };
            ListenerStatus {
                name: listener.name.clone(),
                supported_kinds: listener.kinds.clone(),
                attached_routes: attached,
                conditions: conditions(listener, generation),
            }
        })
        .collect()
}

/// How many routes a listener has taken.
fn attached(owner: &ObjectRef, name: &Str, tables: &StatusTables<'_>, reads: &mut Reads) -> usize {
    let at = (owner.clone(), name.clone());
    tables
        .route_parents
        .by::<RouteByListener>(reads, &at)
        .count()
}

/// Sorted by type. Of a listener that is out for another one, nothing is known of references.
fn conditions(listener: &ListenerRow, generation: i64) -> Vec<Condition> {
    let new =
        |ty, holds, reason, message: &str| Condition::new(ty, holds, reason, message, generation);
    if let Some(Defect { reason, message }) = &listener.conflict {
        return vec![
            new(ACCEPTED, false, reason, message),
            new(CONFLICTED, true, reason, message),
            new(PROGRAMMED, false, reason, message),
        ];
    }
    let unless = |ty, defect: &Option<Defect>, reason, message| match defect {
        Some(defect) => new(ty, false, defect.reason, &defect.message),
        None => new(ty, true, reason, message),
    };
    let defects = &listener.defects;
    let accepted = "The listener is accepted";
    let programmed = "The listener is programmed";
    let resolved = "All references are resolved";
    vec![
        unless(ACCEPTED, &defects.accepted, "Accepted", accepted),
        new(
            CONFLICTED,
            false,
            "NoConflicts",
            "No other listener is in its way",
        ),
        unless(PROGRAMMED, &defects.programmed, "Programmed", programmed),
        unless(
            RESOLVED_REFS,
            &defects.resolved_refs,
            "ResolvedRefs",
            resolved,
        ),
    ]
}

/// Why listeners are not all valid: whether some are, and the names of those that are not;
/// `None` when all are.
pub(super) fn invalid<'r>(
    listeners: impl Iterator<Item = &'r ListenerRow>,
) -> Option<(bool, String)> {
    let (valid, wrong): (Vec<_>, Vec<_>) = listeners.partition(|listener| listener.is_valid);
    if wrong.is_empty() {
        return None;
    }
    let names: Vec<&str> = wrong.iter().map(|one| one.name.as_str()).collect();
    let message = format!("Listeners that are not valid: {}", names.join(", "));
    Some((!valid.is_empty(), message))
}
