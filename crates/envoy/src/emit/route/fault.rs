//! Injected faults. Source: spec/policy-and-traffic.md §6.2.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault;
use model::input::AbortStatus;

use super::super::wire::{duration, per_million};
use crate::ir::FaultIr;

/// What the filter does for a route.
pub(super) fn http(ir: &FaultIr) -> fault::HttpFault {
    let delay = ir.delay.filter(|(time, _)| !time.is_zero());
    fault::HttpFault {
        delay: delay.map(|(time, share)| common::FaultDelay {
            percentage: Some(per_million(share)),
            fault_delay_secifier: Some(common::fault_delay::FaultDelaySecifier::FixedDelay(
                duration(time),
            )),
        }),
        abort: ir.abort.map(|(status, share)| abort(status, share)),
        ..Default::default()
    }
}

fn abort(status: AbortStatus, share: u32) -> fault::FaultAbort {
    use fault::fault_abort::ErrorType;
    let kind = match status {
        AbortStatus::Http(status) => ErrorType::HttpStatus(u32::from(status)),
        AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status),
    };
    fault::FaultAbort {
        percentage: Some(per_million(share)),
        error_type: Some(kind),
        ..Default::default()
    }
}
