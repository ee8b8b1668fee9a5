//! Stage `findings::captured`: whether ztunnel captures any workload, so that anybody could go
//! through a waypoint. All workloads share two rows, so that these change with the first and the
//! last of a kind only.

use flow::{Output, Reads, View};
use model::labels::LABEL_GATEWAY_NAME;
use model::{Finding, WorkloadRow, WorkloadUid};

/// Primary: a workload.
pub type P = WorkloadUid;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct CapturedView<'t> {
    /// Workloads.
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
}

/// Key `true`: some workload is captured; `false`: some is not. Instances of a gateway are
/// neither, although they take tunnels.
pub fn derive(p: &P, view: &CapturedView<'_>, reads: &mut Reads) -> Output<bool, (), Finding> {
    let Some(workload) = view.workloads.get(reads, p) else {
        return Output::gone();
    };
    if workload.labels.contains_key(LABEL_GATEWAY_NAME) {
        return Output::none();
    }
    Output::one(workload.hbone, ())
}
