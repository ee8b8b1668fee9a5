//! Retries. Source: spec/envoy-config.md §5.2.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use route::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};

use super::super::wire::{any, duration, uint32};
use crate::ir::RetryIr;

/// How often another host is looked for when the chosen one was tried already.
const HOST_SELECTION_ATTEMPTS: i64 = 5;
/// After how many tries the priorities are weighed anew.
const PRIORITY_UPDATE_FREQUENCY: i32 = 2;

/// A retry policy.
pub(super) fn policy(ir: &RetryIr) -> route::RetryPolicy {
    let backoff = ir.backoff.filter(|interval| !interval.is_zero());
    let mut out = route::RetryPolicy {
        retry_on: ir.on.join(","),
        num_retries: Some(uint32(ir.attempts)),
        per_try_timeout: ir.per_try_timeout.map(duration),
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        retriable_status_codes: ir.statuses.iter().copied().map(u32::from).collect(),
        retry_back_off: backoff.map(|interval| RetryBackOff {
            base_interval: Some(duration(interval)),
            max_interval: None,
        }),
        ..Default::default()
    };
    if ir.avoid_previous_hosts {
        let config = any(&PreviousHostsPredicate {});
        out.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".into(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(config)),
        }];
    }
    if ir.avoid_previous_priorities {
        let config = any(&PreviousPrioritiesConfig {
            update_frequency: PRIORITY_UPDATE_FREQUENCY,
        });
        out.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".into(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(config)),
        });
    }
    out
}
