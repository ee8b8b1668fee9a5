//! What watches do, in numbers. Source: spec/control-plane.md §7.

use prometheus::{IntCounterVec, Opts, Registry};

use crate::kinds;

/// Counters of events and errors. The default counts for nobody.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    registry_events: IntCounterVec,
    config_events: IntCounterVec,
    errors: IntCounterVec,
    lists: IntCounterVec,
}

fn counter(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

// === impl SourceMetrics ===

impl Default for SourceMetrics {
    #[allow(
        clippy::expect_used,
        reason = "names and labels are constants that tests cover"
    )]
    fn default() -> Self {
        Self::new().expect("invariant: names of metrics are valid")
    }
}

impl SourceMetrics {
    fn new() -> Result<Self, prometheus::Error> {
        let event = ["type", "event"];
        Ok(Self {
            registry_events: counter("pilot_k8s_reg_events", "Events from k8s registry.", &event)?,
            config_events: counter("pilot_k8s_cfg_events", "Events from k8s config.", &event)?,
            errors: counter(
                "ambientd_k8s_watch_errors",
                "Lists and watches that failed, by kind and what failed.",
                &["type", "reason"],
            )?,
            lists: counter(
                "ambientd_k8s_lists",
                "Complete lists by kind; more than one when a watch could not be resumed.",
                &["type"],
            )?,
        })
    }

    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self::new()?;
        registry.register(Box::new(metrics.registry_events.clone()))?;
        registry.register(Box::new(metrics.config_events.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.lists.clone()))?;
        Ok(metrics)
    }

    /// `event` is `add` for objects of lists, `update` for ones that a watch tells, or `delete`.
    pub(super) fn events(&self, kind: &str, event: &str, count: usize) {
        let events = if kinds::is_registry(kind) {
            &self.registry_events
        } else {
            &self.config_events
        };
        events
            .with_label_values(&[kind, event])
            .inc_by(u64::try_from(count).unwrap_or_default());
    }

    pub(super) fn error(&self, kind: &str, reason: &str) {
        self.errors.with_label_values(&[kind, reason]).inc();
    }

    pub(super) fn list(&self, kind: &str) {
        self.lists.with_label_values(&[kind]).inc();
    }
}
