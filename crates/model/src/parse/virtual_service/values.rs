//! Values inside rules: everything that Envoy would refuse is refused here, where it costs one
//! rule. Source: spec/policy-and-traffic.md §9.4.

use crate::Str;
use crate::object::Invalid;

use super::super::duration;
use super::super::read::invalid;

/// Hosts become parts of wire names, whose separators they must not carry.
pub(super) fn is_host(host: &str) -> bool {
    const BYTES_MAX: usize = 253;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let rest = host.strip_prefix('*').unwrap_or(host);
    !host.is_empty() && host.len() <= BYTES_MAX && rest.chars().all(plain)
}

/// A name that one label of a host can be: that of a subset.
pub(super) fn is_label(text: &str) -> bool {
    const BYTES_MAX: usize = 63;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !text.is_empty() && text.len() <= BYTES_MAX && text.chars().all(plain)
}

/// A token of HTTP, as names of headers and methods are.
pub(super) fn is_token(text: &str) -> bool {
    const BYTES_MAX: usize = 256;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.len() <= BYTES_MAX && text.chars().all(token)
}

/// Text that a header can hold.
pub(super) fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() && c != '\t')
}

/// A duration; 0 stands for none.
pub(super) fn duration(
    text: Option<String>,
    field: &str,
) -> Result<Option<std::time::Duration>, Invalid> {
    text.map(|text| duration::duration(&text).map_err(|reason| invalid(field, reason)))
        .transpose()
}

/// A duration above 0.
pub(super) fn positive(
    text: Option<String>,
    field: &str,
) -> Result<Option<std::time::Duration>, Invalid> {
    text.map(|text| duration::positive(&text).map_err(|reason| invalid(field, reason)))
        .transpose()
}

/// A percentage (0, or 0.0001 to 100) in parts per million.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is between 0 and a million"
)]
pub(super) fn per_million(percent: f64, field: &str) -> Result<u32, Invalid> {
    const PARTS: f64 = 10_000.0;
    if percent == 0.0 {
        return Ok(0);
    }
    if !(0.0001..=100.0).contains(&percent) {
        let reason = arcstr::format!("{percent} is neither 0 nor from 0.0001 to 100");
        return Err(invalid(field, reason));
    }
    Ok((percent * PARTS).round() as u32)
}

/// A whole percentage in parts per million.
pub(super) fn whole_per_million(percent: i64, field: &str) -> Result<u32, Invalid> {
    match u32::try_from(percent) {
        Ok(percent) if percent <= 100 => Ok(percent * 10_000),
        _ => Err(invalid(
            field,
            arcstr::format!("{percent} is not from 0 to 100"),
        )),
    }
}

/// An HTTP status that a proxy can answer with.
pub(super) fn status(number: i64, field: &str) -> Result<u16, Invalid> {
    match u16::try_from(number) {
        Ok(status) if (200..600).contains(&status) => Ok(status),
        _ => Err(invalid(
            field,
            arcstr::format!("{number} is not a status from 200 to 599"),
        )),
    }
}

/// The number of a gRPC status by its name.
pub(super) fn grpc_status(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let at = NAMES.iter().position(|known| *known == name)?;
    u32::try_from(at).ok()
}

/// Words of `retryOn` that Envoy knows; numbers are statuses.
pub(super) fn is_retry_condition(word: &str) -> bool {
    const KNOWN: [&str; 16] = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    KNOWN.contains(&word) || retry_status(word).is_some()
}

/// A status written as a word of `retryOn`.
pub(super) fn retry_status(word: &str) -> Option<u16> {
    let digits = word.len() == 3 && word.chars().all(|c| c.is_ascii_digit());
    word.parse()
        .ok()
        .filter(|status| digits && (100..600).contains(status))
}

