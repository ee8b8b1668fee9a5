//! HTTPRoute, through the published types; its per-place duplicates end here.

use std::sync::Arc;

use gateway_api::apis::standard::httproutes::{
    HttpRouteParentRefs, HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesMatches,
    HttpRouteRulesMatchesHeadersType, HttpRouteRulesMatchesMethod, HttpRouteRulesMatchesPath,
    HttpRouteRulesMatchesPathType, HttpRouteRulesMatchesQueryParamsType, HttpRouteSpec,
};

use crate::Str;
use crate::finding::Severity;
use crate::input::{BackendRef, HttpMatch, HttpRoute, HttpRule, PathMatch, RouteRef, ValueMatch};
use crate::object::{Invalid, Parsed};

use super::gateway::GROUP;
use super::read::{Doc, at_most, invalid, port, strs};

// Limits of the API. Source: spec/gateway-api.md.
const PARENTS_COUNT_MAX: usize = 32;
const HOSTNAMES_COUNT_MAX: usize = 16;
const RULES_COUNT_MAX: usize = 16;
const MATCHES_COUNT_MAX: usize = 64;
const MATCHES_TOTAL_COUNT_MAX: usize = 128;
const CONDITIONS_COUNT_MAX: usize = 16;
const BACKENDS_COUNT_MAX: usize = 16;
const WEIGHT_MAX: i32 = 1_000_000;

const FIELDS: &[&str] = &[
    "backendRefs",
    "filters",
    "group",
    "headers",
    "hostnames",
    "kind",
    "matches",
    "method",
    "name",
    "namespace",
    "parentRefs",
    "path",
    "port",
    "queryParams",
    "requestHeaderModifier",
    "requestMirror",
    "requestRedirect",
    "responseHeaderModifier",
    "retry",
    "rules",
    "sectionName",
    "sessionPersistence",
    "timeouts",
    "type",
    "urlRewrite",
    "value",
    "weight",
];

/// Fields of a rule that only the experimental channel has.
const EXPERIMENTAL: [&str; 2] = ["retry", "sessionPersistence"];

pub(super) fn http_route(doc: Doc<'_>) -> Arc<Parsed<HttpRoute>> {
    doc.row(|doc| {
        let mut experimental = Vec::new();
        let spec: HttpRouteSpec = doc.spec(FIELDS, |path| match experimental_field(path) {
            Some(found) => {
                experimental.push(found);
                true
            }
            None => false,
        })?;
        let parents = spec.parent_refs.unwrap_or_default();
        let hostnames = spec.hostnames.unwrap_or_default();
        let rules = spec.rules.unwrap_or_default();
        at_most(&parents, PARENTS_COUNT_MAX, "spec.parentRefs")?;
        at_most(&hostnames, HOSTNAMES_COUNT_MAX, "spec.hostnames")?;
        at_most(&rules, RULES_COUNT_MAX, "spec.rules")?;
        let total: usize = rules
            .iter()
            .map(|rule| rule.matches.as_ref().map_or(0, Vec::len))
            .sum();
        if total > MATCHES_TOTAL_COUNT_MAX {
            return Err(invalid(
                "spec.rules",
                arcstr::format!("more than {MATCHES_TOTAL_COUNT_MAX} matches"),
            ));
        }
        let ns = doc.meta.key.ns.clone();
        let parents = parents.into_iter().enumerate();
        let mut out = HttpRoute {
            parents: parents
                .map(|(i, p)| parent(i, p, &ns))
                .collect::<Result<_, _>>()?,
            hostnames: strs(hostnames),
            rules: Vec::with_capacity(rules.len()),
        };
        for (i, wire) in rules.into_iter().enumerate() {
            let mut rule = rule(doc, i, wire, &ns)?;
            let fields = experimental.iter().filter(|(at, _)| *at == i);
            rule.unsupported
                .extend(fields.map(|(_, field)| Str::from(*field)));
            out.rules.push(rule);
        }
        Ok(out)
    })
}

