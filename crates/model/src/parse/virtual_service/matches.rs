//! Matches of `http` rules. Source: spec/policy-and-traffic.md §6.2, §9.4.

use crate::Str;
use crate::input::{CLAIMS, StringMatch, VirtualMatch, claim_of_header};
use crate::object::Invalid;

use super::super::read::{invalid, labels, port, strs};
use super::values::{is_plain, is_token};
use super::wire;

/// Longest regular expression.
const REGEX_CHARS_MAX: usize = 1024;

/// All matches of a rule.
pub(super) fn list(
    at: &str,
    written: Option<Vec<Option<wire::HttpMatch>>>,
) -> Result<Vec<VirtualMatch>, Invalid> {
    let written = written.into_iter().flatten().enumerate();
    written
        .map(|(i, one)| {
            let at = format!("{at}.match[{i}]");
            let one = one.ok_or_else(|| invalid(at.clone(), "a match that says nothing"))?;
            single(&at, one)
        })
        .collect()
}

fn single(at: &str, wire: wire::HttpMatch) -> Result<VirtualMatch, Invalid> {
    let plain = |text: Option<wire::StringMatch>, field: &str| {
        text.map_or(Ok(None), |text| string(text, &format!("{at}.{field}")))
    };
    let uri = plain(wire.uri, "uri")?;
    if matches!(&uri, Some(StringMatch::Prefix(text)) if text.is_empty()) {
        return Err(invalid(
            format!("{at}.uri.prefix"),
            "an empty prefix; write / for every path",
        ));
    }
    let field = |name: &str| format!("{at}.{name}");
    Ok(VirtualMatch {
        name: wire.name.map(Str::from).unwrap_or_default(),
        uri,
        ignore_uri_case: wire.ignore_uri_case.unwrap_or_default(),
        scheme: plain(wire.scheme, "scheme")?,
        method: plain(wire.method, "method")?,
        authority: plain(wire.authority, "authority")?,
        headers: named(wire.headers, &field("headers"), header_name)?,
        without_headers: named(wire.without_headers, &field("withoutHeaders"), header_name)?,
        query: named(wire.query_params, &field("queryParams"), query_name)?,
        port: wire
            .port
            .filter(|number| *number != 0)
            .map(|number| port(number, || field("port")))
            .transpose()?,
        gateways: strs(wire.gateways.unwrap_or_default()),
        source_labels: labels(wire.source_labels.into_iter().flatten()),
        source_namespace: wire.source_namespace.map(Str::from).unwrap_or_default(),
        stat_prefix: wire.stat_prefix.map(Str::from).unwrap_or_default(),
    })
}

/// A string match; `None` when it names none of the three kinds.
pub(super) fn string(wire: wire::StringMatch, at: &str) -> Result<Option<StringMatch>, Invalid> {
    let found = match (wire.exact, wire.prefix, wire.regex) {
        (None, None, None) => return Ok(None),
        (Some(text), None, None) => StringMatch::Exact(text.into()),
        (None, Some(text), None) => StringMatch::Prefix(text.into()),
        (None, None, Some(text)) => {
            if text.is_empty() || text.chars().count() > REGEX_CHARS_MAX {
                let reason = arcstr::format!(
                    "a regular expression has from 1 to {REGEX_CHARS_MAX} characters"
                );
                return Err(invalid(format!("{at}.regex"), reason));
            }
            StringMatch::Regex(text.into())
        }
        _ => return Err(invalid(at, "more than one of exact, prefix and regex")),
    };
    let (StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Regex(text)) = &found;
    if !is_plain(text) {
        return Err(invalid(at, "it has control characters"));
    }
    Ok(Some(found))
}

type Named = Vec<(Str, Option<StringMatch>)>;

/// Matches by name.
fn named(
    wire: Option<wire::StringMatches>,
    at: &str,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<Named, Invalid> {
    let one = |(name, text): (String, Option<wire::StringMatch>)| {
        let at = format!("{at}.{name}");
        check(&name).map_err(|reason| invalid(at.clone(), reason))?;
        let text = text.map_or(Ok(None), |text| string(text, &at))?;
        // An empty prefix fits every value.
        let text =
            text.filter(|text| !matches!(text, StringMatch::Prefix(text) if text.is_empty()));
        Ok((Str::from(name), text))
    };
    wire.into_iter().flatten().map(one).collect()
}

fn query_name(name: &str) -> Result<(), &'static str> {
    let good = !name.is_empty() && name.len() <= 256 && is_plain(name);
    good.then_some(()).ok_or("not a name of a query parameter")
}

fn header_name(name: &str) -> Result<(), &'static str> {
    if name.starts_with(CLAIMS) {
        let good = claim_of_header(name).is_some();
        return good.then_some(()).ok_or(
            "a claim is written @request.auth.claims.name or @request.auth.claims[name][inner]",
        );
    }
    is_token(name).then_some(()).ok_or("not a name of a header")
}
