//! Stage `status::listener_set`: a ListenerSet of a Gateway of ours → its conditions and
//! listeners. Source: spec/gateway-api.md §3.9.

use flow::{Reads, View};
use model::gateway::Defect;
use model::input::ListenerSet;
use model::status::{Condition, StatusRow};
use model::{GatewayRow, Kind, Meta, ObjectKey, ObjectRef, Parsed};

use super::programmed::{Programmed, Site};
use super::{ACCEPTED, PROGRAMMED, StatusOutput, StatusTables, is_ours, listeners, of};
use crate::index::GatewayByListenerSet;

/// Primary: a ListenerSet.
pub type P = ObjectKey;

/// Reason of a ListenerSet without a listener of use.
const NOT_VALID: &str = "ListenersNotValid";

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ListenerSetStatusView<'t> {
    /// ListenerSets.
    pub listener_sets: View<'t, ObjectKey, Parsed<ListenerSet>>,
    /// What was made of their Gateways.
    pub tables: StatusTables<'t>,
}

/// The status of a ListenerSet; no row where its parent is no Gateway of ours, or where it cannot
/// be read.
pub fn derive(p: &P, view: &ListenerSetStatusView<'_>, reads: &mut Reads) -> StatusOutput {
    let Some(object) = view.listener_sets.get(reads, p) else {
        return StatusOutput::gone();
    };
    let tables = &view.tables;
    let gateway = tables.rows.by::<GatewayByListenerSet>(reads, p).next();
    let Some((_, gateway)) = gateway.filter(|_| object.body.is_ok()) else {
        return StatusOutput::none();
    };
    let tables = &view.tables;
    if !is_ours(&object.meta, tables.revisions, tables.namespaces, reads) {
        return StatusOutput::none();
    }
    let set = gateway.listener_sets.iter().find(|set| set.key == *p);
    let row = match set.and_then(|set| set.refused.as_ref()) {
        Some(refused) => refusal(&object.meta, refused),
        None => status(&object.meta, gateway, tables, reads),
    };
    of(Kind::ListenerSet, p, row)
}

fn refusal(meta: &Meta, refused: &Defect) -> StatusRow {
    let Defect { reason, message } = refused;
    let condition = |ty| Condition::new(ty, false, reason, message.clone(), meta.generation);
    StatusRow {
        conditions: vec![condition(ACCEPTED), condition(PROGRAMMED)],
        listeners: Some(Vec::new()),
        ..StatusRow::default()
    }
}

fn status(
    meta: &Meta,
    gateway: &GatewayRow,
    tables: &StatusTables<'_>,
    reads: &mut Reads,
) -> StatusRow {
    let generation = meta.generation;
    let owner = ObjectRef::new(Kind::ListenerSet, meta.key.clone());
    let own = || gateway.listeners_of(&owner);
    let is_of_use = own().any(|one| one.is_valid);
    let none = "No listener is valid";
    let accepted = match &gateway.address_defect {
        Some(defect) => {
            let message = format!("The parent is not accepted: {}", defect.message);
            Condition::new(ACCEPTED, false, defect.reason, message, generation)
        }
        None if !is_of_use => Condition::new(ACCEPTED, false, NOT_VALID, none, generation),
        None => {
            let message = "The ListenerSet is accepted";
            Condition::new(ACCEPTED, true, "Accepted", message, generation)
        }
    };
    let programmed = if is_of_use {
        let asking = own().filter(|one| one.is_built);
        let site = Site {
            row: gateway,
            ports: asking.map(|one| one.port).collect(),
            address_type: None,
        };
        Programmed::of(&site, tables, reads).condition(PROGRAMMED, generation)
    } else {
        Condition::new(PROGRAMMED, false, NOT_VALID, none, generation)
    };
    StatusRow {
        conditions: vec![accepted, programmed],
        listeners: Some(listeners::statuses(own(), generation, tables, reads)),
        ..StatusRow::default()
    }
}
