//! Rules of `http`. Source: spec/policy-and-traffic.md §6.2, §9.4.

use bytes::Bytes;
use serde_json::Value;

use crate::Str;
use crate::finding::Severity;
use crate::input::{DirectResponse, StringMatch, VirtualHttp, VirtualMatch, WeightedDestination};
use crate::object::Invalid;

use super::super::read::{Doc, invalid};
use super::{action, matches, values, wire};

/// What a rule answers that cannot be applied as written.
const INVALID: &str = "rule is invalid";

/// Why a rule cannot be applied: a code of its own where there is one.
pub(super) struct Refused {
    code: &'static str,
    invalid: Invalid,
}

impl Refused {
    pub(super) fn new(code: &'static str, invalid: Invalid) -> Self {
        Self { code, invalid }
    }
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        Self::new("vs-rule-invalid", invalid)
    }
}

/// A rule; one that cannot be applied answers 500 for its matches.
///
/// # Errors
/// Not even its matches can be read.
pub(super) fn rule(
    doc: &mut Doc<'_>,
    at: &str,
    value: &Value,
    of_delegate: bool,
) -> Result<VirtualHttp, Invalid> {
    let (name, matches, refused) =
        match doc.fields::<wire::Http>(value, at, wire::FIELDS, |_| false) {
            Err(error) => {
                // What is wrong may be in the matches themselves; then this fails too.
                let only: wire::MatchOnly = doc.fields(value, at, wire::FIELDS, |_| true)?;
                (only.name, matches::list(at, only.matches)?, error.into())
            }
            Ok(mut wire) => {
                let matches = matches::list(at, wire.matches.take())?;
                let name = wire.name.take();
                match body(doc, at, wire, &matches, of_delegate) {
                    Ok(rule) => {
                        let name = name.map(Str::from).unwrap_or_default();
                        return Ok(VirtualHttp {
                            name,
                            matches,
                            ..rule
                        });
                    }
                    Err(refused) => (name, matches, refused),
                }
            }
        };
    let Refused { code, invalid } = refused;
    let message = arcstr::format!(
        "This rule cannot be applied, so what it matches is answered with status 500: {}",
        invalid.reason
    );
    doc.note(
        code,
        Severity::Error,
        invalid.field,
        message,
        "Correct the field",
    );
    Ok(VirtualHttp {
        name: name.map(Str::from).unwrap_or_default(),
        matches,
        direct_response: Some(DirectResponse {
            status: 500,
            body: Bytes::from_static(INVALID.as_bytes()),
        }),
        ..VirtualHttp::default()
    })
}

/// Everything but name and matches.
fn body(
    doc: &mut Doc<'_>,
    at: &str,
    wire: wire::Http,
    matches: &[VirtualMatch],
    of_delegate: bool,
) -> Result<VirtualHttp, Refused> {
    combination(at, &wire, of_delegate)?;
    let field = |name: &str| format!("{at}.{name}");
    let prefixed = matches
        .iter()
        .all(|one| matches!(one.uri, Some(StringMatch::Prefix(_))));
    let prefixed = prefixed && !matches.is_empty();
    let fault = action::fault(doc, &field("fault"), wire.fault)?;
    let retries = action::retries(doc, &field("retries"), wire.retries)?;
    let timeout = values::duration(wire.timeout, &field("timeout"))?;
    let share = action::mirror_share(at, wire.mirror_percentage, wire.mirror_percent)?;
    let mirrors = action::mirrors(at, wire.mirror, wire.mirrors, share)?;
    let headers = wire
        .headers
        .map(|wire| action::headers(doc, &field("headers"), wire))
        .transpose()?;
    let rule = VirtualHttp {
        routes: destinations(doc, at, wire.route.unwrap_or_default())?,
        redirect: wire
            .redirect
            .map(|wire| action::redirect(&field("redirect"), wire, prefixed))
            .transpose()?,
        direct_response: wire
            .direct_response
            .map(|wire| action::direct_response(&field("directResponse"), wire))
            .transpose()?,
        delegate: wire
            .delegate
            .map(|wire| action::delegate(&field("delegate"), wire))
            .transpose()?,
        rewrite: wire
            .rewrite
            .map(|wire| action::rewrite(&field("rewrite"), wire))
            .transpose()?,
        timeout,
        retries,
        fault,
        mirrors,
        cors: wire
            .cors_policy
            .map(|wire| action::cors(&field("corsPolicy"), wire))
            .transpose()?,
        headers,
        ..VirtualHttp::default()
    };
    advice(doc, at, &rule);
    Ok(rule)
}

