//! Metrics of the process itself; those of streams are registered by `xds`.
//! Source: spec/control-plane.md §7 (names verbatim).

use std::time::Instant;

use prometheus::{Encoder as _, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::readiness::{self, ClusterView};

/// The registry and what is computed when it is read.
#[derive(Clone)]
pub struct ProcessMetrics {
    registry: Registry,
    uptime: IntGauge,
    services: IntGauge,
    findings: IntGaugeVec,
    kinds: IntGaugeVec,
    outage: IntGauge,
    started: Instant,
}

impl ProcessMetrics {
    /// Registers the metrics of the process.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: Registry, started: Instant) -> Result<Self, prometheus::Error> {
        let info = IntGaugeVec::new(
            Opts::new("pilot_info", "Pilot version and build information."),
            &["version"],
        )?;
        registry.register(Box::new(info.clone()))?;
        info.with_label_values(&[crate::VERSION]).set(1);
        let build = IntGaugeVec::new(
            Opts::new("istio_build", "Istio component build info"),
            &["component", "tag"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&["pilot", crate::VERSION]).set(1);
        let uptime = IntGauge::new(
            "istiod_uptime_seconds",
            "Current istiod server uptime in seconds.",
        )?;
        registry.register(Box::new(uptime.clone()))?;
        let services = IntGauge::new("pilot_services", "Total services known to pilot.")?;
        registry.register(Box::new(services.clone()))?;
        let findings = IntGaugeVec::new(
            Opts::new("ambientd_findings", "Findings by severity."),
            &["severity"],
        )?;
        registry.register(Box::new(findings.clone()))?;
        let kinds = IntGaugeVec::new(
            Opts::new(
                "ambientd_kubernetes_kind_state",
                "1 for the state that the watch of a kind is in.",
            ),
            &["kind", "state"],
        )?;
        registry.register(Box::new(kinds.clone()))?;
        let outage = IntGauge::new(
            "ambientd_kubernetes_api_outage_seconds",
            "How long the API server has not been reachable; 0 while it is.",
        )?;
        registry.register(Box::new(outage.clone()))?;
        Ok(Self {
            registry,
            uptime,
            services,
            findings,
            kinds,
            outage,
            started,
        })
    }

    /// The Prometheus text format.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a defect.
    pub fn text(
        &self,
        snapshot: Option<&snapshot::Snapshot>,
        cluster: Option<&ClusterView>,
    ) -> Result<String, prometheus::Error> {
        if let Some(cluster) = cluster {
            self.observe(cluster);
        }
        self.uptime
            .set(i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX));
        if let Some(snapshot) = snapshot {
            // A service's resource name holds exactly one slash, a workload's several.
            let services = snapshot
                .addresses
                .iter()
                .filter(|r| r.name().matches('/').count() == 1)
                .count();
            self.services
                .set(i64::try_from(services).unwrap_or(i64::MAX));
            for severity in [
                model::Severity::Error,
                model::Severity::Warning,
                model::Severity::Info,
            ] {
                let count = snapshot
                    .findings
                    .iter()
                    .filter(|f| f.severity == severity)
                    .count();
                self.findings
                    .with_label_values(&[severity_word(severity)])
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn observe(&self, cluster: &ClusterView) {
        self.kinds.reset();
        for (kind, health) in cluster.health.kinds() {
            let labels = [kind.as_str(), readiness::state_word(&health.state)];
            self.kinds.with_label_values(&labels).set(1);
        }
        // At least a second, so that an outage that has just begun is seen.
        let seconds = readiness::outage(&cluster.health)
            .map_or(0, |outage| outage.since.elapsed().as_secs().max(1));
        self.outage.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

fn severity_word(severity: model::Severity) -> &'static str {
    match severity {
        model::Severity::Error => "error",
        model::Severity::Warning => "warning",
        model::Severity::Info => "info",
    }
}
