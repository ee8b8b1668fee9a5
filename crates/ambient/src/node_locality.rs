//! Stage `node_locality`: Node → [`Locality`], so that other changes of a node touch no pod.
//!
//! Source: spec/workload-discovery.md §2.8.

use flow::{Output, Reads};
use model::derived::Locality;
use model::input::Node;
use model::labels::{LABEL_REGION, LABEL_SUBZONE, LABEL_ZONE};
use model::{Finding, ObjectKey};

use crate::tables::InputView;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct NodeLocalityView<'t> {
    /// Nodes.
    pub nodes: InputView<'t, Node>,
}

/// The locality of a node; no row when it has none.
pub fn derive(
    node: &ObjectKey,
    view: &NodeLocalityView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, Locality, Finding> {
    let Some(row) = view.nodes.get(reads, node) else {
        return Output::gone();
    };
    let label = |key| row.meta.label(key).cloned().unwrap_or_default();
    let locality = Locality {
        region: label(LABEL_REGION),
        zone: label(LABEL_ZONE),
        subzone: label(LABEL_SUBZONE),
    };
    if locality == Locality::default() {
        return Output::none();
    }
    Output::one(node.clone(), locality)
}
