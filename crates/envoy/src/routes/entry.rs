//! Rules as ordered route entries. Source: spec/gateway-api.md §6.1, §6.2, §6.6;
//! spec/envoy-config.md §5.2, §5.3, §5.5.

use std::cmp::Reverse;
use std::time::Duration;

use bytes::Bytes;
use flow::Reads;
use model::input::{HttpMatch, HttpRoute, HttpRule, PathMatch, ValueMatch};
use model::{Kind, ObjectRef, Str};

use super::backend::{Grants, resolve};
use super::reach::{Reached, by_host};
use super::{RouteTables, Site};
use crate::ir::{
    ForwardIr, HeaderCondition, RetryIr, RouteAction, RouteIr, RoutePath, RouteValue, RoutesIr,
    WeightedCluster,
};
use crate::regex;

/// Largest weight that Gateway API allows; larger ones would overflow Envoy's sum.
const WEIGHT_MAX: u32 = 1_000_000;

/// Why a route object contributes no rule at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    /// Path of the field, from `spec`.
    pub(crate) field: String,
    /// Finding code.
    pub(crate) code: &'static str,
    /// What is wrong, as a clause.
    pub(crate) reason: String,
}

/// The first hard error of a route. One bad value would make Envoy refuse the listener of
/// every service behind the waypoint, so such a route is left out as a whole.
pub(crate) fn defect(route: &HttpRoute) -> Option<Defect> {
    route.rules.iter().enumerate().find_map(|(index, rule)| {
        rule_defect(rule).map(|(field, code, reason)| Defect {
            field: format!("spec.rules[{index}].{field}"),
            code,
            reason,
        })
    })
}