/// Checks the operators in the value of a header: Envoy refuses a configuration with one that it
/// does not know.
///
/// # Errors
/// What is wrong with it.
pub(super) fn header_value(text: &str) -> Result<(), Str> {
    /// Of a value as proxies get it, where a percent sign may be two.
    const BYTES_MAX: usize = 16_384;
    if !is_plain(text) {
        return Err(arcstr::literal!("it has control characters"));
    }
    if text.len() + text.matches('%').count() > BYTES_MAX {
        return Err(arcstr::format!("it is longer than {BYTES_MAX} bytes"));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name = after
            .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
            .unwrap_or(after.len());
        let (name, tail) = after.split_at(name);
        let Some(kind) = operator(name) else {
            return Err(arcstr::format!(
                "%{name} is no operator that can be used in a header; write %% for a percent sign"
            ));
        };
        let tail = arguments(tail, kind).ok_or_else(|| {
            arcstr::format!("%{name} is not written as it must be: %{name}% or %{name}(…)%")
        })?;
        rest = tail;
    }
    Ok(())
}

/// Whether an operator has arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arguments {
    None,
    Required,
    Optional,
}

/// The operators of Envoy that need no further configuration.
fn operator(name: &str) -> Option<Arguments> {
    const PLAIN: &[&str] = &[
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "CONNECTION_ID",
        "CONNECTION_TERMINATION_DETAILS",
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_ADDRESS",
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_PORT",
        "DOWNSTREAM_LOCAL_SUBJECT",
        "DOWNSTREAM_LOCAL_URI_SAN",
        "DOWNSTREAM_PEER_CERT",
        "DOWNSTREAM_PEER_FINGERPRINT_256",
        "DOWNSTREAM_PEER_ISSUER",
        "DOWNSTREAM_PEER_SERIAL",
        "DOWNSTREAM_PEER_SUBJECT",
        "DOWNSTREAM_PEER_URI_SAN",
        "DOWNSTREAM_REMOTE_ADDRESS",
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_REMOTE_PORT",
        "DOWNSTREAM_TLS_CIPHER",
        "DOWNSTREAM_TLS_SESSION_ID",
        "DOWNSTREAM_TLS_VERSION",
        "DURATION",
        "HOSTNAME",
        "PROTOCOL",
        "REQUESTED_SERVER_NAME",
        "REQUEST_DURATION",
        "RESPONSE_CODE",
        "RESPONSE_CODE_DETAILS",
        "RESPONSE_DURATION",
        "RESPONSE_FLAGS",
        "ROUTE_NAME",
        "STREAM_ID",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_HOST",
        "UPSTREAM_LOCAL_ADDRESS",
        "UPSTREAM_REMOTE_ADDRESS",
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "UPSTREAM_REMOTE_PORT",
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        "VIRTUAL_CLUSTER_NAME",
    ];
    const WITH_ARGUMENTS: &[&str] = &[
        "CLUSTER_METADATA",
        "DYNAMIC_METADATA",
        "ENVIRONMENT",
        "REQ",
        "RESP",
        "TRAILER",
        "UPSTREAM_METADATA",
    ];
    if name == "START_TIME" {
        Some(Arguments::Optional)
    } else if WITH_ARGUMENTS.contains(&name) {
        Some(Arguments::Required)
    } else {
        PLAIN.contains(&name).then_some(Arguments::None)
    }
}

/// What follows an operator: arguments in parentheses where it takes some, a length, the end.
fn arguments(tail: &str, kind: Arguments) -> Option<&str> {
    let tail = match tail.strip_prefix('(') {
        Some(_) if kind == Arguments::None => return None,
        Some(inner) => {
            let (inner, tail) = inner.split_once(')')?;
            if inner.is_empty() || inner.starts_with('[') {
                return None;
            }
            tail
        }
        None if kind == Arguments::Required => return None,
        None => tail,
    };
    let tail = match tail.strip_prefix(':') {
        Some(_) if kind != Arguments::Required => return None,
        Some(length) => {
            let end = length
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(length.len());
            if end == 0 || end > 5 {
                return None;
            }
            length.get(end..)?
        }
        None => tail,
    };
    tail.strip_prefix('%')
}
