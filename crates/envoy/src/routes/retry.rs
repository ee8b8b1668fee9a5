//! Retries. Source: spec/envoy-config.md §5.2, §5.4; spec/policy-and-traffic.md §6.2.

use std::time::Duration;

use model::input::{HttpRetry, Retries};
use model::{MeshRow, Str};

use crate::ir::RetryIr;

/// Condition that makes `statuses` count.
const STATUS_CODES: Str = arcstr::literal!("retriable-status-codes");
/// Retries of an HTTPRoute that gives no number.
const ATTEMPTS_DEFAULT: u32 = 2;

/// Retries of a route: what it says itself, else what mesh config says, else the built-in ones;
/// `None` when they are turned off. With hashing (`hashed`) a retry goes to the same host again
/// unless something else is asked for.
pub(crate) fn retry_of(mesh: &MeshRow, own: Option<&Retries>, hashed: bool) -> Option<RetryIr> {
    let builtin = RetryIr {
        avoid_previous_hosts: !hashed,
        ..RetryIr::builtin()
    };
    let Some(written) = own.or(mesh.traffic.default_retries.as_ref()) else {
        return Some(builtin);
    };
    if written.attempts == 0 {
        return None;
    }
    let mut on = Vec::new();
    let mut statuses = Vec::new();
    for word in &written.retry_on {
        match word.parse::<u16>() {
            Ok(status) => statuses.push(status),
            Err(_) => on.push(word.clone()),
        }
    }
    if written.retry_on.is_empty() {
        on = builtin.on;
    }
    if !statuses.is_empty() && !on.contains(&STATUS_CODES) {
        on.push(STATUS_CODES);
    }
    Some(RetryIr {
        on,
        statuses,
        attempts: written.attempts,
        per_try_timeout: positive(written.per_try_timeout),
        backoff: positive(written.backoff),
        avoid_previous_hosts: written.ignore_previous_hosts.unwrap_or(!hashed),
        avoid_previous_priorities: written.remote_localities,
    })
}

/// Retries of an HTTPRoute rule that says something of them.
pub(super) fn of_rule(
    own: &HttpRetry,
    per_try_timeout: Option<Duration>,
    hashed: bool,
) -> Option<RetryIr> {
    let attempts = own.attempts.unwrap_or(ATTEMPTS_DEFAULT);
    if attempts == 0 {
        return None;
    }
    let mut on = RetryIr::builtin().on;
    if own.codes.is_empty() {
        on.retain(|word| *word != STATUS_CODES);
    }
    Some(RetryIr {
        on,
        statuses: own.codes.clone(),
        attempts,
        per_try_timeout: positive(per_try_timeout),
        backoff: positive(own.backoff),
        avoid_previous_hosts: !hashed,
        avoid_previous_priorities: false,
    })
}

/// Zero means none.
pub(super) fn positive(duration: Option<Duration>) -> Option<Duration> {
    duration.filter(|duration| !duration.is_zero())
}
