//! Metrics of the CA. Names: spec/control-plane.md §7.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::Authority;

/// Counters of the certificate service. All labels are words of ours.
#[derive(Clone, Debug)]
pub struct CaMetrics {
    /// Requests.
    pub csr_count: IntCounter,
    /// Requests of callers that are not known, or may not have what they ask for.
    pub authentication_failure_count: IntCounter,
    /// Requests that are not PKCS#10 over an accepted key.
    pub csr_parsing_err_count: IntCounter,
    /// Requests whose identity could not be told; here they are not authenticated.
    pub id_extraction_err_count: IntCounter,
    /// Requests that were not signed, by error.
    pub csr_sign_err_count: IntCounterVec,
    /// Certificates.
    pub success_cert_issuance_count: IntCounter,
    /// Requests refused or shed before signing, by the exact reason that clients are
    /// not told.
    pub refused: IntCounterVec,
}

// === impl CaMetrics ===

impl CaMetrics {
    /// Creates and registers the metrics.
    ///
    /// # Errors
    /// When the registry already has one of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        let counters = |name, help, label| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            add(registry, metric)
        };
        Ok(Self {
            csr_count: counter(
                "citadel_server_csr_count",
                "The number of CSRs received by the CA.",
            )?,
            authentication_failure_count: counter(
                "citadel_server_authentication_failure_count",
                "The number of authentication failures.",
            )?,
            csr_parsing_err_count: counter(
                "citadel_server_csr_parsing_err_count",
                "The number of requests that are not a CSR over an accepted key.",
            )?,
            id_extraction_err_count: counter(
                "citadel_server_id_extraction_err_count",
                "The number of requests whose identity could not be told.",
            )?,
            csr_sign_err_count: counters(
                "citadel_server_csr_sign_err_count",
                "The number of requests that were not signed, by error.",
                "error",
            )?,
            success_cert_issuance_count: counter(
                "citadel_server_success_cert_issuance_count",
                "The number of certificates issued.",
            )?,
            refused: counters(
                "ambientd_ca_requests_refused",
                "Requests refused or shed before signing, by reason.",
                "reason",
            )?,
        })
    }

    pub(super) fn refuse(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(super) fn count_sign_error(&self, error: &str) {
        self.csr_sign_err_count.with_label_values(&[error]).inc();
    }
}

/// When roots and signer expire, as of the moment at which somebody asks.
pub struct ExpiryMetrics {
    root: [IntGauge; 2],
    chain: [IntGauge; 2],
    authority: Arc<Authority>,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

// === impl ExpiryMetrics ===

impl ExpiryMetrics {
    /// Creates and registers the gauges of an authority.
    ///
    /// # Errors
    /// When the registry already has one of them.
    pub fn register(
        registry: &Registry,
        authority: Arc<Authority>,
        clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    ) -> Result<(), prometheus::Error> {
        registry.register(Box::new(Self {
            root: [
                IntGauge::new(
                    "citadel_server_root_cert_expiry_timestamp",
                    "When the first root expires, unix seconds.",
                )?,
                IntGauge::new(
                    "citadel_server_root_cert_expiry_seconds",
                    "How long until the first root expires, seconds.",
                )?,
            ],
            chain: [
                IntGauge::new(
                    "citadel_server_cert_chain_expiry_timestamp",
                    "When the chain of the signer expires, unix seconds; 0 without intermediates.",
                )?,
                IntGauge::new(
                    "citadel_server_cert_chain_expiry_seconds",
                    "How long until the chain of the signer expires, seconds; 0 without intermediates.",
                )?,
            ],
            authority,
            clock,
        }))
    }

    fn gauges(&self) -> impl Iterator<Item = &IntGauge> {
        self.root.iter().chain(&self.chain)
    }

    fn observe(&self) {
        let Ok(signer) = self.authority.signer() else {
            return;
        };
        let secs = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        };
        let now = secs((self.clock)());
        let set = |[timestamp, seconds]: &[IntGauge; 2], at: i64| {
            timestamp.set(at);
            seconds.set(at - now);
        };
        set(&self.root, secs(signer.bundle().not_after()));
        if signer.intermediate_count() > 0 {
            set(&self.chain, secs(signer.not_after()));
        }
    }
}

impl Collector for ExpiryMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.observe();
        self.gauges().flat_map(Collector::collect).collect()
    }
}

fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
