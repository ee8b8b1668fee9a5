//! One match of a rule as a route. Source: spec/envoy-config.md §5.2, §5.3.

use std::collections::BTreeSet;

use flow::Reads;
use model::Str;
use model::input::{StringMatch, VirtualMatch};

use super::action::{self, Done};
use super::conditions;
use super::delegate::Rule;
use super::lookup::is_of_mesh;
use crate::ir::{Outbound, RouteIr, RoutePath};
use crate::routes::{RouteTables, Site};

/// Whether a match is meant for a waypoint and a service port. Source: spec/policy-and-traffic.md
/// §6.2: with `gateways` the conditions on the source are not looked at; source labels are never
/// met, for a waypoint knows no labels of its clients.
pub(crate) fn admits(m: &VirtualMatch, site: &Site<'_>, port: u16) -> bool {
    if m.port.is_some_and(|wanted| wanted != port) || !is_of_mesh(&m.gateways) {
        return false;
    }
    !m.gateways.is_empty()
        || (m.source_labels.is_empty()
            && (m.source_namespace.is_empty() || m.source_namespace == site.waypoint.key.ns))
}

/// Whether a route takes every request, so that none after it is reached.
pub(crate) fn catches_all(route: &RouteIr) -> bool {
    let path = match &route.path {
        RoutePath::Any => true,
        RoutePath::Regex(text) => text == ".*",
        _ => false,
    };
    path && route.headers.is_empty() && route.query.is_empty() && route.claims.is_empty()
}

/// The route of a match at a service port.
pub(crate) fn entry(
    site: &Site<'_>,
    tables: &RouteTables<'_>,
    reads: &mut Reads,
    rule: &Rule<'_>,
    (m, port): (&VirtualMatch, u16),
    outbound: &mut BTreeSet<Outbound>,
) -> RouteIr {
    let http = &*rule.http;
    let done = action::of(site, tables, reads, rule, port, outbound);
    let Done {
        action,
        request,
        response,
        only,
        cors,
        fault,
    } = done;
    let path = shown(m);
    let operation = match only {
        Some((host, port)) => arcstr::format!("{host}:{port}{path}"),
        None => arcstr::format!("{}:{port}{path}", rule.name),
    };
    let name = match (http.name.is_empty(), m.name.is_empty()) {
        (_, true) => http.name.clone(),
        (true, false) => m.name.clone(),
        (false, false) => arcstr::format!("{}.{}", http.name, m.name),
    };
    RouteIr {
        ignore_case: m.ignore_uri_case,
        headers: conditions::headers(m),
        query: conditions::query(m),
        claims: conditions::claims(m),
        request,
        response,
        cors,
        fault,
        stat_prefix: m.stat_prefix.clone(),
        ..RouteIr::new(name, conditions::path(m), action, operation)
    }
}

/// The path as operation names show it.
fn shown(m: &VirtualMatch) -> Str {
    match &m.uri {
        None => arcstr::literal!("/*"),
        Some(StringMatch::Prefix(text)) => arcstr::format!("{text}*"),
        Some(StringMatch::Exact(text) | StringMatch::Regex(text)) => text.clone(),
    }
}
