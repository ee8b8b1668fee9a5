//! What rules do. Source: spec/policy-and-traffic.md §6.2, §9.4.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::Str;
use crate::finding::Severity;
use crate::input::{
    AbortStatus, Destination, DirectResponse, Fault, HeaderEdits, HeaderOperations, Retries,
    StringMatch, VirtualCors, VirtualMirror, VirtualRedirect, VirtualRewrite, WeightedDestination,
};
use crate::object::Invalid;

use super::super::read::{Doc, invalid, port, strs};
use super::http::Refused;
use super::values::{
    duration, grpc_status, header_value, is_host, is_label, is_plain, is_retry_condition, is_token,
    per_million, positive, status, whole_per_million,
};
use super::{left_out, matches, wire};

/// Largest body of a direct response.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// All of them, in parts per million.
const EVERY: u32 = 1_000_000;

pub(super) fn destination(
    at: &str,
    wire: Option<wire::Destination>,
) -> Result<Destination, Invalid> {
    let wire = wire.ok_or_else(|| invalid(at, "a destination is required"))?;
    let host = wire.host.unwrap_or_default();
    if !is_host(&host) || host.starts_with('*') {
        return Err(invalid(format!("{at}.host"), "not a host name"));
    }
    let subset = wire.subset.unwrap_or_default();
    if !subset.is_empty() && !is_label(&subset) {
        return Err(invalid(format!("{at}.subset"), "not a name of a subset"));
    }
    let number = wire.port.map(|port| port.number.unwrap_or_default());
    Ok(Destination {
        host: host.into(),
        subset: subset.into(),
        port: number
            .map(|number| port(number, || format!("{at}.port.number")))
            .transpose()?,
    })
}

pub(super) fn weight(at: &str, written: Option<i64>) -> Result<u32, Invalid> {
    let weight = written.unwrap_or_default();
    u32::try_from(weight).map_err(|_| {
        invalid(
            format!("{at}.weight"),
            arcstr::format!("{weight} is not a weight"),
        )
    })
}

/// Of several destinations some must have a weight, and Envoy must be able to add them up.
pub(super) fn weights(at: &str, list: &[WeightedDestination]) -> Result<(), Invalid> {
    let sum: u64 = list.iter().map(|one| u64::from(one.weight)).sum();
    if list.len() > 1 && (sum == 0 || sum > u64::from(u32::MAX)) {
        let reason = arcstr::format!("the weights add up to {sum}");
        return Err(invalid(at, reason));
    }
    Ok(())
}

pub(super) fn delegate(at: &str, wire: wire::Delegate) -> Result<(Str, Str), Invalid> {
    let name = wire.name.unwrap_or_default();
    if name.is_empty() {
        return Err(invalid(format!("{at}.name"), "a name is required"));
    }
    let ns = wire.namespace.unwrap_or_default();
    Ok((ns.into(), name.into()))
}

