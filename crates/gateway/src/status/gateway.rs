//! Stage `status::gateway`: a Gateway of ours → its conditions, addresses and listeners.
//! Source: spec/gateway-api.md §3.1–§3.5, §5.1.

use std::collections::BTreeSet;
use std::net::IpAddr;

use flow::{Reads, View};
use model::gateway::Defect;
use model::input::{Gateway, GatewayStatusAddress};
use model::status::{Condition, StatusRow};
use model::{GatewayController, GatewayRow, Kind, Meta, ObjectKey, ObjectRef, Parsed, Str};

use super::programmed::{Programmed, Site};
use super::{
    ACCEPTED, INSECURE_FRONTEND, PROGRAMMED, RESOLVED_REFS, StatusOutput, StatusTables, is_ours,
    listeners, of,
};

/// Primary: a Gateway.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct GatewayStatusView<'t> {
    /// Gateways.
    pub gateways: View<'t, ObjectKey, Parsed<Gateway>>,
    /// What was made of them.
    pub tables: StatusTables<'t>,
}

/// The status of a Gateway; no row for those of classes of others, or that cannot be read.
pub fn derive(p: &P, view: &GatewayStatusView<'_>, reads: &mut Reads) -> StatusOutput {
    let Some(object) = view.gateways.get(reads, p) else {
        return StatusOutput::gone();
    };
    let (Some(row), Some(gateway)) = (view.tables.rows.get(reads, p), object.ok()) else {
        return StatusOutput::none();
    };
    let tables = &view.tables;
    if !is_ours(&object.meta, tables.revisions, tables.namespaces, reads) {
        return StatusOutput::none();
    }
    let status = if row.controller == GatewayController::Remote {
        remote(&object.meta, gateway)
    } else if let Some(defect) = &row.class_defect {
        inactive(&object.meta, row, defect)
    } else {
        status(&object.meta, gateway, row, &view.tables, reads)
    };
    of(Kind::Gateway, p, status)
}

/// Nothing is done for a gateway that somebody else runs; its status repeats where it is.
fn remote(meta: &Meta, gateway: &Gateway) -> StatusRow {
    let message = "The Gateway is run elsewhere; it is not programmed here";
    let condition = |ty, reason| Condition::new(ty, true, reason, message, meta.generation);
    let values = gateway.requested.iter().map(|(_, value)| value);
    StatusRow {
        conditions: vec![
            condition(ACCEPTED, "Accepted"),
            condition(PROGRAMMED, "Programmed"),
        ],
        listeners: Some(Vec::new()),
        gateway_addresses: Some(
            values
                .filter(|text| !text.is_empty())
                .map(address)
                .collect(),
        ),
        ..StatusRow::default()
    }
}

/// Nothing is done for a Gateway whose class is switched off.
fn inactive(meta: &Meta, row: &GatewayRow, defect: &Defect) -> StatusRow {
    let Defect { reason, message } = defect;
    let condition = |ty| Condition::new(ty, false, reason, message.clone(), meta.generation);
    StatusRow {
        conditions: vec![
            condition(ACCEPTED),
            condition(PROGRAMMED),
            resolved(row, meta.generation),
        ],
        listeners: Some(Vec::new()),
        ..StatusRow::default()
    }
}

/// An address of the type that its text is of.
pub(super) fn address(text: &Str) -> GatewayStatusAddress {
    match text.parse::<IpAddr>() {
        Ok(ip) => GatewayStatusAddress::Ip(ip),
        Err(_) => GatewayStatusAddress::Hostname(text.clone()),
    }
}

fn status(
    meta: &Meta,
    gateway: &Gateway,
    row: &GatewayRow,
    tables: &StatusTables<'_>,
    reads: &mut Reads,
) -> StatusRow {
    let generation = meta.generation;
    let own = ObjectRef::new(Kind::Gateway, row.key.clone());
    // Those of ListenerSets only while they are of use.
    let asking = row
        .listeners
        .iter()
        .filter(|one| one.is_built && (one.owner == own || one.is_valid));
    let site = Site {
        row,
        ports: asking.map(|one| one.port).collect(),
        address_type: meta.annotation(model::gateway::ANNOTATION_ADDRESS_TYPE),
    };
    let programmed = Programmed::of(&site, tables, reads);
    let mut conditions = vec![
        accepted(row, &own, generation),
        programmed.condition(PROGRAMMED, generation),
        resolved(row, generation),
    ];
    if gateway.frontend.all().any(|one| one.accepts_untrusted) {
        let message = "Clients without a valid certificate are let in";
        conditions.push(Condition::new(
            INSECURE_FRONTEND,
            true,
            "ConfigurationChanged",
            message,
            generation,
        ));
    }
    StatusRow {
        conditions,
        listeners: Some(listeners::statuses(
            row.listeners_of(&own),
            generation,
            tables,
            reads,
        )),
        gateway_addresses: Some(programmed.addresses(&site, &gateway.addresses)),
        attached_listener_sets: row
            .controller
            .takes_listener_sets()
            .then(|| attached_sets(row, &own)),
        ..StatusRow::default()
    }
}

fn accepted(row: &GatewayRow, own: &ObjectRef, generation: i64) -> Condition {
    let new =
        |holds, reason, message: Str| Condition::new(ACCEPTED, holds, reason, message, generation);
    if let Some(defect) = row.defect() {
        return new(false, defect.reason, defect.message.clone());
    }
    match listeners::invalid(row.listeners_of(own)) {
        Some((some, message)) => new(some, "ListenersNotValid", message.into()),
        None => new(
            true,
            "Accepted",
            arcstr::literal!("The Gateway is accepted"),
        ),
    }
}

fn resolved(row: &GatewayRow, generation: i64) -> Condition {
    let new = |holds, reason, message: Str| {
        Condition::new(RESOLVED_REFS, holds, reason, message, generation)
    };
    if let Some(defect) = &row.client_certificate_defect {
        return new(false, defect.reason, defect.message.clone());
    }
    let message = arcstr::literal!("The Gateway refers to nothing that is missing");
    new(true, "ResolvedRefs", message)
}

/// ListenerSets that add at least one listener of use.
fn attached_sets(row: &GatewayRow, own: &ObjectRef) -> usize {
    let valid = row
        .listeners
        .iter()
        .filter(|one| one.is_valid && one.owner != *own);
    let owners: BTreeSet<&ObjectRef> = valid.map(|one| &one.owner).collect();
    owners.len()
}
