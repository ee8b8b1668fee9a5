//! What debug builds verify after every commit.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(true);

/// Has debug builds verify no more that tables agree with their indexes, claims and readers.
///
/// For benchmarks of debug builds, which would else count little but that. No result depends on it.
pub fn stop_verifying() {
    IS_ON.store(false, Ordering::Relaxed);
}

pub(crate) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}