pub(super) fn redirect(
    at: &str,
    wire: wire::Redirect,
    prefixed: bool,
) -> Result<VirtualRedirect, Refused> {
    let field = |name: &str| format!("{at}.{name}");
    let some = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Str::from);
    let (mut uri, mut uri_prefix) = (some(wire.uri), some(wire.prefix_rewrite));
    let (authority, scheme) = (some(wire.authority), some(wire.scheme));
    if uri.is_some() && uri_prefix.is_some() {
        let reason = "uri and prefixRewrite exclude each other";
        return Err(invalid(field("prefixRewrite"), reason).into());
    }
    if let Some(rest) = uri
        .as_deref()
        .and_then(|text| text.strip_prefix("%PREFIX()%"))
    {
        uri_prefix = Some(rest.into());
        uri = None;
    }
    if uri_prefix.is_some() && !prefixed {
        let reason = "a prefix can be replaced only where every match has a uri.prefix";
        return Err(invalid(field("prefixRewrite"), reason).into());
    }
    if let Some(scheme) = scheme
        .as_ref()
        .filter(|s| !matches!(s.as_str(), "http" | "https"))
    {
        let reason = arcstr::format!("{scheme} is neither http nor https");
        return Err(invalid(field("scheme"), reason).into());
    }
    for text in [&uri, &uri_prefix, &authority].into_iter().flatten() {
        if !is_plain(text) {
            return Err(invalid(at, "it has control characters").into());
        }
    }
    let port_of_request = match wire.derive_port.as_deref() {
        None | Some("FROM_PROTOCOL_DEFAULT") => false,
        Some("FROM_REQUEST_PORT") => true,
        Some(_) => return Err(invalid(field("derivePort"), "no such choice").into()),
    };
    if wire.port.is_some() && wire.derive_port.is_some() {
        let reason = "port and derivePort exclude each other";
        return Err(invalid(field("derivePort"), reason).into());
    }
    let number = wire.port.filter(|number| *number != 0);
    let port = number
        .map(|number| port(number, || field("port")))
        .transpose()?;
    let says_something = port.is_some()
        || wire.derive_port.is_some()
        || [&uri, &uri_prefix, &authority, &scheme]
            .iter()
            .any(|text| text.is_some());
    if !says_something {
        return Err(invalid(at, "a redirect must change something").into());
    }
    Ok(VirtualRedirect {
        uri,
        uri_prefix,
        authority,
        scheme,
        port,
        port_of_request,
        code: redirect_code(&field("redirectCode"), wire.redirect_code.unwrap_or(301))?,
    })
}

fn redirect_code(at: &str, code: i64) -> Result<u16, Refused> {
    let code = if code == 0 { 301 } else { code };
    match u16::try_from(code) {
        Ok(code @ (301 | 302 | 303 | 307 | 308)) => Ok(code),
        _ => Err(Refused::new(
            "vs-redirect-code",
            invalid(
                at,
                arcstr::format!("{code} is none of 301, 302, 303, 307 and 308"),
            ),
        )),
    }
}

pub(super) fn direct_response(
    at: &str,
    wire: wire::DirectResponse,
) -> Result<DirectResponse, Refused> {
    let field = |name: &str| format!("{at}.{name}");
    let code = wire
        .status
        .ok_or_else(|| invalid(field("status"), "a status is required"))?;
    let status = status(code, &field("status"))?;
    let body = wire.body.unwrap_or_default();
    let body: Bytes = match (body.string, body.bytes) {
        (None, None) => Bytes::new(),
        (Some(text), None) => text.into(),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map_err(|_| invalid(field("body.bytes"), "not base64"))?
            .into(),
        (Some(_), Some(_)) => {
            let reason = "string and bytes exclude each other";
            return Err(invalid(field("body"), reason).into());
        }
    };
    if body.len() > BODY_BYTES_MAX {
        let reason = arcstr::format!(
            "the body of {} bytes exceeds the limit of {BODY_BYTES_MAX}",
            body.len()
        );
        let invalid = invalid(field("body"), reason);
        return Err(Refused::new("vs-direct-response-size", invalid));
    }
    Ok(DirectResponse { status, body })
}

pub(super) fn rewrite(at: &str, wire: wire::Rewrite) -> Result<VirtualRewrite, Invalid> {
    let field = |name: &str| format!("{at}.{name}");
    let some = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Str::from);
    let (uri, authority) = (some(wire.uri), some(wire.authority));
    let uri_regex = wire
        .uri_regex_rewrite
        .map(|wire| (some(wire.pattern), some(wire.rewrite)));
    let uri_regex = match uri_regex {
        None => None,
        Some((Some(pattern), Some(rewrite))) => Some((pattern, rewrite)),
        Some(_) => {
            let reason = "both match and rewrite are required";
            return Err(invalid(field("uriRegexRewrite"), reason));
        }
    };
    if uri.is_some() && uri_regex.is_some() {
        let reason = "uri and uriRegexRewrite exclude each other";
        return Err(invalid(field("uriRegexRewrite"), reason));
    }
    if uri.is_none() && uri_regex.is_none() && authority.is_none() {
        return Err(invalid(at, "a rewrite must change something"));
    }
    let substitution = uri_regex.as_ref().map(|(_, rewrite)| rewrite);
    if [uri.as_ref(), authority.as_ref(), substitution]
        .into_iter()
        .flatten()
        .any(|text| !is_plain(text))
    {
        return Err(invalid(at, "it has control characters"));
    }
    Ok(VirtualRewrite {
        uri,
        uri_regex,
        authority,
    })
}

