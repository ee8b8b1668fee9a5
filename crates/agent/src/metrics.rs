//! Metrics of the agent itself, which scrapers get beside Envoy's.

use std::time::SystemTime;

use prometheus::{Encoder as _, GaugeVec, IntCounter, Opts, Registry, TextEncoder};

use crate::state::{CERTIFICATE, Secrets};

/// Counters and the registry that they are in.
pub(crate) struct Metrics {
    registry: Registry,
    expiry: GaugeVec,
    pub(crate) renewals: IntCounter,
    pub(crate) failures: IntCounter,
    pub(crate) pushes: IntCounter,
    pub(crate) rejections: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let expiry = GaugeVec::new(
            Opts::new(
                "istio_agent_cert_expiry_seconds",
                "Time until the certificate expires, in seconds",
            ),
            &["resource_name"],
        )?;
        registry.register(Box::new(expiry.clone()))?;
        Ok(Self {
            renewals: counter(
                "ambientd_agent_certificates_total",
                "Certificates obtained from the authority",
            )?,
            failures: counter(
                "ambientd_agent_certificate_failures_total",
                "Attempts to obtain a certificate that failed",
            )?,
            pushes: counter("ambientd_agent_sds_pushes_total", "Secrets sent to Envoy")?,
            rejections: counter(
                "ambientd_agent_sds_rejections_total",
                "Secrets that Envoy refused",
            )?,
            expiry,
            registry,
        })
    }

    /// The text form, with the expiry as of now.
    pub(crate) fn text(&self, secrets: &Secrets, now: SystemTime) -> Vec<u8> {
        if let Some(credentials) = &secrets.credentials {
            let left = match credentials.not_after.duration_since(now) {
                Ok(left) => left.as_secs_f64(),
                Err(past) => -past.duration().as_secs_f64(),
            };
            self.expiry.with_label_values(&[CERTIFICATE]).set(left);
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "cannot write metrics");
        }
        text
    }
}
