//! Traffic policies of clusters. Source: spec/policy-and-traffic.md §7.3, §7.5.

use cluster::circuit_breakers::{Thresholds, thresholds};
use cluster::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig, common_lb_config,
};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::UInt64Value;
use model::input::{OutlierDetection, TcpKeepalive, Warmup};

use super::super::wire::{duration, uint32};
use crate::ir::{Balancing, ClusterPolicy};

/// Largest ring: Envoy refuses a cluster that asks for more.
const RING_SIZE_MAX: u64 = 8_388_608;

/// Everything of a policy but TLS and the protocol.
pub(super) fn apply(out: &mut cluster::Cluster, policy: &ClusterPolicy) {
    out.connect_timeout = Some(duration(policy.connect_timeout));
    out.circuit_breakers = Some(circuit_breakers(policy));
    out.upstream_connection_options = policy.keepalive.as_ref().map(keepalive);
    out.outlier_detection = policy.outlier.as_ref().map(outlier);
    let weighted = common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
        common_lb_config::LocalityWeightedLbConfig {},
    );
    let panic = policy.outlier.as_ref().and_then(|o| o.min_health_percent);
    out.common_lb_config = Some(CommonLbConfig {
        healthy_panic_threshold: Some(percent(panic.unwrap_or(0).min(100).into())),
        locality_config_specifier: policy.locality_weighted.then_some(weighted),
        ..Default::default()
    });
    balancing(out, policy);
}

/// Limits of a policy; what it does not limit is not limited, instead of by the small
/// defaults of Envoy.
pub(super) fn circuit_breakers(policy: &ClusterPolicy) -> cluster::CircuitBreakers {
    let max = |limit: Option<u32>| Some(uint32(limit.unwrap_or(u32::MAX)));
    let budget = policy.retry_budget.map(|budget| thresholds::RetryBudget {
        budget_percent: Some(percent(budget.percent)),
        min_retry_concurrency: Some(uint32(budget.min_concurrency)),
        ..Default::default()
    });
    cluster::CircuitBreakers {
        thresholds: vec![Thresholds {
            priority: core::RoutingPriority::Default as i32,
            max_connections: max(policy.max_connections),
            max_pending_requests: max(policy.max_pending_requests),
            max_requests: max(policy.max_requests),
            max_retries: max(policy.max_retries),
            retry_budget: budget,
            track_remaining: true,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn keepalive(ir: &TcpKeepalive) -> cluster::UpstreamConnectionOptions {
    // Whole seconds, and at least one: zero would be a default of the system.
    let seconds =
        |of: std::time::Duration| uint32(u32::try_from(of.as_secs()).unwrap_or(u32::MAX).max(1));
    cluster::UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: ir.probes.map(uint32),
            keepalive_time: ir.time.map(seconds),
            keepalive_interval: ir.interval.map(seconds),
        }),
        ..Default::default()
    }
}

fn balancing(out: &mut cluster::Cluster, policy: &ClusterPolicy) {
    let slow_start = policy.warmup.as_ref().map(slow_start);
    let (kind, config) = match policy.balancing {
        Balancing::LeastRequest => (
            LbPolicy::LeastRequest,
            slow_start.map(|slow| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow),
                    ..Default::default()
                })
            }),
        ),
        Balancing::RoundRobin => (
            LbPolicy::RoundRobin,
            slow_start.map(|slow| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                    slow_start_config: Some(slow),
                })
            }),
        ),
        Balancing::Random => (LbPolicy::Random, None),
        Balancing::RingHash(size) => (
            LbPolicy::RingHash,
            Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: Some(uint64(size.min(RING_SIZE_MAX))),
                ..Default::default()
            })),
        ),
        Balancing::Maglev(size) => (
            LbPolicy::Maglev,
            size.map(|size| {
                LbConfig::MaglevLbConfig(MaglevLbConfig {
                    table_size: Some(uint64(size)),
                })
            }),
        ),
    };
    out.lb_policy = kind as i32;
    out.lb_config = config;
}

fn slow_start(ir: &Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(ir.duration)),
        aggression: Some(core::RuntimeDouble {
            default_value: ir.aggression,
            runtime_key: "ambientd.slow_start.aggression".into(),
        }),
        min_weight_percent: Some(percent(ir.minimum_percent)),
    }
}

/// Ejection by success rate is always off: what is not asked for does not happen.
fn outlier(ir: &OutlierDetection) -> cluster::OutlierDetection {
    let enforcing = |limit: u32| uint32(if limit == 0 { 0 } else { 100 });
    let split = ir.split_local_origin;
    cluster::OutlierDetection {
        consecutive_5xx: ir.consecutive_5xx.map(uint32),
        enforcing_consecutive_5xx: ir.consecutive_5xx.map(enforcing),
        consecutive_gateway_failure: ir.consecutive_gateway.map(uint32),
        enforcing_consecutive_gateway_failure: ir.consecutive_gateway.map(enforcing),
        interval: ir.interval.filter(|t| !t.is_zero()).map(duration),
        base_ejection_time: ir.base_ejection.filter(|t| !t.is_zero()).map(duration),
        max_ejection_percent: ir
            .max_ejection_percent
            .filter(|share| *share > 0)
            .map(|share| uint32(share.min(100))),
        enforcing_success_rate: Some(uint32(0)),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: ir.consecutive_local_origin.map(uint32),
        enforcing_consecutive_local_origin_failure: ir.consecutive_local_origin.map(enforcing),
        enforcing_local_origin_success_rate: split.then(|| uint32(0)),
        ..Default::default()
    }
}

fn percent(value: f64) -> Percent {
    Percent { value }
}

fn uint64(value: u64) -> UInt64Value {
    UInt64Value { value }
}