pub(super) fn retries(
    doc: &mut Doc<'_>,
    at: &str,
    wire: Option<wire::Retries>,
) -> Result<Option<Retries>, Refused> {
    let Some(wire) = wire else { return Ok(None) };
    let field = |name: &str| format!("{at}.{name}");
    let number = wire.attempts.unwrap_or_default();
    let attempts = i32::try_from(number).ok().map(u32::try_from);
    let Some(Ok(attempts)) = attempts else {
        let reason = arcstr::format!("{number} is not a number of attempts");
        return Err(invalid(field("attempts"), reason).into());
    };
    let written = wire.retry_on.unwrap_or_default();
    if attempts == 0 {
        let more = wire.per_try_timeout.is_some() || !written.is_empty();
        if more || wire.retry_remote_localities.is_some() {
            let reason = "attempts 0 turns retries off, so nothing more can be said of them";
            return Err(invalid(field("attempts"), reason).into());
        }
        doc.note(
            "vs-retries-zero",
            Severity::Warning,
            field("attempts"),
            "Retries without attempts are off; they are not those that apply when nothing is said",
            "Set attempts, or remove retries",
        );
    }
    let mut retry_on = Vec::new();
    for word in written.split(',').filter(|word| !word.is_empty()) {
        if is_retry_condition(word) {
            retry_on.push(Str::from(word));
        } else {
            let reason = format!("{word:?} is no condition to retry on");
            left_out(doc, &field("retryOn"), &reason);
        }
    }
    if retry_on.is_empty() && !written.is_empty() {
        let reason = "it has no condition that can be used";
        return Err(invalid(field("retryOn"), reason).into());
    }
    Ok(Some(Retries {
        attempts,
        per_try_timeout: duration(wire.per_try_timeout, &field("perTryTimeout"))?
            .filter(|limit| !limit.is_zero()),
        retry_on,
        remote_localities: wire.retry_remote_localities.unwrap_or_default(),
        ignore_previous_hosts: wire.retry_ignore_previous_hosts,
        backoff: positive(wire.backoff, &field("backoff"))?,
    }))
}

pub(super) fn fault(
    doc: &mut Doc<'_>,
    at: &str,
    wire: Option<wire::Fault>,
) -> Result<Option<Fault>, Refused> {
    let Some(wire) = wire else { return Ok(None) };
    if wire.delay.is_none() && wire.abort.is_none() {
        return Err(invalid(at, "one of delay and abort is required").into());
    }
    let delay = wire
        .delay
        .map(|wire| delay(doc, &format!("{at}.delay"), wire))
        .transpose()?;
    let abort = match wire.abort {
        Some(wire) => abort(doc, &format!("{at}.abort"), wire)?,
        None => None,
    };
    Ok(Some(Fault { delay, abort }))
}

fn delay(
    doc: &mut Doc<'_>,
    at: &str,
    wire: wire::Delay,
) -> Result<(std::time::Duration, u32), Invalid> {
    let field = format!("{at}.fixedDelay");
    if wire.exponential_delay.is_some() {
        let reason = "only a fixedDelay can be injected";
        return Err(invalid(format!("{at}.exponentialDelay"), reason));
    }
    let fixed = positive(wire.fixed_delay, &field)?
        .ok_or_else(|| invalid(field, "a fixedDelay is required"))?;
    let share = match (
        wire.percentage.and_then(|percent| percent.value),
        wire.percent,
    ) {
        (Some(percent), _) => per_million(percent, &format!("{at}.percentage.value"))?,
        (None, Some(percent)) => whole_per_million(percent, &format!("{at}.percent"))?,
        (None, None) => never(doc, at),
    };
    Ok((fixed, share))
}

