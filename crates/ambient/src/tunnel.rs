//! How a workload is reached. Source: spec/workload-discovery.md §2.6.

use model::Labels;
use model::labels::{ANNOTATION_REDIRECTION, LABEL_TUNNEL};

/// Tunnel of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// Reached over HBONE.
    pub(crate) hbone: bool,
    /// The workload terminates HBONE itself.
    pub(crate) native: bool,
}

/// The tunnel decision; the label overrides the annotation.
pub(crate) fn tunnel(labels: &Labels, annotations: &Labels) -> Tunnel {
    let speaks = labels.get(LABEL_TUNNEL);
    if speaks.is_some_and(|list| list.split(',').any(|tunnel| tunnel == "http")) {
        return Tunnel {
            hbone: true,
            native: true,
        };
    }
    let captured = annotations.get(ANNOTATION_REDIRECTION);
    Tunnel {
        hbone: captured.is_some_and(|value| value == "enabled"),
        native: false,
    }
}
