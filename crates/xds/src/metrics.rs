//! Metrics of the xDS server. Names and buckets: spec/control-plane.md §7.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Versions of clients that are told apart.
const VERSIONS_MAX: usize = 64;
const SECONDS: [f64; 9] = [0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const CONVERGENCE_SECONDS: [f64; 8] = [0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const BYTES: [f64; 6] = [1.0, 1e4, 1e6, 4e6, 1e7, 4e7];

/// Counters of the xDS server. Labels are bounded: types and versions of proxies.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Connected clients by version.
    pub xds: IntGaugeVec,
    /// Versions that have a gauge.
    versions: Arc<Mutex<BTreeSet<String>>>,
    /// Responses by type, and failed sends as `<type>_senderr`.
    pub pushes: IntCounterVec,
    /// Resources in those responses, by type: what a reconnect costs.
    pub resources_sent: IntCounterVec,
    /// Time to generate and hand over a response, by type.
    pub push_time: HistogramVec,
    /// Time to hand over a response.
    pub send_time: Histogram,
    /// Size of responses by type URL.
    pub config_size_bytes: HistogramVec,
    /// From a change to its response.
    pub convergence_time: Histogram,
    /// Responses by what caused them.
    pub push_triggers: IntCounterVec,
    /// Rejections by type.
    pub rejects: IntCounterVec,
    /// Ignored messages with an old nonce, by type.
    pub expired_nonce: IntCounterVec,
    /// Streams that ended with a status, by its code: bad nodes, foreign claims, excess.
    pub refused: IntCounterVec,
    /// Nodes that claimed what their identity does not allow, by reason.
    pub identity_refused: IntCounterVec,
    /// Connections that we refused or ended, by reason.
    pub connections_closed: IntCounterVec,
    /// Errors of ours or of the transport.
    pub internal_errors: IntCounter,
    /// The largest request, bytes.
    pub recv_max: IntGauge,
}

impl Metrics {
    /// The gauge of clients of a version. Versions are what clients say, so that only so many
    /// get a gauge of their own.
    pub(crate) fn connected(&self, version: &str) -> IntGauge {
        let mut known = self.versions.lock();
        let own = known.contains(version) || known.len() < VERSIONS_MAX;
        if own {
            known.insert(version.to_owned());
        }
        let label = if own { version } else { "other" };
        self.xds.with_label_values(&[label])
    }

    /// Counts a stream that ends with a status.
    pub(crate) fn count_refused(&self, status: &tonic::Status) {
        let code = format!("{:?}", status.code());
        self.refused.with_label_values(&[code.as_str()]).inc();
    }

    /// Creates and registers the metrics.
    ///
    /// # Errors
    /// When the registry already has one of them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name, help, label| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            add(registry, metric)
        };
        let times = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::new(name, help).buckets(buckets.to_vec())
        };
        Ok(Self {
            xds: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "pilot_xds",
                        "Number of endpoints connected to this pilot using XDS.",
                    ),
                    &["version"],
                )?,
            )?,
            versions: Arc::default(),
            pushes: counters("pilot_xds_pushes", "Responses sent, by type.", "type")?,
            refused: counters(
                "ambientd_xds_streams_refused",
                "Streams that ended with a status, by its code.",
                "code",
            )?,
            identity_refused: counters(
                "ambientd_xds_identity_refused",
                "Nodes that claimed what their identity does not allow, by reason.",
                "reason",
            )?,
            connections_closed: counters(
                "ambientd_connections_closed",
                "Connections refused or ended by the control plane, by reason.",
                "reason",
            )?,
            resources_sent: counters(
                "ambientd_xds_resources_sent",
                "Resources sent, by type.",
                "type",
            )?,
            push_time: add(
                registry,
                HistogramVec::new(
                    times(
                        "pilot_xds_push_time",
                        "Seconds to generate and send.",
                        &SECONDS,
                    ),
                    &["type"],
                )?,
            )?,
            send_time: add(
                registry,
                Histogram::with_opts(times("pilot_xds_send_time", "Seconds to send.", &SECONDS))?,
            )?,
            config_size_bytes: add(
                registry,
                HistogramVec::new(
                    times(
                        "pilot_xds_config_size_bytes",
                        "Bytes of a response.",
                        &BYTES,
                    ),
                    &["type"],
                )?,
            )?,
            convergence_time: add(
                registry,
                Histogram::with_opts(times(
                    "pilot_proxy_convergence_time",
                    "Seconds between a change and the response that carries it.",
                    &CONVERGENCE_SECONDS,
                ))?,
            )?,
            push_triggers: counters("pilot_push_triggers", "Pushes, by reason.", "type")?,
            rejects: counters(
                "pilot_total_xds_rejects",
                "Rejected responses, by type.",
                "type",
            )?,
            expired_nonce: counters(
                "pilot_xds_expired_nonce",
                "Stale requests, by type.",
                "type",
            )?,
            internal_errors: add(
                registry,
                IntCounter::new("pilot_total_xds_internal_errors", "Internal XDS errors.")?,
            )?,
            recv_max: add(
                registry,
                IntGauge::new("pilot_xds_recv_max", "The largest request, bytes.")?,
            )?,
        })
    }
}

fn add<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
