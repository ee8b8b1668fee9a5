//! HTTPRoute, and what every route kind has in common with it.
//!
//! Three grades of trouble: what no API server would store (wrong types, lists that are too
//! long) makes the object invalid; what the API calls an invalid filter, match or destination
//! stays in the row as it is and voids the route where routes are used; any other value that
//! cannot be makes its own rule answer 500, with a note.
//! Source: spec/gateway-api.md §4.3, §6.

mod filters;
mod rule;
mod wire;

use std::sync::Arc;

use crate::Str;
use crate::finding::Severity;
use crate::input::{Defaulted, HttpMatch, HttpRoute, HttpRule, PathMatch, RouteRef, ValueMatch};
use crate::object::{Invalid, Parsed};

use super::gateway::GROUP;
use super::read::{Doc, at_most, invalid, strs};

pub(super) use rule::RuleReader;
pub(super) use wire::{BareRouteSpec, GrpcMatch, GrpcRule, L4Rule, RouteSpec};

// Limits of the API. Source: spec/gateway-api.md.
const PARENTS_COUNT_MAX: usize = 32;
const HOSTNAMES_COUNT_MAX: usize = 16;
const RULES_COUNT_MAX: usize = 16;
const MATCHES_COUNT_MAX: usize = 64;
const MATCHES_TOTAL_COUNT_MAX: usize = 128;
const CONDITIONS_COUNT_MAX: usize = 16;

/// Words to suggest for unknown fields.
pub(super) const FIELDS: &[&str] = &[
    "absoluteTimeout",
    "add",
    "allowCredentials",
    "allowHeaders",
    "allowMethods",
    "allowOrigins",
    "attempts",
    "backendRef",
    "backendRefs",
    "backendRequest",
    "backoff",
    "codes",
    "cookieConfig",
    "cors",
    "denominator",
    "exposeHeaders",
    "extensionRef",
    "externalAuth",
    "filters",
    "fraction",
    "group",
    "headers",
    "hostname",
    "hostnames",
    "idleTimeout",
    "kind",
    "lifetimeType",
    "matches",
    "maxAge",
    "method",
    "name",
    "namespace",
    "numerator",
    "parentRefs",
    "path",
    "percent",
    "port",
    "queryParams",
    "remove",
    "replaceFullPath",
    "replacePrefixMatch",
    "request",
    "requestHeaderModifier",
    "requestMirror",
    "requestRedirect",
    "responseHeaderModifier",
    "retry",
    "rules",
    "scheme",
    "sectionName",
    "service",
    "sessionName",
    "sessionPersistence",
    "set",
    "statusCode",
    "timeouts",
    "type",
    "urlRewrite",
    "value",
    "weight",
];

pub(super) fn http_route(doc: Doc<'_>) -> Arc<Parsed<HttpRoute>> {
    doc.row(|doc| {
        let spec: RouteSpec<wire::HttpRule> = doc.spec(FIELDS, |_| false)?;
        let count = |rule: &wire::HttpRule| rule.matches.as_ref().map_or(0, Vec::len);
        let (mut out, rules) = common(doc, spec, count)?;
        for (i, wire) in rules.into_iter().enumerate() {
            out.rules.push(http_rule(doc, i, wire)?);
        }
        Ok(out)
    })
}

fn http_rule(doc: &mut Doc<'_>, i: usize, wire: wire::HttpRule) -> Result<HttpRule, Invalid> {
    let mut reader = RuleReader::new(doc, i, false);
    let mut rule = HttpRule {
        name: wire.name.map(Str::from),
        ..HttpRule::default()
    };
    for (j, m) in wire.matches.unwrap_or_default().into_iter().enumerate() {
        let found = http_match(&mut reader, j, m, &mut rule.unsupported)?;
        rule.matches.push(found);
    }
    rule.filters = reader.filters(wire.filters.unwrap_or_default())?;
    rule.backends = reader.backends(wire.backend_refs.unwrap_or_default())?;
    rule.timeouts = reader.timeouts(wire.timeouts);
    rule.retry = wire.retry.map(|retry| reader.retry(retry));
    rule.session = wire.session_persistence.map(|wire| reader.session(wire));
    Ok(reader.finish(rule))
}

/// Parents, hostnames and the rules still to be read, within the limits of the API.
pub(super) fn common<R>(
    doc: &mut Doc<'_>,
    spec: RouteSpec<R>,
    matches: impl Fn(&R) -> usize,
) -> Result<(HttpRoute, Vec<R>), Invalid> {
    let hostnames = spec.hostnames.unwrap_or_default();
    at_most(&hostnames, HOSTNAMES_COUNT_MAX, "spec.hostnames")?;
    let rules = spec.rules.unwrap_or_default();
    at_most(&rules, RULES_COUNT_MAX, "spec.rules")?;
    for (i, rule) in rules.iter().enumerate() {
        if matches(rule) > MATCHES_COUNT_MAX {
            let reason = arcstr::format!("more than {MATCHES_COUNT_MAX} items");
            return Err(invalid(format!("spec.rules[{i}].matches"), reason));
        }
    }
    if rules.iter().map(matches).sum::<usize>() > MATCHES_TOTAL_COUNT_MAX {
        let reason = arcstr::format!("more than {MATCHES_TOTAL_COUNT_MAX} matches");
        return Err(invalid("spec.rules", reason));
    }
    if spec.use_default_gateways.is_some() {
        let effect = "there are no default Gateways; only parentRefs count";
        doc.not_applied("spec.useDefaultGateways", effect);
    }
    let route = HttpRoute {
        parents: parents(doc, spec.parent_refs.unwrap_or_default())?,
        hostnames: strs(hostnames),
        rules: Vec::with_capacity(rules.len()),
    };
    Ok((route, rules))
}

