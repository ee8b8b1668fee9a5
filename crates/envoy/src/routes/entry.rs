//! Rules as ordered route entries. Source: spec/gateway-api.md §6.1, §6.2;
//! spec/envoy-config.md §5.2, §5.3.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use flow::Reads;
use model::input::{HttpMatch, HttpRule, PathMatch, ValueMatch};
use model::{ObjectRef, Str};

use super::action::Maker;
use super::defect::matches_of;
use super::filters::{self, Filters};
use super::reach::{Reached, by_host};
use super::{At, RouteTables, Site};
use crate::ir::{HeaderCondition, Outbound, RouteAction, RouteIr, RoutePath, RouteValue, RoutesIr};

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
            let outbound = &mut out.outbound;
            let of = entries_of(site.at(), tables, reads, reached, (port, false), outbound);
            let ranked = of
                .into_iter()
                .map(|(key, route)| ((by_host(reached), key), route));
            entries.extend(ranked);
        }
        entries.sort_by_key(|(key, _)| *key);
        out.routes
            .extend(entries.into_iter().map(|(_, route)| route));
    }
    out.routes.len() - before
}

/// The entries of one route in the order of its rules and matches, for a port to which requests
/// come in plain HTTP or in HTTPS; and, added, the services elsewhere that they lead to.
pub(super) fn entries_of(
    at: At<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    reached: &Reached<'_>,
    port: (u16, bool),
    outbound: &mut BTreeSet<Outbound>,
) -> Vec<(Precedence, RouteIr)> {
    let mut entries = Vec::new();
    for (index, rule) in reached.route.rules.iter().enumerate() {
        let matches = matches_of(rule);
        if matches.is_empty() {
            continue;
        }
        let filters = Filters::of(&rule.filters);
        let mut maker = Maker {
            at,
            tables,
            outbound,
        };
        // Backends of a redirect get nothing, so they need no clusters either.
        let action = match filters.redirect {
            Some(_) => None,
            None => Some(maker.forward(reads, reached, rule, &filters)),
        };
        let made = Made {
            reached,
            index,
            rule,
            filters,
            action,
            port,
        };
        entries.extend(matches.iter().map(|m| (precedence(m), made.entry(m))));
    }
    entries
}

/// Sort key of entries.
pub(crate) type Precedence = (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>);

/// Exact before prefix before regex before none; longer; with method; more headers; more
/// query parameters. The prefix `/` counts as none, so that it does not hide a regex.
fn precedence(m: &HttpMatch) -> Precedence {
    // As long as the expression that says the same.
    const ANY_SERVICE: usize = "/[^/]+/".len();
    let (kind, length) = match path(m) {
        RoutePath::Exact(text) => (0, text.len()),
        RoutePath::Prefix(text) | RoutePath::TextPrefix(text) => (1, text.len()),
        RoutePath::Regex(text) => (2, text.len()),
        RoutePath::Template(_) => match &m.path {
            Some(PathMatch::AnyServiceMethod(name)) => (2, ANY_SERVICE + name.len()),
            _ => (2, 0),
        },
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

/// The path condition: prefixes go by segments, and `/` matches everything.
fn path(m: &HttpMatch) -> RoutePath {
    match &m.path {
        None => RoutePath::Any,
        Some(PathMatch::Exact(text)) => RoutePath::Exact(text.clone()),
        Some(PathMatch::Regex(text)) => RoutePath::Regex(text.clone()),
        Some(PathMatch::AnyServiceMethod(name)) => {
            RoutePath::Template(arcstr::format!("/*/{name}"))
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

/// A rule, with what of its entries does not depend on the match.
struct Made<'a> {
    reached: &'a Reached<'a>,
    index: usize,
    rule: &'a HttpRule,
    filters: Filters<'a>,
    /// `None` for a redirect.
    action: Option<RouteAction>,
    port: (u16, bool),
}

impl Made<'_> {
    fn entry(&self, m: &HttpMatch) -> RouteIr {
        let key = self.reached.parsed.key();
        let plain = || arcstr::format!("{}.{}.{}", key.ns, key.name, self.index);
        let path = path(m);
        let shown = match &path {
            RoutePath::Any | RoutePath::Prefix(_) | RoutePath::TextPrefix(_) => {
                arcstr::literal!("/*")
            }
            RoutePath::Exact(text) | RoutePath::Regex(text) | RoutePath::Template(text) => {
                text.clone()
            }
        };
        let action = self.action(&path);
        let operation = operation(&key.name, &shown, &action, self.port.0);
        let name = self.rule.name.clone().unwrap_or_else(plain);
        let session = match &action {
            RouteAction::Forward(_) => {
                filters::session(self.rule, &path, || arcstr::format!("session-{}", plain()))
            }
            RouteAction::Redirect(_) | RouteAction::Respond(..) => None,
        };
        let pair = |(name, v): &(Str, ValueMatch)| (name.clone(), value(v));
        RouteIr {
            headers: conditions(m),
            query: m.query.iter().map(pair).collect(),
            request: self.filters.request.clone(),
            response: self.filters.response.clone(),
            cors: self.filters.cors.map(filters::cors),
            session,
            origin: Some(ObjectRef::new(self.reached.kind, key.clone())),
            ..RouteIr::new(name, path, action, operation)
        }
    }

    fn action(&self, path: &RoutePath) -> RouteAction {
        if let Some(redirect) = self.filters.redirect {
            return RouteAction::Redirect(filters::redirect(redirect, path, self.port));
        }
        let mut action = match &self.action {
            Some(action) => action.clone(),
            None => RouteAction::Respond(500, bytes::Bytes::new()),
        };
        if let (RouteAction::Forward(forward), Some(rewrite)) = (&mut action, self.filters.rewrite)
        {
            forward.path_rewrite = filters::path_rewrite(rewrite.path.as_ref(), path);
        }
        action
    }
}

/// Headers by name, then the method.
fn conditions(m: &HttpMatch) -> Vec<HeaderCondition> {
    let condition = |name: Str, value| HeaderCondition {
        name,
        value,
        invert: false,
    };
    let headers = m.headers.iter();
    let mut out: Vec<_> = headers
        .map(|(name, v)| condition(name.clone(), value(v)))
        .collect();
    out.sort_by(|a, b| a.name.cmp(&b.name));
    let method = m.method.iter().map(|method| {
        let value = RouteValue::Exact(method.clone());
        condition(arcstr::literal!(":method"), value)
    });
    out.extend(method);
    out
}