/// Which parts of a rule exclude each other.
fn combination(at: &str, wire: &wire::Http, of_delegate: bool) -> Result<(), Refused> {
    let route = wire.route.as_ref().is_some_and(|list| !list.is_empty());
    let (redirect, response) = (wire.redirect.is_some(), wire.direct_response.is_some());
    let (fault, rewrite) = (wire.fault.is_some(), wire.rewrite.is_some());
    let delegate = wire.delegate.is_some();
    let pairs = [
        (route, "route", redirect, "redirect"),
        (route, "route", response, "directResponse"),
        (redirect, "redirect", response, "directResponse"),
        (redirect, "redirect", fault, "fault"),
        (redirect, "redirect", rewrite, "rewrite"),
        (response, "directResponse", fault, "fault"),
        (response, "directResponse", rewrite, "rewrite"),
        (delegate, "delegate", route, "route"),
        (delegate, "delegate", redirect, "redirect"),
    ];
    for (one, first, other, second) in pairs {
        if one && other {
            let reason = arcstr::format!("{first} and {second} exclude each other");
            return Err(invalid(format!("{at}.{second}"), reason).into());
        }
    }
    if wire.mirror.is_some() && wire.mirrors.as_ref().is_some_and(|list| !list.is_empty()) {
        let reason = "mirror and mirrors exclude each other";
        return Err(invalid(format!("{at}.mirrors"), reason).into());
    }
    if delegate && of_delegate {
        let reason = "a VirtualService that others delegate to cannot delegate further";
        return Err(invalid(format!("{at}.delegate"), reason).into());
    }
    if !(route || redirect || response || delegate) {
        let reason = "one of route, redirect, directResponse and delegate is required";
        return Err(invalid(at, reason).into());
    }
    Ok(())
}

fn destinations(
    doc: &mut Doc<'_>,
    at: &str,
    written: Vec<wire::RouteDestination>,
) -> Result<Vec<WeightedDestination>, Refused> {
    let mut out = Vec::with_capacity(written.len());
    for (i, one) in written.into_iter().enumerate() {
        let at = format!("{at}.route[{i}]");
        out.push(WeightedDestination {
            destination: action::destination(&format!("{at}.destination"), one.destination)?,
            weight: action::weight(&at, one.weight)?,
            headers: one
                .headers
                .map(|wire| action::headers(doc, &format!("{at}.headers"), wire))
                .transpose()?
                .unwrap_or_default(),
        });
    }
    action::weights(&format!("{at}.route"), &out)?;
    Ok(out)
}

/// What is right and yet seldom what was meant.
fn advice(doc: &mut Doc<'_>, at: &str, rule: &VirtualHttp) {
    let rewritten = rule.rewrite.as_ref().and_then(|r| r.authority.as_ref());
    let edits = rule.headers.as_ref().map(|headers| &headers.request);
    let edits = edits.into_iter().flat_map(|e| e.set.iter().chain(&e.add));
    let hosts = edits.filter(|(name, _)| action::is_authority(name)).count();
    if hosts + usize::from(rewritten.is_some()) > 1 {
        let reason = "the host is set in several places; rewrite counts before headers.set, and \
                      that before headers.add";
        super::left_out(doc, &format!("{at}.headers.request"), reason);
    }
    let abort = rule
        .fault
        .as_ref()
        .is_some_and(|fault| fault.abort.is_some());
    if abort && rule.retries.as_ref().is_some_and(|r| r.attempts > 0) {
        doc.note(
            "vs-fault-with-retries",
            Severity::Warning,
            format!("{at}.retries"),
            "Injected aborts are answered before anything is sent on, so they are never retried",
            "Test retries with a destination that fails itself",
        );
    }
    let Some(timeout) = rule.timeout.filter(|timeout| !timeout.is_zero()) else {
        return;
    };
    let retries = rule.retries.as_ref();
    let per_try = retries.and_then(|retries| retries.per_try_timeout);
    if per_try.is_some_and(|per_try| timeout < per_try) {
        doc.note(
            "vs-timeout-below-pertry",
            Severity::Warning,
            format!("{at}.timeout"),
            "The timeout of the route ends before the first try does, so nothing is retried",
            "Make timeout at least attempts + 1 times perTryTimeout",
        );
    }
}
