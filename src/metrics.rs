//! Metrics of the process itself; those of streams are registered by `xds`.
//! Source: spec/control-plane.md §7 (names verbatim).

use std::time::Instant;

use prometheus::{Encoder as _, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// The registry and what is computed when it is read.
#[derive(Clone)]
pub struct ProcessMetrics {
    registry: Registry,
    uptime: IntGauge,
    services: IntGauge,
    findings: IntGaugeVec,
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
        Ok(Self {
            registry,
            uptime,
            services,
            findings,
            started,
        })
    }

    /// The Prometheus text format.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a defect.
    pub fn text(&self, snapshot: Option<&snapshot::Snapshot>) -> Result<String, prometheus::Error> {
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
}

fn severity_word(severity: model::Severity) -> &'static str {
    match severity {
        model::Severity::Error => "error",
        model::Severity::Warning => "warning",
        model::Severity::Info => "info",
    }
}