type RuleDefect = (String, &'static str, String);

fn rule_defect(rule: &HttpRule) -> Option<RuleDefect> {
    let filter = rule
        .unsupported
        .iter()
        .find(|path| path.contains("filters"));
    if let Some(path) = filter {
        let reason = "the filter is not supported".to_owned();
        return Some((path.to_string(), "route-filter-not-supported", reason));
    }
    if let Some(path) = rule
        .unsupported
        .iter()
        .find(|path| path.starts_with("matches"))
    {
        let reason = "the match is not supported".to_owned();
        return Some((path.to_string(), "route-match-not-supported", reason));
    }
    for (index, backend) in rule.backends.iter().enumerate() {
        let target = &backend.target;
        let at = format!("backendRefs[{index}]");
        if target.port.is_none() {
            return Some((
                at,
                "route-backend-invalid",
                "the backend has no port".to_owned(),
            ));
        }
        if target.kind == "Service" && target.name.contains('.') {
            let reason = "a Service name has no dot".to_owned();
            return Some((at, "route-backend-invalid", reason));
        }
    }
    rule.matches.iter().enumerate().find_map(|(index, m)| {
        let (field, reason) = match_defect(m)?;
        Some((
            format!("matches[{index}].{field}"),
            "route-match-invalid",
            reason,
        ))
    })
}

fn match_defect(m: &HttpMatch) -> Option<(&'static str, String)> {
    match &m.path {
        Some(PathMatch::Regex(text)) => {
            if let Err(reason) = regex::check(text) {
                return Some(("path", reason));
            }
        }
        Some(PathMatch::Exact(text) | PathMatch::Prefix(text))
            if !text.starts_with('/') || text.contains(['?', '#', '\0', '\r', '\n']) =>
        {
            return Some(("path", "it is not an absolute path".to_owned()));
        }
        _ => {}
    }
    let text = |field, (name, value): &(Str, ValueMatch)| {
        if name.is_empty() || name.contains(['\0', '\r', '\n']) {
            return Some((field, "the name is not valid".to_owned()));
        }
        match value {
            ValueMatch::Regex(text) if !text.is_empty() && text != "*" => {
                regex::check(text).err().map(|reason| (field, reason))
            }
            _ => None,
        }
    };
    let headers = m.headers.iter().find_map(|pair| text("headers", pair));
    headers.or_else(|| m.query.iter().find_map(|pair| text("queryParams", pair)))
}

/// Appends the entries of each group, sorted inside the group; returns how many.
pub(super) fn append(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    groups: &[Vec<Reached<'_>>],
    port: u16,
    out: &mut RoutesIr,
) -> usize {
    let before = out.routes.len();
    for group in groups {
        let mut entries = Vec::new();
        for reached in group {
            for (index, rule) in reached.route.rules.iter().enumerate() {
                let action = action(site, tables, reads, reached, rule, out);
                let all = [HttpMatch::default()];
                let matches = if rule.matches.is_empty() {
                    &all[..]
                } else {
                    &rule.matches
                };
                for m in matches {
                    let key = (by_host(reached), precedence(m));
                    entries.push((key, entry(reached, (index, rule), m, &action, port)));
                }
            }
        }
        entries.sort_by_key(|(key, _)| *key);
        out.routes
            .extend(entries.into_iter().map(|(_, route)| route));
    }
    out.routes.len() - before
}

type Precedence = (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>);

/// Exact before prefix before regex before none; longer; with method; more headers; more
/// query parameters. The prefix `/` counts as none, so that it does not hide a regex.
fn precedence(m: &HttpMatch) -> Precedence {
    let (kind, length) = match path(m) {
        RoutePath::Exact(text) => (0, text.len()),
        RoutePath::Prefix(text) => (1, text.len()),
        RoutePath::TextPrefix(text) => (1, text.len()),
        RoutePath::Regex(text) | RoutePath::Template(text) => (2, text.len()),
        RoutePath::Any => (3, 0),
    };
    let (headers, query) = (m.headers.len(), m.query.len());
    (
        kind,
        Reverse(length),
        m.method.is_none(),
        Reverse(headers),
        Reverse(query),
    )
}

fn path(m: &HttpMatch) -> RoutePath {
    match &m.path {
        None => RoutePath::Any,
        Some(PathMatch::Exact(text)) => RoutePath::Exact(text.clone()),
        Some(PathMatch::Regex(text)) => RoutePath::Regex(text.clone()),
        Some(PathMatch::AnyServiceMethod(method)) => {
            RoutePath::Template(arcstr::format!("/*/{method}"))
        }
        Some(PathMatch::Prefix(text)) => match text.trim_end_matches('/') {
            "" => RoutePath::Any,
            text => RoutePath::Prefix(text.into()),
        },
    }
}

fn value(value: &ValueMatch) -> RouteValue {
    match value {
        ValueMatch::Exact(text) => RouteValue::Exact(text.clone()),
        ValueMatch::Regex(text) if text.is_empty() || text == "*" => RouteValue::Present,
        ValueMatch::Regex(text) => RouteValue::Regex(text.clone()),
    }
}

/// What traces call a request: its only destination, else the route object, then the path.
fn operation(route: &str, path: &str, action: &RouteAction, port: u16) -> Str {
    if let RouteAction::Forward(forward) = action
        && let [only] = forward.clusters.as_slice()
        && let [_, port, _, host] = only.cluster.split('|').collect::<Vec<_>>()[..]
    {
        return arcstr::format!("{host}:{port}{path}");
    }
    arcstr::format!("{route}:{port}{path}")
}

fn entry(
    reached: &Reached<'_>,
    (index, rule): (usize, &HttpRule),
    m: &HttpMatch,
    action: &RouteAction,
    port: u16,
) -> RouteIr {
    let key = reached.parsed.key();
    let plain = || arcstr::format!("{}.{}.{index}", key.ns, key.name);
    let path = path(m);
    let shown = match &path {
        RoutePath::Any | RoutePath::Prefix(_) | RoutePath::TextPrefix(_) => {
            arcstr::literal!("/*")
        }
        RoutePath::Exact(text) | RoutePath::Regex(text) | RoutePath::Template(text) => text.clone(),
    };
    let pair = |(name, v): &(Str, ValueMatch)| (name.clone(), value(v));
    let condition = |(name, value): (Str, RouteValue)| HeaderCondition {
        name,
        value,
        invert: false,
    };
    let mut headers: Vec<_> = m.headers.iter().map(pair).map(condition).collect();
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    let method = m.method.iter().map(|method| {
        condition((
            arcstr::literal!(":method"),
            RouteValue::Exact(method.clone()),
        ))
    });
    headers.extend(method);
    let operation = operation(&key.name, &shown, action, port);
    let name = rule.name.clone().unwrap_or_else(plain);
    RouteIr {
        headers,
        query: m.query.iter().map(pair).collect(),
        origin: Some(ObjectRef::new(Kind::HttpRoute, key.clone())),
        ..RouteIr::new(name, path, action.clone(), operation)
    }
}

/// Backends by weight, those of weight 0 left out; 500 when none is left.
fn action(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    reached: &Reached<'_>,
    rule: &HttpRule,
    out: &mut RoutesIr,
) -> RouteAction {
    let grants = if reached.by_gateway {
        Grants::Checked
    } else {
        Grants::Ignored
    };
    let ns = &reached.parsed.key().ns;
    let mut clusters = Vec::new();
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        let found = resolve(tables, reads, ns, &site.mesh.domain, backend, grants);
        let waypoint = &site.waypoint.key;
        let (name, outbound) = found.cluster(tables.services, reads, waypoint);
        out.outbound.extend(outbound);
        clusters.push(WeightedCluster::plain(name, backend.weight.min(WEIGHT_MAX)));
    }
    if clusters.is_empty() {
        return RouteAction::Respond(500, Bytes::new());
    }
    RouteAction::Forward(Box::new(ForwardIr {
        clusters,
        timeout: Duration::ZERO,
        retry: Some(RetryIr::builtin()),
        host_rewrite: None,
        path_rewrite: None,
        mirrors: Vec::new(),
        hash: Vec::new(),
        missing_is_500: true,
    }))
}