fn abort(
    doc: &mut Doc<'_>,
    at: &str,
    wire: wire::Abort,
) -> Result<Option<(AbortStatus, u32)>, Invalid> {
    if wire.http2_error.is_some() {
        let reason = "HTTP/2 errors cannot be injected; use httpStatus or grpcStatus";
        return Err(invalid(format!("{at}.http2Error"), reason));
    }
    let what = match (wire.http_status, wire.grpc_status) {
        (Some(_), Some(_)) => {
            return Err(invalid(at, "httpStatus and grpcStatus exclude each other"));
        }
        (Some(code), None) => AbortStatus::Http(status(code, &format!("{at}.httpStatus"))?),
        (None, Some(name)) => {
            let code = grpc_status(&name).ok_or_else(|| {
                invalid(
                    format!("{at}.grpcStatus"),
                    "not a name of a gRPC status, such as UNAVAILABLE",
                )
            })?;
            AbortStatus::Grpc(code)
        }
        (None, None) => {
            left_out(doc, at, "neither httpStatus nor grpcStatus is given");
            return Ok(None);
        }
    };
    let share = match wire.percentage.and_then(|percent| percent.value) {
        Some(percent) => per_million(percent, &format!("{at}.percentage.value"))?,
        None => never(doc, at),
    };
    Ok(Some((what, share)))
}

/// A fault without a share is never injected.
fn never(doc: &mut Doc<'_>, at: &str) -> u32 {
    doc.note(
        "vs-fault-no-percentage",
        Severity::Warning,
        at,
        "This fault has no percentage, which counts as 0: it is never injected",
        "Add percentage.value",
    );
    0
}

/// The share of `mirror` in parts per million.
pub(super) fn mirror_share(
    at: &str,
    percentage: Option<wire::Percent>,
    percent: Option<i64>,
) -> Result<u32, Invalid> {
    if let Some(percentage) = percentage {
        let field = format!("{at}.mirrorPercentage.value");
        return per_million(percentage.value.unwrap_or_default(), &field);
    }
    percent.map_or(Ok(EVERY), |percent| {
        whole_per_million(percent, &format!("{at}.mirrorPercent"))
    })
}

pub(super) fn mirrors(
    at: &str,
    one: Option<wire::Destination>,
    several: Option<Vec<wire::Mirror>>,
    share: u32,
) -> Result<Vec<VirtualMirror>, Invalid> {
    let mut out = Vec::new();
    if let Some(one) = one {
        out.push(VirtualMirror {
            destination: destination(&format!("{at}.mirror"), Some(one))?,
            per_million: share,
        });
    }
    for (i, wire) in several.into_iter().flatten().enumerate() {
        let at = format!("{at}.mirrors[{i}]");
        let per_million = wire.percentage.map_or(Ok(EVERY), |percentage| {
            let field = format!("{at}.percentage.value");
            per_million(percentage.value.unwrap_or_default(), &field)
        })?;
        out.push(VirtualMirror {
            destination: destination(&format!("{at}.destination"), wire.destination)?,
            per_million,
        });
    }
    Ok(out)
}

