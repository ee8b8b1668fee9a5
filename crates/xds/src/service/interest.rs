//! Which classes of proxies are connected.

use std::collections::BTreeMap;

use model::ProxyClass;
use tokio::sync::{Mutex, mpsc};

/// Counts the streams of each class and reports the first and the last.
pub(super) struct Interests {
    /// Held while reporting, so that reports of one class keep their order.
    counts: Mutex<BTreeMap<ProxyClass, usize>>,
    reports: mpsc::Sender<(ProxyClass, bool)>,
}

impl Interests {
    pub(super) fn new(reports: mpsc::Sender<(ProxyClass, bool)>) -> Self {
        Self {
            counts: Mutex::default(),
            reports,
        }
    }

    pub(super) async fn raise(&self, class: ProxyClass) {
        let mut counts = self.counts.lock().await;
        let count = counts.entry(class.clone()).or_default();
        *count += 1;
        if *count == 1 {
            // An error means that the process is ending.
            let _ = self.reports.send((class, true)).await;
        }
    }

    pub(super) async fn lower(&self, class: ProxyClass) {
        let mut counts = self.counts.lock().await;
        let Some(count) = counts.get_mut(&class) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            counts.remove(&class);
            let _ = self.reports.send((class, false)).await;
        }
    }
}
