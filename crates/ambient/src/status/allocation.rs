//! Stage `status::allocation`: ServiceEntry → the addresses that its hosts were given.

use flow::Reads;
use model::input::ServiceEntry;
use model::status::{MANAGER_ALLOCATION, StatusKey, StatusRow};
use model::{Kind, ObjectKey, ObjectRef};

use super::StatusOutput;
use crate::allocation::AllocationTable;
use crate::tables::InputView;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct AllocationStatusView<'t> {
    /// ServiceEntries.
    pub service_entries: InputView<'t, ServiceEntry>,
    /// Their addresses.
    pub allocations: AllocationTable<'t>,
}

/// `status.addresses` of a ServiceEntry; no row for one that neither gets nor holds any.
pub fn derive(key: &ObjectKey, view: &AllocationStatusView<'_>, reads: &mut Reads) -> StatusOutput {
    if view.service_entries.get(reads, key).is_none() {
        return StatusOutput::gone();
    }
    let Some(allocation) = view.allocations.get(reads, key) else {
        return StatusOutput::none();
    };
    let key = StatusKey {
        object: ObjectRef::new(Kind::ServiceEntry, key.clone()),
        manager: MANAGER_ALLOCATION,
    };
    let row = StatusRow {
        addresses: Some(allocation.status.clone()),
        ..StatusRow::default()
    };
    StatusOutput::one(key, row)
}
