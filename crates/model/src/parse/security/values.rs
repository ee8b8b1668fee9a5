//! Values and condition keys of rules. Source: spec/policy-and-traffic.md §1.3, §9.2.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Str;
use crate::input::Values;
use crate::object::Invalid;

use super::wire::List;
use crate::parse::read::{invalid, strs};
use crate::parse::suggest::nearest;

/// Judges a value that is not empty.
///
/// # Errors
/// Why it is none.
pub(super) type Check = fn(&str) -> Result<(), &'static str>;

/// Keys of conditions; those with a bracket take names in brackets.
const KEYS: &[&str] = &[
    "connection.sni",
    "destination.ip",
    "destination.port",
    "remote.ip",
    "request.auth.audiences",
    "request.auth.claims",
    "request.auth.presenter",
    "request.auth.principal",
    "request.headers",
    "source.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
];

/// The lists `<name>` and `not<Name>` of an attribute at `at`, every value judged.
pub(super) fn values(
    at: &str,
    names: (&str, &str),
    (values, not_values): (List, List),
    check: Check,
) -> Result<Values, Invalid> {
    Ok(Values {
        values: list(at, names.0, values, check)?,
        not_values: list(at, names.1, not_values, check)?,
    })
}

fn list(at: &str, name: &str, values: List, check: Check) -> Result<Vec<Str>, Invalid> {
    let values = values.unwrap_or_default();
    for (i, value) in values.iter().enumerate() {
        let judged = if value.is_empty() {
            Err("an empty value")
        } else {
            check(value)
        };
        judged.map_err(|reason| invalid(format!("{at}.{name}[{i}]"), reason))?;
    }
    Ok(strs(values))
}

#[allow(clippy::unnecessary_wraps, reason = "one shape with its neighbours")]
pub(super) fn text(_: &str) -> Result<(), &'static str> {
    Ok(())
}

pub(super) fn port(text: &str) -> Result<(), &'static str> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && text.parse::<u16>().is_ok() {
        Ok(())
    } else {
        Err("not a port (0 to 65535)")
    }
}

pub(super) fn block(text: &str) -> Result<(), &'static str> {
    if text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok() {
        Ok(())
    } else {
        Err("neither an IP address nor a CIDR")
    }
}

pub(super) fn service_account(text: &str) -> Result<(), &'static str> {
    const CHARS_MAX: usize = 320;
    if text.chars().count() > CHARS_MAX {
        return Err("longer than 320 characters");
    }
    if text.contains('*') {
        return Err("service accounts take no *");
    }
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
        return Err("neither <account> nor <namespace>/<account>");
    }
    Ok(())
}

pub(super) fn trust_domain(text: &str) -> Result<(), &'static str> {
    if text.contains('/') {
        return Err("a trust domain has no /");
    }
    let inner = text
        .strip_prefix('*')
        .or_else(|| text.strip_suffix('*'))
        .unwrap_or(text);
    if inner.contains('*') {
        return Err("only one * is possible, at the start or at the end");
    }
    Ok(())
}

/// A path, or a template of whole segments `{*}` and, at the end, `{**}`.
pub(super) fn path(text: &str) -> Result<(), &'static str> {
    /// Of a template as proxies get it, without braces.
    const TEMPLATE_CHARS_MAX: usize = 256;
    if !text.contains(['{', '}']) {
        return Ok(());
    }
    let segments: Vec<&str> = match text.strip_prefix('/') {
        Some(rest) => rest.split('/').collect(),
        None => return Err("a template must start with /"),
    };
    let literal = |segment: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b);
        !segment.is_empty() && segment.bytes().all(known)
    };
    for (i, segment) in segments.iter().enumerate() {
        match *segment {
            "{*}" => {}
            "{**}" if i + 1 == segments.len() => {}
            "{**}" => return Err("{**} must be the last segment"),
            braced if braced.contains(['{', '}']) => {
                return Err("braces must be a whole segment {*} or {**}");
            }
            plain if literal(plain) => {}
            _ => return Err("a segment of a template is empty or holds other than URI characters"),
        }
    }
    if text.chars().filter(|c| !matches!(c, '{' | '}')).count() > TEMPLATE_CHARS_MAX {
        return Err("a template has more than 256 characters");
    }
    Ok(())
}

/// How the values of a condition are judged.
///
/// # Errors
/// Why there is no such key.
pub(super) fn check_of_key(key: &str) -> Result<Check, Str> {
    match key {
        "" => Err(arcstr::literal!("empty")),
        "source.ip" | "remote.ip" | "destination.ip" => Ok(block),
        "destination.port" => Ok(port),
        "source.serviceAccount" => Ok(service_account),
        "source.trustDomain" => Ok(trust_domain),
        "source.namespace"
        | "source.principal"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => Ok(text),
        _ => check_of_bracketed(key),
    }
}

fn check_of_bracketed(key: &str) -> Result<Check, Str> {
    let (stem, rest) = key.split_at(key.find('[').unwrap_or(key.len()));
    let names = bracketed(rest);
    let header = |name: &&str| name.bytes().all(|byte| byte.is_ascii_graphic());
    let filter = stem.strip_prefix("experimental.envoy.filters.");
    let (good, form) = match (stem, filter) {
        ("request.headers", _) => (
            matches!(names.as_deref(), Some([name]) if header(name)),
            "request.headers[<name>]",
        ),
        ("request.auth.claims", _) => (names.is_some(), "request.auth.claims[<name>]"),
        (_, Some(filter)) => (
            !filter.is_empty() && matches!(names.as_deref(), Some([_])),
            "experimental.envoy.filters.<filter>[<key>]",
        ),
        _ => return Err(no_such_key(key, stem)),
    };
    if good {
        Ok(text)
    } else {
        Err(arcstr::format!("expected {form}"))
    }
}

fn no_such_key(key: &str, stem: &str) -> Str {
    let removed = matches!(
        stem,
        "destination.namespace"
            | "destination.labels"
            | "destination.name"
            | "destination.user"
            | "source.labels"
    );
    if removed {
        return arcstr::format!("conditions on {stem} are no longer part of the API");
    }
    nearest(key, KEYS.iter().copied()).map_or_else(
        || arcstr::literal!("there is no such key"),
        |known| arcstr::format!("there is no such key; did you mean {known}?"),
    )
}

/// The names in `[a][b]`; `None` when it is anything else.
fn bracketed(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<&str> = inner.split("][").collect();
    let good = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    names.iter().all(good).then_some(names)
}