fn parents(doc: &mut Doc<'_>, wire: Vec<wire::ParentRef>) -> Result<Vec<RouteRef>, Invalid> {
    at_most(&wire, PARENTS_COUNT_MAX, "spec.parentRefs")?;
    let mut out = Vec::with_capacity(wire.len());
    for (i, wire) in wire.into_iter().enumerate() {
        let port = match wire.port.map(port_number) {
            Some(None) => {
                doc.note(
                    "route-value-invalid",
                    Severity::Error,
                    arcstr::format!("spec.parentRefs[{i}].port"),
                    "This is not a port (1 to 65535); the parent is left out",
                    "Correct or remove it",
                );
                continue;
            }
            Some(port) => port,
            None => None,
        };
        let defaulted = Defaulted {
            group: wire.group.is_none(),
            kind: wire.kind.is_none(),
            ns: wire.namespace.is_none(),
        };
        let ns = wire.namespace.map(Str::from);
        out.push(RouteRef {
            group: Str::from(wire.group.as_deref().unwrap_or(GROUP)),
            kind: Str::from(wire.kind.as_deref().unwrap_or("Gateway")),
            ns: ns.unwrap_or_else(|| doc.meta.key.ns.clone()),
            name: Str::from(wire.name),
            section: wire.section_name.map(Str::from),
            port,
            defaulted,
        });
    }
    Ok(out)
}

/// A port number, 1 to 65535.
fn port_number(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn http_match(
    reader: &mut RuleReader<'_, '_>,
    index: usize,
    wire: wire::HttpMatch,
    unsupported: &mut Vec<Str>,
) -> Result<HttpMatch, Invalid> {
    let at = format!("matches[{index}]");
    let path = wire.path.and_then(|path| {
        let value = Str::from(path.value.as_deref().unwrap_or("/"));
        match path.r#type.as_deref() {
            Some("Exact") => Some(PathMatch::Exact(value)),
            None | Some("PathPrefix") => Some(PathMatch::Prefix(value)),
            Some("RegularExpression") => Some(PathMatch::Regex(value)),
            Some(_) => {
                unsupported.push(arcstr::format!("{at}.path.type"));
                None
            }
        }
    });
    let headers = wire.headers.unwrap_or_default();
    let query = wire.query_params.unwrap_or_default();
    Ok(HttpMatch {
        path,
        headers: headers_match(reader, &at, headers, unsupported)?,
        query: conditions(reader, &at, "queryParams", query, unsupported)?,
        method: wire.method.map(Str::from),
    })
}

/// `headers` of a match, by lower-cased name.
pub(super) fn headers_match(
    reader: &mut RuleReader<'_, '_>,
    at: &str,
    mut wire: Vec<wire::Condition>,
    unsupported: &mut Vec<Str>,
) -> Result<Vec<(Str, ValueMatch)>, Invalid> {
    for condition in &mut wire {
        condition.name.make_ascii_lowercase();
    }
    conditions(reader, at, "headers", wire, unsupported)
}

/// The first of entries with equal names counts, as the API says.
fn conditions(
    reader: &mut RuleReader<'_, '_>,
    at: &str,
    list: &str,
    wire: Vec<wire::Condition>,
    unsupported: &mut Vec<Str>,
) -> Result<Vec<(Str, ValueMatch)>, Invalid> {
    let field = format!("{}.{at}.{list}", reader.at());
    at_most(&wire, CONDITIONS_COUNT_MAX, &field)?;
    let mut out: Vec<(Str, ValueMatch)> = Vec::with_capacity(wire.len());
    for (i, wire) in wire.into_iter().enumerate() {
        if wire.name.is_empty() {
            return Err(invalid(format!("{field}[{i}].name"), "empty"));
        }
        let value = Str::from(wire.value);
        let value = match wire.r#type.as_deref() {
            None | Some("Exact") => ValueMatch::Exact(value),
            Some("RegularExpression") => ValueMatch::Regex(value),
            Some(_) => {
                unsupported.push(arcstr::format!("{at}.{list}[{i}].type"));
                continue;
            }
        };
        if out.iter().any(|(name, _)| *name == wire.name) {
            reader.note(
                "route-duplicate-match",
                &format!("{at}.{list}[{i}]"),
                &format!("{} is matched twice; only the first counts", wire.name),
                "Remove one of them",
            );
        } else {
            out.push((Str::from(wire.name), value));
        }
    }
    Ok(out)
}