/// `spec.rules[3].retry` → (3, `retry`).
fn experimental_field(path: &str) -> Option<(usize, &'static str)> {
    let (index, field) = path.strip_prefix("spec.rules[")?.split_once("].")?;
    let field = EXPERIMENTAL.into_iter().find(|known| *known == field)?;
    Some((index.parse().ok()?, field))
}

fn parent(i: usize, wire: HttpRouteParentRefs, ns: &Str) -> Result<RouteRef, Invalid> {
    Ok(RouteRef {
        group: Str::from(wire.group.as_deref().unwrap_or(GROUP)),
        kind: Str::from(wire.kind.as_deref().unwrap_or("Gateway")),
        ns: wire.namespace.map(Str::from).unwrap_or_else(|| ns.clone()),
        name: Str::from(wire.name),
        section: wire.section_name.map(Str::from),
        port: wire
            .port
            .map(|p| port(p, || format!("spec.parentRefs[{i}].port")))
            .transpose()?,
    })
}

fn rule(doc: &mut Doc<'_>, i: usize, wire: HttpRouteRules, ns: &Str) -> Result<HttpRule, Invalid> {
    let at = format!("spec.rules[{i}]");
    let matches = wire.matches.unwrap_or_default();
    let backends = wire.backend_refs.unwrap_or_default();
    at_most(&matches, MATCHES_COUNT_MAX, &format!("{at}.matches"))?;
    at_most(&backends, BACKENDS_COUNT_MAX, &format!("{at}.backendRefs"))?;
    let mut unsupported: Vec<Str> = (0..wire.filters.map_or(0, |filters| filters.len()))
        .map(|i| arcstr::format!("filters[{i}]"))
        .collect();
    for (i, backend) in backends.iter().enumerate() {
        let count = backend.filters.as_ref().map_or(0, Vec::len);
        unsupported.extend((0..count).map(|j| arcstr::format!("backendRefs[{i}].filters[{j}]")));
    }
    if wire.timeouts.is_some() {
        unsupported.push(arcstr::literal!("timeouts"));
    }
    let matches = matches.into_iter().enumerate();
    let backends = backends.into_iter().enumerate();
    Ok(HttpRule {
        name: wire.name.map(Str::from),
        matches: matches
            .map(|(j, wire)| http_match(doc, &format!("{at}.matches[{j}]"), wire))
            .collect::<Result<_, _>>()?,
        backends: backends
            .map(|(j, wire)| backend(&format!("{at}.backendRefs[{j}]"), wire, ns))
            .collect::<Result<_, _>>()?,
        unsupported,
        ..HttpRule::default()
    })
}

fn backend(at: &str, wire: HttpRouteRulesBackendRefs, ns: &Str) -> Result<BackendRef, Invalid> {
    let weight = wire.weight.unwrap_or(1);
    if !(0..=WEIGHT_MAX).contains(&weight) {
        let reason = arcstr::format!("{weight} is not a weight (0 to {WEIGHT_MAX})");
        return Err(invalid(format!("{at}.weight"), reason));
    }
    Ok(BackendRef {
        target: RouteRef {
            group: Str::from(wire.group.unwrap_or_default()),
            kind: Str::from(wire.kind.as_deref().unwrap_or("Service")),
            ns: wire.namespace.map(Str::from).unwrap_or_else(|| ns.clone()),
            name: Str::from(wire.name),
            section: None,
            port: wire
                .port
                .map(|p| port(p, || format!("{at}.port")))
                .transpose()?,
        },
        weight: weight.unsigned_abs(),
        filters: Vec::new(),
    })
}

