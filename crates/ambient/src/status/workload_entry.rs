//! Stage `status::workload_entry`: WorkloadEntry → what became of its waypoint.

use flow::Reads;
use model::input::WorkloadEntry;
use model::status::MANAGER_WORKLOAD_ENTRY;
use model::{Kind, ObjectKey, ObjectRef};

use super::{StatusOutput, bound, row};
use crate::attach::AttachView;
use crate::tables::InputView;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct WorkloadEntryStatusView<'t> {
    /// WorkloadEntries.
    pub workload_entries: InputView<'t, WorkloadEntry>,
    /// Waypoints and what leads to them.
    pub attach: AttachView<'t>,
}

/// The status of a WorkloadEntry.
pub fn derive(
    key: &ObjectKey,
    view: &WorkloadEntryStatusView<'_>,
    reads: &mut Reads,
) -> StatusOutput {
    let Some(object) = view.workload_entries.get(reads, key) else {
        return StatusOutput::gone();
    };
    let attachment = view.attach.of_workload_entry(reads, object);
    let conditions = bound(&attachment, "").into_iter().collect();
    let reference = ObjectRef::new(Kind::WorkloadEntry, key.clone());
    StatusOutput::from(vec![row(&reference, MANAGER_WORKLOAD_ENTRY, conditions)])
}