pub(super) fn cors(at: &str, wire: wire::Cors) -> Result<VirtualCors, Invalid> {
    const METHODS: [&str; 10] = [
        "*", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
    ];
    let field = |name: &str| format!("{at}.{name}");
    let mut origins: Vec<StringMatch> = Vec::new();
    for (i, origin) in wire.allow_origins.into_iter().flatten().enumerate() {
        let at = format!("{at}.allowOrigins[{i}]");
        let origin = matches::string(origin, &at)?
            .ok_or_else(|| invalid(at, "one of exact, prefix and regex is required"))?;
        origins.push(origin);
    }
    for (i, origin) in wire.allow_origin.into_iter().flatten().enumerate() {
        if !is_plain(&origin) {
            let at = format!("{at}.allowOrigin[{i}]");
            return Err(invalid(at, "it has control characters"));
        }
        origins.push(StringMatch::Exact(origin.into()));
    }
    let methods = wire.allow_methods.unwrap_or_default();
    if let Some(bad) = methods
        .iter()
        .find(|word| !METHODS.contains(&word.as_str()))
    {
        let reason = arcstr::format!("{bad:?} is no method");
        return Err(invalid(field("allowMethods"), reason));
    }
    let (headers, expose) = (
        wire.allow_headers.unwrap_or_default(),
        wire.expose_headers.unwrap_or_default(),
    );
    for (list, name) in [(&headers, "allowHeaders"), (&expose, "exposeHeaders")] {
        if list.iter().any(|header| !is_token(header)) {
            return Err(invalid(field(name), "it has a word that names no header"));
        }
    }
    let max_age = duration(wire.max_age, &field("maxAge"))?;
    let max_age_s = match max_age {
        Some(age) if age.subsec_nanos() != 0 => {
            return Err(invalid(field("maxAge"), "finer than a second"));
        }
        Some(age) => u32::try_from(age.as_secs()).ok(),
        None => None,
    };
    let ignore_unmatched_preflights = match wire.unmatched_preflights.as_deref() {
        None | Some("UNSPECIFIED" | "FORWARD") => false,
        Some("IGNORE") => true,
        Some(_) => return Err(invalid(field("unmatchedPreflights"), "no such choice")),
    };
    Ok(VirtualCors {
        origins,
        methods: strs(methods),
        headers: strs(headers),
        expose: strs(expose),
        max_age_s,
        credentials: wire.allow_credentials,
        ignore_unmatched_preflights,
    })
}

pub(super) fn headers(
    doc: &mut Doc<'_>,
    at: &str,
    wire: wire::Headers,
) -> Result<HeaderOperations, Invalid> {
    let mut side = |name: &str, wire: Option<wire::Operations>| {
        let at = format!("{at}.{name}");
        edits(doc, &at, wire.unwrap_or_default(), name == "request")
    };
    Ok(HeaderOperations {
        request: side("request", wire.request)?,
        response: side("response", wire.response)?,
    })
}

/// Whether a header is the authority, which requests may be given by `set` and `add`.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn edits(
    doc: &mut Doc<'_>,
    at: &str,
    wire: wire::Operations,
    request: bool,
) -> Result<HeaderEdits, Invalid> {
    let mut out = HeaderEdits::default();
    for (list, written, part) in [
        (&mut out.set, wire.set, "set"),
        (&mut out.add, wire.add, "add"),
    ] {
        for (name, value) in written.into_iter().flatten() {
            let at = format!("{at}.{part}.{name}");
            if request && is_authority(&name) {
                if value.is_empty() || !is_plain(&value) {
                    return Err(invalid(at, "not a host"));
                }
            } else if !may_change(doc, &at, &name)? {
                continue;
            }
            header_value(&value).map_err(|reason| invalid(at, reason))?;
            list.push((Str::from(name), Str::from(value)));
        }
    }
    for (i, name) in wire.remove.into_iter().flatten().enumerate() {
        if may_change(doc, &format!("{at}.remove[{i}]"), &name)? {
            out.remove.push(Str::from(name));
        }
    }
    Ok(out)
}

/// Whether Envoy lets a header be changed; pseudo headers and the host are left as they are.
fn may_change(doc: &mut Doc<'_>, at: &str, name: &str) -> Result<bool, Invalid> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        left_out(doc, at, "this header can neither be changed nor be removed");
        return Ok(false);
    }
    if !is_token(name) {
        return Err(invalid(at, "not a name of a header"));
    }
    Ok(true)
}