fn http_match(
    doc: &mut Doc<'_>,
    at: &str,
    wire: HttpRouteRulesMatches,
) -> Result<HttpMatch, Invalid> {
    let headers = wire.headers.unwrap_or_default();
    let query = wire.query_params.unwrap_or_default();
    at_most(&headers, CONDITIONS_COUNT_MAX, &format!("{at}.headers"))?;
    at_most(&query, CONDITIONS_COUNT_MAX, &format!("{at}.queryParams"))?;
    let headers = headers.into_iter().map(|header| {
        let regex = matches!(
            header.r#type,
            Some(HttpRouteRulesMatchesHeadersType::RegularExpression)
        );
        (
            Str::from(header.name.to_ascii_lowercase()),
            value_match(regex, header.value),
        )
    });
    let query = query.into_iter().map(|param| {
        let regex = matches!(
            param.r#type,
            Some(HttpRouteRulesMatchesQueryParamsType::RegularExpression)
        );
        (Str::from(param.name), value_match(regex, param.value))
    });
    Ok(HttpMatch {
        path: wire.path.map(|path| path_match(at, path)).transpose()?,
        headers: firsts(doc, &format!("{at}.headers"), headers.collect())?,
        query: firsts(doc, &format!("{at}.queryParams"), query.collect())?,
        method: wire
            .method
            .as_ref()
            .map(|method| Str::from(method_word(method))),
    })
}

fn value_match(regex: bool, value: String) -> ValueMatch {
    if regex {
        ValueMatch::Regex(Str::from(value))
    } else {
        ValueMatch::Exact(Str::from(value))
    }
}

/// The first of entries with equal names counts, as the API says.
fn firsts(
    doc: &mut Doc<'_>,
    at: &str,
    entries: Vec<(Str, ValueMatch)>,
) -> Result<Vec<(Str, ValueMatch)>, Invalid> {
    let mut out: Vec<(Str, ValueMatch)> = Vec::with_capacity(entries.len());
    for (i, entry) in entries.into_iter().enumerate() {
        if entry.0.is_empty() {
            return Err(invalid(format!("{at}[{i}].name"), "empty"));
        }
        if out.iter().any(|(name, _)| *name == entry.0) {
            doc.note(
                "route-duplicate-match",
                Severity::Warning,
                arcstr::format!("{at}[{i}]"),
                arcstr::format!("{} is matched twice; only the first counts", entry.0),
                "Remove one of them",
            );
        } else {
            out.push(entry);
        }
    }
    Ok(out)
}

fn path_match(at: &str, wire: HttpRouteRulesMatchesPath) -> Result<PathMatch, Invalid> {
    let value = Str::from(wire.value.as_deref().unwrap_or("/"));
    let kind = wire
        .r#type
        .unwrap_or(HttpRouteRulesMatchesPathType::PathPrefix);
    if !matches!(kind, HttpRouteRulesMatchesPathType::RegularExpression) && !value.starts_with('/')
    {
        return Err(invalid(format!("{at}.path.value"), "a path starts with /"));
    }
    Ok(match kind {
        HttpRouteRulesMatchesPathType::Exact => PathMatch::Exact(value),
        HttpRouteRulesMatchesPathType::PathPrefix => PathMatch::Prefix(value),
        HttpRouteRulesMatchesPathType::RegularExpression => PathMatch::Regex(value),
    })
}

fn method_word(method: &HttpRouteRulesMatchesMethod) -> &'static str {
    match method {
        HttpRouteRulesMatchesMethod::Get => "GET",
        HttpRouteRulesMatchesMethod::Head => "HEAD",
        HttpRouteRulesMatchesMethod::Post => "POST",
        HttpRouteRulesMatchesMethod::Put => "PUT",
        HttpRouteRulesMatchesMethod::Delete => "DELETE",
        HttpRouteRulesMatchesMethod::Connect => "CONNECT",
        HttpRouteRulesMatchesMethod::Options => "OPTIONS",
        HttpRouteRulesMatchesMethod::Trace => "TRACE",
        HttpRouteRulesMatchesMethod::Patch => "PATCH",
    }
}
